"""What goes wrong on purpose goes wrong as it does in life, and right again afterwards."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import ConsoleSocket, FdIO, FileIO, PipeIO, Stdio, _sys, create_io
from pyshimio.errors import ConsoleError
from pyshimio.logging import LogFile
from pyshimio.testing import FakeClient, FakeContainer, numbered
from pyshimio.testing.faults import (
    cancel_everywhere,
    clogged,
    dying_peer,
    every_failure,
    fail_syscall,
    full_disk,
    tiny_pipe,
)
from support.children import GUARD, until
from support.fifos import make_fifo
from support.mounts import tmpfs

if TYPE_CHECKING:
    from pathlib import Path


# -- pipes ------------------------------------------------------------------------------------


async def test_a_clogged_pipe() -> None:
    """Nothing gets through until it is unclogged, and then everything."""
    with clogged() as clog:
        async with FdIO(stdout=clog.fileno()) as io:
            await io.spawn(FakeContainer().numbered(100).args)
            assert not (await io.drain(sink_timeout=0.1)).complete
        async with FdIO(stdout=clog.fileno()) as io, anyio.create_task_group() as group:
            process = await io.spawn(FakeContainer().numbered(100).args)
            await process.wait()
            group.start_soon(io.drain)
            await anyio.wait_all_tasks_blocked()
            clog.unclog()
        assert clog.take() == numbered(100)


async def test_a_clogged_fifo(tmp_path: Path) -> None:
    """Its client, which is there, reads nothing; the stuffing goes with the block."""
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        with clogged(path) as clog:
            async with await create_io(Stdio(stdout=path)) as io:
                await io.spawn(["echo", "late"])
                assert not (await io.drain(sink_timeout=0.1)).complete
            assert clog.stuffed == client.unread
        assert client.unread == 0


async def test_a_clogged_fifo_that_somebody_reads(tmp_path: Path) -> None:
    """Who reads it gets the stuffing, and what comes behind it."""
    path = make_fifo(tmp_path)
    with FakeClient(path) as client, clogged(path) as clog:
        stuffed = clog.stuffed
        async with await create_io(Stdio(stdout=path)) as io:
            await io.spawn(["echo", "late"])
            assert len(await client.read(stuffed - 10)) == stuffed - 10
            assert (await io.drain()).complete


def test_what_is_in_a_clogged_fifo_is_not_touched(tmp_path: Path) -> None:
    """What was written behind the stuffing stays; what was there before is not hidden."""
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        with clogged(path):
            os.read(client.fileno(), 100_000)
            writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, b"late\n")
            os.close(writer)
        with pytest.raises(ValueError, match="not empty"):
            with clogged(path):
                pass
        assert os.read(client.fileno(), 100) == b"late\n"


async def test_tiny_pipes(tmp_path: Path) -> None:
    """Every pipe and FIFO of ours holds one page and does not grow; nothing is lost."""
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        with tiny_pipe():
            reader, writer = _sys.pipe()
            assert fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ) == 4096
            with pytest.raises(PermissionError):
                _sys.set_pipe_size(reader, 1 << 20)
            os.close(reader)
            os.close(writer)
            async with (
                await create_io(Stdio(stdout=path)) as io,
                anyio.create_task_group() as tasks,
            ):
                await io.spawn(FakeContainer().numbered(300_000).args)
                tasks.start_soon(io.drain)
                assert await client.read(100) == numbered(100)
                assert fcntl.fcntl(client.fileno(), fcntl.F_GETPIPE_SZ) == 4096
                assert await client.read_all() == numbered(300_000)[100:]
    reader, writer = _sys.pipe()
    assert fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ) == 65536
    os.close(reader)
    os.close(writer)


# -- disks ------------------------------------------------------------------------------------


async def on_a_full_disk(where: Path) -> tuple[int, int]:
    """What a log on it holds when there was room for 4096 bytes; and what was dropped."""
    async with FileIO(where / "log", on_error="drop") as io:
        await io.spawn(FakeContainer().numbered(20_000).args)
        result = await io.drain()
    assert result.stdout is not None
    assert not result.complete
    return (where / "log").stat().st_size, result.stdout.dropped


async def test_a_full_disk_is_like_a_real_one(tmp_path: Path) -> None:
    """Without root a log on it holds what one holds on a real file system that is full."""
    made = tmp_path / "made"
    made.mkdir()
    with full_disk(made, room=4096) as disk:
        found = await on_a_full_disk(made)
        assert disk.room == 0
        assert disk.refused
        (tmp_path / "other").write_bytes(b"x" * 10_000)  # there is room elsewhere
    assert found == (4096, 20_000 - 4096)
    (made / "log").write_bytes(b"x" * 10_000)
    if os.geteuid() == 0:
        with tmpfs(tmp_path / "real", size="4k") as real:
            # (A directory's entry needs a page of its own there, where pages are few.)
            assert await on_a_full_disk(real) == found


async def test_a_full_disk_that_has_room_again(tmp_path: Path) -> None:
    """Who waits for room goes on when there is."""
    log = tmp_path / "log"
    async with FileIO(log, on_error="block") as io:
        with full_disk(tmp_path, room=1000) as disk:
            await io.spawn(FakeContainer().numbered(20_000).args)
            await until(lambda: disk.refused)
            assert log.stat().st_size == 1000
            disk.make_room()
            assert (await io.drain()).complete
    assert log.read_bytes() == numbered(20_000)


def test_a_full_disk_under_a_log_driver(tmp_path: Path) -> None:
    """What a driver of this process writes finds no room, too."""
    file = LogFile(str(tmp_path / "log"))
    file.open()
    with full_disk(tmp_path, room=2):
        with pytest.raises(OSError, match="No space") as caught:
            file.write(b"line\n")
            file.flush()
        assert caught.value.errno == errno.ENOSPC
    file.flush()
    file.close()
    assert (tmp_path / "log").read_bytes() == b"line\n"


# -- peers ------------------------------------------------------------------------------------


async def test_a_client_that_dies(tmp_path: Path) -> None:
    """Its FIFO keeps what it has not read, for the next one."""
    path = make_fifo(tmp_path)
    with dying_peer(path, after=100) as peer:
        async with await create_io(Stdio(stdout=path)) as io:
            process = await io.spawn(FakeContainer().numbered(1000).args)
            await peer.gone()
            await process.wait()
            with FakeClient(path) as client:
                assert await client.read(900) == numbered(1000)[100:]
                assert (await io.drain()).complete


async def test_a_client_that_is_killed(tmp_path: Path) -> None:
    """At the moment that the test chooses."""
    path = make_fifo(tmp_path)
    with dying_peer(path) as peer:
        async with await create_io(Stdio(stdout=path)) as io:
            process = await io.spawn(FakeContainer().flood().args)
            await peer.attached()
            os.kill(peer.pid, 0)
            peer.die()
            assert peer.dead
            with FakeClient(path) as client:
                assert len(await client.read(100_000)) == 100_000
            io.close()
            await process.wait()


async def test_a_writer_that_dies(tmp_path: Path) -> None:
    """What it has written arrives."""
    path = make_fifo(tmp_path)
    with dying_peer(path, side="writes", after=1000) as peer:
        async with await create_io(Stdio(stdin=path, stdout=f"file://{tmp_path}/log")) as io:
            await io.spawn(["cat"])
            await peer.gone()
            io.close_stdin()
            assert (await io.drain()).complete
    assert (tmp_path / "log").read_bytes() == bytes(1000)


async def test_a_runtime_that_dies_before_it_sends() -> None:
    """A console socket is told by the end of the connection."""
    async with ConsoleSocket.temp() as console_socket:
        with dying_peer(console_socket.path, after=0):
            with pytest.raises(ConsoleError):
                await console_socket.receive(GUARD)


async def test_who_cannot_come() -> None:
    """A peer that could not open its side has not come."""
    with dying_peer("/nonexistent") as peer:
        with pytest.raises(AssertionError, match="ended before"):
            await peer.attached()


async def test_an_operation_that_calls_nothing() -> None:
    """There is nothing to fail, and that is said."""
    with pytest.raises(AssertionError, match="no call of pyshimio"):
        await every_failure(anyio.lowlevel.checkpoint)


async def test_who_never_comes(tmp_path: Path) -> None:
    """Waiting for a peer ends."""
    with dying_peer(make_fifo(tmp_path)) as peer:
        for waiting in (peer.attached, peer.gone):
            with pytest.raises(TimeoutError):
                await waiting(0.01)


# -- operations of others ---------------------------------------------------------------------


class TroubledError(Exception):
    """What a supervisor of somebody else says."""


async def supervise() -> None:
    """A user's own operation, with an error of its own."""
    try:
        async with PipeIO(stderr=False) as io:
            process = await io.spawn(["true"])
            await process.wait()
    except OSError as error:
        raise TroubledError from error


