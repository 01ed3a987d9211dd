"""Whatever the kernel refuses, each operation says so, loses nothing silently, leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import zlib
from pathlib import Path
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
    SinkFailed,
    Stdio,
    _sys,
    create_io,
)
from pyshimio._fd import OwnedFd
from pyshimio._fifo import FifoHandle, FifoSink, KeepAlive
from pyshimio.errors import StreamFailedError
from pyshimio.io._base import BaseIO
from pyshimio.logging import _kernel
from pyshimio.testing import FakeClient
from pyshimio.testing.faults import ANY, FAULTS, REPEATED, SHORT, SURE, every_failure, fail_syscall
from support.children import GUARD
from support.fifos import make_fifo
from support.loggers import shell_logger, uri_of
from support.terminals import RUNTIME, make_script, read_until, send

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from pyshimio import DrainResult, StreamResult
    from pyshimio.testing.faults import FailureReport

pytestmark = pytest.mark.thorough

LINES = b"".join(b"%07d\n" % number for number in range(1500))  # 12,000 bytes: three pages
BULK = b"".join(b"%07d\n" % number for number in range(40_000))  # 320,000 bytes

FLOORS: dict[str, int] = {
    "owned_fd": 4,
    "command_posix_spawn": 5,
    "command_popen": 3,
    "command_trampoline": 10,
    "command_signal": 4,
    "pipe_steps": 16,
    "pipe_chown_try": 13,
    "pipe_streams": 21,
    "aclose_live": 19,
    "close_live": 20,
    "fifo_three": 71,
    "fifo_bulk": 39,
    "fifo_ring": 50,
    "file_drop": 19,
    "file_block": 19,
    "file_fail": 19,
    "file_drop_inline": 23,
    "file_block_inline": 19,
    "file_fail_inline": 24,
    "file_reopen": 36,
    "log_json_file": 32,
    "log_json_file_gzip": 60,
    "binary_epipe": 38,
    "binary_epipe_handover": 20,
    "binary_respawn": 34,
    "binary_respawn_handover": 20,
    "binary_dies": 52,
    "null_io": 15,
    "inherit_io": 15,
    "fd_io_file": 17,
    "fd_io_pipe": 20,
    "console_open": 8,
    "console_streams": 17,
    "console_copy": 39,
    "console_file": 40,
    "console_socket": 8,
    "console_runtime": 23,
    "tap": 23,
    "drain_eof": 18,
    "drain_exited": 20,
    "drain_keep": 20,
    "create_io": 620,
}
"""Calls that each operation reaches at least, on whichever loop.  These may only grow."""


async def check(operation: Callable[[], Awaitable[None]], **options: Any) -> FailureReport:
    """Put *operation* through every failure and hold it to its floor."""
    name = operation.__name__
    report = await every_failure(operation, name=name, **options)
    assert report.calls >= FLOORS[name], str(report)
    return report


def account(expected: bytes, got: bytes, stream: StreamResult | None) -> None:
    """Assert that *got* is all that was written, or that the drain says that it is not."""
    if zlib.crc32(got) == zlib.crc32(expected) and len(got) == len(expected):
        return
    assert stream is not None
    assert not stream.finished or stream.dropped, (len(got), stream)
    assert len(got) + stream.dropped <= len(expected)


def told(result: DrainResult, expected: bytes, got: bytes) -> None:
    """The same for stdout."""
    account(expected, got, result.stdout)


@contextlib.contextmanager
def alone() -> Generator[None]:
    """Undo what a task group of the test's own does to an error."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise


def shell(line: str) -> list[str]:
    """A small child."""
    return ["sh", "-c", line]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with LINES."""
    path = tmp_path / "source"
    path.write_bytes(LINES)
    return path


@pytest.fixture
def bulk(tmp_path: Path) -> Path:
    """A file with BULK."""
    path = tmp_path / "bulk"
    path.write_bytes(BULK)
    return path


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has no room is tried again at once, and nobody lingers for nothing."""
    monkeypatch.setattr("pyshimio._file.RETRY", 0.005)
    monkeypatch.setattr("pyshimio._filepump.RETRY", 0.005)
    monkeypatch.setattr("pyshimio.io._base.LINGER", 0.1)
    assert BaseIO.drain.__kwdefaults__ is not None
    monkeypatch.setitem(BaseIO.drain.__kwdefaults__, "linger", 0.1)


# -- the tools themselves ------------------------------------------------------------------


