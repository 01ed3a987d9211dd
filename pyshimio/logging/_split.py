"""Bytes of a file into its lines, a block at a time, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("LONGEST", "NEWLINE", "Splitter", "is_empty")

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
        self._parts: list[bytes] = []
        self._kept = 0

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
        line = b"".join(self._parts) if self._kept <= LONGEST else None
        taken = self.waiting + 1
        self.waiting, self._parts, self._kept = 0, [], 0
        self._add(last)
        yield taken, line
        for line in more:
            yield len(line) + 1, line

    def _add(self, part: bytes) -> None:
        if not part:
            return
        self.waiting += len(part)
        if self._parts and self._parts[-1].endswith(b"\0") and is_empty(part):
            return
        self._kept += len(part)
        if self._kept <= LONGEST:
            self._parts.append(part)
        else:
            self._parts.clear()


def is_empty(data: bytes) -> bool:
    """Whether it is nothing but NULs: what a file has where nothing was written."""
    return data.startswith(b"\0") and data == EMPTY[: len(data)]
