"""Eight bytes through stdin FIFO, ``cat`` and stdout FIFO and back, all on one core."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

from .party import LOOPS
from .rounds import Goal, Row
from .stage import HERE, TIMEOUT, pinned

if TYPE_CHECKING:
    from .rounds import Sample
    from .stage import Stage

TRIPS = 5000
LIMITS = {"asyncio": 1.3, "uvloop": 1.1, "trio": 2.5}


def echo(stage: Stage) -> Row:
    """The median of the round trips, and what the pump pays for one."""
    names = [*LOOPS, *(f"bare {loop}" for loop in LOOPS), *(["go"] if stage.peer else [])]
    goals = [Goal("p50 µs", loop, "go", limit) for loop, limit in LIMITS.items()]
    return Row(
        "echo",
        f"8-byte echo, stdin FIFO → cat → stdout FIFO, {TRIPS} round trips on one core",
        {name: partial(_echo, stage, name) for name in names},
        tuple(goals if stage.peer else ()),
    )


def _echo(stage: Stage, name: str) -> Sample:
    stdin, stdout = stage.fifo("in"), stage.fifo("out")
    core = stage.pump_core
    if name == "go":
        command = stage.go("-stdin", stdin, "-stdout", stdout, "--", "cat")
    elif name.startswith("bare "):
        command = stage.ours("bare", name.removeprefix("bare "), stdin, stdout, "--", "cat")
    else:
        command = stage.ours("party", name, "--stdin", stdin, "--stdout", stdout, "--", "cat")
    client = pinned(core, [sys.executable, "-m", "bench.client", stdin, stdout, str(TRIPS)])
    with subprocess.Popen(
        command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as pump:
        run = subprocess.run(
            client, check=True, stdout=subprocess.PIPE, cwd=HERE.parent, timeout=TIMEOUT
        )
        found, _ = pump.communicate(timeout=TIMEOUT)  # closes its stdin: close the child's
    cpu = json.loads(found)["cpu"]
    return {**json.loads(run.stdout), "pump cpu µs/trip": cpu / TRIPS * 1e6}
