"""Every operation, cancelled at each of its suspensions, in each way there is.

A test says what an operation is, what it needs around it, and what must be true after a
cancellation at any point; :func:`~pyshimio.testing.faults.cancel_everywhere` does the cancelling
and looks for leaks.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import (
    BinaryIO,
    Command,
    Console,
    ConsoleIO,
    ConsoleSocket,
    FdIO,
    FileIO,
    InheritIO,
    NullIO,
    PipeIO,
    Stdio,
    _sys,
    create_io,
)
from pyshimio._events import LoggerExited
from pyshimio._fd import OwnedFd
from pyshimio._sink import DescriptorSink
from pyshimio._streams import FdReceiveStream, FdSendStream
from pyshimio.errors import (
    ExitTimeoutError,
    FifoTimeoutError,
    IOStateError,
    LoggerTimeoutError,
)
from pyshimio.testing import FakeClient, FakeLogger
from pyshimio.testing._running import running_loop
from pyshimio.testing.faults import MODES, cancel_everywhere
from support.children import exists, until
from support.fifos import make_fifo
from support.loggers import shell_logger, uri_of
from support.terminals import RUNTIME, make_script

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from pyshimio.abc import IO
    from pyshimio.io._result import DrainPolicy
    from pyshimio.testing.faults import CancelReport, Mode

pytestmark = pytest.mark.thorough

SLEEP = ("sleep", "60")
BULK = 300_000
"""More than a pipe holds."""
WAYS: dict[str, dict[str, Any]] = {
    "posix_spawn": {},
    "popen": {"cwd": "/"},
    "trampoline": {"cwd": "/", "umask": 0o22, "extra_files": (0,)},
}
"""What makes a Command start in each of its ways."""

# At how many suspensions each operation is cancelled, at least, on each loop and in each
# mode.  A smaller number means that something is not cancelled any more.  Where a child or a
# client may be quicker than the operation, some suspensions do not happen; those do not count.
FLOORS: dict[str, int] = {
    "create_io null": 1,
    "create_io fifo": 1,
    "create_io file": 5,
    "create_io binary": 4,
    "create_io terminal": 3,
    "life of null": 4,
    "life of fifo": 4,
    "life of file": 8,
    "life of binary": 7,
    "life of terminal": 6,
    "start by posix_spawn": 3,
    "start by popen": 3,
    "start by trampoline": 4,
    "spawn PipeIO by posix_spawn": 1,
    "spawn PipeIO by popen": 1,
    "spawn PipeIO by trampoline": 2,
    "spawn NullIO by posix_spawn": 1,
    "spawn NullIO by popen": 1,
    "spawn NullIO by trampoline": 2,
    "spawn InheritIO by posix_spawn": 1,
    "spawn InheritIO by popen": 1,
    "spawn InheritIO by trampoline": 2,
    "spawn FileIO by posix_spawn": 4,
    "spawn FileIO by popen": 4,
    "spawn FileIO by trampoline": 5,
    "spawn ConsoleIO by posix_spawn": 1,
    "spawn ConsoleIO by popen": 2,
    "spawn ConsoleIO by trampoline": 2,
    "spawn before the client": 3,
    "spawn without a client": 6,
    "copy": 3,
    "wait": 1,
    "wait with a timeout": 1,
    "stop": 1,
    "drain by eof": 2,
    "drain by exited": 2,
    "drain by keep": 2,
    "drain into a fifo": 2,
    "drain for a pidfd": 3,
    "drain of a ring": 2,
    "aclose of PipeIO": 3,
    "aclose of NullIO": 3,
    "aclose of InheritIO": 3,
    "aclose of FileIO": 6,
    "aclose of FdIO": 5,
    "aclose of ConsoleIO": 3,
    "aclose beside a stubborn child": 3,
    "aclose before the client": 4,
    "logger, relay": 7,
    "logger, handover": 7,
    "logger that is never ready": 3,
    "aclose in a logger's backoff": 3,
    "drain into a logger": 3,
    "receive at a path": 1,
    "receive at a temp": 1,
    "spawn of a runtime": 2,
    "copy of a runtime's terminal": 3,
    "life of a terminal": 6,
    "copy of a console": 3,
    "typing into a full terminal": 2,
    "receive from a stream": 3,
    "send to a stream": 3,
    "detach of a tap": 1,
    "iteration of events": 2,
    "reopen": 1,
    "aclose beside a stuck file": 3,
    "drain beside a stuck file": 2,
    "open of a slow file": 4,
}


"""Before 4.16 a scope that ends in the same turn as a task.cancel() swallows it (anyio #1214)."""
ATTEMPTS = 3
"""On a busy machine a client or a deadline may come before an operation has waited as usual."""
ONCE: tuple[Mode, ...] = tuple(mode for mode in MODES if mode != "native twice")
"""Without the one that interrupts a cleanup, which then is the loop's."""


async def everywhere(
    operation: Callable[..., Awaitable[object]],
    name: str,
    around: Callable[[], Any] | None = None,
    **options: Any,
) -> None:
    """Cancel, and hold the number of suspensions against its floor."""
    short: list[CancelReport] = []
    while len(short) < ATTEMPTS:
        if around is None:
            report = await cancel_everywhere(operation, name=name, **options)
        else:
            report = await cancel_everywhere(operation, name=name, around=around, **options)
        if report.suspensions >= FLOORS[name]:
            return
        short.append(report)
    raise AssertionError(f"{short[-1]}, where there were {FLOORS[name]}")


def dead(io: Any) -> None:
    """*io* is closed, and says so."""
    assert "closed" in repr(io), repr(io)
    with pytest.raises(IOStateError):
        io.set(Command(["true"]))


def childless() -> None:
    """Every child has been reaped by now."""
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)


