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

from .._fd import OwnedFd
from ..errors import LogFileError
from . import _kernel
from ._parse import nanoseconds
from ._rotation import GZ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

__all__ = ("BLOCK", "NEWLINE", "Tape", "is_empty")

BLOCK = 1 << 16
NEWLINE = b"\n"
EMPTY = bytes(BLOCK)
GZIP = b"\x1f\x8b"


class Tape:
    """A file, open for reading; close it.  But for the last two methods it is uncompressed.

    Args:
        path: A regular file.
        nofollow: Refuse a symbolic link.

    Attributes:
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
        """Up to *count* bytes at *offset*."""
        with self._fd.lend() as fd:  # a thread reads, and the loop may close meanwhile
            data = _kernel.pread(fd, count, offset)
        self.bytes_read += len(data)
        return data

    def lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Whole lines from *offset* on, each with the place behind it; to the end as it is then.

        Of NULs, of which a sparse file may have any number, there are at most two blocks in a line.
        """
        place = offset
        begun: list[bytes] = []
        while data := self.read(place, BLOCK):
            place += len(data)
            if begun and is_empty(data) and begun[-1].endswith(b"\0"):
                offset += len(data)
                continue
            first, *more = data.split(NEWLINE)
            begun.append(first)
            if more:
                last = more.pop()
                for line in (b"".join(begun), *more):
                    offset += len(line) + 1
                    yield offset, line
                begun = [last]

    def before(self, end: int) -> Iterator[tuple[int, bytes]]:
        """Whole lines before *end*, the last first, each with the place at which it begins."""
        place = end
        ended: list[bytes] = []  # parts of a line whose beginning is not known, the last first
        at_end = True  # what stands behind the last newline is no line
        while place > 0:
            start = max(0, place - BLOCK)
            data = self.read(start, place - start)
            at, place = place, start
            if ended and is_empty(data) and ended[-1].startswith(b"\0"):
                continue
            first, *more = data.split(NEWLINE)
            for part in reversed(more):
                at -= len(part)
                ended.append(part)
                if not at_end:
                    yield at, b"".join(reversed(ended))
                ended, at_end = [], False
                at -= 1
            ended.append(first)
        if not at_end:
            yield 0, b"".join(reversed(ended))

    def first_not_before(
        self, moment: int, time_of: Callable[[Iterator[bytes]], int | None]
    ) -> int:
        """The place of a line at or before the first that is not older than *moment*.

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
        # What *low* is in the middle of is older, as is what ends there.
        return self._next_line(low) if low else 0

    def _next_line(self, offset: int) -> int:
        while data := self.read(offset, BLOCK):
            if (newline := data.find(NEWLINE)) >= 0:
                return offset + newline + 1
            offset += len(data)
        return offset

    def written(self) -> bool:
        """Whether anybody has it open for writing; True where that cannot be told."""
        with self._fd.lend() as fd:
            return _kernel.has_writer(fd)

    def unzipped(self) -> Iterator[bytes]:
        """Whole lines of a compressed file, and what stands behind the last one.

        Raises:
            LogFileError: It is damaged from here on.
        """
        begun: list[bytes] = []
        try:
            with gzip.GzipFile(fileobj=io.BufferedReader(_Bytes(self), BLOCK)) as file:
                while data := file.read(BLOCK):
                    first, *more = data.split(NEWLINE)
                    begun.append(first)
                    if more:
                        last = more.pop()
                        yield b"".join(begun)
                        yield from more
                        begun = [last]
        except (OSError, EOFError, zlib.error) as error:
            raise LogFileError(
                f"cannot read the rest of {self.path}: {error}",
                path=self.path,
                errno=getattr(error, "errno", None) or errno.EIO,
            ) from error
        if rest := b"".join(begun):
            yield rest

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

    def close(self) -> None:
        """Idempotent."""
        self._fd.close()


def is_empty(data: bytes) -> bool:
    """Whether it is nothing but NULs: what a file has where nothing was written."""
    return data.startswith(b"\0") and data == EMPTY[: len(data)]


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
