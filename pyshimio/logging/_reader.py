"""A log with all its files, read from where it is to be read.

What stands before that is not read: a place in an uncompressed file is found by halving it, the
last lines from its end, and a compressed file is opened only if it may have something.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from contextlib import ExitStack, suppress
from itertools import chain, islice
from typing import TYPE_CHECKING

import anyio
import attrs

from .._events import logger
from ..errors import LogFileError
from . import _kernel
from ._current import Current, torn
from ._lines import Joiner, LogLine, Window
from ._old_files import Part, names_of, parts_of, written_of
from ._parse import FORMATS, Format, Piece, detect
from ._seek import STREAMS, Seeker
from ._tape import BLOCK, Identity, Tape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ("Problem", "Reader", "log_problem")

PATIENCE, PAUSE = 100, 0.01
"""How often a log that is to be followed is looked for, and seconds between."""
SAMPLE = 10
"""Lines that may be damaged before a file is called no log."""
BREATH = 2000
"""Lines that may be unwanted before the caller is told that we are still at it."""


@attrs.frozen
class Problem:
    """A part of a log that could not be read, and was left out.

    Args:
        path: The file.
        offset: Bytes before its end; None for the file as a whole.
        reason: In words.
    """

    path: str
    offset: int | None
    reason: str

    def __str__(self) -> str:
        where = self.path if self.offset is None else f"{self.path} before byte {self.offset}"
        return f"{where}: {self.reason}"


def log_problem(problem: Problem) -> None:
    """Say it in the library's log."""
    logger.warning("%s", problem)


@attrs.frozen
class _Start:
    """A file that may have something, and from which place on."""

    part: Part
    tape: Tape
    place: int


