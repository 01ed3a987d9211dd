"""Hypothesis' state machines for code that needs a loop."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from .loops import LOOPS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("LoopMachine", "run")


class LoopMachine(RuleBasedStateMachine):
    """A machine whose rules are called in the test's thread, and its async parts in a loop's.

    Args:
        loop: One of :data:`LOOPS`.
    """

    def __init__(self, loop: str) -> None:
        super().__init__()
        self.ends = ExitStack()
        backend, options = LOOPS[loop]
        self._portal = self.ends.enter_context(start_blocking_portal(backend, options))

    def on_loop(self, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        """Call it there, and wait for what it gives."""
        return self._portal.call(partial(function, *args, **options))

    def teardown(self) -> None:
        """End the loop, whatever is found out at the end."""
        try:
            self.finish()
        finally:
            self.ends.close()

    def finish(self) -> None:
        """What must be true when all rules have been followed."""


def run(machine: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int = 25) -> None:
    """Try so many lives of a machine."""
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # a factory does as well, it says
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
