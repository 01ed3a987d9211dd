"""The few threads that write to what can block: regular files, and drivers.

epoll cannot wait for a file, and one write of five bytes can take seconds on a file system
that is being frozen for a snapshot.  So the loop hands such writes over.  Each sink is a
:class:`Lane`: one job of it runs at a time, in order.  A lane that is stuck holds one
thread and nothing else: the pool grows by a thread for it.

The pool belongs to a loop and lives as long as it has lanes.  Idle threads are joined when
the last lane closes; one that the kernel does not let go is left to end by itself.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import RunVar

from . import _sys
from ._events import logger
from ._poller import Poller

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._poller import Timer, Watch

__all__ = ("FilePool", "Lane")

T = TypeVar("T")
Job: TypeAlias = "Callable[[bytearray], None]"

THREADS = 3
"""Threads that work; those that are stuck come on top."""
MOST_THREADS = 64
SCRATCH = 1 << 18
STUCK = 1.0
"""Seconds after which a job counts as stuck."""

_current: RunVar[FilePool | None] = RunVar("pyshimio_filepool", None)


class Lane:
    """The jobs of one sink, one after the other.

    Args:
        name: For the log.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._pool = FilePool.current()
        self.jobs: deque[Job] = deque()
        self.running = False
        self.closed = False
        self._pool.join(self)

    def submit(self, job: Job) -> None:
        """Run *job* in a thread, after those before it, with that thread's scratch buffer."""
        self._pool.submit(self, job)

    def post(self, callback: Callable[[], None]) -> None:
        """From a job: call *callback* on the loop."""
        self._pool.post(callback)

    async def call(self, function: Callable[[], T], orphan: Callable[[T], object]) -> T:
        """Run *function* in a thread and wait for what it returns or raises.

        Args:
            function: May block.
            orphan: Gets the result when the caller was cancelled meanwhile.
        """
        done = anyio.Event()
        results: list[T] = []
        errors: list[BaseException] = []
        waiting = True

        def job(_scratch: bytearray) -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - raised below, in the caller
                errors.append(error)
            self.post(arrived)

        def arrived() -> None:
            if waiting:
                done.set()
            elif results:
                orphan(results[0])

        self.submit(job)
        try:
            await done.wait()
        finally:
            waiting = done.is_set()
        if errors:
            raise errors[0]
        return results[0]

    def close(self) -> None:
        """Take no more jobs.  Those that were submitted still run.  Idempotent."""
        if not self.closed:
            self.closed = True
            self._pool.leave(self)


class FilePool:
    """The threads; use a :class:`Lane`."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._hold: Watch | None = None
        self._lanes: set[Lane] = set()
        self._waiting: deque[Lane] = deque()
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._busy: dict[threading.Thread, tuple[Lane, float]] = {}
        self._idle = 0
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
            idle = [thread for thread in self._threads if thread not in self._busy]
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
            if self._idle:
                self._changed.notify()
            elif len(self._threads) < THREADS:
                self._start_thread()
        if self._check is None:
            self._check = self._poller.later(STUCK, self._look)

    def post(self, callback: Callable[[], None]) -> None:
        # Under the lock, so that leave() cannot close the poller's wake-up under it.
        with self._changed:
            if not self._stopping:
                self._poller.post(callback)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="pyshimio-file", daemon=True)
        self._threads.add(thread)
        self._idle += 1
        thread.start()

    def _look(self) -> None:
        """Once a second while there is work: say what is stuck, and make up for it."""
        self._check = None
        now = _sys.monotonic()
        with self._changed:
            stuck = [lane for lane, since in self._busy.values() if now - since >= STUCK]
            wanted = min(THREADS + len(stuck), MOST_THREADS)
            while self._waiting and not self._idle and len(self._threads) < wanted:
                self._start_thread()
            more = bool(self._busy or self._waiting)
        for lane in stuck:
            logger.warning("%s has not taken a write for more than %s s", lane.name, STUCK)
        if more and self._lanes:
            self._check = self._poller.later(STUCK, self._look)

    def _work(self) -> None:
        thread = threading.current_thread()
        scratch = bytearray(SCRATCH)
        with self._changed:
            while True:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if not self._waiting:
                    break
                lane = self._waiting.popleft()
                job = lane.jobs.popleft()
                self._idle -= 1
                self._busy[thread] = (lane, _sys.monotonic())
                self._changed.release()
                try:
                    job(scratch)
                except Exception:
                    logger.exception("a job for %s raised", lane.name)
                finally:
                    self._changed.acquire()
                    del self._busy[thread]
                    self._idle += 1
                if lane.jobs:
                    self._waiting.append(lane)
                else:
                    lane.running = False
            self._threads.discard(thread)
            self._idle -= 1


