"""What went wrong while nobody was asking: events, and the rate-limited log.

A sink that fails does not stop the child, so there is no call that could raise.  It is
said here instead: once on the logger ``pyshimio`` (at most one line for each kind and
stream in :data:`QUIET` seconds) and to everyone who iterates over ``io.events()``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar
from weakref import WeakSet

import anyio
import attrs

from . import _sys

__all__ = (
    "BytesAbandoned",
    "BytesDropped",
    "EventHub",
    "IOEvent",
    "LoggerExited",
    "LoggerRespawned",
    "Reader",
    "SinkFailed",
    "SinkRecovered",
)

T = TypeVar("T")

logger = logging.getLogger("pyshimio")

QUIET = 5.0
BACKLOG = 1024


@attrs.frozen
class IOEvent:
    """Something that happened to a stream (``"stdin"``, ``"stdout"`` or ``"stderr"``)."""

    stream: str


@attrs.frozen
class SinkFailed(IOEvent):
    """A sink refuses bytes with *error*; ``final`` when the stream ended because of it."""

    error: BaseException
    final: bool


@attrs.frozen
class SinkRecovered(IOEvent):
    """A failing sink takes bytes again; *dropped* bytes were lost in between."""

    dropped: int


@attrs.frozen
class BytesDropped(IOEvent):
    """*count* bytes were thrown away because of *reason*."""

    count: int
    reason: str


@attrs.frozen
class BytesAbandoned(IOEvent):
    """The IO was closed while *count* bytes in a FIFO had not been read by anyone."""

    count: int


@attrs.frozen
class LoggerExited(IOEvent):
    """The logger *pid* ended with *status* while its streams were still open."""

    pid: int
    status: int


@attrs.frozen
class LoggerRespawned(IOEvent):
    """A new logger *pid* reads on where the last one stopped; *restarts* so far."""

    pid: int
    restarts: int


class EventHub:
    """Delivers events to the log and to any number of iterators, never waiting for one."""

    def __init__(self) -> None:
        # A reader that nobody has any more needs nothing.
        self._readers: WeakSet[Reader[IOEvent]] = WeakSet()
        self._said: dict[tuple[type[IOEvent], str], float] = {}
        self.closed: bool = False

    def emit(self, event: IOEvent) -> None:
        """Say it; called on the loop."""
        key = (type(event), event.stream)
        now = _sys.monotonic()
        if now - self._said.get(key, -QUIET) >= QUIET:
            self._said[key] = now
            logger.warning("%s", event)
        for reader in self._readers:
            reader.put(event)

    def events(self) -> AsyncIterator[IOEvent]:
        """Every event from now until the IO is closed.

        A reader that falls more than 1,024 events behind loses the oldest ones.
        """
        reader: Reader[IOEvent] = Reader(closed=self.closed)
        self._readers.add(reader)
        return reader

    def close(self) -> None:
        """End all iterators once they have read what is there.  Idempotent."""
        self.closed = True
        for reader in self._readers:
            reader.close()


class Reader(AsyncIterator[T], Generic[T]):
    """What comes from now on; one that falls too far behind loses the oldest."""

    def __init__(self, *, closed: bool) -> None:
        self._events: deque[T] = deque(maxlen=BACKLOG)
        self._closed = closed
        self._changed = anyio.Event()

    def put(self, event: T) -> None:
        """One more."""
        self._events.append(event)
        self._changed.set()

    def close(self) -> None:
        """No more: it ends when what is there has been read."""
        self._closed = True
        self._changed.set()

    async def __anext__(self) -> T:
        await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            if self._changed.is_set():
                self._changed = anyio.Event()
            await self._changed.wait()
        return self._events.popleft()
