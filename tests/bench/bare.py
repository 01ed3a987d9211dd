"""Two callbacks that read and write and nothing else: what a loop itself takes for an echo.

    python -m bench.bare LOOP STDIN-FIFO STDOUT-FIFO -- COMMAND...

No counters, no back-pressure, no keep-alive, no end: a floor, not an implementation.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from functools import partial

import anyio

from .party import LOOPS, used

PAGE = 4096


def relay(source: int, target: int) -> None:
    """One read, one write."""
    os.write(target, os.read(source, PAGE))


async def forever(source: int, target: int) -> None:
    """The same for a loop without callbacks."""
    while True:
        await anyio.wait_readable(source)
        relay(source, target)


async def echo(stdin: str, stdout: str, command: list[str]) -> dict[str, float]:
    """Until whoever started us closes our stdin."""
    source = os.open(stdin, os.O_RDONLY | os.O_NONBLOCK)
    target = os.open(stdout, os.O_RDWR)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        pairs = [(source, child.stdin.fileno()), (child.stdout.fileno(), target)]
        cpu = used()
        async with anyio.create_task_group() as group:
            for pair in pairs:
                if sys.argv[1] == "trio":
                    group.start_soon(forever, *pair)
                else:
                    asyncio.get_running_loop().add_reader(pair[0], relay, *pair)
            await anyio.wait_readable(sys.stdin)
            if sys.argv[1] != "trio":
                for pair in pairs:
                    asyncio.get_running_loop().remove_reader(pair[0])
            group.cancel_scope.cancel()
        cpu = used() - cpu
        child.kill()
    return {"cpu": cpu}


def main() -> None:
    """Read the command line, relay, print."""
    loop, stdin, stdout, _, *command = sys.argv[1:]
    backend, options = LOOPS[loop]
    run = partial(echo, stdin, stdout, command)
    json.dump(anyio.run(run, backend=backend, backend_options=options), sys.stdout)


if __name__ == "__main__":
    main()
