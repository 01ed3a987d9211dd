"""Readiness for the descriptors of one event loop, by callback.

Awaiting readiness costs a task switch and two epoll changes for each chunk; a callback
costs neither, and that is the difference between 26 and 103 µs for an echo.  A quiet
descriptor sits in the loop directly (:meth:`Poller.listen`).  A busy one, and every
terminal, sits in a private edge-triggered epoll whose own descriptor sits in the loop
(:meth:`Poller.watch`): it is registered once, and a hung-up terminal cannot spin.

There is one poller for each running loop; it exists from its first registration to its
last.  On trio one system task waits for the private epoll.  Callbacks run on the loop,
must not block, and must not raise; one that does is logged and the poller goes on.
"""

from __future__ import annotations

import heapq
import itertools
import math
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from . import _sys
from ._events import logger
from ._pipesize import PipeBudget

if TYPE_CHECKING:
    import asyncio
    import select
    from collections.abc import Callable

    import trio

__all__ = ("LoopVar", "Poller", "Timer", "Watch", "on_trio")

T = TypeVar("T")

TURNS = 0.002
"""Seconds of ready callbacks before the loop gets its turn again."""
PAUSE = 0.00015
"""Seconds of :meth:`Poller.pause`: long enough to gather, too short to fill a large pipe."""


class LoopVar(Generic[T]):
    """One value for each running loop, in its callbacks as well as in its tasks; held weakly.

    anyio's RunVar asks sniffio where it is, and that knows tasks alone: a callback of a loop
    that anyio did not start seems to run nowhere.
    """

    def __init__(self) -> None:
        # A value knows its loop, so the one must not keep the other alive when both are left.
        self._values: WeakKeyDictionary[object, ref[T]] = WeakKeyDictionary()

    def get(self) -> T | None:
        """The running loop's value; None when it has none.

        Raises:
            RuntimeError: No loop runs.
        """
        value = self._values.get(_running_loop())
        return None if value is None else value()

    def set(self, value: T | None) -> None:
        """Give the running loop a value, or take it away.

        Raises:
            RuntimeError: No loop runs.
        """
        loop = _running_loop()
        if value is None:
            self._values.pop(loop, None)
        else:
            self._values[loop] = ref(value)


_current: LoopVar[Poller] = LoopVar()


class Watch:
    """One registration; :meth:`close` it before the descriptor is closed."""

    __slots__ = ("_close", "_modify", "callback")

    def __init__(
        self,
        callback: Callable[[int], None],
        close: Callable[[], None],
        modify: Callable[[bool], None] | None = None,
    ) -> None:
        self.callback: Callable[[int], None] = callback
        self._close: Callable[[], None] | None = close
        self._modify = modify

    def arm(self, *, on: bool = True) -> None:
        """Have callbacks again, at once for what is so now; or none but a hang-up's."""
        if self._close is not None and self._modify is not None:
            self._modify(on)

    def close(self) -> None:
        """No more callbacks from here on.  Idempotent."""
        close, self._close = self._close, None
        if close is not None:
            close()


class Timer:
    """A callback that comes once, later, unless it is cancelled."""

    __slots__ = ("_callback", "_cancel")

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback
        self._cancel: Callable[[], None] = _nothing

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            _guard(callback)

    def cancel(self) -> None:
        """The callback will not come.  Idempotent."""
        if self._callback is not None:
            self._callback = None
            self._cancel()


