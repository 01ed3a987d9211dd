"""Attaching the caller's terminal, files and sinks to a process's FIFOs, and letting go again."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import tty
import zlib
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import Stdio, _sys, create_io
from pyshimio._events import BytesDropped, SinkFailed
from pyshimio._fd import OwnedFd
from pyshimio._fifo import FifoHandle
from pyshimio._streams import FdReceiveStream
from pyshimio.client import Attachment, FifoSet, attach
from pyshimio.client._output import ClientSource
from pyshimio.errors import (
    FifoNotFoundError,
    InvalidOptionError,
    IOStateError,
    NotAFifoError,
    StreamFailedError,
    URIError,
)
from pyshimio.testing.faults import cancel_everywhere, every_failure, fail_syscall
from support.children import GUARD, cancelled, until
from support.fifos import Shim

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

    from pyshimio.abc import IO
    from support.children import CancelKind

BULK = b"".join(b"%07d\n" % number for number in range(500_000))
"""4 MB, each line another one."""
SOME = BULK[:60_000]
COUNT = ["sh", "-c", "seq -f %07.0f 0 499999"]
"""A child that writes BULK."""


class Memory:
    """A sink that keeps everything, until it is told to fail."""

    blocking = False
    dropped = 0

    def __init__(self) -> None:
        self.data = bytearray()
        self.error: OSError | None = None
        self.closed = False

    def fileno(self) -> int:
        """There is nothing to wait for."""
        return -1

    def write(self, buffers: Sequence[Buffer]) -> int:
        """Keep all of it."""
        if self.error is not None:
            raise self.error
        for buffer in buffers:
            self.data += memoryview(buffer)
        return sum(memoryview(buffer).nbytes for buffer in buffers)

    def flush(self) -> None:
        """It is kept already."""

    def reopen(self) -> None:
        """There is nothing to open."""

    def close(self) -> None:
        """Remember that."""
        self.closed = True


@pytest.fixture
def fifos(tmp_path: Path) -> FifoSet:
    """The FIFOs of a process without a terminal."""
    return FifoSet.create("c1", directory=tmp_path / "fifos")


@pytest.fixture
def output(tmp_path: Path) -> FifoSet:
    """A FIFO for stdout alone."""
    return FifoSet.create("c1", directory=tmp_path / "fifos", stdin=False, stderr=False)


@contextmanager
def full_pipe() -> Generator[tuple[int, int]]:
    """A pipe that has no room: (reader, writer)."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def terminal() -> Generator[tuple[int, int]]:
    """A raw one: (master, slave)."""
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        yield master, slave
    finally:
        os.close(slave)
        with suppress(OSError):
            os.close(master)


async def read(fd: int, count: int) -> bytes:
    """So many bytes of a descriptor, or fewer when it ends before."""
    stream = FdReceiveStream(OwnedFd(os.dup(fd)))
    os.set_blocking(fd, False)
    data = b""
    try:
        with anyio.fail_after(GUARD):
            while len(data) < count:
                data += await stream.receive(count - len(data))
    except anyio.EndOfStream:
        pass
    finally:
        stream.close()
    return data


async def ended(io: IO, attached: Attachment) -> None:
    """Wait for the child's end and its output's."""
    with anyio.fail_after(GUARD):
        await io.drain()
        await attached.wait()


# -- output ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "pipe", "terminal", "sink"])
async def test_all_bytes_arrive(tmp_path: Path, output: FifoSet, kind: str) -> None:
    """Every byte of a child comes to a file, a pipe, a terminal or a sink, whose end is kept."""
    sink = Memory()
    got = b""
    with ExitStack() as stack:
        path = tmp_path / "got"
        reader = -1
        target: Any = sink
        if kind == "file":
            target = stack.enter_context(open(path, "wb", buffering=0))
        elif kind == "pipe":
            reader, target = os.pipe()
            stack.callback(os.close, reader)
        elif kind == "terminal":
            reader, target = stack.enter_context(terminal())
        flags = fcntl.fcntl(target, fcntl.F_GETFL) if kind != "sink" else None

        async def look() -> None:
            nonlocal got
            got = await read(reader, len(BULK))

        async with await create_io(output.stdio) as io, anyio.create_task_group() as group:
            if reader >= 0:
                group.start_soon(look)
            async with attach(output, stdout=target) as attached:
                await io.spawn(COUNT)
                await ended(io, attached)
                stats = attached.stats.stdout
            if flags is not None:
                assert fcntl.fcntl(target, fcntl.F_GETFL) == flags
            if kind == "pipe":
                os.close(target)
        if kind == "file":
            got = path.read_bytes()
        elif kind == "sink":
            got = bytes(sink.data)
            assert sink.closed
    assert (len(got), zlib.crc32(got)) == (len(BULK), zlib.crc32(BULK))
    assert stats is not None
    assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (len(BULK), len(BULK), 0)


async def test_both_outputs(fifos: FifoSet) -> None:
    """Each output has its own way, and ends for itself."""
    out, err = Memory(), Memory()
    async with await create_io(fifos.stdio) as io:
        async with attach(fifos, stdout=out, stderr=err) as attached:
            await io.spawn(["sh", "-c", "echo out; echo err >&2"])
            await ended(io, attached)
    assert (bytes(out.data), bytes(err.data)) == (b"out\n", b"err\n")


