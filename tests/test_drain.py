"""After the exit: every byte that was written before it, and no waiting for anybody else."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import BytesDropped, Command, FdIO, FileIO, PipeIO, Stdio, _pipesize, create_io
from pyshimio.errors import ExitTimeoutError, InvalidOptionError, StreamFailedError
from pyshimio.testing import FakeClient
from support.children import GUARD, cancelled, until
from support.fifos import make_fifo

if TYPE_CHECKING:
    from pathlib import Path

    from pyshimio.io._base import BaseIO
    from support.children import CancelKind

LONG = 30.0


def make_program(directory: Path, text: str, shell: str = "sh") -> list[str]:
    """A script and how to run it."""
    path = directory / "program"
    path.write_text(text)
    return [shell, str(path)]


async def end_holder(directory: Path) -> None:
    """Kill the background process that a script wrote the number of into ``pid``."""
    path = directory / "pid"
    await until(lambda: path.exists() and path.read_text().endswith("\n"))
    os.kill(int(path.read_text()), signal.SIGKILL)


async def sink_io(kind: str, directory: Path) -> tuple[BaseIO, FakeClient | None]:
    """An IO for stdout of each kind of pump, with a client where one is needed."""
    if kind == "file":
        return FileIO(directory / "log"), None
    path = make_fifo(directory)
    return await create_io(Stdio(stdout=path)), FakeClient(path).attach()


KINDS = pytest.mark.parametrize("kind", ["file", "fifo"])


async def test_tee_as_entrypoint_loses_nothing(tmp_path: Path) -> None:
    """``exec > >(tee log)`` writes its last lines after its exit; by default they arrive."""
    tee = tmp_path / "tee.log"
    program = make_program(
        tmp_path,
        f"exec > >(sleep 0.2; exec tee {tee})\nfor i in $(seq 500); do echo line $i; done\n",
        "bash",
    )
    path = tmp_path / "log"
    for _ in range(2):
        path.unlink(missing_ok=True)
        async with FileIO(path) as io:
            await io.spawn(program)
            result = await io.drain(linger=LONG)
            assert result.complete
            assert not result.holders_left
        assert path.read_bytes() == tee.read_bytes()
        assert path.read_bytes().count(b"\n") == 500


@KINDS
async def test_idle_holder_does_not_delay_exited(tmp_path: Path, kind: str) -> None:
    """A background ``sleep`` that keeps the pipe open is reported and not waited for."""
    program = make_program(
        tmp_path, f"sleep 100 & echo $! > {tmp_path}/pid\nfor i in $(seq 2000); do echo $i; done\n"
    )
    expected = b"".join(b"%d\n" % number for number in range(1, 2001))
    io, client = await sink_io(kind, tmp_path)
    async with io:
        await io.spawn(program)
        with anyio.fail_after(GUARD):
            result = await io.drain(policy="exited", linger=LONG, sink_timeout=LONG)
        assert result.complete
        assert result.holders_left
        assert result.stdout is not None
        assert result.stdout.moved == len(expected)
        if client is not None:
            assert await client.read_all() == expected
            client.detach()
    if client is None:
        assert (tmp_path / "log").read_bytes() == expected
    await end_holder(tmp_path)


async def test_linger_is_the_limit_of_eof(tmp_path: Path) -> None:
    """By default a holder is waited for as long as *linger* says, and everything arrives."""
    program = make_program(tmp_path, f"sleep 100 & echo $! > {tmp_path}/pid\necho hello\n")
    async with FileIO(tmp_path / "log") as io:
        process = await io.spawn(program)
        await process.wait()
        begin = time.monotonic()
        with anyio.fail_after(GUARD):
            result = await io.drain(linger=0.3)
        assert time.monotonic() - begin >= 0.3
        assert result.complete
        assert result.holders_left
    assert (tmp_path / "log").read_bytes() == b"hello\n"
    await end_holder(tmp_path)


@KINDS
@pytest.mark.parametrize("policy", ["exited", "eof"])
async def test_endless_holder_cannot_hold(tmp_path: Path, kind: str, policy: Any) -> None:
    """A background ``yes`` ends with the bytes that were there; nothing is lost before it."""
    program = make_program(
        tmp_path, f"echo first\n(exec yes 2>/dev/null) & echo $! > {tmp_path}/pid\n"
    )
    io, client = await sink_io(kind, tmp_path)
    got = bytearray()

    async def read(reader: FakeClient) -> None:
        got.extend(await reader.read_all())

    async with anyio.create_task_group() as group:
        if client is not None:
            group.start_soon(read, client)
        async with io:
            await io.spawn(program)
            with anyio.fail_after(GUARD):
                result = await io.drain(policy=policy, linger=0.2, sink_timeout=LONG)
            assert result.complete
            assert result.holders_left
            stats = io.stats.stdout
            assert stats is not None
            assert stats.bytes_in == stats.bytes_out
    data = (tmp_path / "log").read_bytes() if client is None else bytes(got)
    if client is not None:
        client.detach()
    assert data.startswith(b"first\n") or b"first\n" in data
    assert result.stdout is not None
    assert len(data) == result.stdout.moved
    await until(lambda: not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}/exe"))


async def test_everything_before_the_exit_counts(tmp_path: Path) -> None:
    """With *exited* the last bytes before the exit are there, again and again, file and FIFO."""
    for number in range(10):
        directory = tmp_path / str(number)
        directory.mkdir()
        io, client = await sink_io("fifo" if number % 2 else "file", directory)
        async with io:
            await io.spawn(
                ["sh", "-c", f"sleep 100 & echo $! > {directory}/pid; head -c 50000 /dev/zero"]
            )
            result = await io.drain(policy="exited")
            assert result.stdout is not None
            assert result.stdout.moved == 50_000
        if client is not None:
            client.detach()
        await end_holder(directory)


async def test_keep_and_then_close(tmp_path: Path) -> None:
    """With *keep* the stream goes on after the drain, until the IO is closed."""
    go = make_fifo(tmp_path, "go")
    program = make_program(
        tmp_path,
        f"(read x < {go}; echo late; exec sleep 100) & echo $! > {tmp_path}/pid\necho early\n",
    )
    log = tmp_path / "log"
    async with FileIO(log) as io:
        await io.spawn(program)
        with anyio.fail_after(GUARD):
            result = await io.drain(policy="keep")
        assert result.complete
        assert result.holders_left
        assert log.read_bytes() == b"early\n"
        assert "copying" in repr(io)
        await until(lambda: _opened(go))
        await until(lambda: log.read_bytes() == b"early\nlate\n")
        again = await io.drain(policy="keep")
        assert again.stdout is not None
        assert again.stdout.moved == 11
    await end_holder(tmp_path)


def _opened(path: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    os.write(fd, b"go\n")
    os.close(fd)
    return True


@pytest.mark.parametrize("kind", ["process", "pidfd", "fileno", "awaitable"])
async def test_exited_may_be_many_things(tmp_path: Path, kind: str) -> None:
    """drain() waits for a Process, a pidfd, its owner, or anything that can be awaited."""
    async with FileIO(tmp_path / "log") as io:
        command = Command(["sh", "-c", "sleep 0.05; echo x"])
        io.set(command)
        async with await command.start() as process:
            io.close_after_start()
            await io.copy()
            exited: Any = {
                "process": process,
                "pidfd": process.pidfd,
                "fileno": _Holder(process.pidfd),
                "awaitable": None,
            }[kind]
            if kind == "awaitable":
                exited = process.wait()
            with anyio.fail_after(GUARD):
                result = await io.drain(exited=exited)
            assert result.complete
            assert await process.wait() == 0
    assert (tmp_path / "log").read_bytes() == b"x\n"


class _Holder:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


async def test_exit_timeout_ends_nothing(tmp_path: Path) -> None:
    """A process that still runs is a typed error, and its stream goes on."""
    log = tmp_path / "log"
    async with FileIO(log, stdin=True) as io:
        await io.spawn(["cat"])
        with pytest.raises(ExitTimeoutError, match="still runs") as caught:
            await io.drain(exit_timeout=0.02)
        assert caught.value.timeout == 0.02
        assert isinstance(caught.value, TimeoutError)
        assert io.stdin is not None
        await io.stdin.send(b"later\n")
        io.close_stdin()
        assert (await io.drain(exit_timeout=GUARD)).complete
    assert log.read_bytes() == b"later\n"


async def test_no_time_is_enough_for_what_has_exited(tmp_path: Path) -> None:
    """exit_timeout=0 asks whether it has exited, and a daemon that has is delivered."""
    log = tmp_path / "log"
    async with FileIO(log, on_exit="leave") as io:
        process = await io.spawn(["echo", "x"])
        await process.wait()
    assert log.read_bytes() == b"x\n"
    async with FileIO(log) as io:
        process = await io.spawn(["echo", "y"])
        await process.wait()
        assert (await io.drain(exit_timeout=0)).complete


async def test_stuck_sink_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client does not take within *sink_timeout* is dropped, counted and told."""
    monkeypatch.setattr(_pipesize, "STEPS", ())  # a FIFO that grew would hold all of it
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        async with await create_io(Stdio(stdout=path)) as io:
            events = io.events()
            await io.spawn([sys.executable, "-c", "import os; os.write(1, b'x' * 131072)"])
            with anyio.fail_after(GUARD):
                result = await io.drain(linger=0.05, sink_timeout=0.1)
            assert not result.complete
            assert result.stdout is not None
            assert not result.stdout.finished
            assert result.stdout.moved == client.unread == result.unread
            assert result.stdout.moved + result.stdout.dropped == 131_072
            assert result.stdout.dropped > 0
            assert result.abandoned == 0
        dropped = [event async for event in events if isinstance(event, BytesDropped)]
        assert [event.count for event in dropped] == [result.stdout.dropped]


