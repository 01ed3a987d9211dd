"""A process with many live children.

python -m bench.host flood LOOP COUNT MIB GATE       each writes MIB to /dev/null
python -m bench.host chat LOOP COUNT SECONDS DIR     each writes a line a second to two files
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio

from pyshimio import Stdio, create_io

from .party import LOOPS, rollup, used

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyshimio.io._base import BaseIO

TALK = """
$| = 1;
while (1) { print "a line\\n"; print STDERR "a line\\n"; select(undef, undef, undef, 1) }
"""
AT_ONCE = 50


async def start(stack: AsyncExitStack, stdios: Sequence[Stdio], command: list[str]) -> list[BaseIO]:
    """One child for each of *stdios*, all alive when this returns."""
    ios: list[BaseIO] = []
    for stdio in stdios:
        io = await stack.enter_async_context(await create_io(stdio, on_exit="kill"))
        await io.spawn(command)
        ios.append(io)
    return ios


async def flood(count: int, mib: int, gate: str) -> dict[str, float]:
    """All children begin at once; their exits come after the measurement."""
    os.mkfifo(gate)
    script = f": <{gate}; dd if=/dev/zero bs=64k count={mib * 16} status=none; exec sleep 1000"
    wanted = count * mib << 20
    try:
        async with AsyncExitStack() as stack:
            stdio = Stdio(stdout="file:///dev/null")
            ios = await start(stack, [stdio] * count, ["sh", "-c", script])
            opened = os.open(gate, os.O_RDWR)
            stack.callback(os.close, opened)
            cpu, begin = used(), time.perf_counter()
            while (moved := sum(_moved(io) for io in ios)) < wanted:
                await anyio.sleep(0.02)
            return {
                "cpu": used() - cpu, "seconds": time.perf_counter() - begin, "bytes": moved,
            }  # fmt: skip
    finally:
        os.unlink(gate)


def _moved(io: BaseIO) -> int:
    stats = io.stats.stdout
    return 0 if stats is None else stats.bytes_out


async def chat(count: int, seconds: int, directory: str) -> dict[str, float]:
    """Steady traffic on two files for each child; then how much memory that takes."""
    os.mkdir(directory)
    try:
        async with AsyncExitStack() as stack:
            stdios = [
                Stdio(stdout=f"file://{directory}/{n}.out", stderr=f"file://{directory}/{n}.err")
                for n in range(count)
            ]
            await start(stack, stdios, ["perl", "-e", TALK])
            await anyio.sleep(seconds)
            return {"pss": rollup("self")["Pss"]}
    finally:
        shutil.rmtree(directory)


def main() -> None:
    """Read the command line, run, print."""
    what, loop, count, size, where = sys.argv[1:]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    backend, options = LOOPS[loop]
    function = flood if what == "flood" else chat
    found = anyio.run(
        function, int(count), int(size), where, backend=backend, backend_options=options
    )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