class Poller(ABC):
    """What the pumps of one loop share; get it with :meth:`current`."""

    direct: bool
    """Whether :meth:`listen` is level-triggered here."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watches: dict[int, Watch] = {}
        self._ready: deque[Callable[[], None]] = deque()
        self._kicked = False
        self._posted: deque[Callable[[], None]] = deque()
        self._wakeup = -1
        self._paused: list[Callable[[], None]] = []
        self._pauses = -1
        self._users = 0
        self._post_lock = threading.Lock()
        self._pid = _sys.getpid()
        self.pipes: PipeBudget = PipeBudget()

    @staticmethod
    def current() -> Poller:
        """The poller of the running loop, made when there is none."""
        poller = _current.get()
        if poller is None:
            poller = _TrioPoller() if on_trio() else _AsyncioPoller()
        return poller

    # -- registrations ------------------------------------------------------------------

    def watch(
        self, fd: int, mask: int, callback: Callable[[int], None], *, once: bool = False
    ) -> Watch:
        """Call *callback* with the events of *fd* at each edge, beginning with what is so now.

        Args:
            fd: A descriptor that can be waited for; stays the caller's.
            mask: ``EPOLLIN``, ``EPOLLOUT`` or both; errors and hang-ups always count.
            callback: Gets the events as epoll reports them.
            once: Only one, until :meth:`Watch.arm` asks for the next.

        Raises:
            PermissionError: The descriptor cannot be waited for (a regular file).
        """
        epoll = self._acquire()
        mask |= _sys.EPOLLET | (_sys.EPOLLONESHOT if once else 0)
        try:
            _sys.epoll_add(epoll, fd, mask)
        except BaseException:
            self._release()
            raise
        watch = self._watches[fd] = Watch(
            callback,
            lambda: self._unwatch(epoll, fd),
            lambda on: self._rearm(epoll, fd, mask if on else _sys.EPOLLET),
        )
        return watch

    def _unwatch(self, epoll: select.epoll, fd: int) -> None:
        del self._watches[fd]
        if not self._forked():
            _sys.epoll_remove(epoll, fd)
        self._release()

    def _rearm(self, epoll: select.epoll, fd: int, mask: int) -> None:
        if not self._forked():
            _sys.epoll_modify(epoll, fd, mask)

    def _forked(self) -> bool:
        """Whether this is a copy in a forked process: the epolls are still its parent's, too."""
        return _sys.getpid() != self._pid

    def hold(self) -> Watch:
        """Keep the poller open without a descriptor, as :meth:`post` and :meth:`soon` need."""
        self._acquire()
        return Watch(_ignore, self._release)

    @abstractmethod
    def listen(self, fd: int, callback: Callable[[int], None]) -> Watch:
        """Like ``watch(fd, EPOLLIN, …)``, but straight in the loop where the loop allows it.

        Then it is level-triggered: the callback comes again until nothing is to be read.
        """

    # -- turns --------------------------------------------------------------------------

    def soon(self, turn: Callable[[], None]) -> None:
        """Call *turn* once, behind everything that is ready already."""
        self._ready.append(turn)
        if not self._kicked:
            self._kicked = True
            self._kick()

    def _run_ready(self) -> None:
        """Run turns for a bounded time, then let the loop do its other work."""
        self._kicked = False
        until = _sys.perf_counter() + TURNS
        for _ in range(len(self._ready)):
            if not self._ready or _sys.perf_counter() > until:
                break
            _guard(self._ready.popleft())
        if self._ready and not self._kicked:
            self._kicked = True
            self._kick()

    def pause(self, turn: Callable[[], None]) -> bool:
        """Call *turn* within 150 µs, which is finer than a loop's own timers; False: cannot."""
        if self._pauses < 0 and not self._open_pauses():
            return False
        if not self._paused:
            _sys.timerfd_set(self._pauses, PAUSE)
        self._paused.append(turn)
        return True

    def _open_pauses(self) -> bool:
        assert self._epoll is not None
        try:
            self._pauses = _sys.timerfd()
        except (ImportError, AttributeError, OSError):
            return False
        try:
            _sys.epoll_add(self._epoll, self._pauses, _sys.EPOLLIN | _sys.EPOLLET)
        except OSError:
            pauses, self._pauses = self._pauses, -1
            with suppress(OSError):
                _sys.close(pauses)
            return False
        return True

    @abstractmethod
    def _kick(self) -> None:
        """Have :meth:`_run_ready` called soon."""

    @abstractmethod
    def later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call *callback* after *delay* seconds."""

    def post(self, callback: Callable[[], None]) -> None:
        """Call *callback* on the loop; the one method that other threads may use.

        The poller must be held open meanwhile (:meth:`hold`).
        """
        self._posted.append(callback)
        with self._post_lock:  # or the number might be somebody else's by now
            if self._wakeup >= 0:
                _sys.eventfd_set(self._wakeup)

    # -- the private epoll --------------------------------------------------------------

    def _poll(self) -> None:
        """Dispatch every edge that the private epoll has, and give the ready ones a turn."""
        if self._epoll is None:
            return
        # The turns come below, without another round of the loop, unless they are to come anyway:
        # each round would add one more, and the loop would hardly get its turn again.
        coming, self._kicked = self._kicked, True
        for fd, events in _sys.epoll_wait(self._epoll):
            if fd == self._wakeup:
                _sys.eventfd_clear(fd)
                while self._posted:
                    _guard(self._posted.popleft())
            elif fd == self._pauses:
                self._ready.extend(self._paused)
                self._paused.clear()
            elif (watch := self._watches.get(fd)) is not None:
                # A number that is closed and reused while this batch is handled costs
                # its new owner one look for nothing: edges are hints.
                _guard(watch.callback, events)
        if not coming:
            self._run_ready()

    def _acquire(self) -> select.epoll:
        if self._epoll is None:
            epoll = self._epoll = _sys.epoll_create()
            try:
                self._wakeup = _sys.eventfd()
                _sys.epoll_add(epoll, self._wakeup, _sys.EPOLLIN | _sys.EPOLLET)
                self._open(epoll.fileno())
            except BaseException:
                self._discard()
                raise
            _current.set(self)
        self._users += 1
        return self._epoll

    def _release(self) -> None:
        self._users -= 1
        if not self._users and self._epoll is not None:
            self._shut(self._epoll.fileno())
            self._discard()
            # The loop must not be kept alive by a variable of its own.
            with suppress(RuntimeError):  # no loop runs any more
                if _current.get() is self:
                    _current.set(None)

    def _discard(self) -> None:
        self._ready.clear()
        self._paused.clear()
        self._kicked = False
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        self._posted.clear()
        with self._post_lock:
            fds = (self._wakeup, self._pauses)
            self._wakeup = self._pauses = -1
        for fd in fds:
            if fd >= 0:
                with suppress(OSError):  # the number is given back whatever close(2) says
                    _sys.close(fd)

    def __del__(self) -> None:
        # Left open by whoever forgot what it watched: the epoll closes itself.
        self._discard()

    @abstractmethod
    def over(self) -> bool:
        """Whether the loop has ended, so that no callback will ever come."""

    @abstractmethod
    def _open(self, epoll: int) -> None:
        """Begin to wait for the private epoll."""

    @abstractmethod
    def _shut(self, epoll: int) -> None:
        """Stop waiting for it; it is closed next."""


class _AsyncioPoller(Poller):
    """The private epoll's descriptor is one reader of the loop among others."""

    direct = True

    def __init__(self) -> None:
        super().__init__()
        import asyncio  # noqa: PLC0415 - not loaded on trio

        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()

    def listen(self, fd: int, callback: Callable[[int], None]) -> Watch:
        # (Not through _guard(): the loop logs what a callback raises, too, and goes on.)
        self._loop.add_reader(fd, callback, _sys.EPOLLIN)
        return Watch(callback, lambda: self._shut(fd))

    def _kick(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon(self._run_ready)

    def later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        timer._cancel = self._loop.call_later(delay, timer.fire).cancel
        return timer

    def over(self) -> bool:
        return self._loop.is_closed()

    def _open(self, epoll: int) -> None:
        self._loop.add_reader(epoll, self._poll)

    def _shut(self, epoll: int) -> None:
        if not self._loop.is_closed() and not self._forked():
            self._loop.remove_reader(epoll)


class _TrioPoller(Poller):
    """One system task waits for the private epoll, with the next timer as its deadline."""

    direct = False

    def __init__(self) -> None:
        super().__init__()
        import trio  # noqa: PLC0415 - not loaded on asyncio

        self._trio = trio.lowlevel
        self._new_scope = trio.CancelScope
        self._clock = trio.current_time
        self._closed = trio.ClosedResourceError
        self._life: trio.CancelScope | None = None
        self._wait: trio.CancelScope | None = None
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._over = False

    def listen(self, fd: int, callback: Callable[[int], None]) -> Watch:
        return self.watch(fd, _sys.EPOLLIN, callback)

    def _kick(self) -> None:
        if self._wait is not None:
            self._wait.cancel()

    def later(self, delay: float, callback: Callable[[], None]) -> Timer:
        hold = self.hold()

        def fire() -> None:
            try:
                callback()
            finally:
                hold.close()

        timer = Timer(fire)
        timer._cancel = hold.close
        due = self._clock() + delay
        heapq.heappush(self._timers, (due, next(self._order), timer))
        if self._wait is not None and due < self._wait.deadline:
            self._wait.deadline = due
        return timer

    def over(self) -> bool:
        return self._over

    def _open(self, epoll: int) -> None:
        self._life = self._new_scope()
        self._trio.spawn_system_task(self._run, epoll, self._life, name="pyshimio poller")

    def _shut(self, epoll: int) -> None:
        self._timers.clear()
        if self._life is not None:
            self._life.cancel()
            self._life = self._wait = None
            with suppress(RuntimeError):  # the run is over
                if not self._forked():
                    self._trio.notify_closing(epoll)

    async def _run(self, epoll: int, life: trio.CancelScope) -> None:
        # Nothing in here may raise: an exception of a system task is a crash of trio.
        try:
            with life, suppress(self._closed):
                while self._life is life:
                    with self._new_scope(deadline=self._due()) as wait:
                        # One scope for many turns: making it costs as much as a turn.
                        while self._life is life:
                            self._wait = wait
                            if self._ready:
                                await self._trio.checkpoint()
                            else:
                                await self._trio.wait_readable(epoll)
                            self._turn(life)
                            if (due := self._due()) != wait.deadline:
                                wait.deadline = due
                    self._turn(life)  # a timer is due, or somebody kicked
        finally:
            # System tasks are cancelled when the run is over, and only then.
            self._over = not life.cancel_called

    def _due(self) -> float:
        return self._timers[0][0] if self._timers else math.inf

    def _turn(self, life: trio.CancelScope) -> None:
        if self._life is not life:  # which is what cancel_called asks the clock for
            return
        self._wait = None
        self._poll()
        while self._timers and self._timers[0][0] <= self._clock():
            heapq.heappop(self._timers)[2].fire()
        if self._ready and self._life is life:
            self._run_ready()


def _guard(callback: Callable[..., None], *args: int) -> None:
    try:
        callback(*args)
    except Exception:  # noqa: BLE001 - logged, and the others are served
        logger.exception("a pyshimio callback raised; this is a bug in pyshimio or in a sink")


def _ignore(_events: int) -> None:
    pass


def _nothing() -> None:
    pass


def on_trio() -> bool:
    """Whether a trio task is what runs."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


def _running_loop() -> object:
    if on_trio():
        return sys.modules["trio"].lowlevel.current_trio_token()
    import asyncio  # noqa: PLC0415 - not loaded on trio

    return asyncio.get_running_loop()
