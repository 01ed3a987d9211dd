"""A process that keeps containers, as a shim does; and what the same costs without one.

python -m bench.keeper flood LOOP BUNDLE FIFO          one container's output into a FIFO
python -m bench.keeper lives LOOP BUNDLE TIMES         create, start, wait, delete, again and again
python -m bench.keeper execs LOOP BUNDLE TIMES         exec, start, wait, drain, delete in one
python -m bench.keeper bare LOOP BUNDLE TIMES          the same with runc and a pidfd alone
python -m bench.keeper idle LOOP BUNDLE COUNT          so many that do nothing, and are weighed
"""

from __future__ import annotations

import json
import os
import select
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from pyshimio.runc import Container, Runc, Subreaper

from .party import LOOPS, rollup, used

if TYPE_CHECKING:
    from pyshimio import Stdio

WARM_UP = 3
TRUE = "/bin/true"


class Keeper:
    """One runtime, one bundle."""

    def __init__(self, bundle: str, root: str) -> None:
        self.runc = Runc(root=root)
        self.bundle = bundle
        self._root = root
        self._made = 0

    async def make(self, io: Stdio | str | None = None) -> Container:
        """Another container."""
        self._made += 1
        name = f"bench{os.getpid()}-{self._made}"
        return await Container.create(self.runc, name, self.bundle, io=io)

    async def flood(self, fifo: str) -> dict[str, float]:
        """From its creation to its deletion."""
        cpu = used()
        async with await self.make(fifo) as container:
            await container.start()
            await container.wait(io=True)
            result = await container.delete()
        assert result is not None
        assert result.complete
        return {"cpu": used() - cpu}

    async def lives(self, times: str) -> dict[str, float]:
        """A container's life, with its output in a file."""
        log = f"file://{self._root}/log"

        async def once() -> None:
            async with await self.make(log) as container:
                await container.start()
                assert await container.wait() == 0
                await container.delete()

        return await _repeat(once, int(times))

    async def execs(self, times: str) -> dict[str, float]:
        """A process's life in a container that lives."""
        log = f"file://{self._root}/log"
        async with await self.make() as container:
            await container.start()

            async def once() -> None:
                async with await container.exec("e", [TRUE], io=log) as process:
                    await process.start()
                    assert await process.wait() == 0
                    await process.drain()
                    await process.delete()

            return await _repeat(once, int(times))

    async def bare(self, times: str) -> dict[str, float]:
        """What cannot be left out: the runtime's command, and a wait for the exit."""
        pid_file = f"{self._root}/pid"
        async with await self.make() as container:
            await container.start()
            command = ["runc", "--root", self._root, "exec", "--detach", "--pid-file", pid_file]
            command += [container.id, TRUE]
            nowhere = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]

            async def once() -> None:
                runc = os.posix_spawnp("runc", command, os.environ, file_actions=nowhere)
                assert os.waitpid(runc, 0)[1] == 0
                pid = int(Path(pid_file).read_text(encoding="ascii"))
                pidfd = os.pidfd_open(pid)
                select.select([pidfd], [], [])
                os.close(pidfd)
                assert os.waitpid(pid, 0)[1] == 0

            return await _repeat(once, int(times))

    async def idle(self, count: str) -> dict[str, float]:
        """So many that do nothing, each with a log file."""
        async with AsyncExitStack() as stack:
            for number in range(int(count)):
                container = await self.make(f"file://{self._root}/{number}.log")
                await stack.enter_async_context(container)
                await container.start()
            return {"private_dirty": rollup("self")["Private_Dirty"]}


async def _repeat(once: object, times: int) -> dict[str, float]:
    assert callable(once)
    for _ in range(WARM_UP):
        await once()
    cpu, begin = used(), time.perf_counter()
    for _ in range(times):
        await once()
    return {"cpu": used() - cpu, "seconds": time.perf_counter() - begin}


async def main(*args: str) -> dict[str, float]:
    """Do it under a root of its own."""
    what, bundle, argument = args
    with tempfile.TemporaryDirectory(prefix="bench-keeper-") as root:
        async with Subreaper():
            answer: dict[str, float] = await getattr(Keeper(bundle, root), what)(argument)
            return answer


if __name__ == "__main__":
    verb, loop, *rest = sys.argv[1:]
    backend, options = LOOPS[loop]
    json.dump(anyio.run(main, verb, *rest, backend=backend, backend_options=options), sys.stdout)
