"""Bytes of a file into its lines, a block at a time, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("NEWLINE", "Parts", "Splitter")

NEWLINE = b"\n"
LONGEST = 1 << 25
"""Bytes of the longest line that is kept: none of a log is as long."""
EMPTY = bytes(1 << 16)


class Splitter:
    """Lines of what it is fed with.

    Of NULs, of which a sparse file may have any number, two blocks are kept in a line.

    Attributes:
        waiting: Bytes of a line whose end has not come.
    """

    def __init__(self) -> None:
        self.waiting: int = 0
        self._parts = Parts()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that end in *data*: how many bytes each took, and the line; None if too long.

        Args:
            data: What follows what it was fed with before; not empty.
        """
        first, *more = data.split(NEWLINE)
        self._add(first)
        if not more:
            return
        last = more.pop()
        whole, taken = self._parts.line(), self.waiting + 1
        self.waiting, self._parts = 0, Parts()
        self._add(last)
        yield taken, whole
        for line in more:
            yield len(line) + 1, line

    def _add(self, part: bytes) -> None:
        self.waiting += len(part)
        self._parts.add(part)


class Parts:
    """What is kept of one line.

    Args:
        backwards: Its end comes first.
    """

    def __init__(self, *, backwards: bool = False) -> None:
        self._backwards = backwards
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """More of it."""
        if not part or (self._parts and self._borders() == b"\0" and is_empty(part)):
            return
        self._size += len(part)
        if self._size <= LONGEST:
            self._parts.append(part)
        else:
            self._parts.clear()

    def _borders(self) -> bytes:
        """The byte that the next part comes to stand beside."""
        last = self._parts[-1]
        return last[:1] if self._backwards else last[-1:]

    def line(self) -> bytes | None:
        """All of it; None if it is too long."""
        if self._size > LONGEST:
            return None
        return b"".join(reversed(self._parts) if self._backwards else self._parts)


def is_empty(data: bytes) -> bool:
    """Whether it is nothing but NULs: what a file has where nothing was written."""
    return data.startswith(b"\0") and data == EMPTY[: len(data)]
