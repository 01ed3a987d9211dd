"""The loop that runs, and its tasks."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import TYPE_CHECKING, Any, Literal

import anyio

from .._poller import on_trio
from ._origins import of_task, with_origin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("running_loop", "tasks", "without_leftover_tasks")

TURNS = 10
"""Turns of the loop in which a task that is ending may still end."""


def running_loop() -> Literal["asyncio", "uvloop", "trio"]:
    """Which one this coroutine runs on."""
    if on_trio():
        return "trio"
    return "uvloop" if type(asyncio.get_running_loop()).__module__ == "uvloop" else "asyncio"


def tasks() -> set[object]:
    """The running loop's tasks."""
    if not on_trio():
        return set(asyncio.all_tasks())
    root = sys.modules["trio"].lowlevel.current_root_task()
    found: set[object] = set()
    todo: list[Any] = [] if root is None else [root]
    while todo:
        task = todo.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            todo.extend(nursery.child_tasks)
    return found


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
            await anyio.lowlevel.checkpoint()
            left = tasks() - before
        assert not left, f"left behind: {'; '.join(map(_told, left))}"

    return checked


def _told(task: object) -> str:
    return with_origin(repr(task), of_task(task))
