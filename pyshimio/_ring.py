"""A bounded ring in front of a sink that must not hold anything up.

It takes whatever it is offered at once.  What the sink behind it does not take in time is
dropped, oldest first and by whole lines where there are lines, and counted.  Where the
sink has the beginning of a line whose rest was dropped, it gets a newline more.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import anyio

from . import _sys
from ._events import BytesDropped, SinkFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from ._events import EventHub
    from ._filepool import Lane
    from ._poller import Poller, Timer, Watch
    from .abc import Sink

__all__ = ("RingSink",)

NEWLINE = 0x0A
END = memoryview(b"\n")
"""A chunk of our own, by identity: ends a line whose rest was dropped; counts nowhere."""
REPORT = 1.0
"""Seconds between two events that say how much was dropped."""


class RingSink:
    """A sink that never waits and never refuses, whatever the one behind it does.

    Args:
        stream: For events.
        sink: Where the bytes go; closed with this one.
        capacity: Bytes that may wait for it.
        lane: The sink's, if it blocks.
        poller: The loop's.
        hub: Where drops and a failing sink are reported.
        opening: Called by the lane before the first write.
    """

    blocking = False

    def __init__(
        self,
        stream: str,
        sink: Sink,
        *,
        capacity: int,
        lane: Lane | None,
        poller: Poller,
        hub: EventHub,
        opening: Callable[[], None] | None = None,
    ) -> None:
        self.stream = stream
        self.sink = sink
        self.dropped: int = 0
        self.delivered: int = 0
        self.error: BaseException | None = None
        self._capacity = capacity
        self._lane = lane
        self._opening = opening
        self._poller = poller
        self._hub = hub
        self._hold: Watch | None = poller.hold()
        self._retry: Timer | None = None
        self._watch: Watch | None = None
        self._chunks: deque[memoryview] = deque()
        self._size = 0
        self._cut = False  # drop up to the next newline
        self._midline = False  # what was handed on last does not end a line
        self._was_midline = False  # the same before the chunk that is being handed on
        self._active = False
        self._flushing = False
        self._lock = threading.Lock()
        self._loop = threading.get_ident()
        self._when_empty: list[Callable[[], None]] = []
        self._reported = 0.0
        self._unreported = 0
        self.closed: bool = False

    def fileno(self) -> int:
        return -1

    def write(self, buffers: Sequence[Buffer]) -> int:
        """Take everything; from the loop or from a thread of the pool."""
        total = 0
        with self._lock:
            for buffer in buffers:
                data = memoryview(bytes(buffer))
                total += len(data)
                if self.closed or self.error is not None:
                    self.dropped += len(data)
                elif data:
                    self._chunks.append(data)
                    self._size += len(data)
            self._shorten()
            kick = bool(self._chunks) and not self._active
            self._active = self._active or kick
        if kick:
            self._on_loop(self._deliver)
        return total

    def _on_loop(self, callback: Callable[[], None]) -> None:
        if threading.get_ident() == self._loop:
            self._poller.soon(callback)
        else:
            self._poller.post(callback)

    def _shorten(self) -> None:
        """Drop the oldest bytes over the capacity, and the rest of the line they were in."""
        lost, ending = 0, False
        while self._chunks and (self._size > self._capacity or self._cut):
            chunk = self._chunks.popleft()
            if chunk is END:
                ending = True  # it comes again, if it is still due
                continue
            count = min(max(self._size - self._capacity, 0), len(chunk))
            if count or self._cut:
                # A stream without newlines loses what is over the capacity, and no more.
                count = (bytes(chunk).find(b"\n", max(count - 1, 0)) + 1) or count
            self._cut = count == len(chunk) and chunk[-1] != NEWLINE
            lost += count
            self._size -= count
            if count < len(chunk):
                self._chunks.appendleft(chunk[count:])
        if lost or ending:
            self._end_half_line()
        if lost:
            self.dropped += lost
            self._unreported += lost
            self._on_loop(self._report)

    def _end_half_line(self) -> None:
        """What was in front is gone: let what comes now not be glued to half a line."""
        ending = bool(self._chunks) and self._chunks[0] is END
        if self._midline and not ending:
            self._chunks.appendleft(END)
        elif ending and not self._midline:
            self._chunks.popleft()

    def _report(self) -> None:
        now = _sys.monotonic()
        if self._unreported and now - self._reported >= REPORT:
            self._reported = now
            count, self._unreported = self._unreported, 0
            self._hub.emit(BytesDropped(self.stream, count, "the reader is too slow"))

    # -- towards the sink ---------------------------------------------------------------

    def _deliver(self) -> None:
        """On the loop: hand on what waits, or have a thread do it."""
        if self.closed or self.error is not None:
            return
        if self.sink.blocking:
            assert self._lane is not None
            try:
                self._lane.submit(self._job)
            except OSError as error:
                self._fail(error)
            return
        try:
            while (chunk := self._take()) is not None or self._flush_due():
                if chunk is not None and self._pass_on(chunk) is None:
                    self._wait_for_sink()
                    return
            self._unwatch()
            self._emptied()
        except Exception as error:  # noqa: BLE001 - whatever the sink raises ends this leg
            self._fail(error)

    def _job(self, _scratch: bytearray) -> None:
        assert self._lane is not None
        try:
            if (opening := self._opening) is not None:
                self._opening = None
                if not self.closed:
                    opening()
                if self.closed:  # meanwhile, so what it has opened was not there to be closed
                    self.sink.close()
                    return
            while (chunk := self._take()) is not None or self._flush_due():
                if chunk is not None and not self._pass_on(chunk):
                    self._lane.post(lambda: self._pause(1.0))
                    return
        except Exception as error:  # noqa: BLE001
            failure = error
            self._lane.post(lambda: self._fail(failure))
        else:
            self._lane.post(self._emptied)

    def _pass_on(self, chunk: memoryview) -> int | None:
        if chunk is END:
            return self._pass_on_end()
        dropped = self.sink.dropped
        try:
            count = self.sink.write([chunk])
        except BaseException:
            self.dropped += len(chunk)
            raise
        lost = self.sink.dropped - dropped
        self.dropped += lost
        self.delivered += (count or 0) - lost
        if count is None or count < len(chunk):
            self._give_back(chunk, count or 0)
        return count

    def _pass_on_end(self) -> int | None:
        count = self.sink.write([END])
        if not count:
            with self._lock:
                self._midline = True
                # Where something was dropped meanwhile there may be one already.
                if not (self._chunks and self._chunks[0] is END):
                    self._chunks.appendleft(END)
        return count

    def _pause(self, seconds: float) -> None:
        if not self.closed:
            self._retry = self._poller.later(seconds, self._deliver)

    def _take(self) -> memoryview | None:
        with self._lock:
            if not self._chunks:
                return None
            chunk = self._chunks.popleft()
            if chunk is not END:
                self._size -= len(chunk)
            self._was_midline, self._midline = self._midline, chunk[-1] != NEWLINE
            return chunk

    def _flush_due(self) -> bool:
        """With nothing left to hand on: flush if asked; whether to look again after that."""
        with self._lock:
            due, self._flushing = self._flushing, False
            if not due:
                self._active = bool(self._chunks)
                return self._active
        self.sink.flush()
        return True

    def _give_back(self, chunk: memoryview, count: int) -> None:
        rest = chunk[count:]
        with self._lock:
            self._midline = chunk[count - 1] != NEWLINE if count else self._was_midline
            self._chunks.appendleft(rest)
            self._size += len(rest)
            self._shorten()

    def _wait_for_sink(self) -> None:
        if self._watch is None:
            self._watch = self._poller.watch(
                self.sink.fileno(), _sys.EPOLLOUT, lambda _: self._poller.soon(self._deliver)
            )

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @property
    def waiting(self) -> int:
        """Bytes that the sink has not taken yet."""
        return self._size

    def drop_waiting(self) -> None:
        """Give up on what waits for the sink: its time is over."""
        with self._lock:
            waited = bool(self._chunks)  # the end of a half line counts for no byte
            lost = self._lose()
            if waited:
                self._end_half_line()
            self._active = self._flushing = False
        self._unwatch()
        if lost:
            self._hub.emit(BytesDropped(self.stream, lost, "the sink did not take it in time"))
        self._emptied()

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self._unwatch()
        with self._lock:
            self._lose()
        self._hub.emit(SinkFailed(self.stream, error, final=True))
        self._emptied()

    def _lose(self) -> int:
        """Count all that waits as dropped; how much it was.  Under the lock."""
        lost, self._size = self._size, 0
        self.dropped += lost
        self._chunks.clear()
        return lost

    def _emptied(self) -> None:
        if not self._active or self.error is not None or self.closed:
            callbacks, self._when_empty = self._when_empty, []
            for callback in callbacks:
                callback()

    def when_empty(self, callback: Callable[[], None]) -> None:
        """Call *callback* on the loop when the sink has taken all that waits, or never will."""
        self._when_empty.append(callback)
        self._emptied()

    async def wait_empty(self) -> None:
        """The same for tasks."""
        empty = anyio.Event()
        self.when_empty(empty.set)
        await empty.wait()

    # -- the rest of the protocol ---------------------------------------------------------

    def flush(self) -> None:
        """Flush the sink once it has taken what waits."""
        with self._lock:
            if self.closed or self.error is not None:
                return
            self._flushing = True
            kick, self._active = not self._active, True
        if kick:
            self._on_loop(self._deliver)

    def reopen(self) -> None:
        self.sink.reopen()

    def close(self) -> None:
        """Drop what waits, and close the sink."""
        if self.closed:
            return
        self.closed = True
        with self._lock:
            self._lose()
        self._unwatch()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._hold is not None:
            self._hold.close()
            self._hold = None
        self._emptied()
        self.sink.close()

    def __repr__(self) -> str:
        return f"<RingSink {self._size} of {self._capacity} bytes -> {self.sink!r}>"
