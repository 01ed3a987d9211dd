"""Start /bin/true with pipes again and again.

python -m bench.starter LOOP pyshimio|anyio TIMES
"""

from __future__ import annotations

import json
import sys
import time

import anyio

from pyshimio import PipeIO

from .party import LOOPS, used

COMMAND = ["/bin/true"]
WARM_UP = 10


async def by_pyshimio() -> None:
    """Create, spawn, wait, drain, close."""
    async with PipeIO() as io:
        process = await io.spawn(COMMAND)
        await process.wait()
        await io.drain()


async def by_anyio() -> None:
    """The same three pipes."""
    await anyio.run_process(COMMAND, input=b"")


async def main(who: str, times: int) -> dict[str, float]:
    """Run it *times* times, after a few that do not count."""
    once = by_pyshimio if who == "pyshimio" else by_anyio
    for _ in range(WARM_UP):
        await once()
    cpu, begin = used(), time.perf_counter()
    for _ in range(times):
        await once()
    return {"cpu": used() - cpu, "seconds": time.perf_counter() - begin}


if __name__ == "__main__":
    backend, options = LOOPS[sys.argv[1]]
    found = anyio.run(main, sys.argv[2], int(sys.argv[3]), backend=backend, backend_options=options)
    json.dump(found, sys.stdout)
