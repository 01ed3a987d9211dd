"""An IO's life out of order and cut short, where that is not for every IO (test_conformance.py)."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import BinaryIO, Command, FileIO, NullIO, PipeIO, Stdio, _sys, create_io
from pyshimio._sink import NullSink
from pyshimio.errors import (
    CommandNotFoundError,
    FifoTimeoutError,
    InvalidOptionError,
    IOStateError,
)
from pyshimio.testing import FakeClient
from support.children import GUARD, cancelled, exists, until
from support.fifos import make_fifo

if TYPE_CHECKING:
    from pathlib import Path

    from pyshimio.io._base import BaseIO
    from support.children import CancelKind

CANCELS = pytest.mark.parametrize("how", ["scope", "native"])

STUBBORN = (
    "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " os.write(1, b'ready\\n'); signal.pause()"
)


def logger_program(directory: Path) -> str:
    """A logger that is ready at once and says when it ends."""
    path = directory / "logger"
    path.write_text(
        f"#!/bin/sh\necho $$ > {directory}/logger.pid\necho >&5; exec 5>&-\n"
        f"cat <&3 >> {directory}/logged; cat <&4 >> {directory}/logged\n"
    )
    path.chmod(0o755)
    return str(path)


# -- out of order -----------------------------------------------------------------------


async def test_copy_twice(tmp_path: Path) -> None:
    """A second copy() is refused and disturbs nothing."""
    async with FileIO(tmp_path / "log") as io:
        command = Command(["sh", "-c", "sleep 0.05; echo x"])
        io.set(command)
        async with await command.start() as process:
            io.close_after_start()
            await io.copy()
            with pytest.raises(IOStateError, match="one IO serves one process"):
                await io.copy()
            assert (await io.drain(exited=process)).complete
    assert (tmp_path / "log").read_bytes() == b"x\n"


async def test_spawn_twice(tmp_path: Path) -> None:
    """A second spawn() is refused, and the first child lives on and is copied."""
    async with FileIO(tmp_path / "log", stdin=True) as io:
        process = await io.spawn(["cat"])
        with pytest.raises(IOStateError, match="one IO serves one process"):
            await io.spawn(["echo", "never"])
        assert not process.exited
        assert io.stdin is not None
        await io.stdin.send(b"alive\n")
        io.close_stdin()
        assert (await io.drain()).complete
    assert (tmp_path / "log").read_bytes() == b"alive\n"


async def test_nothing_is_attached_after_close(tmp_path: Path) -> None:
    """As every other step of a closed IO (:func:`~pyshimio.testing.conformance.check_io`)."""
    io = FileIO(tmp_path / "log")
    io.close()
    with pytest.raises(IOStateError, match="closed"):
        io.attach("stdout", NullSink(count=False))


async def test_bad_arguments_change_nothing(tmp_path: Path) -> None:
    """spawn() with arguments that mean nothing leaves an IO that can still be used."""
    async with FileIO(tmp_path / "log") as io:
        with pytest.raises(InvalidOptionError):
            await io.spawn("echo x")
        await io.spawn(["echo", "x"])
        assert (await io.drain()).complete
    with pytest.raises(InvalidOptionError, match="on_exit"):
        NullIO(on_exit="never")  # type: ignore[arg-type]


# -- closing ----------------------------------------------------------------------------


async def test_aclose_kills_after_the_grace() -> None:
    """A child that ignores SIGTERM gets SIGKILL after *grace* seconds."""
    async with PipeIO(grace=0.1) as io:
        process = await io.spawn([sys.executable, "-c", STUBBORN])
        assert io.stdout is not None
        assert await io.stdout.receive() == b"ready\n"
        begin = time.monotonic()
    assert time.monotonic() - begin >= 0.1
    assert process.status == 128 + signal.SIGKILL


async def test_daemon_is_left_alone(tmp_path: Path) -> None:
    """With ``on_exit="leave"`` a child outlives its IO."""
    async with NullIO(on_exit="leave") as io:
        process = await io.spawn(["sleep", "100"])
    assert not process.exited
    process.kill()
    assert await process.wait() == 128 + signal.SIGKILL
    async with FileIO(tmp_path / "log", on_exit="leave") as second:
        process = await second.spawn(["sleep", "100"])
        with anyio.fail_after(GUARD):
            await second.aclose()
    assert not process.exited
    process.kill()
    await process.wait()


@CANCELS
async def test_cancelled_aclose_gives_no_grace(how: CancelKind) -> None:
    """aclose() that is cancelled, by either kind, kills, reaps and closes within moments."""
    io = PipeIO(grace=100)
    process = await io.spawn([sys.executable, "-c", STUBBORN])
    assert io.stdout is not None
    assert await io.stdout.receive() == b"ready\n"
    with anyio.fail_after(GUARD):
        await cancelled(how, io.aclose)
        await until(lambda: process.exited)
    assert process.status == 128 + signal.SIGKILL
    assert "closed" in repr(io)


async def test_two_tasks_close(tmp_path: Path) -> None:
    """Two tasks may close one IO at the same time."""
    io = FileIO(tmp_path / "log")
    await (await io.spawn(["echo", "x"])).wait()
    with anyio.fail_after(GUARD):
        async with anyio.create_task_group() as group:
            group.start_soon(io.aclose)
            group.start_soon(io.aclose)
    assert (tmp_path / "log").read_bytes() == b"x\n"


async def test_close_during_copy_ends_the_wait(tmp_path: Path) -> None:
    """An IO closed while spawn() waits for a client makes that spawn() fail, not hang."""
    path = make_fifo(tmp_path)
    io = await create_io(Stdio(stdout=path), client_timeout=GUARD)
    failed: list[BaseException] = []

    async def spawn() -> None:
        try:
            await io.spawn(["true"])
        except Exception as error:
            failed.append(error)

    with anyio.fail_after(GUARD):
        async with anyio.create_task_group() as group:
            group.start_soon(spawn)
            await anyio.sleep(0.02)
            await io.aclose()
    assert len(failed) == 1
    assert isinstance(failed[0], IOStateError)


async def test_close_with_output_on_its_way(tmp_path: Path) -> None:
    """close() in mid-stream gives every descriptor back, whoever still writes and reads."""
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        io = await create_io(Stdio(stdout=path))
        process = await io.spawn(["yes"])
        await until(lambda: client.unread >= 65536)
        io.close()
        assert await client.read_all()
        with anyio.fail_after(GUARD):
            await process.wait()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("drained", [True, False])
def test_close_after_the_loop_has_ended(tmp_path: Path, backend: str, drained: bool) -> None:
    """An IO that nobody closed can be closed when its loop is gone, even in mid-stream."""
    path = make_fifo(tmp_path)
    kept: list[BaseIO] = []

    async def main() -> None:
        io = await create_io(Stdio(stdout=path))
        kept.append(io)
        process = await io.spawn(["head", "-c", "130000", "/dev/zero"])
        await process.wait()
        if drained:
            await io.drain(policy="exited", sink_timeout=0.1)

    with FakeClient(path):
        anyio.run(main, backend=backend)
        kept[0].close()


# -- failing starts ---------------------------------------------------------------------


async def test_program_that_is_missing(tmp_path: Path) -> None:
    """When the child cannot be started, a started logger is ended and reaped as well."""
    uri = f"binary://{logger_program(tmp_path)}"
    io = await create_io(uri, id="c", namespace="n")
    assert isinstance(io, BinaryIO)
    await until((tmp_path / "logger.pid").exists)
    with pytest.raises(CommandNotFoundError):
        await io.spawn(["/nonexistent/program"])
    assert "closed" in repr(io)
    await io.aclose()
    pid = int((tmp_path / "logger.pid").read_text())
    await until(lambda: not exists(pid))


async def test_destination_that_fails_starts_no_child(tmp_path: Path) -> None:
    """When a FIFO's client does not come, nothing was started and the file is closed."""
    started = tmp_path / "started"
    io = await create_io(
        Stdio(stdout=f"file://{tmp_path}/log", stderr=make_fifo(tmp_path)), client_timeout=0.05
    )
    with pytest.raises(FifoTimeoutError):
        await io.spawn(["touch", str(started)])
    assert not started.exists()
    await io.aclose()


