"""Bytes from one source to one sink, by callback, with counters.

:class:`Pump` is what every stream's pump has: its counters, its end, its taps, the mark
that a drain sets.  :class:`LoopPump` moves bytes on the loop into a sink that never waits.
(:class:`~pyshimio._filepump.FilePump` does it in threads into one that may.)

Nothing here is a task, so nothing can be cancelled between reading bytes and writing them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

import anyio
import attrs

from . import _sys
from ._events import BytesDropped, SinkFailed
from ._pace import Pace
from ._pipesize import Growth, Haste
from ._ring import RingSink
from ._sink import NullSink, PipeSink
from ._stats import Counters

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._events import EventHub
    from ._pipesize import Share
    from ._poller import Poller, Timer, Watch
    from ._source import Source
    from ._stats import StreamStats
    from .abc import Sink

__all__ = ("LoopPump", "Pump")

TURN_BYTES = 1 << 20
TURN_SECONDS = 0.001
CHUNK = 1 << 16
IDLE_SECONDS = 10.0
TERMINAL_REST = 1 << 16
"""What a terminal may still hold for us after its process has exited."""


class Pump(ABC):
    """One stream on its way from a source to a sink.

    Args:
        stream: ``"stdin"``, ``"stdout"`` or ``"stderr"``.
        source: Read from here; closed at the end.
        sink: Written here; the caller closes it when :attr:`done` is set.
        poller: The loop's.
        hub: Where failures are reported.
        then: Called once on the loop when the pump has ended.
    """

    def __init__(
        self,
        stream: str,
        source: Source,
        sink: Sink,
        *,
        poller: Poller,
        hub: EventHub,
        then: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.source = source
        self.sink = sink
        self.counters = Counters()
        self.taps: list[RingSink] = []
        self.done = anyio.Event()
        self.error: BaseException | None = None
        self.eof = False
        self.left = False  # somebody could still write when the stream was ended
        self._poller = poller
        self._hub = hub
        self._then = then
        self._blocked_at: float | None = None
        self._mark: int | None = None
        self._stop_at_mark = False
        self._marked = anyio.Event()
        self._ending = False  # the writers have exited: nothing now means nothing ever

    @abstractmethod
    def start(self) -> None:
        """Begin to move bytes; what is there already moves soon."""

    @abstractmethod
    def retry(self) -> None:
        """The sink may take bytes again (it was reopened)."""

    # -- the end of the process -------------------------------------------------------

    def mark(self, *, stop: bool) -> None:
        """Everything in the source up to now belongs to the process that has exited.

        Args:
            stop: End the stream behind it (a background writer may never stop), rather
                than go on until EOF.
        """
        if self.done.is_set():
            return
        waiting = self.source.waiting()
        self._mark = self.counters.bytes_in + (TERMINAL_REST if waiting is None else waiting)
        if self._marked.is_set():  # for an earlier drain, which kept the stream open
            self._marked = anyio.Event()
        self._stop_at_mark = stop
        self._ending = waiting is None
        self._resume()

    def expect_end(self) -> None:
        """The process has exited: a terminal that has hung up will not be opened again."""
        if not self.done.is_set() and self.source.expect_end():
            self._resume()

    @property
    def reached(self) -> bool:
        """Whether what was before the mark, or before EOF, has reached the sink."""
        return self.error is None and (self.eof or self._marked.is_set())

    async def wait_marked(self) -> None:
        """Until the bytes before the mark have reached the sink, or the stream has ended."""
        if not self.done.is_set():
            await self._marked.wait()

    def exhausted(self) -> bool:
        """Whether all that is to come is the end: no byte is left, and nobody can write one."""
        return self.source.waiting() == 0 and not self.source.holders() and not self._held()

    def _pass_mark(self) -> None:
        self._mark = None
        self._ending = False
        self._marked.set()
        if self._stop_at_mark:
            self._finish()

    def _run_dry(self) -> None:
        """Nothing to read now: for a terminal whose process has exited, that is the mark."""
        if self._ending:
            self._pass_mark()

    def end(self) -> None:
        """End the stream where it is; what it holds and what waits for it is dropped."""
        if self.done.is_set():
            return
        # A holder may keep adding; what is there now is what the process left behind.
        waiting = self.source.waiting() or 0
        self.counters.bytes_in += waiting
        if lost := self._held() + waiting:
            self._drop(lost, "the sink did not take it in time")
        self._finish()

    @abstractmethod
    def _held(self) -> int:
        """Bytes read and not yet taken by the sink."""

    def look_again(self) -> None:
        """There is something new about the source."""
        self._resume()

    @abstractmethod
    def _resume(self) -> None:
        """Look again at once."""

    def discard(self) -> None:
        """Go on reading, for a sink that is lost: everything counts as dropped."""
        self.sink = NullSink(count=True)
        self.retry()

    def stats(self) -> StreamStats:
        """The figures as they are now."""
        stats = self.counters.snapshot()
        if self._blocked_at is not None:
            stats = attrs.evolve(stats, blocked=stats.blocked + _sys.monotonic() - self._blocked_at)
        if isinstance(self.sink, RingSink):
            # What a ring takes has not arrived yet, and may never do so.
            ring = self.sink
            passed = stats.bytes_in - self._held() - ring.waiting
            stats = attrs.evolve(stats, bytes_out=ring.delivered, dropped=passed - ring.delivered)
        return stats

    def _drop(self, count: int, reason: str) -> None:
        self.counters.dropped += count
        self._hub.emit(BytesDropped(self.stream, count, reason))

    def fail(self, error: BaseException) -> None:
        """End the stream with *error*; the child gets EPIPE."""
        if self.done.is_set():
            return
        self.error = error
        if lost := self._held():
            self.counters.dropped += lost
        self._hub.emit(SinkFailed(self.stream, error, final=True))
        self._finish()

    def _finish(self) -> None:
        if self.done.is_set():
            return
        self._stop()
        self.left = not self.eof and self.source.holders()
        self.source.close()
        self.done.set()
        self._marked.set()
        self._then()

    @abstractmethod
    def _stop(self) -> None:
        """Leave the poller."""

    def __repr__(self) -> str:
        state = "ended" if self.done.is_set() else "running"
        return f"<{type(self).__name__} {self.stream} {state} -> {self.sink!r}>"


class LoopPump(Pump):
    """A pump whose sink never waits.

    It begins *quiet*: the source sits in the loop and chunks of less than a page are
    copied.  It turns *busy* when a page comes at once, when the sink is full or when a turn
    uses up its budget: then both ends sit in the private epoll, whole pages are spliced and
    the pipes grow.  Ten idle seconds make it quiet again.
    """

    def __init__(
        self,
        stream: str,
        source: Source,
        sink: Sink,
        *,
        poller: Poller,
        hub: EventHub,
        then: Callable[[], None],
    ) -> None:
        super().__init__(stream, source, sink, poller=poller, hub=hub, then=then)
        self._pending: memoryview | None = None
        self._queued = False
        self._busy = False
        self._direct: Watch | None = None
        self._source_watch: Watch | None = None
        self._sink_watch: Watch | None = None
        self._hold: Watch | None = None
        self._calm: Timer | None = None
        self._seen = 0
        self._growth: list[Growth | Share] = []
        self._haste = Haste()
        self._pace = Pace()
        self._muted = False
        self._full = False  # the sink has no room
        self._spliced = False  # and this turn has not seen the source empty
        self._append = self._append_to(sink)

    def start(self) -> None:
        self._hold = self._poller.hold()
        self._listen()
        self._resume()

    def _listen(self) -> None:
        if self._calm is None and self.source.spliceable and self._poller.direct:
            self._direct = self._poller.listen(self.source.fd.fileno(), self._on_direct)
        else:
            self._watch_source()

    def retry(self) -> None:
        self._unwatch_sink()
        self._append = self._append_to(self.sink)
        self._resume()

    def _append_to(self, sink: Sink) -> Callable[[bytes], int | None] | None:
        """The short way from pipe to pipe; None where there is no such way."""
        return sink.append if self.source.spliceable and isinstance(sink, PipeSink) else None

    def _held(self) -> int:
        return len(self._pending) if self._pending is not None else 0

    # -- readiness ----------------------------------------------------------------------

    def _on_direct(self, _events: int) -> None:
        if not self._queued and not self._answer():
            self._turn()

    def _answer(self) -> bool:
        """A turn of a conversation: less than a page from pipe to pipe, and nothing else to see.

        A quarter of the time that :meth:`_turn` takes, which is what latency is made of.
        Returns False when there is more to do, for :meth:`_turn`.
        """
        pace = self._pace
        if (
            self._busy
            or self._pending is not None
            or self._mark is not None
            or self.taps
            or pace.left < 2
            or (append := self._append) is None
        ):
            return False
        try:
            data = _sys.read(self.source.fd._fd, _sys.PAGE)  # (-1 if closed: EBADF, nobody's)
        except BlockingIOError:
            return False
        except OSError as error:
            self.fail(error)
            return True
        size = len(data)
        if not size:
            return False
        pace.left -= 1
        counters = self.counters
        counters.bytes_in += size
        try:
            count = append(data) or 0
        except Exception as error:  # noqa: BLE001 - as in _turn
            self._pending = memoryview(data)
            self.fail(error)
            return True
        counters.writes += 1
        counters.path = "copy"
        counters.bytes_out += count
        if count == size < _sys.PAGE:
            return True
        self._busy = size == _sys.PAGE
        if count < size:
            self._pending = memoryview(data)[count:]
        return False

    def _on_source(self, events: int) -> None:
        if events & _sys.EPOLLHUP:
            self.source.hang_up()
        if events != _sys.EPOLLIN or self._queued or not self._answer():
            self._resume()

    def _on_sink(self, _events: int) -> None:
        self._resume()

    def _resume(self) -> None:
        if not self._queued and not self.done.is_set():
            self._queued = True
            self._poller.soon(self._queued_turn)

    def _queued_turn(self) -> None:
        self._queued = False
        self._turn()

    def _watch_source(self) -> None:
        self._source_watch = self._poller.watch(
            self.source.fd.fileno(), _sys.EPOLLIN, self._on_source
        )

    def _watch_sink(self) -> None:
        # A level-triggered source would call for as long as the sink is full.
        self._go_busy()
        if self._sink_watch is None:
            self._sink_watch = self._poller.watch(self.sink.fileno(), _sys.EPOLLOUT, self._on_sink)

    def _unwatch_sink(self) -> None:
        if self._sink_watch is not None:
            self._sink_watch.close()
            self._sink_watch = None

    # -- turns --------------------------------------------------------------------------

    def _turn(self) -> None:
        if self.done.is_set():
            return
        begun = _sys.perf_counter()
        before = self.counters.bytes_in
        self._full = self._spliced = False
        try:
            while self._step():
                if (
                    self.counters.bytes_in - before >= TURN_BYTES
                    or _sys.perf_counter() - begun > TURN_SECONDS
                ):
                    self._go_busy()
                    self._resume()
                    break
            if not self.done.is_set():
                self._rest(self.counters.bytes_in - before, begun)
        except Exception as error:  # noqa: BLE001 - whatever a sink raises ends its stream
            self.fail(error)

    def _rest(self, moved: int, begun: float) -> None:
        """Wait for what makes another turn worth while."""
        if self._haste.proves(self.counters.bytes_in, begun):
            self._grow()
        if self._queued:
            return
        if self._calm is None and moved < _sys.PAGE:
            self._busy = False  # one large chunk among small ones is no traffic
        trial = not self._pace.paused
        if self._pace.pays(self.counters.bytes_in, begun):
            if self._poller.pause(self._resume):
                if not trial:
                    self._go_busy()
                self._mute()
                return
            self._pace.paused = False  # there is no timer for it
        if self._full:
            self._watch_sink()
        if self._muted:
            self._unmute()
        elif self._spliced and not self._full and (self.source.hung_up or self.source.waiting()):
            # A writer that sleeps in a full pipe goes on as soon as there is any room, and makes
            # an edge only if it finds the pipe empty.  So it has to be seen empty; and the last
            # writer's goodbye may have made its edge already.
            self._resume()

    def _mute(self) -> None:
        """Hear nothing of either end for the time of a pause."""
        if self._muted:
            return
        self._muted = True
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        for watch in (self._source_watch, self._sink_watch):
            if watch is not None:
                watch.arm(on=False)

    def _unmute(self) -> None:
        self._muted = False
        if self._source_watch is None:
            self._listen()
        for watch in (self._source_watch, self._sink_watch):
            if watch is not None:
                watch.arm()

    def _step(self) -> bool:
        """Move one chunk; whether there may be more to do at once."""
        if self._pending is not None:
            return self._put(self._pending)
        if self._mark is not None and self.counters.bytes_in >= self._mark:
            self._pass_mark()
            if self.done.is_set():
                return False
        if self._busy and self._spliceable():
            waiting = self.source.waiting() or 0
            sink = cast("PipeSink", self.sink)
            if waiting >= _sys.PAGE and sink.splice_ready():
                return self._splice(sink, waiting)
        size = self._within_mark(CHUNK if self._busy else _sys.PAGE)
        data = self.source.read(size)
        if data is None:
            self._run_dry()
            return False
        if not data:
            self.eof = True
            self.sink.flush()
            self._finish()
            return False
        self.counters.bytes_in += len(data)
        for tap in self.taps:
            tap.write([data])
        if len(data) == _sys.PAGE:
            self._busy = True
        if not self._put(memoryview(data)):
            return False
        if self._held() or self._mark is not None:
            return True  # no edge is to come for what the sink left, nor for the mark
        if self._direct is None:
            return not self.source.emptied_by(len(data), size)
        # Level-triggered: the loop calls again if there is more, which costs less than
        # finding out that there is nothing.
        return len(data) == size

    def _pass_mark(self) -> None:
        if self._stop_at_mark:
            self.sink.flush()
        super()._pass_mark()

    def _within_mark(self, size: int) -> int:
        if self._mark is None or not self._stop_at_mark:
            return size
        return min(size, self._mark - self.counters.bytes_in)

    def _put(self, view: memoryview) -> bool:
        self._pending = view  # before anything can raise
        dropped = self.sink.dropped
        count = self.sink.write([view])
        if count is None:
            self._blocked()
            return False
        counters = self.counters
        counters.writes += 1
        counters.path = "copy"
        lost = self.sink.dropped - dropped
        counters.dropped += lost
        counters.bytes_out += count - lost
        self._unblocked()
        self._pending = view[count:] if count < len(view) else None
        return True

    def _spliceable(self) -> bool:
        # The rest before a mark is copied: spliced buffers use up the slots of a FIFO
        # that nobody may be reading any more.
        return self._append is not None and not self.taps and self._mark is None

    def _splice(self, sink: PipeSink, waiting: int) -> bool:
        moved = sink.splice_from(self.source.fd.fileno(), min(waiting, TURN_BYTES))
        if moved is None:
            # There was something to take, so it is the sink that has no room.
            self._blocked()
            return False
        counters = self.counters
        counters.bytes_in += moved
        counters.bytes_out += moved
        counters.writes += 1
        counters.path = "splice"
        self._unblocked()
        self._spliced = True
        return False  # whatever has come meanwhile, a pause may gather more

    def _blocked(self) -> None:
        self._full = True
        if self._blocked_at is None:
            self._blocked_at = _sys.monotonic()

    def _unblocked(self) -> None:
        if self._blocked_at is not None:
            self.counters.blocked += _sys.monotonic() - self._blocked_at
            self._blocked_at = None

    # -- quiet and busy -----------------------------------------------------------------

    def _go_busy(self) -> None:
        self._busy = True
        if self._calm is not None:
            return
        self._seen = self.counters.bytes_in
        self._calm = self._poller.later(IDLE_SECONDS, self._calm_down)
        budget = self._poller.pipes
        self._growth = [Growth(self.source.fd, budget)] if self.source.spliceable else []
        if isinstance(self.sink, PipeSink):
            self._growth.append(self.sink.growth(budget))
        if self._direct is not None:
            self._direct.close()
            self._direct = None
            self._listen()

    def _grow(self) -> None:
        self._go_busy()
        grown = [growth.grow() for growth in self._growth]
        if any(grown):
            self._pace = Pace()  # there is more to gather

    def _shrink(self) -> None:
        for growth in self._growth:
            growth.shrink()
        self._growth = []

    def _calm_down(self) -> None:
        self._calm = None
        if self.counters.bytes_in != self._seen or self._blocked_at is not None:
            self._seen = self.counters.bytes_in
            self._calm = self._poller.later(IDLE_SECONDS, self._calm_down)
            return
        self._busy = False
        self._shrink()
        self._unwatch_sink()
        if self._source_watch is not None:
            self._source_watch.close()
            self._source_watch = None
            self._muted = False
            self._listen()

    def _stop(self) -> None:
        self._unblocked()
        for watch in (self._direct, self._source_watch, self._sink_watch, self._hold):
            if watch is not None:
                watch.close()
        if self._calm is not None:
            self._calm.cancel()
            self._shrink()
        self._direct = self._source_watch = self._sink_watch = self._hold = self._calm = None
