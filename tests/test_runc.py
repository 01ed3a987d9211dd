"""Containers of real runtimes, started the go-runc way."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

from pyshimio import (
    BinaryIO,
    ConsoleIO,
    ConsoleSocket,
    FileIO,
    PipeIO,
    Stdio,
    StdioURI,
    create_io,
)
from pyshimio.errors import ConsoleRuntimeExitedError
from support.runc import Runtime
from support.terminals import GUARD, make_script, read_until, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anyio.abc import ByteReceiveStream

    from pyshimio import IO, DrainResult

pytestmark = pytest.mark.runtime("runc", "busybox")

LOGGER = """#!/bin/sh
out="$2"
echo "$CONTAINER_ID $CONTAINER_NAMESPACE" >"$out.env"
echo >&5
exec 5>&-
cat <&4 >"$out.stderr" &
cat <&3 >"$out.stdout"
wait
"""


async def create(io: IO, runtime: Runtime) -> None:
    """``runc create`` with *io*, as go-runc does it."""
    command = runtime.create()
    io.set(command)
    async with await command.start() as process:
        io.close_after_start()
        assert await process.wait(GUARD) == 0


async def run_to_end(
    io: PipeIO | ConsoleIO, runtime: Runtime, policy: Literal["eof", "exited"] = "eof"
) -> DrainResult:
    """Copy, start, and drain up to the exit of the container's init."""
    await io.copy()
    with pidfd_of(runtime) as init:
        assert await runtime.do("start") == 0
        with anyio.fail_after(GUARD):
            return await io.drain(exited=init, policy=policy)


@contextmanager
def pidfd_of(runtime: Runtime) -> Iterator[int]:
    """The container's init."""
    pidfd = runtime.pidfd()
    try:
        yield pidfd
    finally:
        os.close(pidfd)


async def read_stream(stream: ByteReceiveStream | None) -> bytes:
    """Everything up to the end."""
    assert stream is not None
    seen = b""
    with anyio.fail_after(GUARD):
        try:
            while True:
                seen += await stream.receive()
        except anyio.EndOfStream:
            return seen


# -- pipes, files, loggers ---------------------------------------------------------------------


async def test_pipes_go_runcs_way(tmp_path: Path) -> None:
    """create, close_after_start, start, read to the end, delete: each step is what Go's is."""
    runtime = Runtime.make(tmp_path, ["sh", "-c", "read x; echo got $x; echo err >&2; exit 3"])
    async with runtime.cleaned(), PipeIO() as io:
        await create(io, runtime)
        assert await runtime.do("start") == 0
        assert io.stdin is not None
        await io.stdin.send(b"typed\n")
        assert await read_stream(io.stdout) == b"got typed\n"
        assert await read_stream(io.stderr) == b"err\n"
        await until(lambda: not os.path.exists(f"/proc/{_pid(runtime)}") or _zombie(runtime))
        assert await runtime.do("delete") == 0
        assert not runtime.exists()


def _pid(runtime: Runtime) -> int:
    with open(runtime.pid_file, encoding="ascii") as file:
        return int(file.read())


def _zombie(runtime: Runtime) -> bool:
    with open(f"/proc/{_pid(runtime)}/stat", encoding="ascii") as file:
        return ") Z" in file.read()


async def test_a_dead_container_breaks_its_stdin(tmp_path: Path) -> None:
    """Nobody else holds stdin's reading end, so typing to a dead container is an error."""
    runtime = Runtime.make(tmp_path, ["echo", "done"])
    async with runtime.cleaned(), PipeIO() as io:
        await create(io, runtime)
        assert await runtime.do("start") == 0
        assert await read_stream(io.stdout) == b"done\n"
        assert io.stdin is not None
        with anyio.fail_after(GUARD), pytest.raises(anyio.BrokenResourceError):
            while True:
                await io.stdin.send(b"x" * 65536)