# -- create_io ---------------------------------------------------------------------------


def _destinations(tmp_path: Path) -> dict[str, Stdio]:
    logger = shell_logger(tmp_path, "exec 5>&-; cat <&3 >/dev/null; cat <&4 >/dev/null")
    fifo = tmp_path / "fifo"
    if not fifo.exists():
        os.mkfifo(fifo)
    return {
        "null": Stdio(),
        "fifo": Stdio(str(fifo), str(fifo), str(fifo)),
        "file": Stdio(stdout=f"file://{tmp_path}/a/out", stderr=f"file://{tmp_path}/b/err"),
        "binary": Stdio(stdout=uri_of(logger), stderr=uri_of(logger)),
        "terminal": Stdio(stdout=f"file://{tmp_path}/screen", terminal=True),
    }


@pytest.mark.parametrize("scheme", ["null", "fifo", "file", "binary", "terminal"])
async def test_create_io(tmp_path: Path, scheme: str) -> None:
    """A cancelled create_io() leaves nothing, and neither does a cancelled block of one."""
    stdio = _destinations(tmp_path)[scheme]
    made: list[Any] = []

    async def operation() -> None:
        async with await create_io(stdio, id="c", namespace="n", logger_grace=0.5) as io:
            made.append(io)

    await everywhere(operation, f"create_io {scheme}")
    assert made
    for io in made:
        dead(io)


@pytest.mark.parametrize("scheme", ["null", "fifo", "file", "binary", "terminal"])
async def test_whole_life(tmp_path: Path, scheme: str) -> None:
    """create_io(), spawn(), wait(), drain() and aclose(), cancelled anywhere, leave nothing."""
    stdio = _destinations(tmp_path)[scheme]

    async def operation() -> None:
        with FakeClient(stdio.stdout) if scheme == "fifo" else nullcontext():
            io = await create_io(stdio, id="c", namespace="n", logger_grace=0.5, runtime=False)
            try:
                process = await io.spawn(["sh", "-c", "echo out; echo err >&2"])
                if scheme == "fifo":
                    io.close_stdin()
                assert await process.wait() == 0
                await io.drain(policy="exited")
            finally:
                await io.aclose()

    await everywhere(operation, f"life of {scheme}")


# -- starting ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_start(way: str) -> None:
    """A cancelled start() leaves no child; one that returned has a child that can be ended."""

    async def operation() -> None:
        options = dict(WAYS[way])
        async with await Command(SLEEP, **options).start() as process:
            try:
                await anyio.lowlevel.checkpoint()
            finally:
                await process.stop(5)
            assert process.status == 143

    await everywhere(operation, f"start by {way}")


