"""Where in an uncompressed log file to begin, so that what is wanted comes and little else is read.

A line may be in pieces, with those of the other stream between them, and be cut by a rotation; so
where a line begins is known by the piece before it, of the same stream.  In a json-file pieces have
the time of the first one, which may be long before; so only the time of a piece that begins a line
counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lines import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ._lines import Window
    from ._parse import Piece
    from ._tape import Tape

__all__ = ("Seeker",)

MORE = 1 << 18
"""Bytes before a place in which a piece of each stream is looked for."""
STREAMS = frozenset({"stdout", "stderr"})


class Seeker:
    """Looks for places.

    Args:
        window: What is wanted.
        parse: A line's piece; None for one that is damaged.
    """

    def __init__(self, window: Window, parse: Callable[[bytes | None], Piece | None]) -> None:
        self._window = window
        self._parse = parse

    def _pieces(self, tape: Tape, end: int) -> Iterator[tuple[int, int, Piece]]:
        """Backwards from *end*: where each begins, where it ends, and what it is."""
        behind = end
        for place, line in tape.before(end):
            piece = self._parse(line)
            if piece is not None:
                yield place, behind, piece
            behind = place

    def last(self, tape: Tape, count: int, end: int) -> tuple[int, int]:
        """Where the last piece of the *count*-th wanted line before *end* is, or of the first.

        Returns:
            The place, and how many lines there are from there on.
        """
        earliest = self._window.earliest
        found = 0
        begun: dict[str, int] = {}  # when what we have seen of a stream was written
        for place, behind, piece in self._pieces(tape, end):
            if found >= count:
                return behind, found
            if piece.ended:
                before = begun.get(piece.stream)
                if earliest is not None and before is not None and before < earliest:
                    return behind, found
                if self._window.has(piece):
                    found += 1
                    if found == count:
                        return place, found
            begun[piece.stream] = piece.time
        return 0, found

    def heads(self, tape: Tape, end: int, streams: Iterable[str] = STREAMS) -> tuple[int, set[str]]:
        """Where the lines begin that go on at *end*.

        Returns:
            The place, and of which of *streams* the beginning is before this file.
        """
        unknown, cut = set(streams), set[str]()
        start = end
        for place, _, piece in self._pieces(tape, end):
            if piece.stream in unknown:
                if piece.ended:
                    unknown.discard(piece.stream)
                    cut.discard(piece.stream)
                else:
                    cut.add(piece.stream)
                    start = place
            if not unknown or end - place > (LONGEST if cut else MORE):
                return start, set()
        return start, cut

    def since(self, tape: Tape, moment: int) -> int | None:
        """A place at or before the first line that is not older; None when all are older."""
        newest = self._newest(tape)
        if newest is not None and newest < moment:
            return None
        low, _ = tape.halve(moment, self._first_time)
        return tape.next_line(low) if low else 0

    def end(self, tape: Tape, moment: int) -> int:
        """A place behind the last line that is not newer."""
        _, high = tape.halve(moment + 1, self._first_time)
        # (The time that was found there is that of the line behind the one that *high* is in.)
        return tape.next_line(tape.next_line(high))

    def first(self, tape: Tape) -> int | None:
        """When the first line of a file was written; None for an empty one."""
        for _, line in tape.lines():
            piece = self._parse(line)
            if piece is not None:
                return piece.time
        return None

    def _newest(self, tape: Tape) -> int | None:
        """When the last line began that can be told; a line before it may be newer by a little."""
        begun: dict[str, int] = {}
        for _, _, piece in self._pieces(tape, tape.size):
            if piece.ended and piece.stream in begun:
                return begun[piece.stream]
            begun[piece.stream] = piece.time
        return max(begun.values(), default=None)

    def _first_time(self, lines: Iterator[bytes | None]) -> int | None:
        """When the first of these lines was written that is known to begin one."""
        ended: dict[str, bool] = {}
        for line in lines:
            piece = self._parse(line)
            if piece is None:
                continue
            if ended.get(piece.stream):
                return piece.time
            ended[piece.stream] = piece.ended
        return None