async def test_two_outputs_into_one_sink(fifos: FifoSet) -> None:
    """A sink of both is closed when both have ended, and not before."""
    sink = Memory()
    with Shim(fifos.stdio.stdout) as out, Shim(fifos.stdio.stderr) as err:
        async with attach(fifos, stdout=sink, stderr=sink) as attached:
            out.put(b"out")
            out.end()
            await until(lambda: "stdout=ended" in repr(attached))
            closed = [sink.closed]
            err.put(b"err")
            err.end()
            with anyio.fail_after(GUARD):
                await attached.wait()
            closed.append(sink.closed)
    assert sink.data == b"outerr"
    assert closed == [False, True]


async def test_output_that_is_there_already(output: FifoSet) -> None:
    """What was written before anybody attached comes first; a FIFO without a writer is no end."""
    sink = Memory()
    async with attach(output, stdout=sink) as attached:
        await anyio.wait_all_tasks_blocked()
        with Shim(output.stdio.stdout) as shim:
            shim.put(b"early")
            await until(lambda: sink.data == b"early")
            assert not sink.closed
            shim.put(b" late")
        with anyio.fail_after(GUARD):
            await attached.wait()
    assert sink.data == b"early late"
    with Shim(output.stdio.stdout) as shim:
        shim.put(b"again")
        again = Memory()
        async with attach(output, stdout=again) as attached:
            shim.end()
            await attached.wait()
        assert again.data == b"again"


@pytest.mark.parametrize("kind", ["pipe", "file"])
async def test_a_writer_that_says_nothing(tmp_path: Path, output: FifoSet, kind: str) -> None:
    """A writer that comes and goes without a word is an end."""
    reader, writer = os.pipe()
    with open(tmp_path / "got", "wb") as file:
        async with attach(output, stdout=file if kind == "file" else writer) as attached:
            await anyio.wait_all_tasks_blocked()
            os.close(os.open(output.stdio.stdout, os.O_WRONLY | os.O_NONBLOCK))
            with anyio.fail_after(GUARD):
                await attached.wait()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("call", ["read", "readinto"])
