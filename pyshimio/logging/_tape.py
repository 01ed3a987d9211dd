"""A log file that is read: from any place, forwards or from its end, a bounded part at a time."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import stat
import zlib
from typing import TYPE_CHECKING

import attrs

from .._fd import OwnedFd
from ..errors import LogFileError
from . import _kernel
from ._parse import nanoseconds
from ._rotation import GZ
from ._split import NEWLINE, Parts, Splitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

__all__ = ("BLOCK", "MEMORY", "Identity", "Mark", "Tape")

BLOCK = 1 << 16
MEMORY = 256
"""Bytes by which a file is known again."""
HEAD = 1 << 10
GZIP = b"\x1f\x8b"
SIZES = 1 << 32
"""What the size in a gzip file's end is modulo of."""


@attrs.frozen
class Mark:
    """Some bytes of a file and their place: as long as they are there, it was not truncated."""

    offset: int
    data: bytes


@attrs.frozen
class Identity:
    """What tells a file from others, also when it has been renamed and compressed."""

    inode: tuple[int, int]
    head: bytes
    size: int

    def is_of(self, tape: Tape) -> bool:
        """Whether *tape* is that file, or what became of it."""
        if tape.inode == self.inode:  # or a new file has it, of one that is gone
            return tape.head().startswith(self.head)
        if not tape.compressed:
            return False
        return tape.unpacked_size() == self.size % SIZES and tape.head() == self.head


