"""A pump on a stage of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from pyshimio import _sys
from pyshimio._events import EventHub
from pyshimio._fd import OwnedFd
from pyshimio._poller import Poller
from pyshimio._pump import LoopPump
from pyshimio._sink import PipeSink
from pyshimio._source import PipeSource

from .children import GUARD

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyshimio._sink import DescriptorSink
    from pyshimio.abc import Sink


class Scene:
    """A pipe, a pump, and a pipe.

    Args:
        sink: Instead of the second pipe; owned.
        sink_type: What the second pipe's write end is.
    """

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        sink_type: Callable[[OwnedFd], DescriptorSink] = PipeSink,
    ) -> None:
        source, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.reader = -1
        if sink is None:
            self.reader, target = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            sink = sink_type(OwnedFd(target))
        self.sink: Sink = sink
        self.poller = Poller.current()
        self.hub = EventHub()
        self.events = self.hub.events()
        self.pump = LoopPump(
            "stdout",
            PipeSource(OwnedFd(source)),
            sink,
            poller=self.poller,
            hub=self.hub,
            then=sink.close,
        )
        self.pump.start()

    def end(self) -> None:
        """Close the writer."""
        os.close(self.writer)
        self.writer = -1

    async def finish(self) -> None:
        """Wait for the end of the pump."""
        with anyio.fail_after(GUARD):
            await self.pump.done.wait()

    def unread(self) -> int:
        """Bytes in the second pipe."""
        return _sys.unread(self.reader)

    async def read(self, count: int) -> bytes:
        """Exactly that many bytes from the second pipe."""
        data = bytearray()
        with anyio.fail_after(GUARD):
            while len(data) < count:
                try:
                    data += os.read(self.reader, count - len(data))
                except BlockingIOError:
                    await anyio.wait_readable(self.reader)
        return bytes(data)

    def close(self) -> None:
        """Close everything."""
        self.pump.end()
        self.sink.close()
        self.hub.close()
        for fd in (self.writer, self.reader):
            if fd >= 0:
                os.close(fd)