def _ios(tmp_path: Path) -> dict[str, Callable[[], IO]]:
    log = str(tmp_path / "log")
    return {
        "PipeIO": PipeIO,
        "NullIO": NullIO,
        "InheritIO": InheritIO,
        "FileIO": lambda: FileIO(log, log),
        "ConsoleIO": lambda: ConsoleIO(runtime=False),
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["PipeIO", "NullIO", "InheritIO", "FileIO", "ConsoleIO"])
async def test_spawn(tmp_path: Path, kind: str, way: str) -> None:
    """A cancelled spawn() undoes everything, reaps the child included, and the IO is closed."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[list[Any]]:
        io = _ios(tmp_path)[kind]()
        got: list[Any] = [io]
        yield got
        if len(got) == 1:
            dead(io)
            childless()
        else:
            await io.aclose()

    async def operation(got: list[Any]) -> None:
        got.append(await got[0].spawn(Command(SLEEP, **WAYS[way])))

    await everywhere(operation, f"spawn {kind} by {way}", around, modes=ONCE)


async def test_spawn_waits_for_client(tmp_path: Path) -> None:
    """A spawn() cancelled while a FIFO's client is away starts nothing and closes the IO."""
    path = make_fifo(tmp_path)

    @asynccontextmanager
    async def around() -> AsyncGenerator[list[Any]]:
        io = await create_io(Stdio(stdin=path, stdout=path))
        got: list[Any] = [io]
        client: list[FakeClient] = []
        async with anyio.create_task_group() as group:

            async def come() -> None:
                await anyio.sleep(0.01)
                client.append(FakeClient(path).attach())

            group.start_soon(come)
            yield got
        if len(got) == 1:
            dead(io)
        client[0].detach()
        await io.aclose()

    async def operation(got: list[Any]) -> None:
        got.append(await got[0].spawn(SLEEP))

    await everywhere(operation, "spawn before the client", around)


async def test_spawn_without_client(tmp_path: Path) -> None:
    """A spawn() that is cancelled around its client's deadline starts nothing."""
    path = make_fifo(tmp_path)

    async def operation() -> None:
        async with await create_io(Stdio(stdout=path, stderr=path), client_timeout=0.03) as io:
            with suppress(FifoTimeoutError):
                await io.spawn(SLEEP)

    await everywhere(operation, "spawn without a client")


async def test_copy(tmp_path: Path) -> None:
    """A cancelled copy() closes the IO; what was opened for it is given back."""
    out, err = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "err")

    @asynccontextmanager
    async def around() -> AsyncGenerator[list[Any]]:
        got: list[Any] = [await create_io(Stdio(stdout=out, stderr=err))]
        with FakeClient(out):
            clients: list[FakeClient] = []
            async with anyio.create_task_group() as group:

                async def come() -> None:
                    await anyio.sleep(0.01)
                    clients.append(FakeClient(err).attach())

                group.start_soon(come)
                yield got
            if len(got) == 1:
                dead(got[0])
            got[0].close()  # an aclose() would wait for output, which nobody makes
            clients[0].detach()

    async def operation(got: list[Any]) -> None:
        await got[0].copy()
        got.append(True)

    await everywhere(operation, "copy", around)


@pytest.mark.parametrize("kind", ["PipeIO", "NullIO", "ConsoleIO"])
async def test_close_during_spawn(tmp_path: Path, kind: str) -> None:
    """An IO that is closed while its child is being started has no child afterwards."""
    io = _ios(tmp_path)[kind]()
    failed: list[Exception] = []

    async def spawn() -> None:
        try:
            await io.spawn(Command(SLEEP, **WAYS["trampoline"]))
        except Exception as error:
            failed.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(spawn)
        await until(_has_child)
        io.close()
    assert [type(error) for error in failed] == [IOStateError]
    childless()


def _has_child() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


# -- a process ---------------------------------------------------------------------------


async def test_wait() -> None:
    """A cancelled wait() can be repeated, and the status is not lost."""

    @asynccontextmanager
    async def fed() -> AsyncGenerator[Any]:
        reader, writer = os.pipe()
        try:
            command = Command(["sh", "-c", "read line; exit 3"], stdin=reader)
            async with await command.start() as process:
                async with anyio.create_task_group() as group:

                    async def feed() -> None:
                        await anyio.sleep(0.005)
                        os.write(writer, b"\n")

                    group.start_soon(feed)
                    yield process
                assert await process.wait() == 3
        finally:
            os.close(reader)
            os.close(writer)

    async def operation(process: Any) -> None:
        assert await process.wait() == 3

    async def timed(process: Any) -> None:
        with suppress(ExitTimeoutError):
            await process.wait(0.001)

    await everywhere(operation, "wait", fed)
    await everywhere(timed, "wait with a timeout", fed)


