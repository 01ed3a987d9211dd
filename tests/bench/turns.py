"""How long the loop is away: what a task that wants to run each millisecond gets."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BEAT = 0.001


class Turns:
    """The longest time that the loop did something else, seconds."""

    longest: float = 0.0

    async def watch(self) -> None:
        """Wake up each millisecond and look how late it is."""
        while True:
            due = time.perf_counter() + BEAT
            await anyio.sleep(BEAT)
            self.longest = max(self.longest, time.perf_counter() - due)


@asynccontextmanager
async def watched(*, wanted: bool) -> AsyncIterator[Turns]:
    """Watch the loop meanwhile, if that is *wanted*: the watching itself costs CPU."""
    turns = Turns()
    async with anyio.create_task_group() as group:
        if wanted:
            group.start_soon(turns.watch)
        yield turns
        group.cancel_scope.cancel()
