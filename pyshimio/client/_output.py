"""An output FIFO from its client's side, on its way to where the client wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._source import PipeSource
from ..abc import Sink
from ..io._outlet import SinkOutlet, make_pump
from ..io.fd import fd_sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._events import EventHub
    from .._fd import Descriptor
    from .._fifo import FifoHandle
    from .._pump import Pump

__all__ = ("ClientSource", "Outlet", "Output")


class ClientSource(PipeSource):
    """The read end of a FIFO whose writer is the shim.

    Without a writer such a FIFO reads ``b""``, before the first one as well as behind the
    last.  The kernel tells the two apart by a hang-up, which it shows behind the last alone.
    """

    _abandoned = False

    def read(self, size: int) -> bytes | None:
        data = super().read(size)
        if data != b"" or self.over:
            return data
        # A writer may have come, written and gone between the two looks.
        return None if self.holders() else super().read(size)

    def readinto(self, buffer: memoryview) -> int | None:
        count = super().readinto(buffer)
        if self.over:
            return count or 0
        if count == 0:
            with self.fd.lend():  # the number stays ours for the look
                return None if self.holders() else super().readinto(buffer)
        return count

    def waiting(self) -> int:
        return 0 if self._abandoned else super().waiting()

    def abandon(self) -> None:
        """What is in the FIFO is the next client's from here on, and counts for nothing."""
        self._abandoned = True


class Outlet(SinkOutlet):
    """Where one stream goes, or both: it closes with the last of them.

    Args:
        destination: A descriptor, which stays the caller's, or a sink, which is owned.
    """

    def __init__(self, destination: Descriptor | Sink) -> None:
        sink = destination if isinstance(destination, Sink) else fd_sink(destination)
        super().__init__(sink)
        self.streams = 0

    def finish(self, then: Callable[[], None]) -> None:
        self.streams -= 1
        if not self.streams:
            self.close()
        then()


class Output:
    """One of the streams.

    Args:
        stream: ``"stdout"`` or ``"stderr"``.
        outlet: Where it goes.
    """

    def __init__(self, stream: str, outlet: Outlet) -> None:
        self.stream = stream
        self._outlet = outlet
        outlet.streams += 1
        self._source: ClientSource | None = None
        self.pump: Pump | None = None

    def open(self, handle: FifoHandle, hub: EventHub, then: Callable[[], None]) -> None:
        """Open the FIFO and begin to move what is and comes there.

        Args:
            handle: Stays the caller's.
            hub: For what goes wrong.
            then: Called once, when the stream has ended and its sink is closed.
        """
        lane = self._outlet.prepare()
        self._source = ClientSource(handle.open_reader())
        self.pump = make_pump(
            self.stream,
            self._source,
            self._outlet.sink,
            lane,
            hub=hub,
            then=lambda: self._outlet.finish(then),
        )
        self.pump.start()

    @property
    def ended(self) -> bool:
        """Whether all that there was has reached the sink, or nothing more will."""
        return self.pump is not None and self.pump.done.is_set()

    @property
    def state(self) -> str:
        """In a word."""
        return "ended" if self.ended else "copying"

    @property
    def error(self) -> BaseException | None:
        """Why the sink takes nothing any more."""
        return None if self.pump is None else self.pump.error

    def cancel(self) -> None:
        """End with what is in the FIFO now; it still goes to the sink."""
        if self._source is not None and self.pump is not None and not self.ended:
            self._source.over = True  # another client may be quicker than we are
            self.pump.mark(stop=True)

    def close(self) -> None:
        """End where it is; what is in the FIFO stays there.  Idempotent."""
        if self._source is not None:
            self._source.abandon()
            if self.pump is not None:
                self.pump.end()
            self._source.close()
        self._outlet.close()