def test_a_writer_between_two_looks(
    output: FifoSet, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What comes and goes between "nothing there" and "nobody there" is not taken for an end."""
    source = ClientSource(_reader(output.stdio.stdout))
    holders = source.holders
    buffer = bytearray(10)

    def look() -> bytes | None:
        if call == "read":
            return source.read(10)
        count = source.readinto(memoryview(buffer))
        return None if count is None else bytes(buffer[:count])

    def come_and_go() -> bool:
        monkeypatch.setattr(source, "holders", holders)
        writer = os.open(output.stdio.stdout, os.O_WRONLY | os.O_NONBLOCK)
        os.write(writer, b"data")
        os.close(writer)
        return holders()

    assert look() is None
    monkeypatch.setattr(source, "holders", come_and_go)
    assert look() == b"data"
    assert look() == b""
    source.close()


def _reader(path: str) -> OwnedFd:
    handle = FifoHandle(path)
    try:
        return handle.open_reader()
    finally:
        handle.close()


# -- the end ---------------------------------------------------------------------------------


async def test_cancel_while_nobody_is_there(fifos: FifoSet) -> None:
    """An attachment that no shim has heard of is over as soon as it is cancelled."""
    with open("/dev/zero", "rb") as zero:
        async with attach(fifos, stdin=zero, stdout=Memory(), stderr=Memory()) as attached:
            await anyio.wait_all_tasks_blocked()
            assert repr(attached) == (
                "<Attachment attached stdin=waiting stdout=copying stderr=copying>"
            )
            attached.cancel()
            with anyio.fail_after(GUARD):
                await attached.wait()
            attached.cancel()
            assert "cancelled" in repr(attached)
            assert not attached.stdin_ended.is_set()
            assert attached.stats.stdin is not None
            assert attached.stats.stdin.bytes_in == 0
    assert repr(attached) == "<Attachment closed stdin=ended stdout=ended stderr=ended>"


@pytest.mark.parametrize("kind", ["file", "pipe", "sink"])
async def test_cancel_delivers_what_is_there(tmp_path: Path, output: FifoSet, kind: str) -> None:
    """What is in a FIFO at cancel() arrives, all of it; what comes behind it is the next one's."""
    sink = Memory()
    reader, writer = os.pipe()
    with open(tmp_path / "got", "wb+", buffering=0) as file, Shim(output.stdio.stdout) as shim:
        target: Any = {"file": file, "pipe": writer, "sink": sink}[kind]
        async with attach(output, stdout=target) as attached:
            await anyio.wait_all_tasks_blocked()
            shim.put(SOME)
            attached.cancel()
            shim.put(b"next")
            with anyio.fail_after(GUARD):
                await attached.wait()
        if kind == "sink":
            got = bytes(sink.data)
        elif kind == "pipe":
            got = await read(reader, len(SOME))
        else:
            got = os.pread(file.fileno(), len(SOME) + 1, 0)
        assert got == SOME
        assert shim.rest() == b"next"
    os.close(reader)
    os.close(writer)


async def test_cancel_beside_a_rival(output: FifoSet) -> None:
    """When somebody else takes what was there at cancel(), nobody waits for it."""
    sink = Memory()
    with Shim(output.stdio.stdout) as shim:
        async with attach(output, stdout=sink) as attached:
            await anyio.wait_all_tasks_blocked()
            shim.put(SOME)
            attached.cancel()
            assert shim.rest() == SOME
            with anyio.fail_after(GUARD):
                await attached.wait()
        assert sink.data == b""


async def test_clients_one_after_the_other(output: FifoSet) -> None:
    """A child that goes on writing loses nothing between two clients, and repeats nothing."""
    got = b""
    async with await create_io(output.stdio) as io:
        first = True
        while len(got) < len(BULK):
            sink = Memory()
            async with attach(output, stdout=sink) as attached:
                if first:
                    await io.spawn(COUNT)
                    first = False
                enough = len(got) + 1_000_000
                await until(lambda: len(got) + len(sink.data) >= min(enough, len(BULK)))  # noqa: B023
                attached.cancel()
                with anyio.fail_after(GUARD):
                    await attached.wait()
            got += sink.data
        await io.drain()
    assert got == BULK


async def test_leaving_the_block_delivers(output: FifoSet) -> None:
    """A block that is left without a word does what cancel() and wait() do."""
    sink = Memory()
    with Shim(output.stdio.stdout) as shim:
        async with attach(output, stdout=sink):
            await anyio.wait_all_tasks_blocked()
            shim.put(SOME)
        assert sink.data == SOME


async def test_leaving_with_an_error(output: FifoSet) -> None:
    """What is raised in the block comes out as it is, and the output is delivered all the same."""
    sink = Memory()
    with Shim(output.stdio.stdout) as shim:
        with pytest.raises(KeyError, match="mine"):
            async with attach(output, stdout=sink):
                shim.put(SOME)
                raise KeyError("mine")
        assert sink.data == SOME


async def test_a_sink_that_takes_nothing(output: FifoSet) -> None:
    """It holds up the end for so long and no longer; what it did not take stays in the FIFO."""
    with full_pipe() as (_, writer), Shim(output.stdio.stdout) as shim:
        async with attach(output, stdout=writer, sink_timeout=0.05) as attached:
            events = attached.events()
            shim.put(SOME)
            await until(lambda: shim.unread < len(SOME))
            with anyio.move_on_after(0.01):
                await attached.wait()
        stats = attached.stats.stdout
        assert stats is not None
        assert shim.rest() == SOME[stats.bytes_in :]
        assert stats.dropped == stats.bytes_in
        assert stats.bytes_out == 0
    dropped = [event.count async for event in events if isinstance(event, BytesDropped)]
    assert dropped == [stats.dropped]


STATES = ["new", "waiting", "copying", "blocked", "file", "cancelled", "ended", "detached"]


@pytest.mark.parametrize("state", STATES)
async def test_close(tmp_path: Path, fifos: FifoSet, state: str) -> None:
    """Close() ends it at once in every state and leaves nothing open; what is there stays."""
    sink = Memory()
    with ExitStack() as stack:
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)
        target: Any = sink
        if state == "blocked":
            _, target = stack.enter_context(full_pipe())
        elif state == "file":
            target = stack.enter_context(open(tmp_path / "got", "wb"))
        attached = attach(fifos, stdin=reader, stdout=target, detach_keys=b"\x10\x11")
        if state == "new":
            attached.close()
            assert sink.closed
            with pytest.raises(IOStateError):
                await attached.__aenter__()
            return
        async with attached:
            if state != "waiting":
                shim = stack.enter_context(Shim(fifos.stdio.stdout))
                process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
                stack.callback(os.close, process_stdin)
                shim.put(SOME)
                os.write(writer, b"typed")
                await until(lambda: attached.stats.stdin.bytes_out == 5)  # type: ignore[union-attr]
                if state == "cancelled":
                    attached.cancel()
                elif state == "detached":
                    os.write(writer, b"\x10\x11")
                    await until(lambda: attached.detached)
                elif state == "ended":
                    shim.end()
                    await attached.wait()
            else:
                await anyio.wait_all_tasks_blocked()
            attached.close()
            assert "closed" in repr(attached)
            attached.close()
            if state in {"waiting", "copying", "blocked", "file"}:
                with pytest.raises(anyio.ClosedResourceError):
                    await attached.wait()
            await attached.aclose()
        if state in {"waiting", "copying", "blocked", "file"}:
            with pytest.raises(anyio.ClosedResourceError):
                await attached.wait()


async def test_close_under_who_waits(fifos: FifoSet) -> None:
    """A task that waits for the end hears of close(), and that it was no end."""
    failed: list[Exception] = []

    async def wait(attached: Attachment) -> None:
        try:
            await attached.wait()
        except Exception as error:
            failed.append(error)

    async with anyio.create_task_group() as group:
        async with attach(fifos, stdout=Memory()) as attached:
            group.start_soon(wait, attached)
            await anyio.wait_all_tasks_blocked()
            attached.close()
    assert [type(error) for error in failed] == [anyio.ClosedResourceError]


