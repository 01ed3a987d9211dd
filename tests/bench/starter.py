"""Start /bin/true with pipes again and again.

python -m bench.starter LOOP pyshimio|reading|anyio TIMES
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import anyio

from pyshimio import PipeIO

from .party import LOOPS, used

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream

COMMAND = ["/bin/true"]
WARM_UP = 10


async def by_pyshimio() -> None:
    """Create, spawn, wait, drain, close."""
    async with PipeIO() as io:
        process = await io.spawn(COMMAND)
        await process.wait()
        await io.drain()


async def by_pyshimio_reading() -> None:
    """The same, and read both streams to their ends, as anyio does."""
    async with PipeIO() as io:
        process = await io.spawn(COMMAND)
        async with anyio.create_task_group() as group:
            for stream in (io.stdout, io.stderr):
                assert stream is not None
                group.start_soon(_read_all, stream)
        await process.wait()
        await io.drain()


async def _read_all(stream: ByteReceiveStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def by_anyio() -> None:
    """The same three pipes."""
    await anyio.run_process(COMMAND, input=b"")


WAYS = {"pyshimio": by_pyshimio, "reading": by_pyshimio_reading, "anyio": by_anyio}


async def main(who: str, times: int) -> dict[str, float]:
    """Run it *times* times, after a few that do not count."""
    once = WAYS[who]
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
