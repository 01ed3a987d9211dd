"""What a log is made of: records, and batches of them as one read delivers them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

__all__ = ("Batch", "Partial", "Record")

SEVERITIES = frozenset(b"01234567")
NEWLINE = b"\n"


class Partial:
    """Where a piece of a line that was too long, or that ended without a newline, belongs.

    Attributes:
        id: The same for all pieces of one line.
        ordinal: Counts from 1.
        last: The line ends with this piece.
        begun: When the first piece came, in nanoseconds since 1970.
        ended: The stream has ended in the middle of this line.
    """

    __slots__ = ("begun", "ended", "id", "last", "ordinal")

    def __init__(
        self,
        id: str,  # noqa: A002 - moby's word
        ordinal: int,
        *,
        last: bool,
        begun: int,
        ended: bool = False,
    ) -> None:
        self.id: Final[str] = id
        self.ordinal: Final[int] = ordinal
        self.last: Final[bool] = last
        self.begun: Final[int] = begun
        self.ended: Final[bool] = ended

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Partial) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return (self.id, self.ordinal, self.last, self.begun, self.ended)

    def __repr__(self) -> str:
        return f"<Partial {self.id} {self.ordinal}{' last' if self.last else ''}>"


class Record:
    """One line, or one piece of a line.

    Attributes:
        line: Its bytes, without the newline.
        stream: ``"stdout"`` or ``"stderr"``.
        time: Nanoseconds since 1970, of the read that delivered it.
        partial: None for a whole line.
        severity: 0 (emergency) to 7 (debug) as ``<N>`` at the line's beginning has it, when that
            was asked for; else None.
    """

    __slots__ = ("line", "partial", "severity", "stream", "time")

    def __init__(
        self,
        line: bytes,
        stream: str,
        time: int,
        partial: Partial | None = None,
        severity: int | None = None,
    ) -> None:
        self.line: Final[bytes] = line
        self.stream: Final[str] = stream
        self.time: Final[int] = time
        self.partial: Final[Partial | None] = partial
        self.severity: Final[int | None] = severity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return (self.line, self.stream, self.time, self.partial, self.severity)

    def __repr__(self) -> str:
        return f"<Record {self.stream} {self.time} {self.line!r} {self.partial or 'whole'}>"


class Batch:
    """Whole lines of one stream that came with one read, or one piece of a longer line.

    A driver that writes lines in bulk takes *data*; one that wants them one by one iterates
    over :meth:`records`.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
        time: Nanoseconds since 1970.
        data: Whole lines, each with its newline; or, with *partial*, the piece without one.
        partial: None for whole lines.
    """

    __slots__ = ("_count", "data", "partial", "stream", "time")

    def __init__(self, stream: str, time: int, data: bytes, partial: Partial | None = None) -> None:
        self.stream: Final[str] = stream
        self.time: Final[int] = time
        self.data: Final[bytes] = data
        self.partial: Final[Partial | None] = partial
        self._count = 0 if partial is None else 1

    @property
    def count(self) -> int:
        """How many records it has; who has found it out by the way may say so."""
        if not self._count:
            # (bytes.count goes byte by byte, this does not.)
            self._count = len(self.data) - len(self.data.replace(NEWLINE, b""))
        return self._count

    @count.setter
    def count(self, records: int) -> None:
        self._count = records

    @property
    def as_written(self) -> bytes:
        """The stream as it was, with the newline that a last piece of a line is without."""
        ends = self.partial is not None and self.partial.last
        return self.data + NEWLINE if ends else self.data

    def records(self, *, severity: bool = False) -> Iterator[Record]:
        """One after the other.

        Args:
            severity: Take ``<N>`` (0 to 7) off the beginning of a line, as syslog and journald
                have it; a piece that goes on with a line has none.
        """
        if self.partial is not None:
            lines = [self.data]
        else:
            lines = self.data.split(NEWLINE)
            lines.pop()
        begins = self.partial is None or self.partial.ordinal == 1
        for line in lines:
            if severity and begins and _has_severity(line):
                yield Record(line[3:], self.stream, self.time, self.partial, line[1] - 48)
            else:
                yield Record(line, self.stream, self.time, self.partial)

    def __repr__(self) -> str:
        what = f"{self.count} lines" if self.partial is None else repr(self.partial)
        return f"<Batch {self.stream} {self.time} {len(self.data)} bytes, {what}>"


def _has_severity(line: bytes) -> bool:
    return line[:1] == b"<" and line[2:3] == b">" and line[1] in SEVERITIES
