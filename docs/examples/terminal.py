"""Our terminal in front of a program's own, which ctrl-p ctrl-q leaves: terminal.py DIRECTORY."""

import sys

import anyio

from pyshimio import ConsoleIO, create_io
from pyshimio.client import FifoSet, RawTerminal, attach


async def shim(io: ConsoleIO) -> None:
    """The other side, which would be another process: it has the program and its terminal."""
    process = await io.spawn(["sh"])
    await process.wait()
    await io.drain(policy="exited")
    await io.aclose()  # so that its client sees the end


async def follow(terminal: RawTerminal, io: ConsoleIO) -> None:
    """Keep the program's terminal as large as ours."""
    async for rows, columns in terminal.resizes():
        if io.console is not None:
            io.console.resize(rows, columns)


async def main(directory: str) -> None:
    """Attach once, until the program ends or we leave."""
    with FifoSet.create("shell", directory=directory, terminal=True) as fifos:
        async with (
            await create_io(fifos.stdio, grace=0.5) as io,
            anyio.create_task_group() as group,
        ):
            with RawTerminal() as terminal:
                async with attach(fifos, stdin=0, stdout=1, detach_keys=b"\x10\x11") as attached:
                    group.start_soon(shim, io)
                    group.start_soon(follow, terminal, io)
                    await attached.wait()
            print("detached" if attached.detached else "ended")
            group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