async def test_stop() -> None:
    """A cancelled stop() kills and reaps at once, whatever grace it was to give."""
    script = "trap '' TERM; echo; while :; do sleep 0.01; done"

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        reader, writer = os.pipe()
        process = await Command(["sh", "-c", script], stdout=writer).start()
        os.close(writer)
        await anyio.wait_readable(reader)
        os.close(reader)
        async with process:
            yield process
            with anyio.fail_after(5):
                assert await process.wait() == 137
        assert not exists(process.pid)

    async def operation(process: Any) -> None:
        await process.stop(0.03)

    # Before 3.12 wait_for() can be cancelled before what it waits for has begun.
    await everywhere(operation, "stop", around, modes=MODES[:-1])


# -- the end -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["eof", "exited", "keep"])
async def test_drain(tmp_path: Path, policy: DrainPolicy) -> None:
    """After a cancelled drain() another one brings every byte home."""
    log = tmp_path / "log"

    @asynccontextmanager
    async def around() -> AsyncGenerator[IO]:
        log.unlink(missing_ok=True)
        async with FileIO(str(log)) as io:
            await io.spawn(["sh", "-c", f"sleep 0.005; head -c {BULK} /dev/zero"])
            yield io
            result = await io.drain(policy=policy)
            assert result.complete, result
            assert result.stdout is not None
            assert result.stdout.moved == BULK
        assert log.stat().st_size == BULK

    async def operation(io: IO) -> None:
        await io.drain(policy=policy)

    await everywhere(operation, f"drain by {policy}", around)


async def test_drain_into_fifo(tmp_path: Path) -> None:
    """A drain() cancelled beside a slow client leaves what it has not read for it to read."""
    path = make_fifo(tmp_path)

    @asynccontextmanager
    async def around() -> AsyncGenerator[IO]:
        with FakeClient(path) as client:
            async with await create_io(Stdio(stdout=path)) as io:
                await io.spawn(["head", "-c", "50000", "/dev/zero"])
                yield io
                result = await io.drain()
                assert result.complete, result
                assert len(await client.read(50000)) == 50000

    async def operation(io: IO) -> None:
        await io.drain()

    await everywhere(operation, "drain into a fifo", around)


async def test_drain_for_another(tmp_path: Path) -> None:
    """A drain() that waits for a pidfd gives its own number back when it is cancelled."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[tuple[IO, Any]]:
        async with FileIO(str(tmp_path / "log")) as io:
            process = await io.spawn(["sleep", "0.005"])
            yield io, process
            assert (await io.drain()).complete

    async def operation(given: tuple[Any, Any]) -> None:
        io, process = given
        await io.drain(exited=process.pidfd)

    await everywhere(operation, "drain for a pidfd", around)


async def test_drain_with_ring(tmp_path: Path) -> None:
    """A ring's bytes are delivered or counted, whenever its drain() is cancelled."""
    path = make_fifo(tmp_path)

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        with FakeClient(path) as client:
            async with await create_io(Stdio(stdout=path), ring=1 << 20) as io:
                process = await io.spawn(["head", "-c", str(BULK), "/dev/zero"])
                await process.wait()
                yield io
                result = await io.drain(sink_timeout=0.01)
                assert result.stdout is not None
                assert result.stdout.moved + result.stdout.dropped == BULK, result
                got = await client.read(result.stdout.moved)
                assert len(got) == result.stdout.moved

    async def operation(io: Any) -> None:
        await io.drain(sink_timeout=0.01)

    await everywhere(operation, "drain of a ring", around)


@pytest.mark.parametrize("kind", ["PipeIO", "NullIO", "InheritIO", "FileIO", "FdIO", "ConsoleIO"])
async def test_aclose(tmp_path: Path, kind: str) -> None:
    """A cancelled aclose() closes everything and kills and reaps the child, in milliseconds."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        null = os.open(os.devnull, os.O_WRONLY)
        io = FdIO(null) if kind == "FdIO" else _ios(tmp_path)[kind]()
        os.close(null)
        process = await io.spawn(SLEEP)
        yield io
        dead(io)
        with anyio.fail_after(10):
            await process.wait()
        await io.aclose()

    async def operation(io: Any) -> None:
        await io.aclose()

    await everywhere(operation, f"aclose of {kind}", around)


async def test_aclose_stubborn() -> None:
    """A child that ignores SIGTERM is killed at once when the aclose() is cancelled."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        io = PipeIO(stdin=False, grace=0.02)
        process = await io.spawn(["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.01; done"])
        assert io.stdout is not None
        await io.stdout.receive()
        yield io
        dead(io)
        with anyio.fail_after(10):
            assert await process.wait() == 137

    async def operation(io: Any) -> None:
        await io.aclose()

    await everywhere(operation, "aclose beside a stubborn child", around)


