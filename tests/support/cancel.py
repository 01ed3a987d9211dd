"""Cancellation at every suspension of an operation, in each way in which it can come.

:func:`cancel_everywhere` runs an operation again and again and cancels it when it, or a task
that it started, has suspended for the first time, for the second time and so on, until it
ends without reaching a k-th suspension.  After every run it looks at how the operation ended
and at what it left behind.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import anyio
import attrs
import trio

from .leaks import GRACE, Snapshot
from .loops import running_loop, tasks
from .strays import strays

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
    from contextlib import AbstractAsyncContextManager

__all__ = ("Mode", "Report", "cancel_everywhere")

T = TypeVar("T")
Mode = Literal[
    "scope", "scope late", "native", "native late", "native twice", "timeout", "wait_for"
]

MODES: tuple[Mode, ...] = (
    "scope",
    "scope late",
    "native",
    "native late",
    "native twice",
    "timeout",
    "wait_for",
)
"""How a cancellation can come.

``scope`` is an anyio cancel scope, ``native`` is ``task.cancel()``, ``timeout`` is the
deadline of ``asyncio.timeout``, ``wait_for`` a cancelled caller of ``asyncio.wait_for``.
*Late* is when what the suspension waits for has come and the task has not run yet, so that
a result may be lost.  *Twice* cancels once more at the first suspension of the cleanup.
"""


@attrs.define(eq=False)
class Report:
    """What :func:`cancel_everywhere` tried."""

    name: str
    loop: str
    points: dict[str, int] = attrs.field(factory=dict[str, int])
    """For each mode the suspensions at which it came."""
    runs: int = 0
    completed: int = 0
    """Runs that were through before the cancellation could be delivered."""
    seconds: float = 0.0

    @property
    def suspensions(self) -> int:
        """At how many suspensions each of the modes came, at least."""
        return min(self.points.values(), default=0)

    def __str__(self) -> str:
        each = ", ".join(f"{mode} {count}" for mode, count in self.points.items())
        return (
            f"cancel everywhere: {self.name} on {self.loop}: {self.suspensions} suspensions,"
            f" {self.runs} runs, {self.completed} completed, {self.seconds:.1f} s ({each})"
        )


@overload
async def cancel_everywhere(
    operation: Callable[[], Awaitable[object]],
    *,
    name: str,
    modes: Sequence[Mode] = MODES,
    step: int = 1,
    deadline: float = 15.0,
    most: int = 300,
) -> Report: ...


@overload
async def cancel_everywhere(
    operation: Callable[[T], Awaitable[object]],
    *,
    name: str,
    around: Callable[[], AbstractAsyncContextManager[T]],
    modes: Sequence[Mode] = MODES,
    step: int = 1,
    deadline: float = 15.0,
    most: int = 300,
) -> Report: ...


async def cancel_everywhere(
    operation: Callable[..., Awaitable[object]],
    *,
    name: str,
    around: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    modes: Sequence[Mode] = MODES,
    step: int = 1,
    deadline: float = 15.0,
    most: int = 300,
) -> Report:
    """Cancel *operation* at each of its suspensions, in each of *modes*.

    After each run it must have ended as one that is cancelled ends (or, for a scope, have
    returned: it did not wait any more).  It must not have outlived *deadline*, nor left a
    descriptor, a child, a thread or a task, nor raised where nobody could catch it.

    Args:
        operation: From nothing to nothing: what it opens, it closes.  With *around* it gets
            what that gives.
        name: For the report.
        around: What each run needs before and looks at afterwards; never cancelled.
        modes: Those that this loop does not have are left out.
        step: Every so many suspensions, for an operation that takes long.
        deadline: Seconds for one run.
        most: The largest k; an operation that goes on for ever is no operation.

    Returns:
        What was tried.  It is printed, too.

    Raises:
        AssertionError: Something was wrong after a run; the message says which.
    """
    started = time.monotonic()
    report = Report(name, running_loop())
    scene = _nothing_around if around is None else around
    call = (lambda _: operation()) if around is None else operation
    for mode in modes:
        if report.loop == "trio" and not mode.startswith("scope"):
            continue
        report.points[mode] = 0
        for k in range(1, most + 1, step):
            run = _Run(mode, k, f"{name} on {report.loop}, {mode} at suspension {k}")
            await _check(run, call, scene, deadline)
            report.runs += 1
            if run.count < k:
                break
            report.completed += run.outcome is None
            report.points[mode] += 1
        else:
            raise AssertionError(f"{name} suspends more than {most} times")
    report.seconds = time.monotonic() - started
    print(report)
    return report


@asynccontextmanager
async def _nothing_around() -> AsyncGenerator[None]:
    yield


async def _check(
    run: _Run,
    operation: Callable[[Any], Awaitable[object]],
    around: Callable[[], AbstractAsyncContextManager[Any]],
    deadline: float,
) -> None:
    """One run, and the look at what it left."""
    before, tasks_before = Snapshot.take(), tasks()
    with strays() as stray:
        async with around() as given:
            await _perform(run, lambda: operation(given), deadline)
        until = time.monotonic() + GRACE
        while True:
            left = [*before.left_behind(grace=0), *(tasks() - tasks_before)]
            if not left or time.monotonic() > until:
                break
            await anyio.sleep(0.001)
        # "Never retrieved" is said when a task is collected.
        gc.collect(0)
    assert not left, f"{run.what}: left behind: {', '.join(map(str, left))}"
    assert not stray, f"{run.what}: nobody could catch: {', '.join(stray)}"
    expected = run.expected if run.fired else (None,)
    assert run.outcome in expected, f"{run.what}: ended with {run.outcome!r}"


# -- one run -----------------------------------------------------------------------------


class _Run:
    """Counts suspensions, and cancels at one of them."""

    def __init__(self, mode: Mode, k: int, what: str) -> None:
        self.mode = mode
        self.what = what
        self.count = 0
        self.fired = False
        self.outcome: type[BaseException] | None = None
        """What came out; None when the operation returned."""
        self.cancel: Callable[[], object] = _nothing
        self._k = k
        self._late = mode.endswith("late")
        self._again = mode.endswith("twice")
        self._over = False

    @property
    def expected(self) -> tuple[type[BaseException] | None, ...]:
        """How the operation may end once it was cancelled."""
        if self.mode.startswith("scope"):
            return (asyncio.CancelledError, None)
        return (TimeoutError,) if self.mode == "timeout" else (asyncio.CancelledError,)

    def suspended(self, when_ready: Callable[[Callable[[], None]], None]) -> None:
        """A task of the operation is about to wait.

        Args:
            when_ready: Has a callback called when what it waits for has come.
        """
        if self._over:
            return
        self.count += 1
        if self.fired:
            if self._again:
                self._again = False
                self.cancel()
        elif self.count == self._k:
            if self._late:
                when_ready(self._fire)
            else:
                self._fire()

    def _fire(self) -> None:
        if not self._over:
            self.fired = True
            self.cancel()

    def over(self) -> None:
        """The operation has ended."""
        self._over = True


async def _perform(run: _Run, operation: Callable[[], Awaitable[object]], deadline: float) -> None:
    if running_loop() == "trio":
        await _perform_on_trio(run, operation, deadline)
    else:
        await _perform_on_asyncio(run, operation, deadline)


async def _within_scope(run: _Run, operation: Callable[[], Awaitable[object]]) -> None:
    with anyio.CancelScope() as scope:
        run.cancel = scope.cancel
        await operation()
        run.over()
    run.over()
    if scope.cancelled_caught:
        run.outcome = asyncio.CancelledError


# -- asyncio -----------------------------------------------------------------------------

_current: ContextVar[_Run | None] = ContextVar("_current", default=None)


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose every suspension is told to a run."""

    def __init__(self, inner: Any, run: _Run) -> None:
        self._inner = inner
        self._run = run

    def send(self, value: Any) -> Any:
        return self._pass_on(self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._pass_on(self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise TypeError("belongs to a task")

    def __getattr__(self, name: str) -> Any:
        # The state of a coroutine, for anyio and for whoever prints a task.
        return getattr(self._inner, name)

    def _pass_on(self, waited: Any) -> Any:
        def when_ready(callback: Callable[[], None]) -> None:
            if asyncio.isfuture(waited):
                # Before the task's own, which comes when the task has got what we return.
                waited.add_done_callback(lambda _: callback())
            else:
                asyncio.get_running_loop().call_soon(callback)

        self._run.suspended(when_ready)
        return waited


@contextmanager
def _counting() -> Generator[None]:
    """Count in all tasks that the operation starts, too."""

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        run = _current.get()
        if run is not None:
            coroutine = _Counted(coroutine, run)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = asyncio.get_running_loop()
    previous = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(previous)


async def _perform_on_asyncio(
    run: _Run, operation: Callable[[], Awaitable[object]], deadline: float
) -> None:
    async def await_it() -> None:
        await operation()

    async def with_timeout() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as timeout:
            run.cancel = lambda: timeout.reschedule(loop.time())
            await operation()
            run.over()

    async def main() -> None:
        if run.mode.startswith("scope"):
            await _within_scope(run, operation)
        elif run.mode == "timeout":
            await with_timeout()
        elif run.mode == "wait_for":
            await asyncio.wait_for(await_it(), 3600)
        else:
            await operation()

    with _counting():
        token = _current.set(run)
        try:
            task = asyncio.create_task(main())
        finally:
            _current.reset(token)
        if not (run.mode.startswith("scope") or run.mode == "timeout"):
            run.cancel = task.cancel
        task.add_done_callback(lambda _: run.over())
        await asyncio.wait([task], timeout=deadline)
    if not task.done():
        where = task.get_stack()
        task.cancel()
        raise AssertionError(f"{run.what}: hangs at {where}")
    if task.cancelled():
        run.outcome = asyncio.CancelledError
    elif (error := task.exception()) is not None:
        if not isinstance(error, TimeoutError) or run.mode != "timeout":
            raise AssertionError(f"{run.what}: raised {error!r}") from error
        run.outcome = TimeoutError


# -- trio --------------------------------------------------------------------------------


class _Instrument(trio.abc.Instrument):
    """Tells a run of every suspension of a task and of those below it."""

    def __init__(self, run: _Run, host: trio.lowlevel.Task) -> None:
        self._run = run
        self._host = host
        self._when_ready: dict[trio.lowlevel.Task, Callable[[], None]] = {}

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.coro.cr_frame is None:  # it has ended
            return
        above: trio.lowlevel.Task | None = task
        while above is not self._host:
            nursery = None if above is None else above.parent_nursery
            if nursery is None:
                return
            above = nursery.parent_task

        def when_ready(callback: Callable[[], None]) -> None:
            self._when_ready[task] = callback

        self._run.suspended(when_ready)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if (callback := self._when_ready.pop(task, None)) is not None:
            callback()


async def _perform_on_trio(
    run: _Run, operation: Callable[[], Awaitable[object]], deadline: float
) -> None:
    failed: list[Exception] = []

    async def host() -> None:
        # A task of its own: what *around* has started is not the operation's.
        instrument = _Instrument(run, trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(instrument)
        try:
            await _within_scope(run, operation)
        except Exception as error:  # raised below, without a group around it
            failed.append(error)
        finally:
            run.over()
            trio.lowlevel.remove_instrument(instrument)

    with anyio.move_on_after(deadline) as guard:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host)
    if failed:
        raise AssertionError(f"{run.what}: raised {failed[0]!r}") from failed[0]
    assert not guard.cancelled_caught, f"{run.what}: hangs"


def _nothing() -> None:
    pass
