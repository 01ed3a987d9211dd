"""A process that forks while pumps run: epolls, eventfds and pipes are shared across a fork."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import ConsoleSocket, FileIO, PipeIO, Process, Stdio, create_io
from pyshimio._fd import OwnedFd
from pyshimio.testing import FakeClient
from support.children import GUARD, exists
from support.fifos import make_fifo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pyshimio.io._base import BaseIO

ROUNDS = 20


class Scene:
    """A quiet echo through two FIFOs, a busy stream through a third, and a log file."""

    def __init__(self, ios: list[BaseIO], writer: int, echo: FakeClient, busy: FakeClient) -> None:
        self.ios = ios
        self.writer = writer
        self.echo = echo
        self.busy = busy
        self.taken = 0

    async def goes_on(self) -> None:
        """Everything still moves, byte for byte."""
        for number in range(ROUNDS):
            text = b"round %d\n" % number
            os.write(self.writer, text)
            assert await self.echo.read(len(text)) == text
            data = await self.busy.read(PERIOD)
            assert data == BLOCK
            self.taken += len(data)


BLOCK = b"".join(b"%06d\n" % number for number in range(30_000))
PERIOD = len(BLOCK)


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    """Streams of every kind, and afterwards a look at whether all of them were exact."""
    out, stdin, busy = (make_fifo(directory, name) for name in ("out", "in", "busy"))
    (directory / "block").write_bytes(BLOCK)
    log = directory / "log"
    forever = f"while cat {directory}/block; do :; done"
    with FakeClient(out) as echo, FakeClient(busy) as reader:
        async with (
            await create_io(Stdio(stdin=stdin, stdout=out)) as first,
            await create_io(Stdio(stdout=busy), grace=0) as second,
            FileIO(log, stdin=True) as third,
        ):
            cat = await first.spawn(["cat"])
            flood = await second.spawn(["sh", "-c", forever])
            logged = await third.spawn(["cat"])
            writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            it = Scene([first, second, third], writer, echo, reader)
            await it.goes_on()
            yield it
            await it.goes_on()
            assert third.stdin is not None
            with anyio.fail_after(GUARD):
                await third.stdin.send(BLOCK)
                third.close_stdin()
                assert (await third.drain()).complete
                assert logged.status == 0
                assert not flood.exited
                os.close(writer)
                first.close_stdin()
                assert (await first.drain()).complete
                assert cat.status == 0
            assert await echo.read_all() == b""
            second.close()
            with anyio.fail_after(GUARD):
                assert await flood.wait() == 137
    assert log.read_bytes() == BLOCK


def fork(child: Callable[[], object]) -> int:
    """Run *child* in a forked process, which must not raise; its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    return pid


async def forked(child: Callable[[], object]) -> None:
    """Fork, and wait for the child to end without an error."""
    async with Process(fork(child), ("fork",)) as process:
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0


def nothing() -> None:
    """Exit at once."""


def close_numbers() -> None:
    """What a daemon does first."""
    os.closerange(3, 4096)


def exec_true() -> None:
    """Become another program."""
    os.execv("/bin/true", ["true"])


@pytest.mark.parametrize("child", [nothing, close_numbers, exec_true])
async def test_fork_that_goes_away(tmp_path: Path, child: Callable[[], None]) -> None:
    """A fork that exits, closes every number or becomes another program disturbs no stream."""
    async with scene(tmp_path):
        await forked(child)


async def test_fork_that_lives_on(tmp_path: Path) -> None:
    """A fork that lives on beside its parent disturbs no stream while it does."""
    reader, writer = os.pipe()

    def wait() -> None:
        os.close(writer)
        os.read(reader, 1)

    async with scene(tmp_path) as it:
        pid = fork(wait)
        await it.goes_on()
        os.close(writer)
        assert os.waitpid(pid, 0)[1] == 0
    os.close(reader)


@pytest.mark.parametrize("how", ["close", "collect", "owned", "signal"])
async def test_fork_that_closes_what_is_its_parents(tmp_path: Path, how: str) -> None:
    """A fork may close or forget its copies: it unregisters, signals and ends nothing."""
    async with scene(tmp_path) as it:

        def child() -> None:
            warnings.simplefilter("ignore")
            if how == "close":
                for io in it.ios:
                    io.close()
            elif how == "signal":
                for io in it.ios:
                    for process in io._processes:
                        process.terminate()
            elif how == "collect":
                it.ios.clear()
                gc.collect()
            else:
                for thing in gc.get_objects():
                    if isinstance(thing, OwnedFd):
                        thing.close()

        await forked(child)
        for io in it.ios:
            assert all(exists(process.pid) for process in io._processes)


def worker(number: int) -> int:
    """In a worker of multiprocessing."""
    gc.collect()
    return number * 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_multiprocessing_by_fork(tmp_path: Path) -> None:
    """Workers that multiprocessing forks while streams move do their work and disturb none."""
    context = multiprocessing.get_context("fork")
    async with scene(tmp_path):

        def work() -> None:
            workers = [context.Process(target=worker, args=(n,)) for n in range(3)]
            for one in workers:
                one.start()
            for one in workers:
                one.join(GUARD)
                assert one.exitcode == 0
                one.close()

        work()


LIST = """
import os
for name in os.listdir("/proc/self/fd"):
    try:
        print(name, os.readlink("/proc/self/fd/" + name))
    except OSError:
        pass
"""


async def test_no_child_inherits_what_is_ours(tmp_path: Path) -> None:
    """Not even ``Popen(close_fds=False)`` hands a descriptor of ours down."""
    async with scene(tmp_path), PipeIO() as unused:
        assert unused.stdout is not None
        done = subprocess.run(
            [sys.executable, "-ISc", LIST],
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            timeout=GUARD,
        )
        got = {int(line.split()[0]): line for line in done.stdout.decode().splitlines()}
    inherited = {fd for fd in got if fd > 2 and "/proc/" not in got[fd]}
    inheritable = {
        int(name)
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}") and os.get_inheritable(int(name))
    }
    # What the test runner itself left inheritable was there before, and is there now.
    assert inherited <= inheritable, got


async def test_fork_that_closes_a_console_socket(tmp_path: Path) -> None:
    """A fork that closes its copy of a console socket leaves the path to its parent."""
    async with ConsoleSocket(tmp_path / "sock") as console_socket:
        await forked(console_socket.close)
        assert (tmp_path / "sock").is_socket()
    assert not (tmp_path / "sock").exists()