async def test_aclose_before_client_read(tmp_path: Path) -> None:
    """A cancelled aclose() does not linger for a FIFO's client that is away."""
    path = make_fifo(tmp_path)

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        client = FakeClient(path).attach()
        io = await create_io(Stdio(stdout=path))
        process = await io.spawn(["echo", "x"])
        await process.wait()
        await until(lambda: client.unread == 2)
        client.detach()
        late: list[FakeClient] = []
        async with anyio.create_task_group() as group:

            async def come() -> None:
                await anyio.sleep(0.01)
                late.append(FakeClient(path).attach())
                with suppress(BlockingIOError):
                    os.read(late[0].fileno(), 100)

            group.start_soon(come)
            yield io
        late[0].detach()
        dead(io)

    async def operation(io: Any) -> None:
        await io.aclose()

    await everywhere(operation, "aclose before the client", around)


# -- loggers -----------------------------------------------------------------------------


@pytest.mark.parametrize("handover", [False, True])
async def test_logger_start(tmp_path: Path, handover: bool) -> None:
    """A cancelled start() kills and reaps the logger; one that ran gets all the output."""
    logger = shell_logger(tmp_path, "exec 5>&-; cat <&3 >>$2; cat <&4 >>$2")
    uri = uri_of(logger, ("to", str(tmp_path / "out")))

    async def operation() -> None:
        async with await BinaryIO.start(
            uri, id="c", namespace="n", handover=handover, logger_grace=1
        ) as io:
            process = await io.spawn(["echo", "x"])
            await process.wait()
            await io.drain(policy="exited")

    await everywhere(operation, f"logger, {'handover' if handover else 'relay'}")


async def test_logger_never_ready(tmp_path: Path) -> None:
    """A start() cancelled while it waits for a silent logger kills and reaps it."""
    uri = uri_of(shell_logger(tmp_path, "exec sleep 60"))

    async def operation() -> None:
        with suppress(LoggerTimeoutError):
            await BinaryIO.start(uri, id="c", namespace="n", ready_timeout=0.05)

    await everywhere(operation, "logger that is never ready")


@pytest.mark.slow
async def test_logger_in_backoff(tmp_path: Path) -> None:
    """An aclose() cancelled while a logger is to be restarted restarts nothing."""
    uri = uri_of(shell_logger(tmp_path, "echo >&5; exit 1"))

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        io = await BinaryIO.start(
            uri, id="c", namespace="n", on_death="respawn", max_restarts=50, logger_grace=0.05
        )
        events = io.events()
        died = 0
        await io.spawn(SLEEP)
        async for event in events:
            died += isinstance(event, LoggerExited)
            if died == 2:
                break
        yield io
        dead(io)

    async def operation(io: Any) -> None:
        await io.aclose()

    modes = ("scope", "native")
    await everywhere(operation, "aclose in a logger's backoff", around, modes=modes)


async def test_logger_drain(tmp_path: Path) -> None:
    """A drain() cancelled while the logger writes loses nothing: the next one waits for it."""
    where = tmp_path / "logger"

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        logger = FakeLogger.make(where)
        async with await BinaryIO.start(logger.uri(), id="c", namespace="n") as io:
            await io.spawn(["head", "-c", str(BULK), "/dev/zero"])
            yield io
            result = await io.drain()
            assert result.complete, result
        assert len(logger.stdout) == BULK
        shutil.rmtree(where)

    async def operation(io: Any) -> None:
        await io.drain()

    modes = ("scope", "native", "native late")
    await everywhere(operation, "drain into a logger", around, modes=modes)


# -- consoles ----------------------------------------------------------------------------


def _socket_at(tmp_path: Path, where: str) -> ConsoleSocket:
    return ConsoleSocket.temp() if where == "temp" else ConsoleSocket(tmp_path / "s")


