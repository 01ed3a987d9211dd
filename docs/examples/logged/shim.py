"""The shim: shim.py DRIVER LOG COMMAND... runs a command whose output a driver logs."""

import os
import sys

import anyio

from pyshimio import create_io
from pyshimio.client import log_binary


async def main(driver: str, log: str, *command: str) -> int:
    """Start the logger, wait until it is ready, and only then start the command."""
    stdio = log_binary(driver, {"path": log})
    async with await create_io(stdio, id="app", namespace="default") as io:
        process = await io.spawn(command)
        status = await process.wait()
        result = await io.drain()  # the logger has everything, and has ended
    print(f"status {status}, complete: {result.complete}")
    return status


if __name__ == "__main__":
    paths = map(os.path.abspath, sys.argv[1:3])
    sys.exit(anyio.run(main, *paths, *sys.argv[3:]))