async def test_stdin_round_trip_over_fifos(tmp_path: Path) -> None:
    """A client types into one FIFO and reads from two; close_stdin() ends the container."""
    runtime = Runtime.make(tmp_path, ["sh", "-c", "cat; echo end >&2"])
    payload = bytes(range(256)) * 64
    for name in ("in", "out", "err"):
        os.mkfifo(tmp_path / name)
    clients = {
        name: os.open(tmp_path / name, os.O_RDONLY | os.O_NONBLOCK) for name in ("out", "err")
    }
    stdio = Stdio(
        stdin=f"fifo://{tmp_path}/in", stdout=f"fifo://{tmp_path}/out", stderr=f"{tmp_path}/err"
    )
    try:
        async with runtime.cleaned(), await create_io(stdio) as io:
            await create(io, runtime)
            await io.copy()
            with pidfd_of(runtime) as init:
                assert await runtime.do("start") == 0
                for half in (payload[:5000], payload[5000:]):
                    # A client that detaches is no end of the input.
                    typing = os.open(tmp_path / "in", os.O_WRONLY)
                    os.write(typing, half)
                    os.close(typing)
                seen = b""
                while len(seen) < len(payload):
                    with anyio.fail_after(GUARD):
                        await anyio.wait_readable(clients["out"])
                    seen += os.read(clients["out"], 65536)
                assert seen == payload
                io.close_stdin()
                with anyio.fail_after(GUARD):
                    result = await io.drain(exited=init)
            assert result.complete
            assert result.stdout is not None
            assert result.stdout.moved == len(payload)
            assert os.read(clients["err"], 100) == b"end\n"
            assert await runtime.do("delete") == 0
    finally:
        for fd in clients.values():
            os.close(fd)


async def test_one_log_file_for_both_streams(tmp_path: Path) -> None:
    """A FileIO's container logs both streams; eight megabytes and an exit lose nothing."""
    script = "echo first; echo err >&2; seq 200000; dd if=/dev/zero bs=1024 count=4096 2>/dev/null"
    runtime = Runtime.make(tmp_path, ["sh", "-c", script])
    log = tmp_path / "logs" / "c1.log"
    async with runtime.cleaned(), FileIO(str(log), str(log)) as io:
        await create(io, runtime)
        result = await run_to_end(io, runtime)
        assert result.complete
        assert await runtime.do("delete") == 0
    data = log.read_bytes()
    numbers = b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert data.endswith(bytes(4096 * 1024))
    assert len(data) == len(b"first\nerr\n") + len(numbers) + 4096 * 1024
    assert data.replace(b"err\n", b"", 1).startswith(b"first\n" + numbers)


async def test_a_containers_user_opens_its_stdout_by_name(tmp_path: Path) -> None:
    """The pipe belongs to the container's user, who can open /dev/stdout again."""
    script = "echo by name >/dev/stdout; stat -L -c %u /proc/self/fd/1 >&2"
    runtime = Runtime.make(tmp_path, ["sh", "-c", script], uid=1234)
    logs = str(tmp_path / "out"), str(tmp_path / "err")
    async with runtime.cleaned(), FileIO(*logs, uid=1234, gid=1234) as io:
        await create(io, runtime)
        assert (await run_to_end(io, runtime)).complete
    assert (tmp_path / "out").read_text() == "by name\n"
    assert (tmp_path / "err").read_text() == "1234\n"


@pytest.mark.parametrize("handover", [False, True])
async def test_a_logger(tmp_path: Path, handover: bool) -> None:
    """A BinaryIO's logger gets both streams, and ends by itself when the container has."""
    program = make_script(tmp_path / "logger", LOGGER)
    uri = StdioURI.build("binary", program, [("to", str(tmp_path / "log"))])
    runtime = Runtime.make(tmp_path, ["sh", "-c", "echo out; echo err >&2; seq 10000"])
    async with (
        runtime.cleaned(),
        await BinaryIO.start(uri, id="c1", namespace="ns", handover=handover) as io,
    ):
        await create(io, runtime)
        result = await run_to_end(io, runtime)
        assert result.logger_ended
        assert result.logger_status == 0
    assert (tmp_path / "log.env").read_text() == "c1 ns\n"
    expected = "out\n" + "".join(f"{number}\n" for number in range(1, 10001))
    assert (tmp_path / "log.stdout").read_text() == expected
    assert (tmp_path / "log.stderr").read_text() == "err\n"


async def test_runc_run(tmp_path: Path) -> None:
    """``runc run`` in the foreground is a child like any other, and its status the container's."""
    runtime = Runtime.make(tmp_path, ["sh", "-c", "echo out; echo err >&2; exit 5"])
    log = tmp_path / "log"
    async with runtime.cleaned(), await create_io(f"file://{log}") as io:
        process = await io.spawn(runtime.create("run"))
        assert await process.wait(GUARD) == 5
        assert (await io.drain()).complete
    assert sorted(log.read_text().split()) == ["err", "out"]
    assert not runtime.exists()