@pytest.mark.parametrize("where", ["path", "temp"])
async def test_receive(tmp_path: Path, where: str) -> None:
    """A terminal that a cancelled receive() did not return, the next one does."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[tuple[ConsoleSocket, list[Console]]]:
        console_socket = _socket_at(tmp_path, where)
        got: list[Console] = []
        async with console_socket, anyio.create_task_group() as group:

            async def send() -> None:
                await anyio.sleep(0.003)
                master, slave = os.openpty()
                with socket.socket(socket.AF_UNIX) as peer:
                    peer.connect(console_socket.path)
                    await anyio.sleep(0.003)
                    socket.send_fds(peer, [b"pty"], [master])
                os.close(master)
                os.close(slave)

            group.start_soon(send)
            yield console_socket, got
            if not got:
                got.append(await console_socket.receive(5))
            got[0].close()

    async def operation(given: tuple[ConsoleSocket, list[Console]]) -> None:
        given[1].append(await given[0].receive(5))

    await everywhere(operation, f"receive at a {where}", around)


async def test_console_of_runtime(tmp_path: Path) -> None:
    """A spawn() of a runtime, cancelled anywhere, leaves no terminal, socket or process."""
    runtime = make_script(tmp_path / "runc", RUNTIME)

    @asynccontextmanager
    async def around() -> AsyncGenerator[list[Any]]:
        got: list[Any] = [ConsoleIO(size=(24, 80))]
        yield got
        if len(got) == 1:
            dead(got[0])
            childless()
        await got[0].aclose()

    async def operation(got: list[Any]) -> None:
        got.append(await got[0].spawn([runtime, "create"]))

    modes = ("scope", "native", "native late")
    await everywhere(operation, "spawn of a runtime", around, modes=modes)


async def test_console_copy(tmp_path: Path) -> None:
    """A copy() cancelled while the runtime's terminal is on its way closes the IO."""
    runtime = make_script(tmp_path / "runc", RUNTIME)

    async def operation() -> None:
        async with ConsoleIO() as io:
            command = Command([runtime, "create"])
            io.set(command)
            async with await command.start() as process:
                try:
                    await io.copy()
                finally:
                    with anyio.CancelScope(shield=True):
                        await process.stop(0)

    await everywhere(operation, "copy of a runtime's terminal", modes=("scope", "native"))


async def test_console_life(tmp_path: Path) -> None:
    """A terminal's whole life, its typing and resizing included, can be cancelled anywhere."""

    async def operation() -> None:
        async with ConsoleIO(os.getuid(), os.getgid(), runtime=False, size=(24, 80)) as io:
            process = await io.spawn(["head", "-n", "1"])
            assert io.console is not None
            io.console.resize(10, 20)
            assert io.stdin is not None
            assert io.stdout is not None
            await io.stdin.send(b"hello\n")
            seen = b""
            while seen.count(b"hello") < 2:
                seen += await io.stdout.receive()
            io.close_stdin()
            await process.wait()

    await everywhere(operation, "life of a terminal")


async def test_console_handed_over(tmp_path: Path) -> None:
    """A console whose copy() was cancelled is closed, or its IO owns it."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[tuple[Console, list[Any]]]:
        console, slave = Console.open()
        made: list[Any] = []
        yield console, made
        for io in made:
            io.close()
        slave.close()
        assert console.closed

    async def operation(given: tuple[Console, list[Any]]) -> None:
        console, made = given
        made.append(await console.copy(Stdio(stdout=f"file://{tmp_path}/screen")))

    await everywhere(operation, "copy of a console", around)


# -- streams, taps, events ---------------------------------------------------------------


async def test_stream_receive() -> None:
    """A cancelled receive() has taken nothing: what was sent is all there for the next one."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[tuple[FdReceiveStream, bytearray]]:
        reader, writer = _sys.pipe()
        _sys.set_nonblocking(reader)
        got = bytearray()
        async with FdReceiveStream(OwnedFd(reader)) as stream:
            async with anyio.create_task_group() as group:

                async def send() -> None:
                    for _ in range(3):
                        await anyio.sleep(0.002)
                        os.write(writer, b"abc")
                    os.close(writer)

                group.start_soon(send)
                yield stream, got
            with suppress(anyio.EndOfStream):
                while True:
                    got += await stream.receive()
        assert got == b"abc" * 3

    async def operation(given: tuple[FdReceiveStream, bytearray]) -> None:
        stream, got = given
        with suppress(anyio.EndOfStream):
            while True:
                got += await stream.receive()

    await everywhere(operation, "receive from a stream", around)


async def test_stream_send() -> None:
    """A cancelled send() stops after what the pipe has taken, and the stream goes on."""
    data = os.urandom(BULK)

    @asynccontextmanager
    async def around() -> AsyncGenerator[FdSendStream]:
        reader, writer = _sys.pipe()
        _sys.set_nonblocking(writer)
        got = bytearray()
        async with anyio.create_task_group() as group:

            async def receive() -> None:
                await anyio.wait_readable(reader)
                while chunk := os.read(reader, 65536):
                    got.extend(chunk)
                    await anyio.sleep(0.001)
                    await anyio.wait_readable(reader)

            group.start_soon(receive)
            async with FdSendStream(OwnedFd(writer)) as stream:
                await stream.send(b"<")
                yield stream
                await stream.send(b">")
        os.close(reader)
        assert got[:1] + got[-1:] == b"<>"
        assert data.startswith(got[1:-1])

    async def operation(stream: FdSendStream) -> None:
        await stream.send(data)

    await everywhere(operation, "send to a stream", around)