async def test_every_failure_of_a_users_operation() -> None:
    """Its own errors are allowed where that is said, and are named where it is not."""
    report = await every_failure(supervise, allowed=(TroubledError,), sample=1)
    assert report.name == "supervise"
    assert report.refused > 5
    with pytest.raises(AssertionError, match=r"pipe number 1: ENFILE: raised TroubledError"):
        await every_failure(supervise, sample=1, only=["pipe"])


async def in_a_group() -> None:
    """An operation whose errors come in groups."""
    async with anyio.create_task_group() as group:
        group.start_soon(_spawn)


async def _spawn() -> None:
    async with PipeIO(stderr=False) as io:
        await (await io.spawn(["true"])).wait()


async def test_every_failure_in_a_task_group() -> None:
    """A group of allowed errors is allowed."""
    assert (await every_failure(in_a_group, sample=1, only=["pipe", "posix_spawn"])).refused


async def test_cancel_everywhere_of_a_users_operation() -> None:
    """It is called by its name in the report, and what it leaves is found."""
    assert (await cancel_everywhere(supervise)).name == "supervise"
    left: list[int] = []

    async def forgetful() -> None:
        fd = os.open("/dev/null", os.O_RDONLY)
        left.append(fd)
        await anyio.lowlevel.checkpoint()
        os.close(left.pop())

    with pytest.raises(AssertionError, match=r"at suspension 1: left behind: .*/dev/null"):
        await cancel_everywhere(forgetful)
    for fd in left:
        os.close(fd)


def test_faults_that_there_are_not() -> None:
    """A call that is none, or that cannot fail so, is refused."""
    for name, options in (
        ("no_such_call", {"error": errno.EIO}),
        ("openpty", {"short": True}),
        ("read", {}),
        ("read", {"error": errno.EIO, "short": True}),
    ):
        with pytest.raises(ValueError, match=r"no call|short|one of"):
            with fail_syscall(name, **options):
                pass


async def test_a_call_that_fails_once() -> None:
    """It fails as it was told to, and everything is as before."""
    with fail_syscall("pipe", 2, error=errno.EMFILE) as calls:
        with pytest.raises(OSError, match="open files"):
            PipeIO()
    assert calls.failed == "pipe"
    async with PipeIO() as io:
        assert await (await io.spawn(["true"])).wait() == 0