async def test_runc_exec(tmp_path: Path) -> None:
    """A detached exec is drained at its exit, although what it started holds the pipe."""
    runtime = Runtime.make(tmp_path, ["sleep", "60"])
    async with runtime.cleaned():
        async with await create_io(Stdio()) as io:
            await create(io, runtime)
            assert await runtime.do("start") == 0
        log = tmp_path / "log"
        exec_pid = str(tmp_path / "exec.pid")
        async with FileIO(str(log), str(log)) as io:
            args = runtime.command("exec", "--detach", "--pid-file", exec_pid)
            args.args += ["sh", "-c", "sleep 30 & echo hi"]
            io.set(args)
            async with await args.start() as process:
                io.close_after_start()
                assert await process.wait(GUARD) == 0
            await io.copy()
            exited = anyio.Event()
            pid = int((tmp_path / "exec.pid").read_text())
            await until(lambda: not _lives(pid))
            exited.set()
            with anyio.fail_after(GUARD):
                result = await io.drain(exited=exited.wait(), policy="exited")
            assert result.complete
            assert result.stdout is not None
            assert result.stdout.holders_left
        assert log.read_bytes() == b"hi\n"


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return ") Z" not in file.read()
    except OSError:
        return False


# -- terminals ----------------------------------------------------------------------------------


async def test_a_console_socket_go_runcs_way(tmp_path: Path) -> None:
    """The terminal arrives during create; a size given before start is the first one inside."""
    script = (
        'tty; stty size; trap "stty size; exit 7" WINCH; echo ready; while :; do sleep 0.02; done'
    )
    runtime = Runtime.make(tmp_path, ["sh", "-c", script], terminal=True)
    async with runtime.cleaned(), ConsoleSocket.temp() as made:
        command = runtime.create()
        made.set(command)
        async with await command.start() as process:
            made.close_after_start()
            console = await made.receive(GUARD, runtime=process)
            assert await process.wait(GUARD) == 0
        made.close()
        async with console:
            assert console.size == (0, 0)
            console.resize(24, 80)
            assert await runtime.do("start") == 0
            seen = await read_until(console, b"ready")
            assert seen.split() == [b"/dev/pts/0", b"24", b"80", b"ready"]
            console.resize(50, 132)
            await read_until(console, b"50 132")
            with pytest.raises(anyio.EndOfStream), anyio.fail_after(GUARD):
                while True:
                    await console.stdout.receive()
            assert console.hangup.is_set()


async def test_a_terminal_between_fifos(tmp_path: Path) -> None:
    """What a client types into a FIFO comes back from the container's terminal."""
    runtime = Runtime.make(
        tmp_path, ["sh", "-c", "stty -echo; echo ready; cat; echo end"], terminal=True
    )
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    shown = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    stdio = Stdio(stdin=f"{tmp_path}/in", stdout=f"{tmp_path}/out", terminal=True)
    try:
        async with runtime.cleaned(), await create_io(stdio) as io:
            await create(io, runtime)
            await io.copy()
            with pidfd_of(runtime) as init:
                assert await runtime.do("start") == 0
                assert await _read_fifo(shown, b"ready\r\n") == b"ready\r\n"
                typing = os.open(tmp_path / "in", os.O_WRONLY)
                os.write(typing, b"one\nunfinished")
                os.close(typing)
                assert await _read_fifo(shown, b"one\r\n") == b"one\r\n"
                io.close_stdin()
                with anyio.fail_after(GUARD):
                    result = await io.drain(exited=init)
            assert result.complete
            assert await _read_fifo(shown, b"end\r\n") == b"unfinishedend\r\n"
    finally:
        os.close(shown)


async def _read_fifo(fd: int, wanted: bytes) -> bytes:
    seen = b""
    with anyio.fail_after(GUARD):
        while wanted not in seen:
            await anyio.wait_readable(fd)
            seen += os.read(fd, 4096)
    return seen


