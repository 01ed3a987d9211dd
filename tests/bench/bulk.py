"""Many bytes from one child: into a FIFO that is read, and into a file."""

from __future__ import annotations

import os
import subprocess
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .party import LOOPS
from .rounds import Goal, Row
from .stage import answer, pinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rounds import Sample
    from .stage import Stage

GIB, MIB = 1 << 30, 1 << 20
CHECKED = "import os\nfor n in range(1024): os.write(1, bytes([n % 251]) * 65521)"
"""A child whose bytes are counted and summed before anything is timed."""


def fifo(stage: Stage) -> Row:
    """64 KiB writes into a FIFO that is read in 64 KiB."""
    block, count = 1 << 16, 1 << 14
    command = _dd(stage, block=block, count=count)
    parties = {name: partial(through_fifo, stage, name, command) for name in _movers(stage)}
    parties["no pump"] = partial(_without_pump, stage, command, block * count)
    apart = command_on(stage.pump_core, command)
    parties["no pump, apart"] = partial(_without_pump, stage, apart, block * count)
    goals = [
        goal
        for loop in LOOPS
        for goal in (
            Goal("cpu s/GiB", loop, "go", 0.25),
            Goal("GiB/s", loop, "go", 2.5, at_least=True),
        )
    ]
    return Row(
        "fifo",
        "child stdout → FIFO → reader, 1 GiB in writes of 64 KiB",
        parties,
        tuple(goals if stage.peer else ()),
        check=partial(_check, stage, to_fifo=True),
    )


def small(stage: Stage) -> Row:
    """64-byte writes into a FIFO."""
    command = _dd(stage, block=64, count=1 << 20)
    goals = [Goal("cpu ms/MiB", loop, "go", 1.5) for loop in LOOPS]
    return Row(
        "small",
        "child stdout → FIFO → reader, 64 MiB in writes of 64 bytes",
        {name: partial(through_fifo, stage, name, command) for name in _movers(stage)},
        tuple(goals if stage.peer else ()),
        check=partial(_check, stage, to_fifo=True),
    )


def file(stage: Stage) -> Row:
    """256 KiB writes into a file on tmpfs."""
    command = _dd(stage, block=1 << 18, count=1 << 10)
    parties = {name: partial(_to_file, stage, name, command) for name in _movers(stage)}
    parties["two calls"] = partial(_two_calls, stage, command)
    goals = [
        goal
        for loop in LOOPS
        for goal in (
            Goal("cpu s/GiB", loop, "go", 0.75),
            Goal("GiB/s", loop, "go", 1.4, at_least=True),
        )
    ]
    return Row(
        "file",
        "child stdout → file on tmpfs, 256 MiB in writes of 256 KiB",
        parties,
        tuple(goals if stage.peer else ()),
        prepare=partial(_warm, stage),
        check=partial(_check, stage, to_fifo=False),
    )


def turns(stage: Stage) -> Row:
    """How long the loop is away meanwhile; a row of its own, because looking costs CPU."""
    command = _dd(stage, block=1 << 18, count=1 << 10)
    return Row(
        "turns",
        "longest turn of the loop, seconds, while a child fills a file on tmpfs",
        {loop: partial(_longest_turn, stage, loop, command) for loop in LOOPS},
        tuple(Goal("longest turn", loop, None, 0.005) for loop in LOOPS),
        prepare=partial(_warm, stage),
    )


def _movers(stage: Stage) -> list[str]:
    return [*LOOPS, "go"] if stage.peer else list(LOOPS)


def command_on(core: int, command: Sequence[str]) -> list[str]:
    """A command that is pinned already, on another core."""
    return pinned(core, command[len(pinned(core, [])) :])


def _dd(stage: Stage, *, block: int, count: int) -> list[str]:
    command = ["dd", "if=/dev/zero", f"bs={block}", f"count={count}", "status=none"]
    return pinned(stage.other_core, command)


def _mover(stage: Stage, name: str, target: str, command: Sequence[str], *, file: bool) -> Sample:
    if name == "go":
        options = ("-file",) if file else ()
        found = answer(stage.go(*options, "-stdout", target, "--", *command))
    else:
        uri = f"file://{target}" if file else target
        found = answer(stage.ours("party", name, "--stdout", uri, "--", *command))
    return _figures(found)


def _figures(found: dict[str, float]) -> Sample:
    gib = found["bytes"] / GIB
    return {
        "cpu s/GiB": found["cpu"] / gib,
        "cpu ms/MiB": found["cpu"] * 1000 / (found["bytes"] / MIB),
        "GiB/s": gib / found["seconds"],
    }


def through_fifo(stage: Stage, name: str, command: Sequence[str]) -> Sample:
    """A FIFO between whoever is called *name* and dd."""
    path = stage.fifo("out")
    reader = pinned(stage.other_core, ["dd", f"if={path}", "of=/dev/null", "bs=64k", "status=none"])
    with subprocess.Popen(reader):
        return _mover(stage, name, path, command, file=False)


def _without_pump(stage: Stage, command: Sequence[str], size: int) -> Sample:
    """The child writes into the FIFO itself: nobody can be faster."""
    path = stage.fifo("out")
    reader = pinned(stage.other_core, ["dd", f"if={path}", "of=/dev/null", "bs=64k", "status=none"])
    with subprocess.Popen(reader):
        options = ("--fifo", path, "--bytes", str(size))
        return _figures(answer(stage.ours("floor", *options, "--", *command)))


def _to_file(stage: Stage, name: str, command: Sequence[str]) -> Sample:
    path = stage.path("log")
    try:
        return _mover(stage, name, path, command, file=True)
    finally:
        os.unlink(path)


def _two_calls(stage: Stage, command: Sequence[str]) -> Sample:
    """Nothing but read and write in turn: what the kernel takes for these bytes."""
    path = stage.path("log")
    try:
        return _figures(answer(stage.ours("floor", "--file", path, "--", *command)))
    finally:
        os.unlink(path)


def _longest_turn(stage: Stage, loop: str, command: Sequence[str]) -> Sample:
    path = stage.path("log")
    args = ("party", loop, "--turns", "--stdout", f"file://{path}", "--", *command)
    try:
        return {"longest turn": answer(stage.ours(*args))["turn"]}
    finally:
        os.unlink(path)


def _warm(stage: Stage) -> None:
    """Have the memory for the next file be the machine's: its host may have taken it back."""
    path = stage.path("warm")
    command = ["dd", "if=/dev/zero", f"of={path}", "bs=256k", "count=2048", "status=none"]
    subprocess.run(pinned(stage.pump_core, command), check=True)
    os.unlink(path)


def _check(stage: Stage, *, to_fifo: bool) -> None:
    """Every byte of a child arrives unchanged, whoever moves it."""
    command = ["/usr/bin/python3", "-c", CHECKED]
    wanted = zlib.crc32(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    for name in _movers(stage):
        path = stage.path("log")
        if to_fifo:
            fifo = stage.fifo("out")
            with open(path, "wb") as log, subprocess.Popen(["cat", fifo], stdout=log):
                _mover(stage, name, fifo, command, file=False)
        else:
            _mover(stage, name, path, command, file=True)
        data = Path(path).read_bytes()
        os.unlink(path)
        if zlib.crc32(data) != wanted:
            raise SystemExit(f"{name} did not deliver what the child wrote")
