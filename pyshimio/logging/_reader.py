"""A log with all its files, read from where it is to be read.

What stands before that is not read: a place in an uncompressed file is found by halving it, the
last lines from its end, and a compressed file is opened only if it may have something.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from contextlib import ExitStack
from itertools import chain, islice
from typing import TYPE_CHECKING

import attrs

from .._events import logger
from ..errors import LogFileError
from . import _kernel
from ._lines import Joiner, LogLine, Window
from ._old_files import Part, names_of, parts_of, written_of
from ._parse import FORMATS, Format, Piece, detect
from ._tape import BLOCK, NEWLINE, Tape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ("Problem", "Reader", "log_problem")

MORE = 1 << 20
"""Bytes before the last lines in which the beginning of one is looked for, if it was cut."""
PATIENCE, PAUSE = 100, 0.01
"""How often a log that is to be followed is looked for, and seconds between."""
SAMPLE = 10
"""Lines that may be damaged before a file is called no log."""


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


class Reader:
    """One log; see :func:`~pyshimio.logging.read_log` for the arguments.

    Attributes:
        skipped: Lines that were damaged.
        over: What is wanted has ended.
        last: The file that is written, open, the place up to which it was read, and the line
            before that; only after :meth:`lines` with *keep*, which leaves it to the caller to
            close.
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
        self.last: tuple[Tape, int, bytes] | None = None
        self._tapes: list[Tape] = []
        self.over: bool = False
        self._place = 0
        self._line = b""
        self._keep = False
        self._tail = tail
        self._nofollow = nofollow
        self._problem = problem

    # -- from the beginning, or from where it is wanted ---------------------------------------

    def lines(self, *, keep: bool = False) -> Iterator[LogLine]:
        """All lines that are wanted and are there, the oldest first.

        Raises:
            LogFileError: There is no log, or it is in no format that is known.
        """
        self._keep = keep
        with ExitStack() as stack:
            parts, starts = self._files(stack)
            goes_on = keep and bool(starts) and starts[-1][0].path == parts[-1].path
            found = self._forward(starts)
            if not goes_on:
                found = chain(found, self.rest())
            if self._tail is not None:
                yield from deque(found, maxlen=self._tail)
            else:
                yield from found
            if goes_on:
                tape = starts[-1][1]
                stack.pop_all()
                for other in self._tapes:
                    if other is not tape:
                        other.close()
                self.last = (tape, self._place, self._line)

    def rest(self) -> Iterator[LogLine]:
        """What has no end, if it is wanted; asked when nothing can follow."""
        yield from filter(self.window.has, self.joiner.rest())

    def close(self) -> None:
        """Close all files.  Idempotent."""
        for tape in self._tapes:
            tape.close()

    @property
    def bytes_read(self) -> int:
        """Of uncompressed files, up to now."""
        return sum(tape.bytes_read for tape in self._tapes)

    def _find_form(self, parts: list[Part]) -> None:
        """What format it is, from the newest file that has anything."""
        tried = 0
        for part in reversed(parts):
            for line in islice(self._sample(part), SAMPLE):
                if self._parsed(line.lstrip(b"\0")) is not None:
                    return
                tried += 1
        if tried:
            known = ", ".join(form.name for form in FORMATS)
            raise LogFileError(
                f"{self.path} is in no format that is known ({known})",
                path=self.path,
                errno=errno.EINVAL,
            )

    def _sample(self, part: Part) -> Iterator[bytes]:
        try:
            tape = self._open(part)
            try:
                if part.compressed:
                    yield from tape.unzipped()
                else:
                    yield from (line for _, line in tape.lines(0))
            finally:
                tape.close()
        except LogFileError:
            return  # said when it is read

    def _files(self, stack: ExitStack) -> tuple[list[Part], list[tuple[Part, Tape, int]]]:
        """All files, and those that may have something; opened between two rotations."""
        looks = PATIENCE if self._keep else 0
        while True:
            if looks and not os.path.exists(written_of(self.path)):
                looks -= 1
                _kernel.sleep(PAUSE)  # whoever rotates is about to make it
                continue
            names = names_of(self.path)
            parts = parts_of(self.path)
            self._find_form(parts)
            failures: list[LogFileError] = []
            starts = self._starts(parts, stack, failures)
            if names == names_of(self.path):
                if len(failures) == len(parts):
                    raise failures[0]
                for error in failures:
                    self._problem(Problem(error.path, None, str(error)))
                return parts, starts
            stack.close()

    def _starts(
        self, parts: list[Part], stack: ExitStack, failures: list[LogFileError]
    ) -> list[tuple[Part, Tape, int]]:
        """Each file that may have something, with the place from which on; the oldest first."""
        found: deque[tuple[Part, Tape, int]] = deque()
        missing = self._tail
        for part in reversed(parts):
            try:
                tape, start, count = self._start(part, missing, stack)
                if start is None and part is parts[-1] and not part.compressed:
                    start = tape.size  # what comes may be new enough
            except LogFileError as error:
                failures.append(error)
                continue
            if start is None:  # it is too old, as are those before it
                break
            found.appendleft((part, tape, start))
            if missing is not None:
                missing -= count
                if missing <= 0:
                    break
        return list(found)

    def _start(
        self, part: Part, missing: int | None, stack: ExitStack
    ) -> tuple[Tape, int | None, int]:
        """The open file, the place, and how many wanted lines there are behind it."""
        earliest = self.window.earliest
        tape = self._open(part)
        stack.callback(tape.close)
        if part.compressed:
            last = None if earliest is None else tape.last_time()
            if last is not None and earliest is not None and last < earliest:
                return tape, None, 0
            count = 0 if missing is None else self._count(tape)
            return tape, 0, count
        if missing is not None:
            start, count = self._tail_of(tape, missing)
            return tape, start, count
        if earliest is None:
            return tape, 0, 0
        newest = next(
            (t for _, line in tape.before(tape.size) if (t := self.time_of(line)) is not None), None
        )
        if newest is not None and newest < earliest:
            return tape, None, 0
        return tape, tape.first_not_before(earliest, self._first_time), 0

    def _open(self, part: Part) -> Tape:
        tape = Tape(part.path, nofollow=self._nofollow)
        self._tapes.append(tape)
        return tape

    def _count(self, tape: Tape) -> int:
        try:
            pieces = (self._parsed(line) for line in tape.unzipped())
            return sum(1 for piece in pieces if piece and piece.ended and self.window.has(piece))
        except LogFileError:
            return 0  # said when it is read

    def _tail_of(self, tape: Tape, count: int) -> tuple[int, int]:
        """Where the last *count* wanted lines begin, and how many there are from there on."""
        found = 0
        reached = 0
        seen: set[str] = set()
        open_streams: set[str] = set()
        for place, line in tape.before(tape.size):
            piece = self._parsed(line)
            if piece is None:
                continue
            earliest = self.window.earliest
            if earliest is not None and piece.time < earliest:
                return place + len(line) + 1, found
            if piece.ended:
                open_streams.discard(piece.stream)
            if found >= count and not (open_streams and reached - place < MORE):
                return place + len(line) + 1, found
            if piece.ended and found < count and self.window.has(piece):
                found += 1
                reached = place
                seen.add(piece.stream)
                open_streams.add(piece.stream)
        return 0, found

    # -- forwards -----------------------------------------------------------------------------

    def _forward(self, starts: list[tuple[Part, Tape, int]]) -> Iterator[LogLine]:
        log = ""
        for part, tape, start in starts:
            if part.log != log:  # another life of the container
                yield from self.rest()
                log = part.log
            pieces = self.whole(tape) if tape.compressed else self._taped(tape, start)
            yield from self._wanted(pieces)
            if self.over:
                return

    def whole(self, tape: Tape) -> Iterator[Piece]:
        """All of an old file, compressed or not."""
        place = 0
        try:
            if tape.compressed:
                for line in tape.unzipped():
                    place += len(line) + 1
                    yield from self.pieces(tape.path, place, line)
            else:
                for place, line in tape.lines(0):
                    yield from self.pieces(tape.path, place, line)
        except LogFileError as error:
            self._problem(Problem(tape.path, place, str(error)))

    def _taped(self, tape: Tape, start: int) -> Iterator[Piece]:
        self._place, self._line = start, b""
        for place, line in tape.lines(start):
            self._place, self._line = place, line
            yield from self.pieces(tape.path, place, line)
        rest = b"" if self._keep else tape.read(self._place, BLOCK)
        if rest and NEWLINE not in rest:  # else it has grown meanwhile
            torn = f"{tape.size - self._place} bytes at the end are no whole record"
            self._problem(Problem(tape.path, tape.size, torn))

    def _wanted(self, pieces: Iterator[Piece]) -> Iterator[LogLine]:
        for piece in pieces:
            if self.passes(piece):
                return
            line = self.joiner.add(piece)
            if line is not None and self.window.has(line):
                yield line

    def passes(self, piece: Piece) -> bool:
        """Whether nothing from *piece* on is wanted; :attr:`over` says so from then on."""
        self.over = self.over or self.window.over(piece.time)
        return self.over

    def pieces(self, path: str, place: int, line: bytes) -> Iterator[Piece]:
        """What a line of a file holds: one, or none when it is damaged, which is said."""
        whole = line.lstrip(b"\0")
        if len(whole) < len(line):
            self.skipped += 1
            zeros = len(line) - len(whole)
            many = "or more " if zeros >= BLOCK else ""
            reason = f"{zeros} {many}bytes are zero (a disk was full, maybe)"
            self._problem(Problem(path, place, reason))
        if not whole:
            if not line:
                self.skipped += 1
                self._problem(Problem(path, place, "an empty line"))
            return
        piece = self._parsed(whole)
        if piece is None:
            self.skipped += 1
            self._problem(Problem(path, place, f"no record: {whole[:60]!r}"))
        else:
            yield piece

    def _parsed(self, line: bytes) -> Piece | None:
        if self.form is None:
            self.form = detect(line)
        if self.form is None:
            return None
        try:
            return self.form.parse(line)
        except ValueError:
            return None

    def time_of(self, line: bytes) -> int | None:
        """When a line of a file was written."""
        piece = self._parsed(line)
        return None if piece is None else piece.time

    def _first_time(self, lines: Iterator[bytes]) -> int | None:
        """When the first of these lines was written whose time is that of its writing.

        A piece of a long line has the time of the first piece in a json-file, which may be long
        before; so only what follows a line's end counts.
        """
        ended: dict[str, bool] = {}
        for line in lines:
            piece = self._parsed(line)
            if piece is None:
                continue
            if ended.get(piece.stream):
                return piece.time
            ended[piece.stream] = piece.ended
        return None