def test_every_call_has_its_faults() -> None:
    """A new function in _sys or of log drivers is either given faults or said to have none."""
    calls = {
        f"{prefix}{name}"
        for prefix, module in (("", _sys), ("log.", _kernel))
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and not isinstance(value, type)
    }
    known = set(FAULTS) | SURE
    assert known == calls
    assert not set(FAULTS) & SURE
    assert calls >= REPEATED | SHORT


def test_one_call_fails() -> None:
    """The k-th call fails before it happens, no other does, and all is as it was afterwards."""
    real = (dict(vars(_sys)), dict(vars(_kernel)))
    reader, writer = os.pipe()
    try:
        with fail_syscall("write", 2, error=errno.ENOSPC) as calls:
            assert _sys.write(writer, b"one") == 3
            with pytest.raises(OSError, match="No space") as caught:
                _sys.write(writer, b"two")
            assert _sys.write(writer, b"three") == 5
        assert caught.value is calls.injected
        assert (calls.failed, calls.names) == ("write", ["write"] * 3)
        assert os.read(reader, 100) == b"onethree"
        with fail_syscall(ANY, 3, error=errno.EIO) as calls:
            _sys.write(writer, b"x")
            _sys.read(reader, 1)
            with pytest.raises(OSError, match="Input/output"):
                _sys.fstat(reader)
        assert calls.failed == "fstat"
        with fail_syscall("read", 5, error=errno.EIO) as calls:
            _sys.write(writer, b"x")
        assert (calls.failed, calls.injected) == (None, None)
        with fail_syscall("log.write", error=errno.EIO) as calls:
            assert _sys.write(writer, b"x") == 1
            with pytest.raises(OSError, match="Input/output"):
                _kernel.write(writer, b"x")
        assert (calls.failed, calls.names) == ("log.write", ["write", "log.write"])
        with fail_syscall("log.close", error=errno.EIO):
            with pytest.raises(OSError, match="Input/output"):
                _kernel.close(other := os.dup(reader))
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(other)
    finally:
        os.close(reader)
        os.close(writer)
    assert (vars(_sys), vars(_kernel)) == real


def test_one_call_comes_back_short(tmp_path: Path) -> None:
    """A short call moves one byte, whichever way it was asked."""
    path = tmp_path / "file"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    reader, writer = os.pipe()
    other, end = os.pipe()
    ours, theirs = socket.socketpair()
    try:
        with fail_syscall("write", short=True):
            assert _sys.write(file, b"12345") == 1
        with fail_syscall("log.write", short=True):
            assert _kernel.write(file, b"2345") == 1
        os.lseek(file, 1, os.SEEK_SET)
        with fail_syscall("writev", short=True):
            assert _sys.writev(file, [b"", b"2345", b"6"]) == 1
        os.lseek(file, 0, os.SEEK_SET)
        with fail_syscall("read", short=True):
            assert _sys.read(file, 10) == b"1"
        with fail_syscall("readv", short=True):
            assert _sys.readv(file, [bytearray(10)]) == 1
        os.write(writer, b"abc")
        with fail_syscall("read", short=True):
            assert _sys.read(reader, 10) == b"abc"  # a pipe gives what it has
        os.write(writer, b"abc")
        with fail_syscall("splice", short=True):
            assert _sys.splice(reader, end, 3) == 1
        socket.send_fds(theirs, [b"name"], [reader])
        with fail_syscall("recv_fds", short=True):
            data, fds, cut = _sys.recv_fds(ours, 10)
        os.close(fds[0])
        assert (data, len(fds), cut) == (b"n", 1, False)
    finally:
        ours.close()
        theirs.close()
        for fd in (file, reader, writer, other, end):
            os.close(fd)


def test_one_call_is_interrupted() -> None:
    """CPython repeats a call after EINTR, unless the handler raises or it is a close."""
    reader, writer = os.pipe()
    with fail_syscall("write", interrupted=True) as calls:
        assert _sys.write(writer, b"x") == 1
    assert calls.failed == "write"
    with fail_syscall("read", interrupted=KeyboardInterrupt()):
        with pytest.raises(KeyboardInterrupt):
            _sys.read(reader, 1)
    assert os.read(reader, 1) == b"x"
    for fd in (reader, writer):
        with fail_syscall("close", interrupted=True):
            with pytest.raises(InterruptedError):
                _sys.close(fd)
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_calls_of_threads_count() -> None:
    """Exactly one of many threads gets the failure."""
    failed = []

    def look() -> None:
        for _ in range(200):
            try:
                _sys.fstat(0)
            except OSError as error:
                failed.append(error)

    with fail_syscall("fstat", 500, error=errno.EIO) as calls:
        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == [calls.injected]
    assert len(calls.names) == 800


