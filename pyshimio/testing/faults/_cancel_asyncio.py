"""How asyncio's suspensions are counted, and how its tasks are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ._cancelled_run import within_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from ._cancelled_run import Run

__all__ = ("perform",)

_current: ContextVar[Run | None] = ContextVar("_current", default=None)


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose every suspension is told to a run."""

    def __init__(self, inner: Any, run: Run) -> None:
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


async def perform(run: Run, operation: Callable[[], Awaitable[object]], deadline: float) -> None:
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
            await within_scope(run, operation)
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
        try:
            await asyncio.wait([task], timeout=deadline)
        except BaseException:  # the caller does not want to know any more
            task.cancel()
            await asyncio.wait([task], timeout=deadline)
            raise
    if not task.done():
        where = _waits_at(task)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        raise AssertionError(f"{run.what}: hangs at {where}")
    if task.cancelled():
        run.outcome = asyncio.CancelledError
    elif (error := task.exception()) is not None:
        if not isinstance(error, TimeoutError) or run.mode != "timeout":
            raise AssertionError(f"{run.what}: raised {error!r}") from error
        run.outcome = TimeoutError


def _waits_at(task: asyncio.Task[None]) -> str:
    """The innermost of the coroutines that *task* is in."""
    coroutine: Any = task.get_coro()
    where = repr(task)
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        where = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        coroutine = coroutine.cr_await
    return where