@pytest.mark.parametrize("how", ["scope", "native"])
async def test_cancelled_drain_can_be_repeated(
    tmp_path: Path, how: CancelKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain that was cancelled, by either kind, has lost nothing; the next one ends it."""
    monkeypatch.setattr(_pipesize, "STEPS", ())  # a FIFO that grew would hold all of it
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        async with await create_io(Stdio(stdout=path)) as io:
            process = await io.spawn(
                [sys.executable, "-c", "import os; os.write(1, b'x' * 120000)"]
            )
            await process.wait()
            with anyio.fail_after(GUARD):
                await cancelled(how, lambda: io.drain(linger=LONG))
                await cancelled(how, lambda: io.drain(linger=0, policy="exited", sink_timeout=LONG))
            got = 0

            async def read() -> None:
                nonlocal got
                got = len(await client.read_all())

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                with anyio.fail_after(GUARD):
                    result = await io.drain()
                    again = await io.drain()
            assert result.complete
            assert again.complete
            assert got == 120_000


async def test_failed_stream_is_raised_once(tmp_path: Path) -> None:
    """A sink that fails for good is raised by drain(), with the result, and by nobody again."""
    reader, writer = os.pipe()
    os.close(reader)
    async with FdIO(stdout=writer) as io:
        os.close(writer)
        await io.spawn(["sh", "-c", "echo lost; sleep 0.05; echo x"])
        with pytest.raises(StreamFailedError, match="stdout ended early") as caught:
            await io.drain()
        assert caught.value.stream == "stdout"
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.result is not None
        assert caught.value.result.stdout is not None
        assert not caught.value.result.complete
        assert caught.value.result.stdout.dropped == 5
        assert not (await io.drain()).complete


async def test_failed_stream_is_raised_by_aclose(tmp_path: Path) -> None:
    """Without a drain aclose() says it, and the other stream still got all of its bytes."""
    log = tmp_path / "log"
    reader, writer = os.pipe()
    os.close(reader)
    with open(log, "wb") as file, pytest.raises(StreamFailedError):
        async with FdIO(stdout=writer, stderr=file) as io:
            os.close(writer)
            process = await io.spawn(["sh", "-c", "echo lost; echo kept >&2"])
            await process.wait()
    assert log.read_bytes() == b"kept\n"
    assert "closed" in repr(io)


async def test_error_on_its_way_is_not_hidden(tmp_path: Path) -> None:
    """Leaving the block with an error raises that one and not the sink's."""
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(ZeroDivisionError):
        async with FdIO(stdout=writer) as io:
            os.close(writer)
            await (await io.spawn(["echo", "lost"])).wait()
            raise ZeroDivisionError


async def test_child_that_was_reaped_elsewhere(tmp_path: Path) -> None:
    """A stolen exit status is a matter of wait() alone; every byte still arrives."""
    log = tmp_path / "log"
    async with FileIO(log) as io:
        process = await io.spawn(["echo", "x"])
        os.waitpid(process.pid, 0)
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert result.complete
    assert log.read_bytes() == b"x\n"


async def test_unknown_policy() -> None:
    """A policy that does not exist is refused before anything happens."""
    async with PipeIO() as io:
        with pytest.raises(InvalidOptionError, match="policy"):
            await io.drain(policy="never")  # type: ignore[arg-type]


async def test_drain_of_nothing() -> None:
    """An IO whose streams the caller reads itself has nothing to drain, and says so."""
    async with PipeIO() as io:
        await io.spawn(["true"])
        result = await io.drain()
        assert result.complete
        assert result.streams == ()
        assert (result.unread, result.abandoned, result.holders_left) == (0, 0, False)


async def test_a_pidfd_of_the_callers_stays_as_it_is() -> None:
    """Waiting for it sets no flag on a description that is not ours."""
    async with await Command(["true"]).start() as process, PipeIO(stdin=False) as io:
        pidfd = os.pidfd_open(process.pid)
        try:
            assert os.get_blocking(pidfd)
            await io.drain(exited=pidfd)
            assert os.get_blocking(pidfd)
        finally:
            os.close(pidfd)
        await process.wait()
