"""Every failure: run an operation until each of its calls has failed in each way."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING, cast

import anyio
import attrs

from ...errors import ShimIOError
from .._leaks import Temporary
from .._running import running_loop
from ._aftermath import nothing_left
from ._syscalls import count_syscalls, replaced
from ._table import FAULTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ._syscalls import Calls
    from ._table import Fault

__all__ = ("FailureReport", "every_failure")

ENOUGH = 20
"""Wrong runs after which the rest need not be tried."""


@attrs.define(eq=False)
class FailureReport:
    """What :func:`every_failure` tried."""

    name: str
    loop: str
    reached: Counter[str] = attrs.field(factory=Counter[str])
    """Different calls that were made to fail, for each function."""
    runs: int = 0
    refused: int = 0
    """Runs that ended with an error."""
    seconds: float = 0.0

    @property
    def calls(self) -> int:
        """How many different calls were made to fail."""
        return self.reached.total()

    def __str__(self) -> str:
        each = ", ".join(f"{name} {count}" for name, count in sorted(self.reached.items()))
        return (
            f"every failure of {self.name} on {self.loop}: {self.calls} calls, {self.runs} runs,"
            f" {self.refused} refused, {self.seconds:.1f} s ({each})"
        )


async def every_failure(
    operation: Callable[[], Awaitable[object]],
    *,
    name: str = "",
    allowed: tuple[type[Exception], ...] = (),
    faults: Mapping[str, Sequence[Fault]] = FAULTS,
    only: Sequence[str] | None = None,
    sample: int | None = None,
    deadline: float = 15.0,
    most: int = 200,
) -> FailureReport:
    """Run *operation* until each of its calls has failed in each way.

    After each run it must have returned (and then been right, which it checks itself, by
    assertions), or raised an error of pyshimio, one of anyio's for closed and broken streams,
    the very error that was injected, or what is *allowed*; or a group of those.  It must not have
    outlived *deadline*, nor left a descriptor, a child, a thread or a task, nor raised where
    nobody could catch it.

    Args:
        operation: From nothing to nothing: what it opens, it closes.
        name: For the report; by default that of *operation*.
        allowed: Errors of its own that it may raise, beside those.
        faults: How each call can fail.
        only: These calls alone.
        sample: So many of a call's faults, other ones for each k, for an operation that
            takes long.
        deadline: Seconds for one run.
        most: The largest k; an operation that goes on for ever is no operation.

    Returns:
        What was tried.  It is printed, too.

    Raises:
        AssertionError: Something was wrong after a run; the message says which.
    """
    started = time.monotonic()
    name = name or getattr(operation, "__name__", repr(operation))
    report = FailureReport(name, running_loop())

    async def run(calls: Calls, what: str) -> None:
        await _run(operation, calls, report, what, deadline=deadline, allowed=allowed)

    with count_syscalls() as calls:
        await run(calls, "no fault")
    assert report.refused == 0, "the operation fails without any fault"
    assert calls.names, f"{name} makes no call of pyshimio, so there is nothing to fail"
    wrong: list[AssertionError] = []
    names = [call for call in dict.fromkeys(calls.names) if call in faults]
    for call in names:
        if only is not None and call not in only:
            continue
        for k in range(1, most + 1):
            reached = False
            for fault in _sampled(faults[call], k, sample):
                with replaced(call, k, fault) as calls:
                    what = f"{call} number {k}: {fault}"
                    try:
                        await run(calls, what)
                    except AssertionError as error:
                        wrong.append(error)
                if len(wrong) >= ENOUGH:
                    break
                reached = reached or calls.failed is not None
                if not reached:
                    break
            if not reached or len(wrong) >= ENOUGH:
                break
            report.reached[call] += 1
        else:
            raise AssertionError(f"{name} reaches more than {most} calls of {call}")
        # What the others reach may be reached on some runs only.
        names.extend(set(calls.names) & set(faults) - set(names))
    report.seconds = time.monotonic() - started
    print(report)
    if wrong:
        found = "\n".join(map(str, wrong))
        raise AssertionError(f"{report}\n{len(wrong)} runs were wrong:\n{found}") from wrong[0]
    return report


def _sampled(faults: Sequence[Fault], k: int, sample: int | None) -> list[Fault]:
    if sample is None or sample >= len(faults):
        return list(faults)
    return [faults[(k * sample + number) % len(faults)] for number in range(sample)]


async def _run(
    operation: Callable[[], Awaitable[object]],
    calls: Calls,
    report: FailureReport,
    what: str,
    *,
    deadline: float,
    allowed: tuple[type[Exception], ...],
) -> None:
    """One run, and the look at it."""
    where = f"{report.name} on {report.loop}, {what}"

    def forgiven(thing: object) -> bool:
        # The fault itself leaves something there.
        if calls.failed not in {"unlink", "rmdir"} or not isinstance(thing, Temporary):
            return False
        shutil.rmtree(thing.path)
        return True

    report.runs += 1
    async with nothing_left(where, but=forgiven):
        with anyio.move_on_after(deadline) as scope:
            try:
                await operation()
            except Exception as error:
                report.refused += 1
                if not _allowed(error, calls, allowed):
                    raise AssertionError(f"{where}: raised {error!r}") from error
        assert not scope.cancelled_caught, f"{where}: hangs"


def _allowed(error: BaseException, calls: Calls, allowed: tuple[type[Exception], ...]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(_allowed(one, calls, allowed) for one in group.exceptions)
    if isinstance(error, (ShimIOError, anyio.ClosedResourceError, anyio.BrokenResourceError)):
        return True
    return error is calls.injected or isinstance(error, allowed)
