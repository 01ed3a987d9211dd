"""No descriptor left, for real: each step at a limit that was just reached."""

from __future__ import annotations

import errno
import os
import resource
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import (
    BinaryIO,
    Command,
    ConsoleIO,
    ConsoleSocket,
    InheritIO,
    PipeIO,
    Stdio,
    create_io,
)
from pyshimio.testing import FakeClient, FakeLogger
from pyshimio.testing._leaks import Snapshot
from support.children import GUARD
from support.fifos import make_fifo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from pyshimio.io._base import BaseIO

MOST = 100
"""More descriptors than any of these operations needs."""
TEXT = b"hello\n"


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Let this process open *count* more descriptors and no other."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
    while fillers[-1] <= last:
        fillers.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    # Holes below the last one would be room, too.
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for filler in fillers:
            os.close(filler)


def is_emfile(error: BaseException | None) -> bool:
    """Whether that, or what it came from, is a plain or a typed EMFILE."""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return True
    return error is not None and (is_emfile(error.__cause__) or is_emfile(error.__context__))


async def at_every_limit(operation: Callable[[], Awaitable[None]]) -> int:
    """Run it with room for 0, 1, 2 … descriptors until it succeeds, and once more with plenty.

    Returns:
        How often it failed.
    """
    with anyio.fail_after(GUARD):
        await operation()  # what is imported or opened once is no part of it
    for count in range(MOST):
        before = Snapshot.take()
        failure: Exception | None = None
        with room_for(count), anyio.fail_after(GUARD):
            try:
                await operation()
            except Exception as error:
                failure = error
        left = before.left_behind()
        assert not left, f"with room for {count}: {failure!r} left {', '.join(map(str, left))}"
        if failure is None:
            print("failed with room for fewer than", count)
            with anyio.fail_after(GUARD):
                await operation()
            return count
        if not (isinstance(failure, OSError) and is_emfile(failure)):
            raise failure
    pytest.fail("it never succeeded")


async def life(io: BaseIO, delivered: Callable[[], bytes] | None = None) -> None:
    """A short one: start a child, take what it writes, end."""
    async with io:
        process = await io.spawn(["echo", "hello"])
        assert await process.wait() == 0
        result = await io.drain()
        assert result.complete
    if delivered is not None:
        assert delivered() == TEXT


async def test_pipes() -> None:
    """PipeIO: made, a child started, its output read."""

    async def operation() -> None:
        async with PipeIO() as io:
            process = await io.spawn(["echo", "hello"])
            assert io.stdout is not None
            assert await io.stdout.receive() == TEXT
            assert await process.wait() == 0

    assert await at_every_limit(operation) > 4


@pytest.mark.parametrize("kind", ["null", "inherit"])
async def test_without_pipes(kind: str) -> None:
    """NullIO and InheritIO: made, a child started and awaited."""

    async def operation() -> None:
        io = InheritIO() if kind == "inherit" else await create_io("null:")
        async with io:
            process = await io.spawn(["true"])
            assert await process.wait() == 0

    assert await at_every_limit(operation) > 2


async def test_file(tmp_path: Path) -> None:
    """FileIO: nothing that a child wrote is missing when nothing was raised."""
    log = tmp_path / "log"

    async def operation() -> None:
        log.unlink(missing_ok=True)
        await life(await create_io(f"file://{log}"), log.read_bytes)

    assert await at_every_limit(operation) > 4


async def test_fifo(tmp_path: Path) -> None:
    """FIFOs in both directions."""
    out, stdin = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "in")
    with FakeClient(out) as client:

        def delivered() -> bytes:
            return os.read(client.fileno(), 100)

        async def operation() -> None:
            await life(await create_io(Stdio(stdin=stdin, stdout=out)), delivered)

        assert await at_every_limit(operation) > 4


@pytest.mark.parametrize("handover", [False, True])
async def test_logger(tmp_path: Path, handover: bool) -> None:
    """A logger: made ready, fed, ended and reaped."""
    logger = FakeLogger.make(tmp_path / "logger")

    def delivered() -> bytes:
        return logger.parts[-1]

    async def operation() -> None:
        io = await BinaryIO.start(
            logger.uri(), id="c1", namespace="ns1", streams=("stdout",), handover=handover
        )
        await life(io, delivered)

    assert await at_every_limit(operation) > 4


async def test_console(tmp_path: Path) -> None:
    """A terminal of a plain child, copied into a file."""
    log = tmp_path / "log"

    async def operation() -> None:
        log.unlink(missing_ok=True)
        io = await create_io(Stdio(stdout=f"file://{log}", terminal=True), runtime=False)
        assert isinstance(io, ConsoleIO)
        await life(io)
        assert log.read_bytes() == b"hello\r\n"

    assert await at_every_limit(operation) > 4


async def test_console_socket(tmp_path: Path) -> None:
    """A runtime's terminal, sent through the socket; its descriptor may be what is too many."""
    program = """
import os, socket, sys
master, slave = os.openpty()
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect(sys.argv[sys.argv.index("--console-socket") + 1])
    socket.send_fds(peer, [b"/dev/ptmx"], [master])
    peer.recv(1)
"""
    script = tmp_path / "runtime"
    script.write_text(f"#!{sys.executable} -IS\n{program}")
    script.chmod(0o755)

    async def operation() -> None:
        async with ConsoleSocket.temp() as made:
            command = Command([str(script), "create", "c1"])
            made.set(command)
            async with await command.start() as runtime:
                made.close_after_start()
                try:
                    async with await made.receive(GUARD, runtime=runtime) as console:
                        console.resize(11, 12)
                finally:
                    runtime.kill()
                    with anyio.CancelScope(shield=True):
                        await runtime.wait()

    assert await at_every_limit(operation) >= 4


async def test_plain_command() -> None:
    """Command: a child with descriptors of its own beyond stderr, in another directory."""

    async def operation() -> None:
        options: dict[str, Any] = {"cwd": "/", "extra_files": [0]}
        async with await Command(["true"], **options).start() as process:
            assert await process.wait() == 0

    assert await at_every_limit(operation) > 0