def test_faults_that_cannot_be() -> None:
    """What cannot mean anything is refused before anything is replaced."""
    for name, k, options in (
        ("nothing", 1, {"error": errno.EIO}),
        ("read", 0, {"error": errno.EIO}),
        ("close", 1, {"short": True}),
        ("read", 1, {}),
        ("read", 1, {"short": True, "error": errno.EIO}),
    ):
        with pytest.raises(ValueError):
            with fail_syscall(name, k, **options):
                pass


async def test_what_every_failure_finds() -> None:
    """A leak, a lie, a hang and a wrong error are found, and named by the call that failed."""

    async def leak() -> None:
        reader, writer = _sys.pipe()
        left.extend((reader, writer))
        _sys.set_nonblocking(reader)
        for fd in (reader, writer):
            with contextlib.suppress(OSError):
                _sys.close(fd)
            left.remove(fd)

    async def lie() -> None:
        with contextlib.suppress(OSError):
            assert _sys.poll_now(0) is not None
            status = _sys.fstat(0)
            raised.append(status)
        assert raised.pop()

    async def hang() -> None:
        try:
            _sys.fstat(0)
        except OSError:
            await anyio.sleep_forever()

    async def wrong() -> None:
        try:
            _sys.fstat(0)
        except OSError as error:
            raise RuntimeError("it failed") from error

    left: list[int] = []
    raised: list[object] = []
    with pytest.raises(AssertionError, match=r"set_nonblocking number 1: EPERM: left behind: desc"):
        await every_failure(leak, name="leak")
    for fd in left:
        os.close(fd)
    with pytest.raises(AssertionError, match=r"fstat number 1: ENOMEM: raised IndexError"):
        await every_failure(lie, name="lie")
    with pytest.raises(AssertionError, match=r"fstat number 1: ENOMEM: hangs"):
        await every_failure(hang, name="hang", deadline=0.05)
    with pytest.raises(AssertionError, match=r"fstat number 1: EIO: raised RuntimeError"):
        await every_failure(wrong, name="wrong")


# -- descriptors and children --------------------------------------------------------------


async def test_owned_descriptors() -> None:
    """A descriptor closes once, even when close() says EINTR or EIO."""

    async def owned_fd() -> None:
        ends = [OwnedFd(fd) for fd in _sys.pipe()]
        try:
            ends.append(OwnedFd(_sys.dup(ends[0].fileno())))
            with ends[2].lend() as number:
                _sys.fstat(number)
        finally:
            for end in ends * 2:
                end.close()
        assert all(end.closed for end in ends)

    await check(owned_fd)


async def test_starting_a_command(tmp_path: Path) -> None:
    """A command starts as asked, or says why not and leaves neither child nor descriptor."""
    path = tmp_path / "out"

    async def command_posix_spawn() -> None:
        with open(path, "wb") as file:
            async with await Command(["echo", "hi"], stdout=file).start() as process:
                with anyio.fail_after(GUARD):
                    assert await process.wait() == 0
        assert path.read_bytes() == b"hi\n"

    async def command_popen() -> None:
        with open(path, "wb") as file:
            async with await Command(["pwd"], stdout=file, cwd="/").start() as process:
                with anyio.fail_after(GUARD):
                    assert await process.wait() == 0
        assert path.read_bytes() == b"/\n"

    async def command_trampoline() -> None:
        with open(path, "wb") as file:
            command = Command(shell("pwd >&3"), cwd="/", extra_files=[file])
            async with await command.start() as process:
                with anyio.fail_after(GUARD):
                    assert await process.wait() == 0
        assert path.read_bytes() == b"/\n"

    async def command_signal() -> None:
        async with await Command(["sleep", "60"]).start() as process:
            try:
                await process.stop(5.0)
            finally:
                process.send_signal(signal.SIGKILL)
            assert await process.wait() in {128 + signal.SIGTERM, 128 + signal.SIGKILL}

    await check(command_posix_spawn)
    await check(command_popen)
    await check(command_trampoline, sample=1)
    await check(command_signal)


# -- pipes -----------------------------------------------------------------------------------


async def test_the_steps_of_a_pipe_io() -> None:
    """Made, set, closed after the start, closed: each step leaves nothing when it fails."""

    async def pipe_steps() -> None:
        async with PipeIO(os.getuid(), os.getgid()) as io:
            with Command(["true"]) as command:
                io.set(command)
            assert len(io.child_fds()) == 3
            io.close_after_start()
            io.close_stdin()

    async def pipe_chown_try() -> None:
        PipeIO(os.getuid(), os.getgid(), chown="try").close()

    await check(pipe_steps)
    await check(pipe_chown_try)


