"""Going on behind a log's end, whatever becomes of the file meanwhile."""

from __future__ import annotations

from contextlib import suppress
from errno import ENOENT
from itertools import takewhile
from typing import TYPE_CHECKING

from ..errors import LogFileError
from . import _kernel
from ._old_files import names_of, parts_of, written_of
from ._reader import Problem
from ._tape import BLOCK, NEWLINE, Tape, is_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._lines import LogLine
    from ._old_files import Part
    from ._parse import Piece
    from ._reader import Reader

__all__ = ("Follower",)

MEMORY = 256
"""Bytes before our place by which a file is known again after it was truncated and has grown."""


class Follower:
    """What is new in a log, each time it is asked.

    Rotated by renaming: the old file is read to its end, then those between, then the new one.
    Truncated (logrotate's ``copytruncate``): what was cut off is read from the copy.  Removed and
    made again: from the beginning of the new one.  In a directory of kubelet's: when the container
    was started again, with the log of that life.

    Args:
        reader: It has read what was there; the file that is written is taken over from it.
        where: The file that is written, or a directory.
        problem: Told what was left out.
    """

    def __init__(self, reader: Reader, where: str, problem: Callable[[Problem], None]) -> None:
        self._reader = reader
        self._where = where
        self._path = written_of(where) if reader.last is None else reader.last[0].path
        self._problem = problem
        self._tape: Tape | None = None
        self._place = 0
        self._memory = b""
        if reader.last is not None:
            self._tape, self._place, line = reader.last
            reader.last = None
            if line:
                self._memory = (line + NEWLINE)[-MEMORY:]

    def lines(self) -> Iterator[LogLine]:
        """Those that have come since it was asked last."""
        for piece in self._pieces():
            if piece is None:
                yield from self._reader.rest()
                continue
            if self._reader.passes(piece):
                return
            line = self._reader.joiner.add(piece)
            if line is not None and self._reader.window.has(line):
                yield line

    def _pieces(self) -> Iterator[Piece | None]:
        """What is new; None between two lives of the container."""
        while True:
            if self._tape is None:
                self._tape = self._opened(self._path)
                if self._tape is None:
                    return
                self._place, self._memory = 0, b""
            yield from self._rest(self._tape)
            written = self._written()
            if written == self._path and not self._replaced(self._tape):
                return
            # Whoever wrote into it has another file by now; what came at the last moment comes.
            yield from self._rest(self._tape)
            newer, current = self._successors(self._tape, written)
            if current is None:  # whoever rotates is about to make it; from ours it is found then
                return
            self._tape.close()
            self._tape, self._place, self._memory = current, 0, b""
            for log, tape in newer:
                try:
                    yield from self._another_life(log)
                    yield from self._reader.whole(tape)
                finally:
                    tape.close()
            yield from self._another_life(written)

    def _written(self) -> str:
        """The file that is written now."""
        try:
            return written_of(self._where)
        except (LogFileError, OSError):
            return self._path  # the directory is empty, or gone: another one may come

    def _another_life(self, log: str) -> Iterator[None]:
        if log != self._path:
            self._path = log
            yield None

    def _rest(self, tape: Tape) -> Iterator[Piece]:
        """What stands behind our place, in whole lines."""
        size = BLOCK
        while True:
            data = tape.read(self._place, size)
            # Looked at when it has been read: then it cannot be of what came afterwards.
            if self._truncated(tape):
                yield from self._from_copy(tape)
                self._place, self._memory = 0, b""
                continue
            end = data.rfind(NEWLINE) + 1
            if not end:
                if len(data) < size:
                    return  # the rest of that line is to come
                if is_empty(data):  # it is no part of any line
                    self._place, self._memory = self._place + len(data), data[-MEMORY:]
                else:
                    size *= 2
                continue
            size = BLOCK
            for line in data[: end - 1].split(NEWLINE):
                self._place += len(line) + 1
                yield from self._reader.pieces(tape.path, self._place, line)
            self._memory = (self._memory + data[:end])[-MEMORY:]

    def _truncated(self, tape: Tape) -> bool:
        if tape.size < self._place:
            return True
        count = len(self._memory)
        return bool(count) and tape.read(self._place - count, count) != self._memory

    def _replaced(self, tape: Tape) -> bool:
        """Whether another file has the path."""
        try:
            status = _kernel.stat(self._path)
        except FileNotFoundError:
            return False  # a new one is to come
        other = (status.st_dev, status.st_ino) != tape.inode
        # A writer may go on in the old file until it is told of the new one.
        return other and (status.st_size > 0 or not tape.written())

    def _from_copy(self, tape: Tape) -> Iterator[Piece]:
        """What stood behind our place when the file was truncated, if somebody has a copy."""
        count = len(self._memory)
        for part in reversed(self._old_parts(self._path)):
            copy = self._opened(part.path) if part.log == self._path and count else None
            if copy is None:
                continue
            try:
                lines = None if copy.inode == tape.inode else self._behind_our_place(copy)
                if lines is None:
                    continue
                for place, line in lines:
                    yield from self._reader.pieces(part.path, place, line)
            finally:
                copy.close()
            return
        if count:
            self._problem(
                Problem(self._path, self._place, "truncated; what stood behind this is lost")
            )

    def _behind_our_place(self, copy: Tape) -> Iterator[tuple[int, bytes]] | None:
        """The lines of a copy that we had not read; None when it is no copy of our file."""
        count = len(self._memory)
        if not copy.compressed:
            known = copy.read(self._place - count, count) == self._memory
            return copy.lines(self._place) if known else None
        place, memory = 0, b""
        lines = copy.unzipped()
        with suppress(LogFileError):  # damaged, or not whole yet
            while place < self._place:
                line = next(lines, None)
                if line is None:
                    return None
                place += len(line) + 1
                memory = (memory + line + NEWLINE)[-count:]
        known = place == self._place and memory == self._memory
        return self._rest_of(copy, lines, place) if known else None

    def _rest_of(
        self, copy: Tape, lines: Iterator[bytes], place: int
    ) -> Iterator[tuple[int, bytes]]:
        try:
            for line in lines:
                place += len(line) + 1
                yield place, line
        except LogFileError as error:
            self._problem(Problem(copy.path, place, str(error)))

    def _old_parts(self, written: str) -> list[Part]:
        """What is older than the file that is written; a next life may have begun meanwhile."""
        try:
            return list(takewhile(lambda part: part.path != written, parts_of(self._where)))
        except LogFileError:
            return []

    def _successors(self, tape: Tape, written: str) -> tuple[list[tuple[str, Tape]], Tape | None]:
        """The files that are newer than *tape*, open: the old ones in their order, and the last.

        With each old one the log that it belongs to.

        While they are being opened they may be given other names, so it is looked at again.
        """
        first = next(iter(tape.lines(0)), (0, b""))[1]
        while True:
            names = self._names()
            newer: list[tuple[str, Tape]] = []
            current = self._opened(written)
            if current is None:
                return newer, None
            for part in reversed(self._old_parts(written)):
                old = self._opened(part.path)
                if old is None:
                    continue
                if self._read_before(old, tape, first):
                    old.close()
                    break
                newer.insert(0, (part.log, old))
            if names == self._names():
                return newer, current
            for opened in (*(old for _, old in newer), current):
                opened.close()

    def _names(self) -> list[tuple[str, int]]:
        try:
            return names_of(self._where)
        except LogFileError:
            return []

    def _read_before(self, old: Tape, tape: Tape, first: bytes) -> bool:
        """Whether *old* is the file that was read (renamed, or compressed by now) or is older."""
        if old.inode == tape.inode:
            return True
        begin = b""
        with suppress(LogFileError):
            lines = old.unzipped() if old.compressed else (x for _, x in old.lines(0))
            begin = next(lines, b"")
        ours, its = self._reader.time_of(first), self._reader.time_of(begin)
        return ours is not None and its is not None and its <= ours

    def _opened(self, path: str) -> Tape | None:
        try:
            return Tape(path)
        except LogFileError as error:
            if error.errno != ENOENT:
                self._problem(Problem(path, None, str(error)))
            return None

    @property
    def inode(self) -> tuple[int, int] | None:
        """Which file is being read."""
        return None if self._tape is None else self._tape.inode

    def written(self) -> bool:
        """Whether anybody has the file open for writing; True where that cannot be told."""
        return self._tape is None or self._tape.written()

    def close(self) -> None:
        """Idempotent."""
        if self._tape is not None:
            self._tape.close()
            self._tape = None
