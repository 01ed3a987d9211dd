"""The few threads that write to what can block: regular files, and drivers.

epoll cannot wait for a file, and one write of five bytes can take seconds on a file system
that is being frozen for a snapshot.  So the loop hands such writes over.  Each sink is a
:class:`Lane`: one job of it runs at a time, in order.  A lane that is stuck holds one
thread and nothing else: the pool grows by a thread for it.  When several lanes of one file
system are stuck, the others of it wait, so that it cannot take every thread there may be.

The pool belongs to a loop and lives as long as it has lanes.  Idle threads are joined when
the last lane closes; one that the kernel does not let go is left to end by itself.
"""

from __future__ import annotations

import errno
import threading
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar
from weakref import ref

import anyio
import attrs

from . import _sys
from ._events import logger
from ._poller import LoopVar, Poller

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._poller import Timer, Watch

__all__ = ("FilePool", "Lane")

T = TypeVar("T")
Job: TypeAlias = "Callable[[bytearray], None]"

THREADS = 3
"""Threads that work; those that are stuck come on top."""
MOST_THREADS = 64
MOST_STUCK = 8
"""Threads that one file system may hold, before its other lanes are no longer tried."""
SCRATCH = 1 << 19
STUCK = 1.0
"""Seconds after which a job counts as stuck."""

_current: LoopVar[FilePool] = LoopVar()


class Lane:
    """The jobs of one sink, one after the other.

    Args:
        name: For the log.
        long: A job may well take longer than a second, so it is not said when one does.

    Attributes:
        device: The file system that its jobs wait for, once that is known.
    """

    def __init__(self, name: str, *, long: bool = False) -> None:
        self.name = name
        self.long = long
        self.device: int | None = None
        self._pool = FilePool.current()
        self.jobs: deque[Job] = deque()
        self._calls: set[_Call[Any]] = set()
        self.running = False
        self.closed: bool = False
        self._pool.join(self)

    def submit(self, job: Job) -> None:
        """Run *job* in a thread, after those before it, with that thread's scratch buffer.

        Raises:
            ClosedResourceError: The lane is closed.
            OSError: The kernel gives us no thread.
        """
        if self.closed:
            raise anyio.ClosedResourceError
        self._pool.submit(self, job)

    def wanted(self) -> bool:
        """From a job: whether another lane waits for a thread."""
        return self._pool.wanted()

    def post(self, callback: Callable[[], None]) -> None:
        """From a job: call *callback* on the loop, unless the last lane is closed by then."""
        self._pool.post(callback)

    async def call(self, function: Callable[[], T], orphan: Callable[[T], object]) -> T:
        """Run *function* in a thread and wait for what it returns or raises.

        Args:
            function: May block.
            orphan: Gets the result when the caller was cancelled meanwhile; on the loop or
                in the thread.

        Raises:
            ClosedResourceError: The lane was closed meanwhile; *orphan* gets the result.
        """
        call = _Call(self, function, orphan)
        self.submit(call.run)
        self._calls.add(call)
        try:
            await call.done.wait()
            return call.take()
        finally:
            self._calls.discard(call)
            call.leave()

    def close(self) -> None:
        """Take no more jobs.  Those that were submitted still run.  Idempotent."""
        if not self.closed:
            self.closed = True
            for call in self._calls:
                call.done.set()
            self._pool.leave(self)


class _Call(Generic[T]):
    """One :meth:`Lane.call`: its caller may leave before its thread is through."""

    def __init__(
        self, lane: Lane, function: Callable[[], T], orphan: Callable[[T], object]
    ) -> None:
        self.done = anyio.Event()
        self._lane = lane
        self._function = function
        self._orphan = orphan
        self._lock = threading.Lock()
        self._left = False
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self, _scratch: bytearray) -> None:
        """In a thread."""
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            self._error = error
        else:
            with self._lock:
                self._results.append(result)
                left = self._left
            if left:
                self.leave()
        self._lane.post(self.done.set)

    def take(self) -> T:
        """What the function returned."""
        with self._lock:
            if self._results:
                return self._results.pop()
        raise self._error or anyio.ClosedResourceError

    def leave(self) -> None:
        """The caller waits no longer: what it has not taken is an orphan."""
        with self._lock:
            self._left = True
            orphans, self._results = self._results, []
        for result in orphans:
            self._orphan(result)


@attrs.define(eq=False)
class _Turn:
    """A thread's work on one job."""

    lane: Lane
    device: int | None
    since: float
    told: bool = False