async def test_given_command_is_closed_when_spawn_fails(tmp_path: Path) -> None:
    """A caller's Command that could not be started holds no descriptor."""
    command = Command(["/nonexistent/program"])
    io = FileIO(tmp_path / "log")
    with pytest.raises(CommandNotFoundError):
        await io.spawn(command)


@pytest.mark.parametrize("call", ["epoll_create", "eventfd", "epoll_add"])
async def test_poller_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """When the pumps cannot begin, the child is killed and reaped and all is given back."""
    path = make_fifo(tmp_path)
    with FakeClient(path):
        io = await create_io(Stdio(stdout=path))

        def refuse(*_: object) -> None:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(_sys, call, refuse)
            with pytest.raises(OSError, match="Too many"):
                await io.spawn(["sleep", "100"])
        await io.aclose()
        if io._processes:
            with anyio.fail_after(GUARD):
                await io._processes[0].wait()


async def test_copy_that_fails_closes(tmp_path: Path) -> None:
    """copy() whose client does not come closes the IO; the caller's process stays the caller's."""
    path = make_fifo(tmp_path)
    io = await create_io(Stdio(stdout=path), client_timeout=0.05)
    command = Command(["sleep", "100"])
    io.set(command)
    async with await command.start() as process:
        io.close_after_start()
        with pytest.raises(FifoTimeoutError):
            await io.copy()
        assert not process.exited
        process.kill()
        await process.wait()


# -- words ------------------------------------------------------------------------------


async def test_repr_says_the_state(tmp_path: Path) -> None:
    """The representation says in words how far an IO is, and each of its streams."""
    async with FileIO(tmp_path / "log", stdin=True) as io:
        assert repr(io) == "<FileIO open stdin=open stdout=open stderr=none>"
        await io.spawn(["cat"])
        assert repr(io) == "<FileIO copying stdin=started stdout=copying stderr=none>"
        io.close_stdin()
        await io.drain()
        assert repr(io) == "<FileIO drained stdin=started stdout=ended stderr=none>"
    assert repr(io) == "<FileIO closed stdin=started stdout=ended stderr=none>"


async def test_leave_keeps_what_an_exited_child_wrote(tmp_path: Path) -> None:
    """Leaving at once after an exit that the loop has not seen yet loses nothing."""
    for number in range(10):
        log = tmp_path / str(number)
        async with FileIO(log, on_exit="leave") as io:
            process = await io.spawn(["echo", "hi"])
            while not process.has_exited():
                time.sleep(0.001)
        assert log.read_text() == "hi\n"