async def test_the_streams_of_a_pipe_io() -> None:
    """What is sent comes back through the child, or the stream says that it is broken."""

    async def pipe_streams() -> None:
        async with PipeIO(grace=0.5) as io:
            process = await io.spawn(["cat"])
            assert io.stdin is not None
            assert io.stdout is not None
            await io.stdin.send(LINES)
            io.close_stdin()
            got = b""
            with contextlib.suppress(anyio.EndOfStream):
                while True:
                    got += await io.stdout.receive()
            assert got == LINES
            with anyio.fail_after(GUARD):
                await process.wait()
            await io.drain()

    await check(pipe_streams)


async def test_an_io_that_is_closed_under_a_live_child() -> None:
    """Closing ends the child, or says what went wrong; either way the child is reaped."""

    async def aclose_live() -> None:
        async with PipeIO(grace=2.0) as io:
            await io.spawn(["sleep", "60"])

    async def close_live() -> None:
        io = PipeIO()
        try:
            process = await io.spawn(["sleep", "60"])
        finally:
            io.close()
        process.kill()  # should close() have been refused
        with anyio.fail_after(GUARD):
            await process.wait()

    await check(aclose_live)
    await check(close_live)


# -- FIFOs -----------------------------------------------------------------------------------


async def test_the_pumps_of_fifos(tmp_path: Path, source: Path) -> None:
    """Three FIFOs: what the clients get is all, or the drain says what is missing."""
    stdin, out, err = (make_fifo(tmp_path, name) for name in ("in", "out", "err"))

    async def fifo_three() -> None:
        with FakeClient(out) as stdout, FakeClient(err) as stderr:
            stdio = Stdio(stdin=stdin, stdout=out, stderr=err)
            async with await create_io(stdio, grace=0.5) as io:
                events = io.events()
                process = await io.spawn(shell(f"cat; cat {source} >&2"))
                writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
                os.write(writer, LINES)
                os.close(writer)
                io.close_stdin()
                with anyio.fail_after(GUARD):
                    await process.wait()
                result = await io.drain(linger=0.5, sink_timeout=2.0)
                fed = io.stats.stdin
                whole = fed is not None and fed.bytes_out == len(LINES)
                got = await stdout.read(stdout.unread)
                if whole:
                    account(LINES, got, result.stdout)
                account(LINES, await stderr.read(stderr.unread), result.stderr)
            failed = [event.stream async for event in events if isinstance(event, SinkFailed)]
            assert whole or "stdin" in failed, fed

    await check(fifo_three)


async def test_a_busy_fifo(tmp_path: Path, bulk: Path) -> None:
    """Spliced or copied, with pipes that grow or do not: every byte, or an error."""
    out = make_fifo(tmp_path, "out")

    async def fifo_bulk() -> None:
        got = bytearray()

        def read_what_is_there() -> bool:
            with contextlib.suppress(BlockingIOError):
                while data := os.read(client.fileno(), 1 << 20):
                    got.extend(data)
                return False
            return True

        async def read() -> None:
            while True:
                await anyio.wait_readable(client.fileno())
                if not read_what_is_there():  # nobody has opened it yet, or nobody has it now
                    await anyio.sleep(0.001)

        with alone(), FakeClient(out) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                async with await create_io(Stdio(stdout=out), grace=0.5) as io:
                    process = await io.spawn(["cat", str(bulk)])
                    with anyio.fail_after(GUARD):
                        await process.wait()
                    result = await io.drain(linger=0.5, sink_timeout=2.0)
                group.cancel_scope.cancel()
            read_what_is_there()
            told(result, BULK, bytes(got))

    await check(fifo_bulk, sample=2)


async def test_a_client_that_is_away(tmp_path: Path) -> None:
    """A ring takes what nobody reads, and the drain says what is unread."""
    out = make_fifo(tmp_path, "out")

    async def fifo_ring() -> None:
        async with await create_io(Stdio(stdout=out, stderr=out), ring=4096) as io:
            process = await io.spawn(shell("echo hello"))
            with anyio.fail_after(GUARD):
                await process.wait()
            result = await io.drain()
            assert result.unread == 6 or not result.complete
            with FakeClient(out) as client:
                assert await client.read(client.unread) == b"hello\n"[: result.unread]

    await check(fifo_ring)