async def test_a_terminal_into_a_file(tmp_path: Path) -> None:
    """A container's screen is logged to its last byte, with somebody holding the slave."""
    script = 'trap "" HUP; stty size; seq 100000; sleep 30 & echo end'
    runtime = Runtime.make(tmp_path, ["sh", "-c", script], terminal=True)
    stdio = Stdio(stdout=f"file://{tmp_path}/log", terminal=True)
    async with runtime.cleaned(), await create_io(stdio, size=(24, 80)) as io:
        await create(io, runtime)
        assert isinstance(io, ConsoleIO)
        result = await run_to_end(io, runtime)
        assert result.complete
        assert result.stdout is not None
        assert not result.stdout.holders_left
    numbers = "".join(f"{number}\r\n" for number in range(1, 100_001))
    assert (tmp_path / "log").read_bytes().decode() == f"24 80\r\n{numbers}end\r\n"


async def test_a_spawned_run_with_a_terminal(tmp_path: Path) -> None:
    """spawn() with a detached ``runc run`` returns when the terminal has arrived."""
    runtime = Runtime.make(tmp_path, ["sh", "-c", "read x; echo got $x"], terminal=True)
    async with runtime.cleaned(), ConsoleIO() as io:
        process = await io.spawn(runtime.create("run", "--detach"))
        assert io.console is not None
        assert await process.wait(GUARD) == 0
        await io.console.stdin.send(b"typed\n")
        await read_until(io.console, b"got typed\r\n")


# -- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipes", "logger", "terminal"])
async def test_a_failed_create_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """When the runtime fails there is nothing to copy, and nothing is left but its log."""
    sockets = tmp_path / "run"
    sockets.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets))
    program = make_script(tmp_path / "logger", LOGGER)
    uri = StdioURI.build("binary", program, [("to", str(tmp_path / "log"))])
    stdio = {
        "pipes": Stdio(stdout=f"file://{tmp_path}/out"),
        "logger": Stdio(stdout=str(uri), stderr=str(uri)),
        "terminal": Stdio(stdout=f"file://{tmp_path}/out", terminal=True),
    }[kind]
    runtime = Runtime.make(tmp_path, ["no-such-program"], terminal=kind == "terminal")
    async with runtime.cleaned():
        async with await create_io(stdio, id="c1", namespace="ns") as io:
            command = runtime.create()
            io.set(command)
            async with await command.start() as process:
                io.close_after_start()
                assert await process.wait(GUARD) == 1
        assert not runtime.exists()
        assert list(sockets.iterdir()) == []
        with open(runtime.log, encoding="utf-8") as log:
            assert "no-such-program" in log.read()


async def test_a_failed_create_ends_the_wait_for_a_terminal(tmp_path: Path) -> None:
    """A runtime that fails before it makes a terminal is an error with its status, at once."""
    runtime = Runtime.make(tmp_path, ["true"], terminal=True)
    os.unlink(f"{runtime.bundle}/config.json")
    async with runtime.cleaned(), ConsoleIO(timeout=None) as io:
        with pytest.raises(ConsoleRuntimeExitedError) as caught, anyio.fail_after(GUARD):
            await io.spawn(runtime.create())
        assert caught.value.status == 1


async def test_closing_the_console_hangs_the_container_up(tmp_path: Path) -> None:
    """hang_up() is the container's SIGHUP."""
    script = 'trap "echo hup >/dev/null; exit 0" HUP; echo ready; while :; do sleep 0.02; done'
    runtime = Runtime.make(tmp_path, ["sh", "-c", script], terminal=True)
    async with runtime.cleaned(), ConsoleIO() as io:
        await create(io, runtime)
        await io.copy()
        with pidfd_of(runtime) as init:
            assert await runtime.do("start") == 0
            assert io.console is not None
            await read_until(io.console, b"ready")
            io.hang_up()
            with anyio.fail_after(GUARD):
                await anyio.wait_readable(init)


# -- crun ------------------------------------------------------------------------------------------


@pytest.mark.runtime("crun")
async def test_crun_sends_a_nameless_terminal(tmp_path: Path) -> None:
    """Crun calls its terminal a space; nobody may rely on the name."""
    runtime = Runtime.make(tmp_path, ["sh", "-c", "echo hi"], terminal=True, program="crun")
    async with runtime.cleaned(), ConsoleSocket.temp() as made:
        command = runtime.create("run", "--detach")
        made.set(command)
        async with await command.start() as process:
            console = await made.receive(GUARD, runtime=process)
            async with console:
                await read_until(console, b"hi\r\n")
            assert await process.wait(GUARD) == 0
