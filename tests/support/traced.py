"""A small pipeline that a test runs as a program of its own, under a tracer that injects faults.

Reads a line, runs the scene once, prints one line of JSON, and so on until its input ends.
Arguments: the loop, and a directory with a FIFO ``fifo`` and a file ``source``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import zlib
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from pyshimio import Stdio, create_io

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyshimio import DrainResult

T = TypeVar("T")


def again(function: Callable[[], T]) -> T:
    """Call *function*; what the tracer injects is for the library, not for us."""
    for _ in range(3):
        try:
            return function()
        except (OSError, RuntimeError):
            pass
    return function()


def descriptors() -> dict[str, str]:
    """What is open, by number."""
    found = {}
    for name in again(lambda: os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the listing's own
            found[name] = again(partial(os.readlink, f"/proc/self/fd/{name}"))
    return found


def unread(fd: int) -> bytes:
    """All that waits in a FIFO."""
    data = b""
    try:
        while chunk := again(lambda: os.read(fd, 65536)):
            data += chunk
    except BlockingIOError:
        pass
    return data


async def pipeline(directory: str) -> tuple[DrainResult, int]:
    """A child's stdout to a FIFO and its stderr to a file; how the drain and the child ended."""
    stdio = Stdio(stdout=f"{directory}/fifo", stderr=f"file://{directory}/log")
    async with await create_io(stdio, grace=0.5, client_timeout=2.0) as io:
        process = await io.spawn(
            ["sh", "-c", f"cat {directory}/source && cat {directory}/source >&2"]
        )
        with anyio.fail_after(10):
            status = await process.wait()
        return await io.drain(linger=0.1, sink_timeout=2.0), status


def report(result: dict[str, Any]) -> None:
    """One line; a full write of it, whatever is injected."""
    line = json.dumps(result).encode() + b"\n"
    while line:
        line = line[again(partial(os.write, 1, line)) :]


def children() -> list[int]:
    """Whoever is still there, zombies included."""
    found: list[int] = []
    while True:
        try:
            pid, _ = again(lambda: os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            return found
        found.append(pid)
        if not pid:
            return found


def command() -> bytes:
    """The next line of our input, byte by byte so that nothing is buffered."""
    line = b""
    while not line.endswith(b"\n"):
        byte = again(lambda: os.read(0, 1))
        if not byte:
            break
        line += byte
    return line


async def main(loop: str, directory: str) -> None:
    """Serve rounds."""
    stray: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            stray.append(f"{record.getMessage()} {record.exc_info}")

    for name in ("pyshimio", "asyncio", "trio"):
        logging.getLogger(name).addHandler(Handler(logging.ERROR))
    if loop != "trio":
        asyncio.get_running_loop().set_exception_handler(lambda _, what: stray.append(repr(what)))
    fifo, log = f"{directory}/fifo", f"{directory}/log"
    while command():
        for path in (fifo, log):
            if os.path.exists(path):
                os.unlink(path)
        os.mkfifo(fifo)
        client = again(lambda: os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        before = descriptors()
        error: BaseException | None = None
        result, status = None, -1
        try:
            result, status = await pipeline(directory)
        except Exception as caught:
            error = caught
        got = unread(client)
        await anyio.sleep(0.01)  # for what ends on the loop
        logged = again(lambda: open(log, "rb").read()) if os.path.exists(log) else b""
        after = descriptors()
        report(
            {
                "status": status,
                "bytes": len(got),
                "crc": zlib.crc32(got),
                "logged": zlib.crc32(logged),
                "complete": result is not None and result.complete,
                "dropped": 0 if result is None else sum(s.dropped for s in result.streams),
                "error": None if error is None else repr(error),
                "kinds": [f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__],
                "errno": getattr(error, "errno", None),
                "left": {n: link for n, link in after.items() if before.get(n) != link},
                "children": children(),
                "stray": stray,
            }
        )
        stray.clear()
        with suppress(OSError):  # the one that is made to fail
            os.close(client)


if __name__ == "__main__":
    backend = "trio" if sys.argv[1] == "trio" else "asyncio"
    anyio.run(
        main,
        sys.argv[1],
        sys.argv[2],
        backend=backend,
        backend_options={"use_uvloop": True} if sys.argv[1] == "uvloop" else {},
    )
