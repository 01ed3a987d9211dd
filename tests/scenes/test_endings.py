"""Every way for an IO to end: twice, early, by two tasks, after its loop, or by nobody."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import FileIO, PipeIO, Stdio, create_io
from pyshimio._poller import Poller
from pyshimio.testing import FakeClient
from pyshimio.testing._leaks import Snapshot
from support.children import GUARD, exists, until
from support.fifos import make_fifo
from support.loops import LOOPS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pyshimio.io._base import BaseIO

HOWS = pytest.mark.parametrize("how", ["pipe", "file", "fifo"])
EACH_LOOP = pytest.mark.parametrize("loop", list(LOOPS))


def run(loop: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run *main* on a loop of its own."""
    backend, options = LOOPS[loop]
    anyio.run(main, backend=backend, backend_options=options)


async def make(how: str, directory: Path) -> BaseIO:
    """An IO of each kind; a FIFO's client must be there already."""
    if how == "pipe":
        return PipeIO(grace=0)
    if how == "file":
        return FileIO(directory / "log", grace=0)
    path = str(directory / "fifo")
    return await create_io(Stdio(stdout=path), grace=0)


@HOWS
async def test_close_before_the_start(tmp_path: Path, how: str) -> None:
    """An IO that was never started closes at once, as often as one likes, by either name."""
    with FakeClient(make_fifo(tmp_path)):
        io = await make(how, tmp_path)
        with anyio.fail_after(GUARD):
            for _ in range(3):
                await io.aclose()
                io.close()


@HOWS
async def test_closed_by_two_tasks_during_copy(tmp_path: Path, how: str) -> None:
    """Two tasks that close an IO in mid-stream both return, its child is reaped, all is told."""
    with FakeClient(make_fifo(tmp_path)) as client:
        io = await make(how, tmp_path)
        process = await io.spawn(["yes"])
        got = bytearray()

        async def read() -> None:
            got.extend(await client.read_all())

        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group:
                if how == "fifo":
                    group.start_soon(read)
                if how != "pipe":
                    while not ((stats := io.stats.stdout) and stats.bytes_out):
                        await anyio.sleep(0.001)
                group.start_soon(io.aclose)
                group.start_soon(io.aclose)
        await io.aclose()
        assert process.exited
        assert not exists(process.pid)
        stats = io.stats.stdout
        if how != "pipe":
            assert stats is not None
            assert stats.bytes_in == stats.bytes_out + stats.dropped
            arrived = bytes(got) if how == "fifo" else (tmp_path / "log").read_bytes()
            assert len(arrived) == stats.bytes_out


async def test_closed_while_another_task_drains(tmp_path: Path) -> None:
    """A drain that runs while another task closes the IO ends, and does not hang."""
    io = FileIO(tmp_path / "log", grace=0)
    await io.spawn(["sleep", "100"])
    with anyio.fail_after(GUARD):
        async with anyio.create_task_group() as group:
            group.start_soon(io.drain)
            await anyio.wait_all_tasks_blocked()
            await io.aclose()


async def forget(how: str, directory: Path) -> None:
    """Start a child and keep nothing of it."""
    io = await make(how, directory)
    process = await io.spawn(["sh", "-c", "echo out"])
    process.close()


@HOWS
async def test_forgotten_in_a_running_loop(tmp_path: Path, how: str) -> None:
    """An IO that nobody holds any more delivers what its child writes, then gives all back.

    What nobody closed is closed when it is collected, with a ResourceWarning for each.
    """
    with FakeClient(make_fifo(tmp_path)) as client:
        before = Snapshot.take()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await forget(how, tmp_path)
            data = await client.read(4) if how == "fifo" else b""

            def gone() -> bool:
                gc.collect()
                return not before.left_behind(grace=0)

            await until(gone)
        if how == "pipe":
            assert {warning.category for warning in caught} == {ResourceWarning}
        elif how == "file":
            await until(lambda: (tmp_path / "log").read_bytes() == b"out\n")
        else:
            assert data == b"out\n"


