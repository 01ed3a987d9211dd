"""What has moved: counters that the pumps keep, and the records that callers see."""

from __future__ import annotations

import attrs

__all__ = ("Counters", "IOStats", "StreamStats")


@attrs.frozen(kw_only=True)
class StreamStats:
    """One stream up to now; bytes, calls and seconds."""

    bytes_in: int
    """Bytes taken from the source."""
    bytes_out: int
    """Bytes that the sink has accepted."""
    dropped: int
    """Bytes that were thrown away (a full disk, a ring's oldest, an abandoned sink)."""
    writes: int
    """System calls (write or splice) that delivered them."""
    blocked: float
    """Seconds in which the sink took nothing and the source was not read."""
    path: str
    """How bytes moved last: ``idle``, ``copy``, ``splice`` or ``file``."""


@attrs.frozen(kw_only=True)
class IOStats:
    """All three streams; ``None`` for one whose bytes the library does not move.

    That is a stream that is not connected, one that goes to a logger by hand-over, and
    one that the caller reads or writes itself.
    """

    stdin: StreamStats | None = None
    stdout: StreamStats | None = None
    stderr: StreamStats | None = None


@attrs.define(eq=False)
class Counters:
    """The same figures while they still change; each is written by one thread at a time."""

    bytes_in: int = 0
    bytes_out: int = 0
    dropped: int = 0
    writes: int = 0
    blocked: float = 0.0
    path: str = "idle"

    def snapshot(self) -> StreamStats:
        """The figures as they are now."""
        return StreamStats(
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            dropped=self.dropped,
            writes=self.writes,
            blocked=self.blocked,
            path=self.path,
        )
