"""The look at what a run has left behind, however it ended."""

from __future__ import annotations

import gc
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from .._leaks import GRACE, Snapshot, own_temporary
from .._running import tasks
from .._strays import strays

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ("nothing_left",)


def _nothing(_thing: object) -> bool:
    return False


@asynccontextmanager
async def nothing_left(
    what: str, *, but: Callable[[object], bool] = _nothing
) -> AsyncGenerator[None]:
    """Hold the block to leaving no descriptor, child, thread, file or task, and no stray error.

    Args:
        what: For the message.
        but: Whether something is forgiven.

    Raises:
        AssertionError: Something is there after :data:`GRACE` seconds, or was raised where nobody
            could catch it.
    """
    with own_temporary(), strays() as stray:
        before, tasks_before = Snapshot.take(), tasks()
        yield
        until = time.monotonic() + GRACE
        while True:
            found = [*before.left_behind(grace=0), *(tasks() - tasks_before)]
            left = [thing for thing in found if not but(thing)]
            if not left or time.monotonic() > until:
                break
            await anyio.sleep(0.001)
        # "Never retrieved" is said when a task is collected.
        gc.collect(0)
    assert not left, f"{what}: left behind: {', '.join(map(str, left))}"
    assert not stray, f"{what}: nobody could catch: {', '.join(stray)}"
