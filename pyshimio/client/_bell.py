"""Waiting for whatever has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Bell",)


class Bell:
    """Wakes everybody who waits; each of them looks whether it was for him."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        """Something has changed."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when *condition* holds, at once if it does so now."""
        while not condition():
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
