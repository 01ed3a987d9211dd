"""The event loops that the suite runs on."""

from __future__ import annotations

import asyncio
from typing import Any

import trio
import uvloop

LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
"""Each loop's name and what anyio's plugin wants for it."""


def warm_up() -> None:
    """Run each loop once: what a loop opens for the whole process is no test's leak."""
    trio.run(trio.lowlevel.checkpoint)
    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.sleep(0))
