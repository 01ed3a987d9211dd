"""Waiting for what no descriptor tells: something that another process is about to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("GUARD", "eventually")

GUARD = 20.0
"""Seconds after which a test that waits for something has failed."""


async def eventually(
    condition: Callable[[], object], otherwise: Callable[[], str], timeout: float = GUARD
) -> None:
    """Wait until *condition* holds; what *otherwise* says is an AssertionError's text."""
    with anyio.move_on_after(timeout) as scope:
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.002)
    assert not scope.cancelled_caught, otherwise()