async def test_typing() -> None:
    """After a cancelled send() a terminal knows the last byte that it got."""
    data = bytes(range(32, 127)) * 2000

    @asynccontextmanager
    async def around() -> AsyncGenerator[Console]:
        console, slave = Console.open()
        console.set_raw()
        _sys.set_nonblocking(slave.fileno())
        async with console:
            yield console
            await console.stdin.send(b"")
            got = b""
            with suppress(BlockingIOError):
                while True:
                    got += os.read(slave.fileno(), 65536)
                    await anyio.sleep(0.001)  # the kernel's worker hands on the next part
            assert data.startswith(got)
            assert console.sink()._last == got[-1:]
        slave.close()

    async def operation(console: Console) -> None:
        with anyio.move_on_after(0.02):
            await console.stdin.send(data)

    await everywhere(operation, "typing into a full terminal", around)


async def test_tap(tmp_path: Path) -> None:
    """A tap whose detach() was cancelled is closed, and the stream beside it is whole."""
    log = tmp_path / "log"

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        log.unlink(missing_ok=True)
        reader, writer = _sys.pipe()
        _sys.set_nonblocking(writer)
        try:
            async with FileIO(str(log)) as io:
                tap = io.attach("stdout", DescriptorSink(OwnedFd(writer)), ring=1 << 22)
                await io.spawn(["head", "-c", str(BULK), "/dev/zero"])
                await until(lambda: tap.delivered)
                yield tap
                assert "closed" in repr(tap)
                result = await io.drain()
                assert result.complete, result
            assert log.stat().st_size == BULK
            assert tap.delivered == _sys.unread(reader)
        finally:
            os.close(reader)

    async def operation(tap: Any) -> None:
        await tap.detach(0.01)

    await everywhere(operation, "detach of a tap", around)


