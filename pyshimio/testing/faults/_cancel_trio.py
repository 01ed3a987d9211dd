"""How trio's suspensions are counted; loaded on trio alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import trio

from ._cancelled_run import within_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._cancelled_run import Run

__all__ = ("perform",)


class _Instrument(trio.abc.Instrument):
    """Tells a run of every suspension of a task and of those below it."""

    def __init__(self, run: Run, host: trio.lowlevel.Task) -> None:
        self._run = run
        self._host = host
        self._when_ready: dict[trio.lowlevel.Task, Callable[[], None]] = {}

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.coro.cr_frame is None:  # it has ended
            return
        above = task
        while above is not self._host:
            if (nursery := above.parent_nursery) is None:
                return
            above = nursery.parent_task

        def when_ready(callback: Callable[[], None]) -> None:
            self._when_ready[task] = callback

        self._run.suspended(when_ready)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if (callback := self._when_ready.pop(task, None)) is not None:
            callback()


async def perform(run: Run, operation: Callable[[], Awaitable[object]], deadline: float) -> None:
    failed: list[Exception] = []

    async def host() -> None:
        # A task of its own: what *around* has started is not the operation's.
        instrument = _Instrument(run, trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(instrument)
        try:
            await within_scope(run, operation)
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
