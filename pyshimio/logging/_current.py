"""The file of a log that is written: what stands behind our place in it, again and again."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..errors import LogFileError
from ._old_files import names_of, older_than
from ._split import Splitter
from ._tape import BLOCK, MEMORY, Mark, Tape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._parse import Piece
    from ._reader import Reader

__all__ = ("Current", "torn")

TRIES = 100


class Current:
    """A place in it.

    When it is truncated (logrotate's ``copytruncate``), what stood behind the place is read from
    the copy, and from those that were made after it.

    Args:
        reader: Says what a line holds, and is told of damage.
        log: What the file is called.
        tape: It, open; closed by the caller.
        place: Where to begin: at the beginning of a line.
    """

    def __init__(self, reader: Reader, log: str, tape: Tape, place: int = 0) -> None:
        self.log: str = log
        self.tape: Tape = tape
        self._reader = reader
        self._begin(place)

    def _begin(self, place: int) -> None:
        mark = self.tape.mark(place)
        if len(mark.data) < min(place, MEMORY):  # truncated since that place was found
            self._lost(place)
            place, mark = 0, self.tape.mark(0)
        self._place = place  # behind what was read
        self._line = place  # behind what was whole lines of it
        self._memory = mark.data if place else b""  # what stands before our place
        self._mark = mark
        self._splitter = Splitter()

    def _lost(self, place: int) -> None:
        reason = "truncated; what stood behind this is lost"
        self._reader.complain(self.tape.path, place, reason)

    def end(self) -> None:
        """Nothing more is read of it: say what was no whole line."""
        if self.waiting:
            self._reader.complain(self.tape.path, self._place, torn(self.waiting))

    @property
    def waiting(self) -> int:
        """Bytes behind the last whole line."""
        return self._splitter.waiting

    @property
    def place(self) -> int:
        """Behind what was read."""
        return self._place

    def pieces(self, *, limit: int | None = None) -> Iterator[Piece]:
        """What has come, in whole lines.

        Args:
            limit: The place at which to stop; None for none.
        """
        while limit is None or self._place < limit:
            count = BLOCK if limit is None else min(BLOCK, limit - self._place)
            data = self.tape.read(self._place, count)
            # Looked at when it has been read: then it cannot be of what came afterwards.
            if not self.tape.has(self._mark):
                yield from self._recovered()
                self._begin(0)
                continue
            if not data:
                return
            self._place += len(data)
            # (Of what was read, and not read again: by now it may be another file's.)
            self._memory = (self._memory + data)[-MEMORY:]
            self._mark = Mark(self._place - len(self._memory), self._memory)
            yield from self._split(data, self.tape.path)

    def _split(self, data: bytes, path: str) -> Iterator[Piece]:
        for size, line in self._splitter.feed(data):
            self._line += size
            yield from self._reader.pieces(path, self._line, line)

    def _recovered(self) -> Iterator[Piece]:
        with ExitStack() as stack:
            copies = self._copies(stack)
            if not copies:
                self._lost(self._place)
                return
            first, *newer = copies
            try:
                for data in first.blocks(self._place):
                    yield from self._split(data, first.path)
            except LogFileError as error:
                self._reader.complain(first.path, self._line, str(error))
            self.end()
            for tape in newer:
                yield from self._reader.whole(tape)

    def _copies(self, stack: ExitStack) -> list[Tape]:
        """The copy that was made of this, and those made later, the oldest first; open."""
        for _ in range(TRIES):
            with ExitStack() as opened:
                names = names_of(self._reader.path)
                found = self._look_for_copies(opened)
                if names == names_of(self._reader.path):  # else they were given others meanwhile
                    stack.enter_context(opened.pop_all())
                    return found
        return []

    def _look_for_copies(self, stack: ExitStack) -> list[Tape]:
        found: list[Tape] = []
        for part in reversed(older_than(self.log, self._reader.path)):
            if part.log != self.log:
                continue  # of another life
            try:
                tape = self._reader.open(part.path)
                stack.callback(tape.close)
                if tape.inode == self.tape.inode:
                    continue  # renamed since
                found.insert(0, tape)
                if tape.has(self._mark):
                    return found
            except LogFileError:
                continue  # said when it is read, or gone
        return []


def torn(count: int) -> str:
    """What is said of bytes behind the last newline."""
    return f"{count} bytes at the end are no whole record"