@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_cancelled_from_outside(fifos: FifoSet, kind: CancelKind) -> None:
    """A cancelled block closes at once: what nobody has taken stays in the FIFO."""
    attachments: list[Attachment] = []
    with full_pipe() as (_, writer), Shim(fifos.stdio.stdout) as shim:

        async def main() -> None:
            with open("/dev/zero", "rb") as zero:
                async with attach(fifos, stdin=zero, stdout=writer, sink_timeout=60) as attached:
                    attachments.append(attached)
                    await shim.write(SOME)
                    await attached.wait()

        await cancelled(kind, main)
        (attached,) = attachments
        assert "closed" in repr(attached)
        stats = attached.stats.stdout
        assert stats is not None
        assert shim.rest() == SOME[stats.bytes_in :]


# -- sinks that fail -------------------------------------------------------------------------


async def test_a_sink_that_fails(fifos: FifoSet) -> None:
    """Its stream ends with its error, at once; the other goes on, and the FIFO keeps its rest."""
    broken, sink = Memory(), Memory()
    broken.error = OSError(errno.ENOSPC, "full")
    with Shim(fifos.stdio.stdout) as out, Shim(fifos.stdio.stderr) as err:
        async with attach(fifos, stdout=broken, stderr=sink) as attached:
            events = attached.events()
            out.put(b"lost")
            with anyio.fail_after(GUARD), pytest.raises(StreamFailedError) as caught:
                await attached.wait()
            assert (caught.value.stream, caught.value.errno) == ("stdout", errno.ENOSPC)
            assert caught.value.__cause__ is broken.error
            assert broken.closed
            out.put(b"kept")
            err.put(b"errors")
            err.end()
            with anyio.fail_after(GUARD):
                await attached.wait()
        assert sink.data == b"errors"
        assert out.rest() == b"kept"
        assert attached.stats.stdout is not None
        assert attached.stats.stdout.dropped == 4
    assert [type(event) async for event in events] == [SinkFailed]


async def test_a_failure_that_nobody_waited_for(output: FifoSet) -> None:
    """Leaving the block says it, unless it was said already or something else is on its way."""
    with Shim(output.stdio.stdout) as shim, open("/dev/full", "wb") as full:
        with pytest.raises(StreamFailedError):
            async with attach(output, stdout=full) as attached:
                shim.put(b"a")
                await until(lambda: "stdout=ended" in repr(attached))
        with pytest.raises(KeyError):
            async with attach(output, stdout=full) as attached:
                shim.put(b"a")
                await until(lambda: "stdout=ended" in repr(attached))
                raise KeyError("mine")


async def test_a_reader_that_leaves(output: FifoSet) -> None:
    """A pipe that nobody reads any more (``| head``) is a failure that names EPIPE."""
    reader, writer = os.pipe()
    with Shim(output.stdio.stdout) as shim:
        async with attach(output, stdout=writer) as attached:
            os.close(writer)
            os.close(reader)
            shim.put(SOME)
            with anyio.fail_after(GUARD), pytest.raises(StreamFailedError) as caught:
                await attached.wait()
            assert caught.value.errno == errno.EPIPE


# -- stdin -----------------------------------------------------------------------------------


class Peer:
    """Somebody who types into one of the kinds of stdin."""

    def __init__(self, kind: str, tmp_path: Path) -> None:
        self.kind = kind
        if kind == "file":
            path = tmp_path / "typed"
            path.write_bytes(BULK)
            self._ends = [os.open(path, os.O_RDONLY)]
        elif kind == "socket":
            self._ends = [end.detach() for end in socket.socketpair()]
        elif kind == "terminal":
            master, slave = os.openpty()
            tty.setraw(slave)
            self._ends = [slave, master]
        else:
            self._ends = list(os.pipe2(os.O_NONBLOCK if kind == "stream" else 0))
        fd = self._ends[0]
        self.source: Any = FdReceiveStream(OwnedFd(os.dup(fd))) if kind == "stream" else fd
        self._flags = fcntl.fcntl(fd, fcntl.F_GETFL)

    async def type(self, data: bytes, arrived: Callable[[], bool] = lambda: True) -> None:
        """All of it, and then the end.

        A terminal's end takes with it what has not *arrived* yet.
        """
        if self.kind == "file":
            return
        target = self._ends[1]
        os.set_blocking(target, False)
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(target, view[:4096]) :]
            except BlockingIOError:
                await anyio.wait_writable(target)
        await until(arrived)
        os.close(self._ends.pop())

    def close(self) -> None:
        """Nobody's stdin has been changed."""
        assert fcntl.fcntl(self._ends[0], fcntl.F_GETFL) == self._flags
        if self.kind == "stream":
            self.source.close()
        for end in self._ends:
            os.close(end)


