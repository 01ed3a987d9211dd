"""Cancellation at every suspension of an operation, in each way in which it can come.

:func:`cancel_everywhere` runs an operation again and again and cancels it when it, or a task
that it started, has suspended for the first time, for the second time and so on, until it
ends without reaching a k-th suspension.  After every run it looks at how the operation ended
and at what it left behind.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

import attrs

from .._running import running_loop
from . import _cancel_asyncio
from ._aftermath import nothing_left
from ._cancelled_run import MODES, Run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ._cancelled_run import Mode

__all__ = ("CancelReport", "cancel_everywhere")

T = TypeVar("T")


@attrs.define(eq=False)
class CancelReport:
    """What :func:`cancel_everywhere` tried."""

    name: str
    loop: str
    points: dict[str, int] = attrs.field(factory=dict[str, int])
    """For each mode the suspensions at which it came."""
    runs: int = 0
    completed: int = 0
    """Runs that were through before the cancellation could be delivered."""
    seconds: float = 0.0

    @property
    def suspensions(self) -> int:
        """At how many suspensions each of the modes came, at least."""
        return min(self.points.values(), default=0)

    def __str__(self) -> str:
        each = ", ".join(f"{mode} {count}" for mode, count in self.points.items())
        return (
            f"cancel everywhere: {self.name} on {self.loop}: {self.suspensions} suspensions,"
            f" {self.runs} runs, {self.completed} completed, {self.seconds:.1f} s ({each})"
        )


@overload
async def cancel_everywhere(
    operation: Callable[[], Awaitable[object]],
    *,
    name: str = "",
    modes: Sequence[Mode] = MODES,
    step: int = 1,
    deadline: float = 15.0,
    most: int = 300,
) -> CancelReport: ...


@overload
async def cancel_everywhere(
    operation: Callable[[T], Awaitable[object]],
    *,
    name: str = "",
    around: Callable[[], AbstractAsyncContextManager[T]],
    modes: Sequence[Mode] = MODES,
    step: int = 1,
    deadline: float = 15.0,
    most: int = 300,
) -> CancelReport: ...


async def cancel_everywhere(
    operation: Callable[..., Awaitable[object]],
    *,
    name: str = "",
    around: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    modes: Sequence[Mode] = MODES,
    step: int = 1,
    deadline: float = 15.0,
    most: int = 300,
) -> CancelReport:
    """Cancel *operation* at each of its suspensions, in each of *modes*.

    After each run it must have ended as one that is cancelled ends (or, for a scope, have
    returned: it did not wait any more).  It must not have outlived *deadline*, nor left a
    descriptor, a child, a thread or a task, nor raised where nobody could catch it.

    Args:
        operation: From nothing to nothing: what it opens, it closes.  With *around* it gets
            what that gives.
        name: For the report; by default that of *operation*.
        around: What each run needs before and looks at afterwards; never cancelled.
        modes: Those that this loop does not have are left out.
        step: Every so many suspensions, for an operation that takes long.
        deadline: Seconds for one run.
        most: The largest k; an operation that goes on for ever is no operation.

    Returns:
        What was tried.  It is printed, too.

    Raises:
        AssertionError: Something was wrong after a run; the message says which.
    """
    started = time.monotonic()
    name = name or getattr(operation, "__name__", repr(operation))
    report = CancelReport(name, running_loop())
    scene = _nothing_around if around is None else around

    async def call(given: Any) -> None:
        await (operation() if around is None else operation(given))

    for mode in modes:
        if report.loop == "trio" and not mode.startswith("scope"):
            continue
        report.points[mode] = 0
        for k in range(1, most + 1, step):
            run = Run(mode, k, f"{name} on {report.loop}, {mode} at suspension {k}")
            await _check(run, call, scene, deadline)
            report.runs += 1
            if run.count < k:
                break
            report.completed += run.outcome is None
            report.points[mode] += 1
        else:
            raise AssertionError(f"{name} suspends more than {most} times")
    report.seconds = time.monotonic() - started
    print(report)
    return report


@asynccontextmanager
async def _nothing_around() -> AsyncGenerator[None]:
    yield


async def _check(
    run: Run,
    operation: Callable[[Any], Awaitable[object]],
    around: Callable[[], AbstractAsyncContextManager[Any]],
    deadline: float,
) -> None:
    """One run, and the look at what it left."""
    async with nothing_left(run.what), around() as given:
        await _perform(run, lambda: operation(given), deadline)
    expected = run.expected if run.fired else (None,)
    assert run.outcome in expected, f"{run.what}: ended with {run.outcome!r}"


async def _perform(run: Run, operation: Callable[[], Awaitable[object]], deadline: float) -> None:
    if running_loop() != "trio":
        await _cancel_asyncio.perform(run, operation, deadline)
        return
    from . import _cancel_trio  # noqa: PLC0415 - trio is there where it is what runs

    await _cancel_trio.perform(run, operation, deadline)
