"""Container lines out of the pieces that files hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ._parse import Piece

__all__ = ("Joiner", "LogLine", "Window")

LONGEST = 1 << 24
"""Bytes of a line; what is longer comes in parts, so that one that never ends has no need of
memory without end."""
SKEW = 1_000_000_000
"""Nanoseconds by which a file's times may go back: two streams, and clocks that are set."""


@attrs.frozen
class LogLine:
    """One line of a container's output, as it was written.

    Args:
        time: Nanoseconds since 1970, of its first piece.
        stream: ``"stdout"`` or ``"stderr"``.
        text: Bytes, without the newline.
        complete: False for what a stream ended with that was no whole line, and for all parts but
            the last of one of more than 16 MiB.
        attributes: docker's (``docker logs --details``).
        more: The next line of this stream goes on with this one, which was too long.
    """

    time: int
    stream: str
    text: bytes
    complete: bool
    attributes: Mapping[str, str]
    more: bool = False


class Joiner:
    """Pieces of each stream until its line has ended."""

    def __init__(self) -> None:
        self._begun: dict[str, list[Piece]] = {}
        self._sizes: dict[str, int] = {}

    def add(self, piece: Piece) -> LogLine | None:
        """The line, if that was its end, or all that is kept of it."""
        begun = self._begun.setdefault(piece.stream, [])
        begun.append(piece)
        size = self._sizes.get(piece.stream, 0) + len(piece.text)
        if not piece.ended and size < LONGEST:
            self._sizes[piece.stream] = size
            return None
        self._begun[piece.stream], self._sizes[piece.stream] = [], 0
        return _joined(begun, complete=piece.ended, more=not piece.ended)

    def rest(self) -> Iterator[LogLine]:
        """What has no end."""
        for begun in self._begun.values():
            if begun:
                yield _joined(begun, complete=False)
        self._begun.clear()
        self._sizes.clear()


def _joined(pieces: list[Piece], *, complete: bool, more: bool = False) -> LogLine:
    first = pieces[0]
    text = first.text if len(pieces) == 1 else b"".join(piece.text for piece in pieces)
    return LogLine(first.time, first.stream, text, complete, first.attributes, more)


@attrs.frozen(kw_only=True)
class Window:
    """Which lines are wanted.

    Args:
        since, until: Nanoseconds since 1970, both included; None for no limit.
        stream: The one that is; None for both.
    """

    since: int | None = None
    until: int | None = None
    stream: str | None = None

    def has(self, line: LogLine | Piece) -> bool:
        """Whether it is one of them."""
        return (
            (self.since is None or line.time >= self.since)
            and (self.until is None or line.time <= self.until)
            and self.stream in {None, line.stream}
        )

    @property
    def earliest(self) -> int | None:
        """What is older need not be looked at."""
        return None if self.since is None else self.since - SKEW

    def over(self, time: int) -> bool:
        """Whether nothing behind a line of that time is wanted."""
        return self.latest is not None and time > self.latest

    @property
    def latest(self) -> int | None:
        """What is newer need not be looked at."""
        return None if self.until is None else self.until + SKEW