async def test_a_keep_alive_that_could_not_come_back(tmp_path: Path) -> None:
    """A reader of ours that lost its number to somebody else is opened again when it is missed."""
    path = make_fifo(tmp_path)
    handle = FifoHandle(path)
    sink = FifoSink.open_now(handle, KeepAlive())
    handle.close()
    try:
        for splice in (False, True):
            with fail_syscall("reopen", error=errno.EMFILE) as calls:
                assert not sink.attached()
            assert calls.failed == "reopen"
            if splice:
                reader, writer = os.pipe()
                os.write(writer, b"two")
                assert sink.splice_from(reader, 3) == 3
                os.close(reader)
                os.close(writer)
            else:
                assert sink.write([b"one"]) == 3
        assert not sink.attached()
        with fail_syscall("reopen", error=errno.EMFILE):
            sink.attached()
        with fail_syscall("reopen", error=errno.EMFILE), pytest.raises(BrokenPipeError):
            sink.write([b"x"])
        with FakeClient(path) as client:
            assert await client.read(6) == b"onetwo"
            assert sink.attached()
    finally:
        sink.close()


# -- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["drop", "block", "fail"])
@pytest.mark.parametrize("inline", [False, True])
async def test_the_pumps_of_files(
    tmp_path: Path, source: Path, on_error: Any, inline: bool
) -> None:
    """A log has all lines, or the policy's answer: counted as dropped, waited for, an error."""
    log = tmp_path / "log" / "file"

    async def file_log() -> None:
        log.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            log.parent.rmdir()
        async with FileIO(log, on_error=on_error, inline=inline, grace=0.5) as io:
            process = await io.spawn(["cat", str(source)])
            with anyio.fail_after(GUARD):
                await process.wait()
            result = await io.drain(linger=1.0, sink_timeout=5.0)
            told(result, LINES, log.read_bytes())

    file_log.__name__ = f"file_{on_error}{'_inline' if inline else ''}"
    await check(file_log)


async def test_rotation_under_a_stream(tmp_path: Path) -> None:
    """reopen() has the new file, or the old one goes on and the error is raised."""
    log, old = tmp_path / "log", tmp_path / "old"

    async def file_reopen() -> None:
        log.unlink(missing_ok=True)
        old.unlink(missing_ok=True)
        async with FileIO(log, log, stdin=True, grace=0.5) as io:
            process = await io.spawn(["cat"])
            assert io.stdin is not None
            await io.stdin.send(b"one\n")
            with anyio.fail_after(GUARD):
                while not log.stat().st_size and not _trouble(io):
                    await anyio.sleep(0.002)
            log.rename(old)
            error: OSError | None = None
            try:
                await io.reopen()
            except OSError as refused:
                error = refused
            await io.stdin.send(b"two\n")
            io.close_stdin()
            with anyio.fail_after(GUARD):
                await process.wait()
            result = await io.drain()
            there = [path.read_bytes() for path in (old, log) if path.exists()]
            told(result, b"one\ntwo\n", b"".join(there))
            if error is not None:
                raise error

    await check(file_reopen)


def _trouble(io: FileIO) -> bool:
    stats = io.stats.stdout
    return stats is None or bool(stats.dropped) or "ended" in repr(io).split("stderr")[0]


async def test_no_thread_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may have no more threads gets EAGAIN at once, and no stream waits for one."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with anyio.fail_after(GUARD):
        async with FileIO(tmp_path / "log") as io:
            with pytest.raises(BlockingIOError, match="no thread"):
                await io.spawn(["true"])
        with open(tmp_path / "file", "wb") as file:
            async with FdIO(stdout=file) as fd_io:
                process = await fd_io.spawn(["echo", "lost"])
                await process.wait()
                with pytest.raises(StreamFailedError) as caught:
                    await fd_io.drain()
                assert caught.value.errno == errno.EAGAIN
    monkeypatch.setattr(threading.Thread, "start", real)
    async with FileIO(tmp_path / "log") as io:
        process = await io.spawn(["echo", "there"])
        await process.wait()
        await io.drain()
    assert (tmp_path / "log").read_bytes() == b"there\n"


# -- loggers ---------------------------------------------------------------------------------

LOGGER = """
exec 5>&-
cat <&3 >> "$2/out" &
cat <&4 >> "$2/err"
wait
"""


def anew(logger: Path, where: Path) -> tuple[str, Path]:
    """A logger's URI with a directory of its own, and the file that it writes there.

    One that was killed may have a child that goes on writing.
    """
    directory = Path(tempfile.mkdtemp(dir=where))
    return uri_of(logger, ("dir", str(directory))), directory / "out"