@EACH_LOOP
@HOWS
@pytest.mark.parametrize("end", ["close", "collect", "finalizer"])
def test_loop_that_ends_first(tmp_path: Path, loop: str, how: str, end: str) -> None:
    """An IO in mid-stream whose loop is gone can be closed, forgotten, or closed by ``__del__``.

    Its descriptors and threads go, nobody else's do, and nothing but ResourceWarning is said.
    """

    class Owner:
        def __init__(self, io: BaseIO) -> None:
            self.io = io

        def __del__(self) -> None:
            if end == "finalizer":
                self.io.close()

    owners: list[Owner] = []
    pids: list[int] = []

    async def main() -> None:
        owners.append(Owner(await make(how, tmp_path)))
        process = await owners[0].io.spawn(["sh", "-c", "echo begin; exec sleep 100"])
        pids.append(process.pid)
        if how == "pipe":
            assert await owners[0].io.stdout.receive() == b"begin\n"  # type: ignore[union-attr]
        else:
            while not ((stats := owners[0].io.stats.stdout) and stats.bytes_out):
                await anyio.sleep(0.001)

    with FakeClient(make_fifo(tmp_path)):
        before = Snapshot.take()
        run(loop, main)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if end == "close":
                owners[0].io.close()
            owners.clear()
            gc.collect()
            # No loop is there to reap it.
            if end == "collect":
                os.kill(pids[0], 9)
            assert os.waitpid(pids[0], 0) == (pids[0], 9)

            deadline = time.monotonic() + GUARD
            while left := before.left_behind(grace=0.01):
                assert time.monotonic() < deadline, left
                # A thread that waits for more of the stream holds all of it a moment longer.
                gc.collect()
    assert {warning.category for warning in caught} <= {ResourceWarning}


@EACH_LOOP
def test_next_loop_of_the_same_thread(tmp_path: Path, loop: str) -> None:
    """After a loop that ended with an IO open the next one begins with nothing of its."""
    kept: list[Any] = []

    async def forgetful() -> None:
        io = FileIO(tmp_path / "first", stdin=True)
        kept.extend((io, Poller.current()))
        await io.spawn(["cat"])

    async def careful() -> None:
        assert Poller.current() is not kept[1]
        async with FileIO(tmp_path / "second") as io:
            await io.spawn(["echo", "x"])
            assert (await io.drain()).complete

    run(loop, forgetful)
    run(loop, careful)
    kept[0].close()
    os.waitpid(kept[0]._processes[0].pid, 0)
    run(loop, careful)
    assert (tmp_path / "second").read_bytes() == b"x\nx\n"


@pytest.mark.parametrize("second", list(LOOPS))
@EACH_LOOP
def test_two_loops_at_once(tmp_path: Path, loop: str, second: str) -> None:
    """Two loops in two threads each move their own streams, byte for byte."""
    both = threading.Barrier(2, timeout=GUARD)
    errors: list[BaseException] = []
    size = 300_000

    def thread(name: str, where: Path) -> None:
        where.mkdir()
        path = make_fifo(where)
        (where / "data").write_bytes(os.urandom(size))
        data = (where / "data").read_bytes()

        async def main() -> None:
            await anyio.to_thread.run_sync(both.wait)
            for _ in range(5):
                with FakeClient(path) as client:
                    destinations = Stdio(stdout=path, stderr=f"file://{where}/log")
                    async with await create_io(destinations) as io:
                        await io.spawn(["sh", "-c", f"cat {where}/data; cat {where}/data >&2"])
                        assert await client.read(size) == data
                        with anyio.fail_after(GUARD):
                            assert (await io.drain()).complete

        try:
            run(name, main)
            assert (where / "log").read_bytes() == data * 5
        except BaseException as error:
            errors.append(error)
            both.abort()

    threads = [
        threading.Thread(target=thread, args=(name, tmp_path / str(number)))
        for number, name in enumerate((loop, second))
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors, errors


PROGRAM = """
import asyncio, sys
import anyio
from pyshimio import FileIO, PipeIO

async def main():
    global io
    io = FileIO(sys.argv[2], stdin=True) if sys.argv[1] == "file" else PipeIO()
    await io.spawn(["cat"])

asyncio.run(main())
print("end of program")
"""


@pytest.mark.parametrize("how", ["file", "pipe"])
def test_program_that_ends_with_an_io_open(tmp_path: Path, how: str) -> None:
    """An interpreter that exits with an IO open neither crashes nor hangs nor complains of us."""

    async def main() -> None:
        done = await anyio.run_process(
            [sys.executable, "-c", PROGRAM, how, str(tmp_path / "log")], check=False
        )
        assert done.stdout == b"end of program\n"
        assert (done.returncode, done.stderr) == (0, b"")

    with asyncio.Runner() as runner:
        runner.run(asyncio.wait_for(main(), GUARD))