class Reader:
    """One log; see :func:`~pyshimio.logging.read_log` for the arguments.

    Attributes:
        skipped: Lines that were damaged.
        over: What is wanted has ended.
        current: The file that is written, when it was read to its end, and the one before it; only
            after :meth:`lines` with *keep*, which leaves it to the caller to close.
    """

    def __init__(
        self,
        path: str,
        *,
        tail: int | None = None,
        window: Window | None = None,
        nofollow: bool = False,
        problem: Callable[[Problem], None] = log_problem,
    ) -> None:
        self.path: str = path
        self.window: Window = Window() if window is None else window
        self.joiner: Joiner = Joiner()
        self.skipped: int = 0
        self.form: Format | None = None
        self.current: tuple[Current, Identity | None] | None = None
        self.over: bool = False
        self._seeker = Seeker(self.window, self.parsed)
        self._tapes: list[Tape] = []  # those that are open
        self._closed = False
        self._read_before = 0  # from those that were
        self._keep = False
        self._tail = tail
        self._nofollow = nofollow
        self._problem = problem

    # -- from where it is wanted --------------------------------------------------------------

    def lines(self, *, keep: bool = False) -> Iterator[LogLine | None]:
        """All lines that are wanted and are there, the oldest first; None for a breath.

        Raises:
            LogFileError: There is no log, or it is in no format that is known.
        """
        self._keep = keep
        with ExitStack() as stack:
            starts, newest, before = self._files(stack)
            current: Current | None = None
            if newest is not None:
                current = Current(self, newest.part.log, newest.tape, newest.place)
            found = self._forward(starts, current)
            if not (keep and current is not None):
                found = chain(found, self.rest())
            if self._tail is not None:
                yield from deque(filter(None, found), maxlen=self._tail)
            else:
                yield from found
            if keep and current is not None:
                stack.pop_all()
                for tape in self._tapes:
                    if tape is not current.tape:
                        tape.close()
                self.current = (current, before)

    def rest(self) -> Iterator[LogLine]:
        """What has no end, if it is wanted; asked when nothing can follow."""
        yield from filter(self.window.has, self.joiner.rest())

    def close(self) -> None:
        """Close all files.  Idempotent."""
        self._closed = True
        for tape in self._tapes:
            tape.close()

    @property
    def bytes_read(self) -> int:
        """From all files, up to now."""
        return self._read_before + sum(tape.bytes_read for tape in self._tapes)

    def open(self, path: str) -> Tape:
        """One of its files; it counts for :attr:`bytes_read`, and the caller closes it.

        Raises:
            LogFileError: It cannot be opened.
        """
        if self._closed:  # by the loop, while a thread was at work
            raise anyio.ClosedResourceError
        tape = Tape(path, nofollow=self._nofollow)
        # (A log may be followed for years.)
        self._read_before += sum(old.bytes_read for old in self._tapes if old.closed)
        self._tapes = [*(old for old in self._tapes if not old.closed), tape]
        return tape

    def complain(self, path: str, offset: int | None, reason: str) -> None:
        """Say what was left out."""
        self._problem(Problem(path, offset, reason))

    def _files(self, stack: ExitStack) -> tuple[list[_Start], _Start | None, Identity | None]:
        """The files that may have something, the one that is written, and who is before that.

        They are opened between two rotations.
        """
        looks = PATIENCE if self._keep else 0
        while True:
            if looks and not os.path.exists(self._written()):
                looks -= 1
                _kernel.sleep(PAUSE)  # whoever rotates is about to make it
                continue
            names = names_of(self.path)
            parts = parts_of(self.path)
            self._find_form(parts)
            failures: list[LogFileError] = []
            starts = self._starts(parts, stack, failures)
            newest = self._newest(starts, parts)
            before = None if newest is None else self._before(newest.part, parts)
            if names == names_of(self.path):
                if len(failures) == len(parts):
                    raise failures[0]
                for error in failures:
                    self.complain(error.path, None, str(error))
                return starts, newest, before
            stack.close()

    def _newest(self, starts: list[_Start], parts: list[Part]) -> _Start | None:
        """The file that is written; when a rotation is under way, the old one still is."""
        if not starts or starts[-1].part is not parts[-1]:
            return None
        newest = starts[-1]
        older = starts[-2] if self._keep and len(starts) > 1 else None
        if (
            older is not None
            and not (newest.tape.size or older.tape.compressed)
            and older.part.log == newest.part.log
            and older.tape.written()
        ):
            starts.pop()
            newest = older
        is_written = newest.part.path == newest.part.log
        return newest if is_written or (self._keep and not newest.tape.compressed) else None

    def _before(self, part: Part, parts: list[Part]) -> Identity | None:
        place = parts.index(part)
        return self._identity(parts[place - 1]) if self._keep and place else None

    def _written(self) -> str:
        try:
            return written_of(self.path)
        except LogFileError:
            return self.path

    def _identity(self, part: Part) -> Identity | None:
        try:
            tape = self.open(part.path)
        except LogFileError:
            return None
        try:
            return tape.identity()
        finally:
            tape.close()

    def _find_form(self, parts: list[Part]) -> None:
        """What format it is, from the newest file that has anything."""
        tried = 0
        for part in reversed(parts):
            for line in islice(self._sample(part), SAMPLE):
                if self.parsed(line) is not None:
                    return
                tried += 1
        if tried:
            known = ", ".join(form.name for form in FORMATS)
            raise LogFileError(
                f"{self.path} is in no format that is known ({known})",
                path=self.path,
                errno=errno.EINVAL,
            )

    def _sample(self, part: Part) -> Iterator[bytes | None]:
        with suppress(LogFileError):  # said when it is read
            tape = self.open(part.path)
            try:
                yield from (line for _, line in tape.lines())
            finally:
                tape.close()

    def _starts(
        self, parts: list[Part], stack: ExitStack, failures: list[LogFileError]
    ) -> list[_Start]:
        """Each file that may have something, with the place from which on; the oldest first."""
        found: deque[_Start] = deque()
        missing = self._tail
        cut: set[str] | None = None  # streams whose first line here may begin in the file before
        for part in reversed(parts):
            try:
                tape = self.open(part.path)
                stack.callback(tape.close)
                last = part is parts[-1] and self._keep and not tape.compressed
                if cut is not None:
                    place, cut = self._head_of(tape, cut)
                    if place is None:
                        break
                    found.appendleft(_Start(part, tape, place))
                    if not cut:
                        break
                    continue
                if self._begins_later(tape) and not last:
                    continue
                place, count = self._start(tape, missing)
                if place is None and last:
                    place = tape.end_of_lines()  # what comes may be new enough
                if place is None:  # it is too old, as are those before it
                    break
                if missing is not None:
                    missing -= count
                enough = missing is not None and missing <= 0
                if enough or self._begins_earlier(tape):
                    cut = set(STREAMS)
                    if not tape.compressed:
                        place, known = self._seeker.heads(tape, place)
                        cut = known if place else cut
                found.appendleft(_Start(part, tape, place))
                if cut is not None and not cut:
                    break
            except LogFileError as error:
                failures.append(error)
        return list(found)

    def _head_of(self, tape: Tape, cut: set[str]) -> tuple[int | None, set[str]]:
        """Where in an older file those lines begin; None if they do not."""
        if tape.compressed:
            return None, set()  # (To unpack a file for what may be there is too much.)
        end = tape.end_of_lines()
        place, cut = self._seeker.heads(tape, end, cut)
        return (None if place == end else place), cut

    def _begins_later(self, tape: Tape) -> bool:
        latest = self.window.latest
        first = None if latest is None else self._seeker.first(tape)
        return latest is not None and first is not None and first > latest

    def _begins_earlier(self, tape: Tape) -> bool:
        """Whether the files before it are too old."""
        earliest = self.window.earliest
        first = None if earliest is None else self._seeker.first(tape)
        return earliest is not None and first is not None and first < earliest

    def _start(self, tape: Tape, missing: int | None) -> tuple[int | None, int]:
        """The place, and how many wanted lines there are behind it; None if all is too old."""
        earliest, latest = self.window.earliest, self.window.latest
        if tape.compressed:
            last = None if earliest is None else tape.last_time()
            if last is not None and earliest is not None and last < earliest:
                return None, 0
            return 0, 0 if missing is None else self._count(tape)
        if missing is not None:
            end = tape.end_of_lines() if latest is None else self._seeker.end(tape, latest)
            return self._seeker.last(tape, missing, end)
        return (0 if earliest is None else self._seeker.since(tape, earliest)), 0

    def _count(self, tape: Tape) -> int:
        found = 0
        with suppress(LogFileError):  # said when it is read
            for _, line in tape.lines():
                piece = self.parsed(line)
                found += bool(piece and piece.ended and self.window.has(piece))
        return found

    # -- forwards -----------------------------------------------------------------------------

    def _forward(self, starts: list[_Start], current: Current | None) -> Iterator[LogLine | None]:
        limit = None if current is None or self._keep else current.tape.size
        log = ""
        for start in starts:
            if start.part.log != log:  # another life of the container
                yield from self.rest()
                log = start.part.log
            if current is not None and start.tape is current.tape:
                yield from self.wanted(current.pieces(limit=limit))
                if limit is not None and not self.over and current.place >= current.tape.size:
                    current.end()
            else:
                yield from self.wanted(self.whole(start.tape, start.place))
            if self.over:
                return

    def whole(self, tape: Tape, begin: int = 0) -> Iterator[Piece]:
        """An old file, from a place on."""
        place = begin
        try:
            for place, line in tape.lines(begin):
                yield from self.pieces(tape.path, place, line)
        except LogFileError as error:
            self.complain(tape.path, place, str(error))
            return
        if not tape.compressed and place < (size := tape.size):
            self.complain(tape.path, size, torn(size - place))

    def wanted(self, pieces: Iterator[Piece | None]) -> Iterator[LogLine | None]:
        """The lines that pieces make, if they are wanted; None now and then, if few are.

        Of the pieces a None is where another life of the container begins.
        """
        unwanted = 0
        for piece in pieces:
            if piece is None:
                yield from self.rest()
                continue
            self.over = self.over or self.window.over(piece.time)
            if self.over:
                return
            line = self.joiner.add(piece)
            unwanted += 1
            if line is not None and self.window.has(line):
                unwanted = 0
                yield line
            elif unwanted >= BREATH:
                unwanted = 0
                yield None

    def pieces(self, path: str, place: int, line: bytes | None) -> Iterator[Piece]:
        """What a line of a file holds: one, or none when it is damaged, which is said."""
        if line is None:
            self.skipped += 1
            self.complain(path, place, "a line that is too long for a log")
            return
        whole = line.lstrip(b"\0")
        if len(whole) < len(line):
            self.skipped += 1
            zeros = len(line) - len(whole)
            many = "or more " if zeros >= BLOCK else ""
            self.complain(path, place, f"{zeros} {many}bytes are zero (a disk was full, maybe)")
        if not whole:
            if not line:
                self.skipped += 1
                self.complain(path, place, "an empty line")
            return
        piece = self.parsed(whole)
        if piece is None:
            self.skipped += 1
            self.complain(path, place, f"no record: {whole[:60]!r}")
        else:
            yield piece

    def parsed(self, line: bytes | None) -> Piece | None:
        """What a line holds; None if it is damaged."""
        if line is None:
            return None
        line = line.lstrip(b"\0")
        if self.form is None:
            self.form = detect(line)
        if self.form is None:
            return None
        try:
            return self.form.parse(line)
        except ValueError:
            return None