@pytest.mark.parametrize("kind", ["file", "pipe", "socket", "terminal", "stream"])
async def test_stdin(tmp_path: Path, kind: str) -> None:
    """What the caller has comes to the child, and its end is told, whatever it comes from."""
    fifos = FifoSet.create("c1", directory=tmp_path / "fifos", stderr=False)
    sink, peer = Memory(), Peer(kind, tmp_path)
    async with await create_io(fifos.stdio) as io, anyio.create_task_group() as group:
        async with attach(fifos, stdin=peer.source, stdout=sink) as attached:
            await io.spawn(["cat"])

            def arrived() -> bool:
                return attached.stats.stdin is not None and (
                    attached.stats.stdin.bytes_in == len(BULK)
                )

            group.start_soon(peer.type, BULK, arrived)
            with anyio.fail_after(GUARD):
                await attached.stdin_ended.wait()
            assert "stdin=ended" in repr(attached)
            io.close_stdin()
            await ended(io, attached)
            stats = attached.stats.stdin
    peer.close()
    assert sink.data == BULK
    assert stats is not None
    assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (len(BULK), len(BULK), 0)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
async def test_a_stdin_that_may_not_be_opened_again(
    tmp_path: Path, fifos: FifoSet, kind: str
) -> None:
    """Somebody else's terminal or pipe is read as it is, to its end or until it hangs up."""
    process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    peer = Peer(kind, tmp_path)
    with fail_syscall("reopen", error=errno.EACCES) as calls:
        async with attach(fifos, stdin=peer.source) as attached:
            await peer.type(b"typed", lambda: _sys.unread(process_stdin) == 5)
            with anyio.fail_after(GUARD):
                await attached.stdin_ended.wait()
    assert calls.failed == "reopen"
    assert os.read(process_stdin, 100) == b"typed"
    os.close(process_stdin)
    peer.close()


