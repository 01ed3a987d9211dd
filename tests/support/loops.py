"""The event loops that the suite runs on, and the tasks of the running one."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import trio
import uvloop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
"""Each loop's name and what anyio's plugin wants for it."""

TURNS = 10
"""Turns of the loop in which a task that is ending may still end."""


def running_loop() -> str:
    """Which of :data:`LOOPS` this coroutine runs on."""
    if trio.lowlevel.in_trio_task():
        return "trio"
    return "uvloop" if type(asyncio.get_running_loop()).__module__ == "uvloop" else "asyncio"


def warm_up() -> None:
    """Run each loop once: what a loop opens for the whole process is no test's leak."""
    trio.run(trio.lowlevel.checkpoint)
    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.sleep(0))


def without_leftover_tasks(
    test: Callable[..., Awaitable[None]],
) -> Callable[..., Awaitable[None]]:
    """Make *test* fail when a task that it started is still there when it returns."""

    @functools.wraps(test)
    async def checked(*args: Any, **kwargs: Any) -> None:
        before = tasks()
        await test(*args, **kwargs)
        left = tasks() - before
        for _ in range(TURNS):
            if not left:
                break
            await _turn()
            left = tasks() - before
        assert not left, f"left behind: {', '.join(map(repr, left))}"

    return checked


async def _turn() -> None:
    if trio.lowlevel.in_trio_task():
        await trio.lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)


def tasks() -> set[object]:
    """The running loop's tasks."""
    if not trio.lowlevel.in_trio_task():
        return set(asyncio.all_tasks())
    root = trio.lowlevel.current_root_task()
    found: set[object] = set()
    todo = [] if root is None else [root]
    while todo:
        task = todo.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            todo.extend(nursery.child_tasks)
    return found
