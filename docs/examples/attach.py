"""A client that comes, goes, and comes again: attach.py DIRECTORY."""

import sys

import anyio

from pyshimio import create_io
from pyshimio.client import FifoSet, attach

SCRIPT = "echo first; read line; echo second; read line; echo third"


async def shim(fifos: FifoSet) -> None:
    """The other side, which would be another process: it has the program."""
    async with await create_io(fifos.stdio) as io:
        process = await io.spawn(["sh", "-c", SCRIPT])
        await process.wait()
        await io.drain()


async def visit(fifos: FifoSet, *typed: bytes, to_the_end: bool = False) -> None:
    """Attach, type, look at what comes, and go: the program does not notice."""
    send, receive = anyio.create_memory_object_stream[bytes](len(typed))
    for line in typed:
        await send.send(line)
    async with attach(fifos, stdin=receive, stdout=sys.stdout) as attached:
        while not to_the_end and not attached.stats.stdout.bytes_out:
            await anyio.sleep(0.01)
        if not to_the_end:
            attached.cancel()  # what is in the FIFO comes; what comes later is the next one's
        await attached.wait()
    send.close()
    receive.close()


async def main(directory: str) -> None:
    """Two short visits, and one to the end."""
    with FifoSet.create("job", directory=directory, stderr=False) as fifos:
        async with anyio.create_task_group() as group:
            group.start_soon(shim, fifos)
            await visit(fifos)
            await visit(fifos, b"go on\n")
            await visit(fifos, b"go on\n", to_the_end=True)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