async def test_a_rival_who_reads_the_same_stdin(
    fifos: FifoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody else has read first is no end, and holds up nothing that comes later."""
    process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    real, stolen = _sys.read, threading.Event()

    def steal(fd: int, size: int) -> bytes:
        if not stolen.is_set():
            stolen.set()
            os.read(fd, size)
        return real(fd, size)

    with ours, theirs, monkeypatch.context() as patch:
        patch.setattr(_sys, "read", steal)
        async with attach(fifos, stdin=ours) as attached:
            theirs.send(b"stolen")
            await until(stolen.is_set)
            theirs.send(b"ours")
            await until(lambda: _sys.unread(process_stdin) == 4)
            assert not attached.stdin_ended.is_set()
    assert os.read(process_stdin, 100) == b"ours"
    os.close(process_stdin)


async def test_stdin_from_a_stream_of_objects(fifos: FifoSet) -> None:
    """Pieces of any size come from a stream of bytes objects; what was taken is still given."""
    process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    send, receive = anyio.create_memory_object_stream[bytes](10)
    with send, receive:
        for piece in (b"small", BULK[:100_000], b"left"):
            send.send_nowait(piece)
        async with attach(fifos, stdin=receive) as attached:
            await until(lambda: _sys.unread(process_stdin) > 60_000)
            attached.cancel()
            got = os.read(process_stdin, 1 << 20)
            await until(lambda: "stdin=ended" in repr(attached))
        got += os.read(process_stdin, 1 << 20)
        assert got == b"small" + BULK[:100_000]
        assert receive.receive_nowait() == b"left"
    os.close(process_stdin)


@pytest.mark.parametrize("kind", ["file", "pipe", "stream"])
async def test_stdin_of_one_client_and_the_next(tmp_path: Path, kind: str) -> None:
    """No byte of stdin is in hand when a client leaves: the next one goes on where it stopped."""
    fifos = FifoSet.create("c1", directory=tmp_path / "fifos", stdout=False, stderr=False)
    peer = Peer(kind, tmp_path)
    shim = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    keep = os.open(fifos.stdio.stdin, os.O_WRONLY)
    got = b""
    async with anyio.create_task_group() as group:
        group.start_soon(peer.type, BULK)
        while len(got) < 300_000:
            async with attach(fifos, stdin=peer.source) as attached:
                await until(lambda: _sys.unread(shim) > 50_000)
                got += os.read(shim, 10_000)
                # So it is filled up again, by less than one piece of what the source has.
                await until(lambda: _sys.unread(shim) > 57_000)
                attached.cancel()
                stats = attached.stats.stdin
                assert stats is not None
                assert stats.dropped == 0
                assert stats.bytes_in == stats.bytes_out
        group.cancel_scope.cancel()
    rest = os.read(shim, 1 << 20)
    assert got + rest == BULK[: len(got + rest)]
    peer.close()
    os.close(shim)
    os.close(keep)


async def test_an_empty_stdin_ends_too(fifos: FifoSet) -> None:
    """A source without a byte opens the FIFO and closes it, once somebody reads."""
    with open("/dev/null", "rb") as null:
        async with attach(fifos, stdin=null) as attached:
            await anyio.wait_all_tasks_blocked()
            assert not attached.stdin_ended.is_set()
            reader = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
            with anyio.fail_after(GUARD):
                await attached.stdin_ended.wait()
                await attached.wait()
            os.close(reader)


async def test_a_process_that_reads_no_more(fifos: FifoSet) -> None:
    """A shim that closes stdin's FIFO is no failure, and not the end of the source."""
    reader, writer = os.pipe()
    with Shim(fifos.stdio.stdout) as shim:
        process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
        async with attach(fifos, stdin=reader, stdout=Memory()) as attached:
            os.write(writer, b"read")
            await until(lambda: _sys.unread(process_stdin) == 4)
            os.close(process_stdin)
            os.write(writer, b"lost")
            await until(lambda: "stdin=ended" in repr(attached))
            shim.end()
            with anyio.fail_after(GUARD):
                await attached.wait()
            assert not attached.stdin_ended.is_set()
    os.close(reader)
    os.close(writer)


async def test_a_process_that_leaves_its_stdin_unread(fifos: FifoSet) -> None:
    """When a FIFO is full and its reader goes, nothing more is taken from the caller."""
    with open("/dev/zero", "rb") as zero:
        process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
        async with attach(fifos, stdin=zero) as attached:
            await until(lambda: _sys.unread(process_stdin) == 65536)
            await anyio.wait_all_tasks_blocked()
            os.close(process_stdin)
            await until(lambda: "stdin=ended" in repr(attached))
            stats = attached.stats.stdin
    assert stats is not None
    assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (65536, 65536, 0)


@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_the_end_while_a_file_is_read(
    tmp_path: Path, fifos: FifoSet, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """What a thread is reading at cancel() is given to the process; close() does not wait."""
    (tmp_path / "typed").write_bytes(b"typed")
    began, go_on = threading.Event(), threading.Event()
    real = _sys.read

    def slow(fd: int, size: int) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            began.set()
            go_on.wait(GUARD)
        return real(fd, size)

    process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    with open(tmp_path / "typed", "rb", buffering=0) as file, monkeypatch.context() as patch:
        patch.setattr(_sys, "read", slow)
        async with attach(fifos, stdin=file, stdout=Memory()) as attached:
            await until(began.is_set)
            getattr(attached, end)()
            await anyio.wait_all_tasks_blocked()
            assert ("stdin=ended" in repr(attached)) == (end == "close")
            go_on.set()
            await until(lambda: "stdin=ended" in repr(attached))
        if end == "close":
            with pytest.raises(anyio.ClosedResourceError):
                await attached.wait()
        assert os.read(process_stdin, 100) == (b"typed" if end == "cancel" else b"")
    os.close(process_stdin)


class BrokenStream(anyio.abc.ByteReceiveStream):
    """A caller's stream that breaks after one word."""

    def __init__(self) -> None:
        self._said = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """One word, and an error."""
        await anyio.lowlevel.checkpoint()
        if self._said:
            raise anyio.BrokenResourceError
        self._said = True
        return b"word"[:max_bytes]

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("keys", [None, b"\x10\x11"])
async def test_a_source_that_breaks(fifos: FifoSet, keys: bytes | None) -> None:
    """What it said is delivered; that it broke is a failure, and never its end."""
    process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    async with attach(fifos, stdin=BrokenStream(), detach_keys=keys) as attached:
        await until(lambda: "stdin=ended" in repr(attached))
        with pytest.raises(StreamFailedError) as caught:
            await attached.wait()
        assert caught.value.stream == "stdin"
        assert isinstance(caught.value.__cause__, anyio.BrokenResourceError)
        assert not attached.stdin_ended.is_set()
    assert os.read(process_stdin, 100) == b"word"
    os.close(process_stdin)


async def test_a_directory_as_stdin(tmp_path: Path, fifos: FifoSet) -> None:
    """What cannot be read is a failure with the kernel's reason."""
    directory = os.open(tmp_path, os.O_RDONLY)
    process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(StreamFailedError) as caught:
        async with attach(fifos, stdin=directory) as attached:
            await until(lambda: "stdin=ended" in repr(attached))
    os.close(directory)
    os.close(process_stdin)
    assert caught.value.errno == errno.EISDIR


# -- detaching -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces", [(b"ls\x10\x11no",), (b"ls\x10", b"\x11no"), (b"ls", b"\x10\x11")]
)
async def test_detach_keys(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    """Typed in one piece or in two, they end the attachment; what is before them is delivered."""
    fifos = FifoSet.create("c1", directory=tmp_path / "fifos", terminal=True)
    sink = Memory()
    with terminal() as (master, slave), Shim(fifos.stdio.stdout) as shim:
        process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
        async with attach(
            fifos, stdin=slave, stdout=sink, stderr=2, detach_keys=b"\x10\x11"
        ) as attached:
            shim.put(b"screen")
            for number, piece in enumerate(pieces, 1):
                typed = sum(map(len, pieces[:number]))
                os.write(master, piece)
                await until(lambda: attached.stats.stdin.bytes_in >= typed)  # type: ignore[union-attr]  # noqa: B023
            with anyio.fail_after(GUARD):
                await attached.wait()
            assert attached.detached
            assert "detached" in repr(attached)
            shim.put(b"later")
        assert os.read(process_stdin, 100) == b"ls"
        os.close(process_stdin)
        assert sink.data == b"screen"
        assert shim.rest() == b"later"
        assert not attached.stdin_ended.is_set()


async def test_a_beginning_of_detach_keys_is_passed_on(fifos: FifoSet) -> None:
    """A ctrl-p and another key come to the process; so does one at the end of the source."""
    reader, writer = os.pipe()
    process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    async with attach(fifos, stdin=reader, detach_keys=b"\x10\x11") as attached:
        for piece in (b"a\x10", b"b", b"\x10"):
            os.write(writer, piece)
            await anyio.wait_all_tasks_blocked()
        os.close(writer)
        with anyio.fail_after(GUARD):
            await attached.stdin_ended.wait()
    os.close(reader)
    assert os.read(process_stdin, 100) == b"a\x10b\x10"
    assert not attached.detached
    os.close(process_stdin)


@pytest.mark.parametrize("state", ["nobody is there", "nobody reads", "nobody reads any more"])
async def test_detaching_from_who_does_not_listen(fifos: FifoSet, state: str) -> None:
    """The keys are heard although nobody reads what was typed before them, and that is told."""
    first, more = b"x" * 65536, b"more"  # the first fills the FIFO
    reader, writer = os.pipe()
    process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    with ExitStack() as stack, ExitStack() as gone:
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)
        gone.callback(os.close, process_stdin)
        if state == "nobody is there":
            gone.close()
            first = b""
        async with attach(fifos, stdin=reader, detach_keys=b"\x10\x11") as attached:
            os.write(writer, first)
            await until(lambda: attached.stats.stdin.bytes_out == len(first))  # type: ignore[union-attr]
            if state == "nobody reads any more":
                gone.close()
            os.write(writer, more + b"\x10\x11")
            await until(lambda: attached.detached)
            if state == "nobody reads":
                assert os.read(process_stdin, 1 << 20) == first
        delivered = b""
        if state == "nobody reads":
            delivered = os.read(process_stdin, 1 << 20)
            assert delivered == more
        stats = attached.stats.stdin
        assert stats is not None
        assert stats.dropped == len(more) - len(delivered)
        assert stats.bytes_in == len(first) + len(more) + 2


# -- what is refused -------------------------------------------------------------------------


def test_streams_without_a_fifo(output: FifoSet) -> None:
    """A stream that goes elsewhere, or nowhere, cannot be attached to."""
    for stdio, option in (
        (output.stdio, "stdin"),
        (output.stdio, "stderr"),
        (Stdio(stdout="file:///tmp/x"), "stdout"),
        (Stdio(stdin="null:"), "stdin"),
    ):
        with pytest.raises(InvalidOptionError) as caught:
            attach(stdio, **{option: 0})  # type: ignore[arg-type]
        assert caught.value.option == option
    with pytest.raises(URIError):
        attach(Stdio(stdout="relative"), stdout=1)
    with pytest.raises(InvalidOptionError):
        attach(output, stdout=1, detach_keys=b"")


async def test_fifos_that_are_not_there(tmp_path: Path) -> None:
    """Nothing is opened when one of the FIFOs is missing, is none, or is two streams'."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    (tmp_path / "file").touch()
    sink = Memory()
    for path, error in (("missing", FifoNotFoundError), ("file", NotAFifoError)):
        with pytest.raises(error):
            async with attach(
                Stdio(stdout=fifo, stderr=f"{tmp_path}/{path}"), stdout=sink, stderr=1
            ):
                pass
        assert sink.closed
        with pytest.raises(OSError, match="No such device"):
            os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(InvalidOptionError) as caught:
        async with attach(Stdio(stdout=fifo, stderr=f"fifo://{fifo}"), stdout=1, stderr=1):
            pass
    assert caught.value.option == "stderr"


async def test_descriptors_that_do_not_suit(fifos: FifoSet) -> None:
    """Stdin must be readable and outputs writable, and that is said before a FIFO is opened."""
    with open("/dev/null", "wb") as write_only, open("/dev/null", "rb") as read_only:
        with pytest.raises(InvalidOptionError) as caught:
            async with attach(fifos, stdin=write_only):
                pass
        assert caught.value.option == "stdin"
        with pytest.raises(InvalidOptionError):
            async with attach(fifos, stdout=read_only):
                pass


async def test_the_order_of_steps(fifos: FifoSet) -> None:
    """It is entered once; a cancel() before that takes effect when it is."""
    sink = Memory()
    attached = attach(fifos, stdout=sink)
    with pytest.raises(IOStateError):
        await attached.wait()
    assert repr(attached) == "<Attachment new stdin=none stdout=none stderr=none>"
    with Shim(fifos.stdio.stdout) as shim:
        shim.put(b"there")
        attached.cancel()
        async with attached:
            with anyio.fail_after(GUARD):
                await attached.wait()
            with pytest.raises(IOStateError):
                await attached.__aenter__()
        assert sink.data == b"there"
    await attached.aclose()


# -- at great length -------------------------------------------------------------------------

LINES = SOME[:12_000]


async def fail(operation: Callable[[], Awaitable[None]], floor: int) -> None:
    """Let each call fail; at least so many are reached, on whichever loop."""
    report = await every_failure(operation, name=operation.__name__)
    assert report.calls >= floor, str(report)


@pytest.mark.thorough
async def test_every_failure_of_outputs(tmp_path: Path, fifos: FifoSet) -> None:
    """What comes to a pipe and a file is everything, or something has said that it is not."""
    path = tmp_path / "got"

    async def attach_outputs() -> None:
        reader, writer = os.pipe()
        with ExitStack() as stack:
            stack.callback(os.close, reader)
            stack.callback(os.close, writer)
            file = stack.enter_context(open(path, "wb", buffering=0))
            out = stack.enter_context(Shim(fifos.stdio.stdout))
            err = stack.enter_context(Shim(fifos.stdio.stderr))
            async with attach(fifos, stdout=writer, stderr=file, sink_timeout=2.0) as attached:
                out.put(LINES)
                err.put(LINES)
                out.end()
                err.end()
                with anyio.fail_after(GUARD):
                    await attached.wait()
            assert path.read_bytes() == LINES
            assert await read(reader, len(LINES)) == LINES

    await fail(attach_outputs, 35)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["file", "pipe", "terminal"])
async def test_every_failure_of_stdin(tmp_path: Path, fifos: FifoSet, kind: str) -> None:
    """What the caller has comes to the process up to its end, or something has said why not."""

    async def attach_stdin() -> None:
        with ExitStack() as stack:
            if kind == "file":
                (tmp_path / "typed").write_bytes(LINES)
                source = os.open(tmp_path / "typed", os.O_RDONLY)
            elif kind == "pipe":
                source, writer = os.pipe()
                os.write(writer, LINES)
                os.close(writer)
            else:
                master, source = stack.enter_context(terminal())
                os.write(master, LINES[:1000] + b"\x10\x11")
            if kind != "terminal":
                stack.callback(os.close, source)
            process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, process_stdin)
            async with attach(fifos, stdin=source, detach_keys=b"\x10\x11") as attached:
                await until(lambda: "stdin=ended" in repr(attached))
                with anyio.fail_after(GUARD):
                    await attached.wait()
            stats = attached.stats.stdin
            assert stats is not None
            sent = LINES[:1000] if kind == "terminal" else LINES
            got = os.read(process_stdin, 1 << 20)
            assert len(got) == stats.bytes_out
            if stats.dropped:  # the process reads no more, it seems
                assert got == sent[: len(got)]
                assert not attached.stdin_ended.is_set()
            else:
                assert got == sent
                assert attached.stdin_ended.is_set() or attached.detached

    await fail(attach_stdin, 12)


async def cancel(
    operation: Callable[..., Awaitable[None]], floor: int, around: Callable[[], Any]
) -> None:
    """Cancel at each suspension; at least so many are reached, on each loop and in each mode."""
    report = await cancel_everywhere(operation, name=operation.__name__, around=around)
    assert report.suspensions >= floor, str(report)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["file", "pipe", "sink"])
async def test_cancelled_anywhere_with_outputs(tmp_path: Path, fifos: FifoSet, kind: str) -> None:
    """Wherever it is cancelled, what was not taken is in the FIFO; the rest is accounted for."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[list[Any]]:
        sink = Memory()
        with ExitStack() as stack:
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            stack.callback(os.close, writer)
            file = stack.enter_context(open(tmp_path / "got", "wb", buffering=0))
            shim = stack.enter_context(Shim(fifos.stdio.stdout))
            late = stack.enter_context(Shim(fifos.stdio.stderr))
            shim.put(LINES)
            given: list[Any] = [{"file": file, "pipe": writer, "sink": sink}[kind], None]
            async with anyio.create_task_group() as group:

                async def end() -> None:
                    await anyio.sleep(0.01)
                    late.end()

                group.start_soon(end)
                yield given
            if given[1] is not None:
                stats = given[1].stats.stdout
                taken = 0 if stats is None else stats.bytes_in
                assert shim.rest() == LINES[taken:]
                assert stats is None or stats.bytes_out + stats.dropped == taken

    async def attach_outputs(given: list[Any]) -> None:
        given[1] = attach(fifos, stdout=given[0], stderr=Memory())
        async with given[1] as attached:
            assert await _ended_output(attached, "stderr")
            attached.cancel()
            await attached.wait()

    await cancel(attach_outputs, 3, around)


async def _ended_output(attached: Attachment, stream: str) -> bool:
    await until(lambda: f"{stream}=ended" in repr(attached))
    return True


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["file", "pipe", "stream"])
async def test_cancelled_anywhere_with_stdin(tmp_path: Path, fifos: FifoSet, kind: str) -> None:
    """Wherever it is cancelled, what was taken is in the FIFO; an early reader or a late one."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[list[Any]]:
        peer = Peer(kind, tmp_path)
        if kind != "file":
            await peer.type(LINES)
        given: list[Any] = [peer, None]
        readers: list[int] = []
        async with anyio.create_task_group() as group:

            async def come() -> None:
                await anyio.sleep(0.005)
                readers.append(os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK))
                readers.append(os.open(fifos.stdio.stdin, os.O_WRONLY))

            group.start_soon(come)
            yield given
        attached = given[1]
        if attached is not None and attached.stats.stdin is not None:
            stats = attached.stats.stdin
            assert stats.bytes_in == stats.bytes_out + stats.dropped
            if kind != "file":  # what a thread was about to read is lost
                assert stats.dropped == 0
            assert _sys.unread(readers[0]) == stats.bytes_out
        for fd in readers:
            os.close(fd)
        peer.close()

    async def attach_stdin(given: list[Any]) -> None:
        given[1] = attach(fifos, stdin=given[0].source)
        async with given[1] as attached:
            if kind == "file":
                await until(lambda: attached.stats.stdin.bytes_out > 0)
            else:
                await attached.stdin_ended.wait()

    await cancel(attach_stdin, 3, around)
