"""A process with pipes from beginning to end, beside anyio's own way on the same loop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .party import LOOPS
from .rounds import Goal, Row
from .stage import answer

if TYPE_CHECKING:
    from .rounds import Sample
    from .stage import Stage

TIMES = 100


def spawn(stage: Stage) -> Row:
    """Create PipeIO, spawn, wait, drain, close."""
    ours = {loop: partial(_spawn, stage, loop, "pyshimio") for loop in LOOPS}
    reading = {f"{loop}, reading": partial(_spawn, stage, loop, "reading") for loop in LOOPS}
    theirs = {f"anyio on {loop}": partial(_spawn, stage, loop, "anyio") for loop in LOOPS}
    return Row(
        "spawn",
        f"/bin/true with pipes, from creation to close, {TIMES} times",
        {**ours, **reading, **theirs},
        tuple(Goal("ms each", loop, f"anyio on {loop}", 1.0) for loop in LOOPS),
    )


def _spawn(stage: Stage, loop: str, who: str) -> Sample:
    found = answer(stage.ours("starter", loop, who, str(TIMES)))
    return {"ms each": found["seconds"] / TIMES * 1e3, "cpu ms each": found["cpu"] / TIMES * 1e3}
