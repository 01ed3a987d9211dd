"""How a stream's sink is opened, and what becomes of it when the stream has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .._fifo import FifoHandle, FifoSink, KeepAlive
from .._filepool import Lane
from .._filepump import FilePump
from .._poller import Poller
from .._pump import LoopPump, Pump
from .._ring import RingSink

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._events import EventHub
    from .._source import Source
    from ..abc import Sink

__all__ = ("FifoOutlet", "Outlet", "SinkOutlet", "make_pump")


class Outlet(Protocol):
    """Where one stream goes."""

    lane: Lane | None
    """The threads' lane of a sink that blocks, once it is open."""

    async def check(self) -> None:
        """Raise what :meth:`open` would, as far as it can be known without making anything."""
        ...

    async def open(self, stream: str, hub: EventHub) -> Sink:
        """The sink, opened when it was not; may wait for a client."""
        ...

    def finish(self, then: Callable[[], None]) -> None:
        """The last byte is in the sink: pass the end on, and call *then* when that is done."""
        ...

    def close(self) -> None:
        """Give everything back, whatever the state.  Idempotent."""
        ...


class SinkOutlet:
    """A sink that was open from the beginning and closes with its stream."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.lane: Lane | None = None

    def prepare(self) -> Lane | None:
        """The sink's lane, made when it blocks."""
        if self.sink.blocking and self.lane is None:
            self.lane = Lane(repr(self.sink))
        return self.lane

    async def check(self) -> None:
        pass

    async def open(self, stream: str, hub: EventHub) -> Sink:
        del stream, hub
        lane = self.prepare()
        if lane is not None and self.opening is not None:  # a log driver opens its files
            # (Who leaves meanwhile has closed what was not open yet.)
            await lane.call(self.opening, lambda _: self.sink.close())
        return self.sink

    @property
    def opening(self) -> Callable[[], None] | None:
        """What is to be called in the lane before the first write."""
        opening: Callable[[], None] | None = getattr(self.sink, "open", None)
        return opening if self.sink.blocking else None

    def finish(self, then: Callable[[], None]) -> None:
        self.close()
        then()

    def close(self) -> None:
        self.sink.close()
        if self.lane is not None:
            self.lane.close()


class FifoOutlet:
    """A FIFO; its client gets EOF when it has read everything.

    Args:
        handle: Owned.
        keep: Shared with the other stream, if that goes to the same FIFO.
        timeout: Seconds to wait for the first client; None waits for ever.
        ring: None blocks the child while the client is away.  A number of bytes lets it go
            on: that many wait beside the FIFO, the oldest are dropped, and no client is
            waited for.
    """

    def __init__(
        self, handle: FifoHandle, keep: KeepAlive, *, timeout: float | None, ring: int | None
    ) -> None:
        self._handle = handle
        self._keep = keep
        self._timeout = timeout
        self._ring = ring
        self.lane: Lane | None = None
        self.fifo: FifoSink | None = None
        self._ring_sink: RingSink | None = None

    async def check(self) -> None:
        pass  # the handle has seen that it is a FIFO

    async def open(self, stream: str, hub: EventHub) -> Sink:
        if self._ring is None:
            self.fifo = await FifoSink.open(self._handle, self._keep, self._timeout)
            self._handle.close()
            return self.fifo
        self.fifo = FifoSink.open_now(self._handle, self._keep)
        self._handle.close()
        self._ring_sink = RingSink(
            stream, self.fifo, capacity=self._ring, lane=None, poller=Poller.current(), hub=hub
        )
        return self._ring_sink

    def finish(self, then: Callable[[], None]) -> None:
        fifo = self.fifo
        if fifo is None:
            then()
        elif self._ring_sink is None:
            fifo.finish(Poller.current(), then)
        else:
            # The ring has left the poller when it is empty, so the FIFO may be closed.
            self._ring_sink.when_empty(lambda: fifo.finish(Poller.current(), then))

    def close(self) -> None:
        self._handle.close()
        if self._ring_sink is not None:
            self._ring_sink.close()
        if self.fifo is not None:
            self.fifo.close()


def make_pump(
    stream: str,
    source: Source,
    sink: Sink,
    lane: Lane | None,
    *,
    hub: EventHub,
    then: Callable[[], None],
) -> Pump:
    """The kind of pump that *sink* needs."""
    poller = Poller.current()
    if lane is not None:
        return FilePump(stream, source, sink, lane=lane, poller=poller, hub=hub, then=then)
    return LoopPump(stream, source, sink, poller=poller, hub=hub, then=then)
