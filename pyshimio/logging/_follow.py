"""Going on behind a log's end, whatever becomes of the file meanwhile."""

from __future__ import annotations

from contextlib import ExitStack
from errno import ENOENT
from typing import TYPE_CHECKING

from ..errors import LogFileError
from . import _kernel
from ._current import Current
from ._old_files import names_of, older_than, written_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._lines import LogLine
    from ._old_files import Part
    from ._parse import Piece
    from ._reader import Reader
    from ._tape import Identity, Tape

__all__ = ("Follower",)


class Follower:
    """What is new in a log, each time it is asked.

    Rotated by renaming: the old file is read to its end, then those between, then the new one.
    Removed and made again: from the beginning of the new one.  In a directory of kubelet's: when
    the container was started again, with the log of that life.

    Args:
        reader: It has read what was there; the file that is written is taken over from it.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._current: Current | None = None
        self._before: Identity | None = None  # the newest old file when the current one was opened
        self._told: dict[str, int] = {}  # what could not be opened, and why
        self._closed = False
        if reader.current is not None:
            self._current, self._before = reader.current
            reader.current = None
        self._path = written_of(reader.path) if self._current is None else self._current.log

    def lines(self) -> Iterator[LogLine | None]:
        """Those that have come since it was asked last; None for a breath."""
        yield from self._reader.wanted(self._pieces())

    def _pieces(self) -> Iterator[Piece | None]:
        """What is new; None between two lives of the container."""
        while True:
            if self._current is None:
                tape = self._opened(self._path)
                if tape is None:
                    return
                self._take(tape, self._path)
            current = self._current
            assert current is not None
            yield from current.pieces()
            written = self._written()
            if not self._replaced(current.tape, written):
                return
            # Whoever wrote into it has another file by now; what came at the last moment comes.
            yield from current.pieces()
            with ExitStack() as stack:
                found = self._successors(stack, current, written)
                if found is None:  # whoever rotates is about to make it; from ours it is found then
                    return
                newer, tape = found
                current.end()
                self._take(tape, written)
                for log, old in newer:
                    yield from self._another_life(log)
                    yield from self._reader.whole(old)
            yield from self._another_life(written)

    def _take(self, tape: Tape, log: str) -> None:
        if self._current is not None:
            self._current.tape.close()
        if self._closed:  # by the loop, while this thread was at work
            tape.close()
        self._current = Current(self._reader, log, tape)

    def _written(self) -> str:
        """The file that is written now."""
        try:
            return written_of(self._reader.path)
        except (LogFileError, OSError):
            return self._path  # the directory is empty, or gone: another one may come

    def _another_life(self, log: str) -> Iterator[None]:
        if log != self._path:
            self._path = log
            yield None

    def _replaced(self, tape: Tape, written: str) -> bool:
        """Whether another file is written."""
        try:
            status = _kernel.stat(written)
        except OSError:
            return False  # a new one is to come
        other = (status.st_dev, status.st_ino) != tape.inode
        # A writer may go on in the old file until it is told of the new one.
        return other and (status.st_size > 0 or not tape.written())

    def _successors(
        self, stack: ExitStack, current: Current, written: str
    ) -> tuple[list[tuple[str, Tape]], Tape] | None:
        """The files that are newer than ours, open: the old ones in their order, and the last.

        With each old one the log that it belongs to.  While they are being opened they may be given
        other names, so it is looked at again.
        """
        ours = current.tape.identity()
        while True:
            names = names_of(self._reader.path)
            tape = self._opened(written)
            if tape is None:
                return None
            with ExitStack() as old, ExitStack() as last:
                last.callback(tape.close)
                newer = self._newer(old, ours, older_than(written, self._reader.path))
                before = newer[-1][1].identity() if newer else ours
                if names == names_of(self._reader.path):
                    # The caller closes the old ones; and the last one when it is left.
                    stack.enter_context(old.pop_all())
                    last.pop_all()
                    self._before = before
                    return newer, tape

    def _newer(
        self, opened: ExitStack, ours: Identity, parts: list[Part]
    ) -> list[tuple[str, Tape]]:
        """Those behind ours; if it is gone, behind the one that was before it."""
        found: list[tuple[str, Tape]] = []
        gone: list[tuple[str, Tape]] | None = None  # those behind the one before
        for part in reversed(parts):
            tape = self._opened(part.path)
            if tape is None:
                continue
            opened.callback(tape.close)
            if ours.is_of(tape):
                return found
            if gone is None and self._before is not None and self._before.is_of(tape):
                gone = list(found)
            found.insert(0, (part.log, tape))
        return found if gone is None else gone

    def _opened(self, path: str) -> Tape | None:
        """A file; None if it cannot be opened, which is said once."""
        try:
            tape = self._reader.open(path)
        except LogFileError as error:
            code = error.errno or 0
            if code != ENOENT and self._told.get(path) != code:
                self._told[path] = code
                self._reader.complain(path, None, str(error))
            return None
        self._told.pop(path, None)
        return tape

    def unwritten(self) -> bool:
        """Whether nobody can write any more: no rotation is under way, and no writer there."""
        if self._current is None:
            return False
        tape = self._current.tape
        try:
            status = _kernel.stat(self._path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == tape.inode and not tape.written()

    def end(self) -> None:
        """Nothing more comes: say what was no whole line."""
        if self._current is not None:
            self._current.end()

    def close(self) -> None:
        """Idempotent."""
        self._closed = True
        if self._current is not None:
            self._current.tape.close()
