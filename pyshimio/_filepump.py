"""A pump whose sink may wait: a thread of the file pool reads and writes.

The loop only says that the source is readable.  The thread then moves bytes until the
source is empty or its budget is used up, so a busy stream costs one hand-over for many
chunks instead of one for each.  While the sink takes nothing the source is not read.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

import anyio

from . import _sys
from ._pipesize import Growth, Haste
from ._pump import IDLE_SECONDS, Pump

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._events import EventHub
    from ._filepool import Lane
    from ._poller import Poller, Timer, Watch
    from ._source import Source
    from .abc import Sink

__all__ = ("FilePump",)

JOB_SECONDS = 0.02
"""How long one job may go on before other sinks get the thread."""
BUSY = 1 << 18
"""Bytes of one job that make a stream busy."""
LINGER = 0.002
"""Seconds that a thread waits for more of a busy stream."""
RETRY = 1.0

Outcome = Literal["empty", "more", "eof", "refused", "marked", "flushed", "closed"]


class FilePump(Pump):
    """See :class:`~pyshimio._pump.Pump`.

    Args:
        lane: The sink's own; shared by the streams that share the sink.
    """

    def __init__(
        self,
        stream: str,
        source: Source,
        sink: Sink,
        *,
        lane: Lane,
        poller: Poller,
        hub: EventHub,
        then: Callable[[], None],
    ) -> None:
        super().__init__(stream, source, sink, poller=poller, hub=hub, then=then)
        self.counters.path = "file"
        self._lane = lane
        self._pending: memoryview | None = None
        self._holding = 0
        self._in_job = False
        self._dropped = self.sink.dropped
        self._dry = False  # the last read left nothing
        self._again = False  # somebody wants another look when the job returns
        self._watch: Watch | None = None
        self._retry: Timer | None = None
        self._haste = Haste()
        self._growth: Growth | None = None
        self._calm: Timer | None = None
        self._seen = 0
        # Around the counters and what they stand for; a mark that finds no thread to go on with
        # ends the stream within.
        self._lock = threading.RLock()
        self._over = False  # a job that still runs counts for nothing any more

    def start(self) -> None:
        # Once, because the loop has nothing to do with what comes while a thread reads.  Not
        # for a terminal: one that has hung up would be ready again each time it is armed.
        self._watch = self._poller.watch(
            self.source.fd.fileno(), _sys.EPOLLIN, self._on_source, once=self.source.spliceable
        )

    def _on_source(self, events: int) -> None:
        if events & _sys.EPOLLHUP:
            self.source.hang_up()
        self._resume()

    def _resume(self) -> None:
        if self._in_job:
            self._again = True
        elif not self.done.is_set() and self._retry is None:
            self._in_job = True
            self._again = False
            try:
                self._lane.submit(self._job)
            except OSError as error:
                self._in_job = False
                self.fail(error)

    def retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._resume()

    def mark(self, *, stop: bool) -> None:
        with self._lock:
            super().mark(stop=stop)

    def end(self) -> None:
        self._leave_job()
        super().end()

    def fail(self, error: BaseException) -> None:
        self._leave_job()
        super().fail(error)

    def _leave_job(self) -> None:
        """From here on the counters are the loop's; what a job has in hand counts as held."""
        with self._lock:
            self._over = True

    def _held(self) -> int:
        return self._holding

    # -- in a thread ----------------------------------------------------------------------

    def _job(self, scratch: bytearray) -> None:
        try:
            outcome: Outcome | Exception = self._move(memoryview(scratch))
        except anyio.ClosedResourceError:
            outcome = "closed"
        except Exception as error:  # noqa: BLE001 - whatever a sink raises ends its stream
            outcome = error
        self._lane.post(lambda: self._returned(outcome))

    def _move(self, scratch: memoryview) -> Outcome:
        until = _sys.perf_counter() + JOB_SECONDS
        busy_at = self.counters.bytes_in + BUSY
        self._dry = False
        while True:
            if self._pending is None:
                if self._dry and (self.counters.bytes_in < busy_at or not self._more()):
                    return "empty"
                if (outcome := self._read(scratch)) is not None:
                    return outcome
            if not self._write():
                return "refused"
            if _sys.perf_counter() > until:
                return "more"

    def _more(self) -> bool:
        """Wait here for what a busy stream brings next, unless others want the thread.

        Handing over to the loop and back costs more than a chunk of bytes does.
        """
        return not self._lane.wanted() and self.source.wait(LINGER)

    def _read(self, scratch: memoryview) -> Outcome | None:
        """Read what is to be written next; or why there is nothing to write."""
        counters = self.counters
        size = len(scratch)
        with self._lock:
            if self._over:
                return "closed"
            if self._mark is not None:
                size = min(size, self._mark - counters.bytes_in)
            count = self.source.readinto(scratch[:size]) if size > 0 else 0
            if count:
                counters.bytes_in += count
                self._holding = count
                self._pending = scratch[:count]
                self._dry = self.source.emptied_by(count, size)
        if count is None:
            return "empty"
        if self._pending is None:
            ended = size > 0 or self._stop_at_mark
            if ended:
                self._flush()
            return "eof" if size > 0 else "flushed" if ended else "marked"
        if self.taps:
            for tap in tuple(self.taps):
                tap.write([bytes(self._pending)])
        return None

    def _flush(self) -> None:
        """Have the sink hand on what it keeps; what it refuses now it had taken before."""
        self.sink.flush()
        lost = self._newly_dropped()
        with self._lock:
            self.counters.dropped += lost
            self.counters.bytes_out -= lost

    def _newly_dropped(self) -> int:
        """By the sink, since it was asked last; it may do so between two writes."""
        before, self._dropped = self._dropped, self.sink.dropped
        return self._dropped - before

    def _write(self) -> bool:
        """Write what was read; whether the sink took all of it."""
        counters = self.counters
        while self._pending is not None:
            started = _sys.monotonic()
            count = self.sink.write([self._pending]) or 0
            waited = _sys.monotonic() - started
            lost = self._newly_dropped()
            with self._lock:
                if self._over:
                    raise anyio.ClosedResourceError
                counters.blocked += waited
                counters.writes += 1
                counters.dropped += lost
                counters.bytes_out += count - lost
                self._holding -= count
            if not count:
                # The scratch buffer belongs to the thread, and the thread goes elsewhere.
                self._pending = memoryview(bytes(self._pending))
                return False
            self._pending = self._pending[count:] if self._holding else None
        return True

    # -- on the loop ----------------------------------------------------------------------

    def _returned(self, outcome: Outcome | Exception) -> None:
        self._in_job = False
        if self.done.is_set():
            return
        if isinstance(outcome, Exception):
            self.fail(outcome)
        elif outcome == "eof":
            self.eof = True
            self._finish()
        elif outcome in {"marked", "flushed"}:
            # Another mark may have been set since, further on, or one to stop at.
            reached = self._mark is not None and self.counters.bytes_in >= self._mark
            if reached and (outcome == "flushed" or not self._stop_at_mark):
                self._pass_mark()
            self._resume()
        elif outcome == "refused":
            self._retry = self._poller.later(RETRY, self.retry)
        elif outcome == "more" or self._again:
            self._resume()
        elif outcome == "empty":
            self._run_dry()
            if self._watch is not None and self.source.spliceable:
                self._watch.arm()
        if not self.done.is_set():
            self._grow()

    def _grow(self) -> None:
        moved = self.counters.bytes_in
        if self.source.spliceable and self._haste.proves(moved, _sys.perf_counter()):
            if self._growth is None:
                self._growth = Growth(self.source.fd, self._poller.pipes)
                self._seen = moved
                self._calm = self._poller.later(IDLE_SECONDS, self._calm_down)
            self._growth.grow()

    def _calm_down(self) -> None:
        self._calm = None
        if self.counters.bytes_in != self._seen:
            self._seen = self.counters.bytes_in
            self._calm = self._poller.later(IDLE_SECONDS, self._calm_down)
        else:
            self._shrink()

    def _shrink(self) -> None:
        if self._calm is not None:
            self._calm.cancel()
            self._calm = None
        if self._growth is not None:
            self._growth.shrink()
            self._growth = None

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._shrink()
