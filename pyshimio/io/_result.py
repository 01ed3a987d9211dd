"""What a drain found, and what it may be told to wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._fd import HasFileno
    from .._process import Process

__all__ = ("DrainPolicy", "DrainResult", "ExitSource", "StreamResult")

DrainPolicy = Literal["eof", "exited", "keep"]

ExitSource: TypeAlias = "Process | HasFileno | int | Awaitable[object]"
"""A process of ours, a pidfd (or its owner), or anything that can be awaited."""


@attrs.frozen(kw_only=True)
class StreamResult:
    """One output stream when its drain was over; all figures in bytes."""

    moved: int
    """Taken by the sink since the IO was made."""
    dropped: int
    """Thrown away since then, by a full disk, a ring, or a sink that was out of time."""
    finished: bool
    """Whether everything that the process wrote has reached the sink."""
    holders_left: bool
    """Whether somebody, a background child say, still had the stream open."""
    unread: int = 0
    """In the FIFO, and read by no client yet."""
    abandoned: int = 0
    """Those of them that nobody is there to read: they die with the FIFO's last end."""
    attached: bool | None = None
    """Whether a client has the FIFO open; None for other sinks.

    Not so long as a forked copy of this process has the end that keeps the FIFO alive: a client
    cannot be told from it."""


@attrs.frozen(kw_only=True)
class DrainResult:
    """What became of the output of a process that has exited."""

    stdout: StreamResult | None = None
    stderr: StreamResult | None = None
    logger_ended: bool | None = None
    """Whether the logger has ended; None where there is none."""
    logger_status: int | None = None
    """Its exit status then."""
    logger_stopped: bool = False
    """Whether the logger had to be told to end by a signal."""

    @property
    def streams(self) -> tuple[StreamResult, ...]:
        """The streams that were moved by us."""
        return tuple(stream for stream in (self.stdout, self.stderr) if stream is not None)

    @property
    def complete(self) -> bool:
        """Whether every byte has reached its sink (none was dropped, and the logger is content).

        A FIFO is such a sink; what its client has not read is :attr:`unread`, and what will
        die with it while no client is there is :attr:`abandoned`.
        """
        return (
            all(stream.finished and not stream.dropped for stream in self.streams)
            and self.logger_ended is not False
            and not self.logger_status
            and not self.logger_stopped
        )

    @property
    def holders_left(self) -> bool:
        """Whether a stream was still open somewhere."""
        return any(stream.holders_left for stream in self.streams)

    @property
    def unread(self) -> int:
        """Bytes in FIFOs that no client has read yet."""
        return sum(stream.unread for stream in self.streams)

    @property
    def abandoned(self) -> int:
        """Those of them without a client to read them."""
        return sum(stream.abandoned for stream in self.streams)
