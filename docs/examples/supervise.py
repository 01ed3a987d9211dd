"""Run programs, keep their output, start again those that fail: supervise.py LOGS SECONDS."""

import sys

import anyio

from pyshimio import create_io

PROGRAMS = {
    "greeter": ["sh", "-c", "echo hello; echo done >&2"],
    "crasher": ["sh", "-c", "echo trying; exit 3"],
    "clock": ["sh", "-c", "while :; do echo tick; sleep 0.01; done"],
}
RESTARTS = 2


async def supervise(name: str, args: list[str], logs: str) -> None:
    """One program, until it ends well or has failed too often."""
    for attempt in range(1 + RESTARTS):
        # Leaving the block ends the program: SIGTERM, ten seconds, SIGKILL.
        async with await create_io(f"file://{logs}/{name}.log") as io:
            process = await io.spawn(args)
            status = await process.wait()
            result = await io.drain()  # not a byte is on its way any more
        print(f"{name}: attempt {attempt} ended with {status}, complete: {result.complete}")
        if status == 0:
            return
        await anyio.sleep(0.01 * 2**attempt)


async def main(logs: str, seconds: str) -> None:
    """All of them side by side; those that never end are ended."""
    with anyio.move_on_after(float(seconds)):
        async with anyio.create_task_group() as group:
            for name, args in PROGRAMS.items():
                group.start_soon(supervise, name, args, logs)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