class FilePool:
    """The threads; use a :class:`Lane`."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._hold: Watch | None = None
        self._lanes: set[Lane] = set()
        self._waiting: deque[Lane] = deque()
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._busy: dict[threading.Thread, _Turn] = {}
        self._idle = 0
        self._stuck: Counter[int | None] = Counter()  # turns of each device that are stuck
        self._check: Timer | None = None
        self._stopping = False

    @staticmethod
    def current() -> FilePool:
        """The pool of the running loop, made when there is none."""
        pool = _current.get()
        if pool is None:
            pool = FilePool(Poller.current())
        return pool

    def join(self, lane: Lane) -> None:
        """One more lane."""
        if not self._lanes:
            self._hold = self._poller.hold()
            self._stopping = False
            _current.set(self)
        self._lanes.add(lane)

    def leave(self, lane: Lane) -> None:
        """One lane less; with the last one the threads end."""
        self._lanes.discard(lane)
        if self._lanes:
            return
        with suppress(RuntimeError):  # no loop runs any more
            _current.set(None)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            # With a job still waiting, each of them may be the one to begin it.
            idle = () if self._waiting else self._threads - self._busy.keys()
        # A thread that is between two jobs ends in microseconds; one in a job has what it
        # needs to end by itself, and nobody waits for it.
        for thread in idle:
            thread.join()
        if self._check is not None:
            self._check.cancel()
            self._check = None
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    def submit(self, lane: Lane, job: Job) -> None:
        with self._changed:
            lane.jobs.append(job)
            if lane.running:
                return
            lane.running = True
            self._waiting.append(lane)
            # Those that were notified before and have not begun yet count as idle, too.
            if self._idle >= self._count_ready():
                self._changed.notify()
            elif len(self._threads) < THREADS and not (self._start_thread() or self._threads):
                # Nobody is there to run it, nor to be waited for.
                self._waiting.remove(lane)
                lane.jobs.remove(job)
                lane.running = False
                raise OSError(errno.EAGAIN, "the kernel gives us no thread to write a file")
        if self._check is None:
            self._check = self._poller.later(STUCK, self._look)

    def wanted(self) -> bool:
        with self._changed:
            return bool(self._count_ready()) and not self._idle

    def post(self, callback: Callable[[], None]) -> None:
        # Under the lock, so that leave() cannot close the poller's wake-up under it.
        with self._changed:
            if not self._stopping:
                self._poller.post(callback)

    def _start_thread(self) -> bool:
        thread = threading.Thread(
            target=_serve, args=(ref(self), self._changed), name="pyshimio-file", daemon=True
        )
        self._threads.add(thread)
        self._idle += 1
        try:
            thread.start()
        except RuntimeError:  # a limit of the user or of the control group
            self._threads.discard(thread)
            self._idle -= 1
            return False
        return True

    def _look(self) -> None:
        """Once a second while there is work: say what is stuck, and make up for it."""
        self._check = None
        now = _sys.monotonic()
        with self._changed:
            stuck = [turn for turn in self._busy.values() if now - turn.since >= STUCK]
            wanted = min(THREADS + len(stuck), MOST_THREADS)
            news = [turn for turn in stuck if not turn.told]
            for turn in news:
                turn.told = True
                self._stuck[turn.device] += 1
            while self._idle < self._count_ready() and len(self._threads) < wanted:
                if not self._start_thread():
                    break
            more = bool(self._busy or self._waiting)
        for turn in news:
            if turn.lane.long:
                continue
            logger.warning("%s is stuck: nothing moves for %s s", turn.lane.name, STUCK)
        if more and self._lanes:
            self._check = self._poller.later(STUCK, self._look)

    def _ready(self, lane: Lane) -> bool:
        """Whether it is worth a thread, which its file system may not give back for long."""
        return lane.device is None or self._stuck[lane.device] < MOST_STUCK

    def _count_ready(self) -> int:
        return sum(map(self._ready, self._waiting)) if self._stuck else len(self._waiting)

    def work(self, scratch: bytearray) -> bool:
        """In a thread, which holds the condition: do one job, if one waits; whether to go on."""
        thread = threading.current_thread()
        lane = next(filter(self._ready, self._waiting), None)
        if lane is not None:
            self._waiting.remove(lane)
            job = lane.jobs.popleft()
            self._idle -= 1
            turn = self._busy[thread] = _Turn(lane, lane.device, _sys.monotonic())
            self._changed.release()
            try:
                job(scratch)
            except Exception:  # noqa: BLE001 - logged, and the thread serves the next lane
                logger.exception("a job for %s raised", lane.name)
            finally:
                self._changed.acquire()
                del self._busy[thread]
                self._idle += 1
                if turn.told:
                    self._stuck -= Counter((turn.device,))  # (which keeps no zeros)
                    self._changed.notify_all()  # for those that were held back
            if lane.jobs:
                self._waiting.append(lane)
            else:
                lane.running = False
        elif self._stopping and not self._waiting:
            self._threads.discard(thread)
            self._idle -= 1
            return False
        return True

    @property
    def waits(self) -> bool:
        """Whether a thread has nothing to do, for now."""
        return not self._count_ready() and not (self._stopping and not self._waiting)

    def __del__(self) -> None:
        # Its loop has ended with lanes open, and nobody holds them any more.
        with self._changed:
            self._stopping = True
            self._changed.notify_all()


def _serve(pool: ref[FilePool], changed: threading.Condition) -> None:
    """What a thread does; while it waits it does not keep the pool alive."""
    scratch = bytearray(SCRATCH)
    with changed:
        while (current := pool()) is not None and current.work(scratch):
            waits = current.waits
            del current
            if waits:
                changed.wait()
