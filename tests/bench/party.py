"""Our side of a row: one process that moves one child's bytes and says what it cost.

    python -m bench.party LOOP --stdout URI [--stdin FIFO] -- COMMAND...

Prints what the Go program in ``peer`` prints: one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from pyshimio import Stdio, create_io

from .turns import watched

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
TICKS = os.sysconf("SC_CLK_TCK")


def used() -> float:
    """CPU seconds of this process so far, its threads included, its children not."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cpu_of(pid: int) -> float:
    """CPU seconds of another process, its children not; also of one that nobody has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rollup(pid: str) -> dict[str, int]:
    """A process's memory by kind, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


async def move(stdio: Stdio, command: Sequence[str], *, turns: bool) -> dict[str, Any]:
    """Run *command* with *stdio*, from its start to its last byte."""
    async with await create_io(stdio) as io:
        async with watched(wanted=turns) as seen:
            cpu, begin = used(), time.perf_counter()
            await io.spawn(command)
            if stdio.stdin:
                # Whoever started us closes our stdin when the client is through.
                await anyio.wait_readable(sys.stdin)
                io.close_stdin()
            result = await io.drain()
            seconds = time.perf_counter() - begin
            cpu = used() - cpu
        stats = io.stats.stdout
    assert result.complete, result
    assert stats is not None
    return {
        "cpu": cpu,
        "seconds": seconds,
        "bytes": stats.bytes_out,
        "path": stats.path,
        "writes": stats.writes,
        "turn": seen.longest,
    }


def main() -> None:
    """Read the command line, move, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("--stdin", default="")
    parser.add_argument("--stdout", required=True)
    parser.add_argument("--turns", action="store_true", help="measure the loop's longest turn")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    backend, options = LOOPS[args.loop]
    stdio = Stdio(stdin=args.stdin, stdout=args.stdout)

    async def run() -> dict[str, Any]:
        return await move(stdio, args.command, turns=args.turns)

    json.dump(anyio.run(run, backend=backend, backend_options=options), sys.stdout)


if __name__ == "__main__":
    main()