async def test_events() -> None:
    """An event that a cancelled iteration did not return comes from the next one."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[tuple[Any, list[Any]]]:
        io = PipeIO()
        events, got = io.events(), list[Any]()
        async with anyio.create_task_group() as group:

            async def emit() -> None:
                for number in range(3):
                    await anyio.sleep(0.001)
                    io._hub.emit(LoggerExited("stdout", number, 0))
                io.close()

            group.start_soon(emit)
            yield events, got
        got += [event async for event in events]
        assert [event.pid for event in got] == [0, 1, 2]

    async def operation(given: tuple[Any, list[Any]]) -> None:
        events, got = given
        async for event in events:
            got.append(event)

    await everywhere(operation, "iteration of events", around)


# -- files -------------------------------------------------------------------------------


async def test_reopen(tmp_path: Path) -> None:
    """Whenever a reopen() is cancelled, every byte is in the old file or in the new one."""
    log, old = tmp_path / "log", tmp_path / "old"

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        for path in (log, old):
            path.unlink(missing_ok=True)
        async with FileIO(str(log), stdin=True) as io:
            await io.spawn(["cat"])
            assert io.stdin is not None
            await io.stdin.send(b"before\n")
            await until(lambda: log.stat().st_size)
            log.rename(old)
            yield io
            await io.stdin.send(b"after\n")
            io.close_stdin()
            assert (await io.drain()).complete
        both = old.read_bytes() + (log.read_bytes() if log.exists() else b"")
        assert both == b"before\nafter\n"

    async def operation(io: Any) -> None:
        await io.reopen()

    await everywhere(operation, "reopen", around)


@asynccontextmanager
async def _stuck(path: str, seconds: float) -> AsyncGenerator[None]:
    """Writes to *path* hang, as on a frozen file system, for so long after the first one."""
    real, go = _sys.write, threading.Event()

    def write(fd: int, data: Any) -> int:
        if os.readlink(f"/proc/self/fd/{fd}") == path:
            go.wait(10)
        return real(fd, data)

    _sys.write = write
    try:
        async with anyio.create_task_group() as group:

            async def thaw() -> None:
                await anyio.sleep(seconds)
                go.set()

            group.start_soon(thaw)
            yield
            go.set()
            group.cancel_scope.cancel()
    finally:
        go.set()
        _sys.write = real


@pytest.mark.parametrize("what", ["aclose", "drain"])
async def test_stuck_file(tmp_path: Path, what: str) -> None:
    """A call that is cancelled beside a stuck file returns at once; the bytes are accounted for."""
    log = tmp_path / "log"

    @asynccontextmanager
    async def around() -> AsyncGenerator[Any]:
        log.unlink(missing_ok=True)
        async with _stuck(str(log), 0.03):
            io = FileIO(str(log))
            process = await io.spawn(["echo", "x"])
            await process.wait()
            yield io
            await io.aclose()
            dead(io)
            stats = io.stats.stdout
            assert stats is not None
        await until(lambda: log.stat().st_size in {0, 2})

    async def operation(io: Any) -> None:
        if what == "aclose":
            await io.aclose()
        else:
            await io.drain(sink_timeout=0.01)

    await everywhere(operation, f"{what} beside a stuck file", around)


async def test_open_of_stuck_file(tmp_path: Path) -> None:
    """A file whose open() returns after its create_io() was cancelled is closed all the same."""
    real = _sys.open
    log = str(tmp_path / "log")

    def slow(path: Any, *args: Any) -> int:
        if path == log:
            time.sleep(0.005)
        return real(path, *args)

    async def operation() -> None:
        async with await create_io(Stdio(stdout=f"file://{log}", stderr=f"file://{log}")):
            pass

    _sys.open = slow  # type: ignore[assignment]
    try:
        await everywhere(operation, "open of a slow file")
    finally:
        _sys.open = real


# -- the tool itself ---------------------------------------------------------------------


async def _swallow() -> None:
    with suppress(BaseException):
        await anyio.sleep(0.001)


async def _hang() -> None:
    try:
        await anyio.lowlevel.checkpoint()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.5)


async def _lose_descriptor() -> None:
    number = os.open(os.devnull, os.O_RDONLY)
    LOST.append(number)
    await anyio.lowlevel.checkpoint()
    os.close(LOST.pop())


async def _fail() -> None:
    try:
        await anyio.lowlevel.checkpoint()
    except BaseException as error:
        raise ValueError("instead") from error


async def _fail_in_callback() -> None:
    try:
        await anyio.lowlevel.checkpoint()
    finally:
        Unraisable()


async def _lose_result() -> None:
    """Take something out of a box before the last await."""
    BOX.clear()
    BOX.append(1)
    taken = BOX.pop()
    await anyio.lowlevel.checkpoint()
    BOX.append(taken)


class Unraisable:
    """Raises when it is collected, where nobody can catch it."""

    def __del__(self) -> None:
        raise ValueError("unraisable")


LOST: list[int] = []
BOX: list[int] = []


@pytest.mark.parametrize(
    "operation, message",
    [
        (_hang, "hangs"),
        (_lose_descriptor, "left behind: descriptor"),
        (_fail, "raised ValueError"),
        (_fail_in_callback, "nobody could catch"),
    ],
)
async def test_tool_finds(operation: Callable[[], Awaitable[object]], message: str) -> None:
    """An operation that is wrong about its cancellation fails, and the message says how."""
    try:
        with pytest.raises(AssertionError, match=message):
            await cancel_everywhere(operation, name="wrong", modes=["scope"], deadline=0.1)
    finally:
        while LOST:
            os.close(LOST.pop())
        await anyio.sleep(0.5 if operation is _hang else 0)


async def test_tool_finds_swallowed() -> None:
    """A native cancellation that does not come out is found, late ones included."""
    if running_loop() == "trio":
        return
    for mode in MODES[2:-1]:  # wait_for() raises whatever becomes of what it waits for
        with pytest.raises(AssertionError, match="ended with None"):
            await cancel_everywhere(_swallow, name="swallows", modes=[mode])


async def test_tool_looks_around() -> None:
    """What the surroundings assert after each run, they assert at each suspension."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[None]:
        yield
        assert BOX == [1], "lost"

    async def operation(_: None) -> None:
        await _lose_result()

    with pytest.raises(AssertionError, match="lost"):
        await cancel_everywhere(operation, name="loses", around=around)


async def test_tool_counts_tasks_below() -> None:
    """The suspensions of tasks that the operation starts count, too."""

    async def operation() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(anyio.sleep, 0.001)

    report = await cancel_everywhere(operation, name="starts tasks")
    assert report.suspensions >= 4, report
