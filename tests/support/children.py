"""Real children for tests: run one and look at what it got, wait for what it does."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio

from pyshimio import Command
from pyshimio.testing._running import running_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

GUARD = 20.0
"""Seconds after which a test that waits for something has failed."""

CancelKind = Literal["scope", "native"]

PROBE = """
import json, os
fds = {}
for name in os.listdir("/proc/self/fd"):
    try:
        fds[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass
umask = os.umask(0)
status = open("/proc/self/status").read()
print(json.dumps({
    "fds": fds,
    "cwd": os.getcwd(),
    "umask": umask,
    "pid": os.getpid(),
    "pgid": os.getpgid(0),
    "sid": os.getsid(0),
    "blocked": [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")][0],
}))
"""
"""A program that says what it was started with."""


UNPRIVILEGED = ["setpriv", "--bounding-set=-setuid,-setgid,-chown", "--inh-caps=-all"]
"""Root in front of a command, but one that may neither become somebody else nor chown."""


class Done(NamedTuple):
    """A child that has exited and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


async def run(args: Sequence[str], **options: Any) -> Done:
    """Start a Command with *options*, wait for it, and return what it wrote."""
    with memory_file() as out, memory_file() as err:
        options = {"stdout": out, "stderr": err, **options}
        with anyio.fail_after(GUARD):
            async with await Command(args, **options).start() as process:
                status = await process.wait()
        return Done(status, content(out), content(err))


async def identity(**options: Any) -> dict[str, list[int]]:
    """Who a child that was started with *options* is: its Uid, Gid and Groups."""
    done = await run(["cat", "/proc/self/status"], **options)
    assert done.status == 0, done.stderr.decode()
    lines = dict(line.split(":", 1) for line in done.stdout.decode().splitlines() if ":" in line)
    return {name: [int(part) for part in lines[name].split()] for name in ("Uid", "Gid", "Groups")}


async def probe(**options: Any) -> dict[str, Any]:
    """What a child that was started with *options* finds."""
    done = await run([sys.executable, "-I", "-S", "-c", PROBE], **options)
    assert done.status == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def memory_file() -> Generator[int]:
    """A file without a name that children can write to."""
    fd = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def content(fd: int) -> bytes:
    """Everything in a file, wherever its offset is."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nothing can be waited for."""
    with anyio.fail_after(GUARD):
        while not condition():
            await anyio.sleep(0.005)


async def cancelled(kind: CancelKind, func: Callable[[], Awaitable[object]]) -> None:
    """Run *func* until it waits, cancel it, and return when it has ended.

    Args:
        kind: By a cancel scope, or as asyncio itself does it (which trio does not have).
        func: Called in a task of its own.
    """

    async def call() -> None:
        await func()

    with anyio.fail_after(GUARD):
        if kind == "native" and running_loop() != "trio":
            task = asyncio.ensure_future(call())
            await _turns()
            await anyio.wait_all_tasks_blocked()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await _turns()
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()


async def _turns() -> None:
    # What waits already need not be waited for: on asyncio that takes a tenth of a second.
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


def exists(pid: int) -> bool:
    """Whether there is a process (a zombie counts) with this number."""
    return os.path.exists(f"/proc/{pid}")
