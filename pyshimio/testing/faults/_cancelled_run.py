"""One run of an operation, which is cancelled at one of its suspensions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("MODES", "Mode", "Run", "within_scope")

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


class Run:
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


async def within_scope(run: Run, operation: Callable[[], Awaitable[object]]) -> None:
    with anyio.CancelScope() as scope:
        run.cancel = scope.cancel
        await operation()
        run.over()
    run.over()
    if scope.cancelled_caught:
        run.outcome = asyncio.CancelledError


def _nothing() -> None:
    pass