class Tape:
    """A file, open for reading; close it.

    Args:
        path: A regular file.
        nofollow: Refuse a symbolic link.

    Attributes:
        compressed: It can be read from its beginning alone.
        bytes_read: From the kernel, up to now.

    Raises:
        LogFileError: It cannot be opened, or is something else.
    """

    def __init__(self, path: str, *, nofollow: bool = False) -> None:
        self.path: str = path
        self.compressed: bool = path.endswith(GZ)
        self.bytes_read: int = 0
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            self._fd = OwnedFd(_kernel.open(path, flags | (os.O_NOFOLLOW if nofollow else 0)))
        except OSError as error:
            raise LogFileError(
                f"cannot read the log {path}: {error.strerror}",
                path=path,
                errno=error.errno or errno.EIO,
            ) from error
        status = _kernel.fstat(self._fd.fileno())
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise LogFileError(
                f"{path} is no regular file, so it is no log", path=path, errno=errno.EINVAL
            )
        self.inode: tuple[int, int] = (status.st_dev, status.st_ino)

    @property
    def size(self) -> int:
        """In bytes, now."""
        with self._fd.lend() as fd:
            return _kernel.fstat(fd).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Up to *count* bytes at *offset* of the file as it is."""
        with self._fd.lend() as fd:  # a thread reads, and the loop may close meanwhile
            data = _kernel.pread(fd, count, offset)
        self.bytes_read += len(data)
        return data

    # -- forwards -----------------------------------------------------------------------

    def blocks(self, offset: int = 0) -> Iterator[bytes]:
        """What was written into it, from *offset* on, to the end as it is then.

        Raises:
            LogFileError: It is compressed, and damaged from here on.
        """
        if self.compressed:
            yield from self._unzipped(offset)
            return
        while data := self.read(offset, BLOCK):
            offset += len(data)
            yield data

    def _unzipped(self, offset: int) -> Iterator[bytes]:
        try:
            with gzip.GzipFile(fileobj=io.BufferedReader(_Bytes(self), BLOCK)) as file:
                while data := file.read(BLOCK):
                    if offset < len(data):
                        yield data[offset:]
                    offset = max(0, offset - len(data))
        except (OSError, EOFError, zlib.error) as error:
            raise LogFileError(
                f"cannot read the rest of {self.path}: {error}",
                path=self.path,
                errno=getattr(error, "errno", None) or errno.EIO,
            ) from error

    def lines(self, offset: int = 0) -> Iterator[tuple[int, bytes | None]]:
        """Whole lines from *offset* on, each with the place behind it; None for one too long.

        Raises:
            LogFileError: As :meth:`blocks`.
        """
        splitter = Splitter()
        for data in self.blocks(offset):
            for size, line in splitter.feed(data):
                offset += size
                yield offset, line

    # -- backwards ----------------------------------------------------------------------

    def before(self, end: int) -> Iterator[tuple[int, bytes | None]]:
        """Whole lines before *end*, the last first, each with the place at which it begins."""
        place = end
        ended = Parts(backwards=True)
        at_end = True  # what stands behind the last newline is no line
        while place > 0:
            start = max(0, place - BLOCK)
            data = self.read(start, place - start)
            at, place = place, start
            first, *more = data.split(NEWLINE)
            for part in reversed(more):
                at -= len(part)
                ended.add(part)
                if not at_end:
                    yield at, ended.line()
                ended, at_end = Parts(backwards=True), False
                at -= 1
            ended.add(first)
        if not at_end:
            yield 0, ended.line()

    def end_of_lines(self) -> int:
        """The place behind the last whole line."""
        place = self.size
        while place > 0:
            start = max(0, place - BLOCK)
            newline = self.read(start, place - start).rfind(NEWLINE)
            if newline >= 0:
                return start + newline + 1
            place = start
        return 0

    # -- by halving ---------------------------------------------------------------------

    def halve(
        self, moment: int, time_of: Callable[[Iterator[bytes | None]], int | None]
    ) -> tuple[int, int]:
        """Two places: what ends before the first is older than *moment*; after the second not.

        They are in the middle of lines, and a block apart.

        Args:
            moment: Nanoseconds; times in the file go up, more or less.
            time_of: The first time in lines; None when there is none.
        """
        low, high = 0, self.size
        while high - low > BLOCK:
            middle = (low + high) // 2
            lines = self.lines(middle)
            next(lines, None)  # *middle* is in it, or at its beginning
            found = time_of(line for _, line in lines)
            if found is None or found >= moment:
                high = middle
            else:
                low = middle
        return low, high

    def next_line(self, offset: int) -> int:
        """Where the next line begins behind *offset*, which is in the middle of one."""
        while data := self.read(offset, BLOCK):
            if (newline := data.find(NEWLINE)) >= 0:
                return offset + newline + 1
            offset += len(data)
        return offset

    # -- what it is ---------------------------------------------------------------------

    def mark(self, place: int) -> Mark:
        """What stands before *place*, or at the beginning."""
        begin = max(0, place - MEMORY)
        return Mark(begin, self.read(begin, place - begin if place else MEMORY))

    def has(self, mark: Mark) -> bool:
        """Whether those bytes are there."""
        count = len(mark.data)
        if not self.compressed:
            return not count or self.read(mark.offset, count) == mark.data
        found = b""
        for data in self.blocks(mark.offset):
            found += data
            if len(found) >= count:
                break
        return found[:count] == mark.data

    def head(self) -> bytes:
        """How it begins; nothing where that cannot be read."""
        found = b""
        try:
            for data in self.blocks():
                found += data[:HEAD]
                if len(found) >= HEAD:
                    break
        except LogFileError:
            pass
        return found[:HEAD]

    def unpacked_size(self) -> int:
        """Of a compressed file: how large it was before, modulo 2**32."""
        return int.from_bytes(self.read(max(0, self.size - 4), 4), "little")

    def identity(self) -> Identity:
        """By which it is known again."""
        return Identity(
            self.inode, self.head(), self.unpacked_size() if self.compressed else self.size
        )

    def last_time(self) -> int | None:
        """When the last record of a compressed file was, if docker's note in its header says so."""
        try:
            head = self.read(0, 12)
            if head[:2] != GZIP or not head[3] & 4:
                return None
            note = json.loads(self.read(12, int.from_bytes(head[10:12], "little")))
            return nanoseconds(note["lastTime"])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    def written(self) -> bool:
        """Whether anybody has it open for writing; True where that cannot be told."""
        with self._fd.lend() as fd:
            return _kernel.has_writer(fd)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._fd.closed

    def close(self) -> None:
        """Idempotent."""
        self._fd.close()


class _Bytes(io.RawIOBase):
    """A tape from its beginning, as what gzip wants."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._place = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        data = self._tape.read(self._place, len(view))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)