@pytest.mark.parametrize("compress", ["false", "true"])
async def test_a_log_driver(tmp_path: Path, source: Path, compress: str) -> None:
    """Every line is in one of the rotated files, once and in its order, or it is counted."""
    path = tmp_path / "logs" / "c.log"
    old = b'{"log":"old\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n'

    async def log_json_file() -> None:
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        path.write_bytes(old + old[:20])
        uri = f"log+json-file://{path}?max-size=50k&max-file=9&compress={compress}"
        async with await create_io(uri, id="c", namespace="n") as io:
            process = await io.spawn(["cat", str(source)])
            result = await io.drain(sink_timeout=GUARD)
            with anyio.fail_after(GUARD):
                await process.wait()
        entries = b""
        for number in range(9, 0, -1):
            file = path.with_name(f"c.log.{number}")
            packed = path.with_name(f"c.log.{number}.gz")
            if file.exists():
                entries += file.read_bytes()
            elif packed.exists():
                entries += gzip.decompress(packed.read_bytes())
        entries += path.read_bytes() if path.exists() else b""
        lines = [json.loads(entry)["log"].encode() for entry in entries.splitlines()]
        assert lines[0] == b"old\n"
        # What is missing is whole lines, and nothing is there twice.
        assert lines[1:] == sorted(set(lines[1:]) & set(LINES.splitlines(keepends=True)))
        # (A batch that fails counts as a whole, although some of it may have been written.)
        missing = len(LINES) - len(b"".join(lines[1:]))
        stdout = result.stdout
        assert stdout is not None
        assert not missing or not stdout.finished or stdout.dropped >= missing, (missing, stdout)

    log_json_file.__name__ += "_gzip" if compress == "true" else ""
    await check(log_json_file, only=[name for name in FAULTS if name.startswith("log.")])


@pytest.mark.parametrize("handover", [False, True])
@pytest.mark.parametrize("on_death", ["epipe", "respawn"])
async def test_a_logger(tmp_path: Path, source: Path, on_death: Any, handover: bool) -> None:
    """A logger has all lines, or the start fails; it is always reaped."""
    logger = shell_logger(tmp_path, LOGGER)

    async def binary() -> None:
        uri, out = anew(logger, tmp_path)
        with anyio.fail_after(GUARD):
            io = await BinaryIO.start(
                uri, id="c", namespace="n", on_death=on_death, handover=handover, grace=0.5
            )
        async with io:
            process = await io.spawn(["cat", str(source)])
            with anyio.fail_after(GUARD):
                await process.wait()
            result = await io.drain(linger=0.5, sink_timeout=3.0)
            got = out.read_bytes() if out.exists() else b""
            if handover:
                assert got == LINES or not result.complete
            else:
                told(result, LINES, got)

    binary.__name__ = f"binary_{on_death}{'_handover' if handover else ''}"
    await check(binary, sample=1 if handover or on_death == "respawn" else 2)


MORTAL = """
exec 5>&-
dd bs=4096 count=1 <&3 >> "$2/out" 2>/dev/null
[ -s "$2/out" ] && kill -9 $$
"""


async def test_a_logger_that_keeps_dying(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A successor that cannot be started ends the respawning; what is lost is counted."""
    monkeypatch.setattr("pyshimio.io._logger.BACKOFF", 0.001)
    logger = shell_logger(tmp_path, MORTAL)

    async def binary_dies() -> None:
        uri, out = anew(logger, tmp_path)
        with anyio.fail_after(GUARD):
            io = await BinaryIO.start(
                uri, id="c", namespace="n", on_death="respawn", max_restarts=50, grace=0.5
            )
        async with io:
            process = await io.spawn(["cat", str(source)])
            with anyio.fail_after(GUARD):
                await process.wait()
            result = await io.drain(linger=0.5, sink_timeout=3.0)
            got = out.read_bytes() if out.exists() else b""
            assert got == LINES or not result.complete, result
            assert LINES.startswith(got)

    await check(binary_dies, sample=1)


# -- what is there already -------------------------------------------------------------------


async def test_null_inherit_and_descriptors(tmp_path: Path, source: Path) -> None:
    """IOs around what exists leave it as it was, whatever fails."""
    path = tmp_path / "file"

    async def null_io() -> None:
        async with NullIO() as io:
            process = await io.spawn(["true"])
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0

    async def inherit_io() -> None:
        async with InheritIO() as io:
            process = await io.spawn(["true"])
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0

    async def fd_io_file() -> None:
        with open(path, "wb") as file:
            async with FdIO(stdout=file, grace=0.5) as io:
                process = await io.spawn(["cat", str(source)])
                with anyio.fail_after(GUARD):
                    await process.wait()
                told(await io.drain(), LINES, path.read_bytes())

    async def fd_io_pipe() -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        try:
            async with FdIO(stdout=writer, grace=0.5) as io:
                process = await io.spawn(["cat", str(source)])
                with anyio.fail_after(GUARD):
                    await process.wait()
                result = await io.drain()
                got = b""
                with contextlib.suppress(BlockingIOError):
                    while chunk := os.read(reader, 65536):
                        got += chunk
                told(result, LINES, got)
        finally:
            os.close(reader)
            os.close(writer)

    await check(null_io)
    await check(inherit_io)
    await check(fd_io_file)
    await check(fd_io_pipe)


# -- terminals -------------------------------------------------------------------------------


async def test_a_file_for_a_terminal(tmp_path: Path) -> None:
    """A file is typed in to its end, or the error says why not."""
    (tmp_path / "in").write_bytes(b"typed\n")

    async def console_file() -> None:
        stdio = Stdio(stdin=f"file://{tmp_path}/in", terminal=True)
        async with await create_io(stdio, grace=0.5) as io:
            failed = io.events()
            process = await io.spawn(shell("stty -echo; read x; test $x = typed"))

            async def end_it() -> None:
                async for event in failed:
                    if isinstance(event, SinkFailed):
                        process.kill()  # nobody can type its end any more

            with alone(), anyio.fail_after(GUARD):
                async with anyio.create_task_group() as group:
                    group.start_soon(end_it)
                    if await process.wait():
                        stats = io.stats.stdin
                        assert stats is None or stats.bytes_out < 6 or process.status == 137
                    group.cancel_scope.cancel()
            await io.drain(linger=0.5, sink_timeout=2.0)

    await check(console_file, sample=2)


async def test_terminals(tmp_path: Path) -> None:
    """A terminal of our own: made, sized, used and hung up, or an error."""

    async def console_open() -> None:
        console, slave = Console.open(uid=os.getuid(), gid=os.getgid())
        async with console:
            try:
                console.resize(30, 100)
                assert console.size == (30, 100)
                console.set_raw()
            finally:
                slave.close()

    async def console_streams() -> None:
        async with ConsoleIO(size=(24, 80), grace=0.5) as io:
            process = await io.spawn(shell("read line; echo got $line"))
            assert io.console is not None
            assert io.stdin is not None
            await io.stdin.send(b"me\n")
            with contextlib.suppress(anyio.EndOfStream):  # EIO is how a terminal hangs up
                await read_until(io.console, b"got me")
            with anyio.fail_after(GUARD):
                await process.wait()

    log, stdin = tmp_path / "screen", make_fifo(tmp_path, "in")

    async def console_copy() -> None:
        log.unlink(missing_ok=True)
        stdio = Stdio(stdin=stdin, stdout=f"file://{log}", terminal=True)
        async with await create_io(stdio, grace=0.5) as io:
            failed = io.events()
            process = await io.spawn(shell("stty -echo; while read line; do echo got $line; done"))
            writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, b"me\n")
            os.close(writer)
            io.close_stdin()

            async def end_it() -> None:
                async for event in failed:
                    if isinstance(event, SinkFailed):
                        process.kill()  # nobody can type its end any more

            with alone(), anyio.fail_after(GUARD):
                async with anyio.create_task_group() as group:
                    group.start_soon(end_it)
                    await process.wait()
                    group.cancel_scope.cancel()
            result = await io.drain(linger=0.5, sink_timeout=2.0)
            typed = io.stats.stdin
            if result.complete and process.status == 0 and typed is not None and typed.bytes_out:
                assert b"got me" in log.read_bytes()

    await check(console_open)
    await check(console_streams)
    await check(console_copy)


async def test_a_console_socket() -> None:
    """The terminal that a runtime sends arrives, or the wait ends with an error."""

    async def console_socket() -> None:
        master, slave = os.openpty()
        peers: list[socket.socket] = []
        try:
            async with ConsoleSocket.temp() as listener:
                with Command(["runc", "create", "x"]) as command:
                    listener.set(command)
                listener.close_after_start()
                send(listener.path, b"/dev/pts/0", [master])
                async with await listener.receive(1.0) as console:
                    assert console.size is not None
        finally:
            for peer in peers:
                peer.close()
            os.close(master)
            os.close(slave)

    await check(console_socket)


async def test_a_terminal_from_a_runtime(tmp_path: Path) -> None:
    """A container's terminal arrives and is copied, or nothing of it is left."""
    runtime = make_script(tmp_path / "runc", f"{RUNTIME}os.write(slave, b'hello')\n")
    log = tmp_path / "screen"

    async def console_runtime() -> None:
        log.unlink(missing_ok=True)
        stdio = Stdio(stdout=f"file://{log}", terminal=True)
        async with await create_io(stdio, grace=0.5, console_timeout=3.0) as io:
            process = await io.spawn([runtime, "create", "x"])
            with anyio.fail_after(GUARD):
                await process.wait()
            result = await io.drain(linger=0.5, sink_timeout=2.0)
            if result.complete and process.status == 0:
                assert log.read_bytes() == b"hello"

    await check(console_runtime, sample=1)


# -- beside the log, and the ends of a drain -------------------------------------------------


async def test_a_tap(tmp_path: Path, source: Path) -> None:
    """A tap has what the log has, or counts what it missed; the log does not care."""
    from pyshimio.io.fd import fd_sink  # noqa: PLC0415

    log = tmp_path / "log"

    async def tap() -> None:
        log.unlink(missing_ok=True)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        try:
            async with FileIO(log, grace=0.5) as io:
                sink = fd_sink(writer)
                try:
                    beside = io.attach("stdout", sink)
                except BaseException:
                    sink.close()
                    raise
                process = await io.spawn(["cat", str(source)])
                with anyio.fail_after(GUARD):
                    await process.wait()
                result = await io.drain()
                await beside.detach(1.0)
                got = b""
                with contextlib.suppress(BlockingIOError):
                    while chunk := os.read(reader, 65536):
                        got += chunk
                told(result, LINES, log.read_bytes())
                assert LINES.startswith(got)
                assert len(got) + beside.dropped >= len(LINES) or not result.complete
        finally:
            os.close(reader)
            os.close(writer)

    await check(tap)


@pytest.mark.parametrize("policy", ["eof", "exited", "keep"])
async def test_each_drain(tmp_path: Path, source: Path, policy: Any) -> None:
    """Every policy has what the process wrote, or says what is missing."""
    log, held = tmp_path / "log", tmp_path / "held"

    async def drain() -> None:
        log.unlink(missing_ok=True)
        async with FileIO(log, grace=0.5) as io:
            process = await io.spawn(shell(f"sleep 5 & echo $! >{held}; cat {held} {source}"))
            with anyio.fail_after(GUARD):
                await process.wait()
            result = await io.drain(exited=process.pidfd, policy=policy, linger=0.01)
            _, _, got = log.read_bytes().partition(b"\n")
            # Not by what arrived: a pid of which a part was dropped is somebody else's, and the
            # lines behind it begin with a 0, which stands for our whole process group.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(held.read_text()), signal.SIGKILL)
            if result.complete:
                assert got == LINES

    drain.__name__ = f"drain_{policy}"
    await check(drain)


async def test_create_io_of_every_scheme(tmp_path: Path) -> None:
    """Whatever a stream goes to, a factory that fails leaves nothing behind."""
    fifo, stdin = make_fifo(tmp_path, "fifo"), make_fifo(tmp_path, "in")
    given = tmp_path / "given"
    given.write_bytes(b"x")
    logger = uri_of(shell_logger(tmp_path, LOGGER), ("dir", str(tmp_path)))
    outputs = ["", f"fifo://{fifo}", f"file://{tmp_path}/a/log", str(given)]
    records = [
        Stdio(stdin=inlet, stdout=stdout, stderr=stderr)
        for inlet in ("", stdin, str(given))
        for number, stdout in enumerate(outputs)
        for stderr in outputs[number:]
    ]
    records += [Stdio(stdin=stdin, stdout=output, terminal=True) for output in outputs]
    records += [
        Stdio(stdout=logger),
        Stdio(stdout=logger, stderr=outputs[1]),
        Stdio(stdin=stdin, stdout=logger, terminal=True),
    ]
    calls = 0
    for record in records:

        async def create_io_for(record: Stdio = record) -> None:
            names = {"id": "c", "namespace": "n"}
            uid, gid = os.getuid(), os.getgid()
            async with await create_io(record, uid=uid, gid=gid, **names) as io:  # type: ignore[arg-type]
                repr(io)

        calls += (await every_failure(create_io_for, name=f"create_io({record})", sample=1)).calls
    assert calls >= FLOORS["create_io"], calls
