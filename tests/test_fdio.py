"""FdIO: descriptors of the caller as destinations, whose flags stay as they are."""

from __future__ import annotations

import fcntl
import os
import socket
import termios
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import FdIO, _sys
from pyshimio._fd import OwnedFd
from pyshimio._streams import FdReceiveStream
from pyshimio.abc import Sink
from pyshimio.errors import InvalidOptionError, StreamFailedError
from pyshimio.io.fd import BlockingSink, fd_sink
from support.children import GUARD, content, memory_file

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

MEGABYTE = ["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo end"]
EXPECTED = b"x" * 1_000_000 + b"end\n"


class Place:
    """A destination: the end for the IO, and the end to read it at (None: a file)."""

    def __init__(self, target: int, reader: int | None) -> None:
        self.target = target
        self.reader = reader
        self.flags = fcntl.fcntl(target, fcntl.F_GETFL)

    def close_target(self) -> None:
        """Close the end for the IO."""
        if self.target >= 0:
            self.check()
            os.close(self.target)
            self.target = -1

    def check(self) -> None:
        """No flag of the shared description has been changed."""
        assert fcntl.fcntl(self.target, fcntl.F_GETFL) == self.flags

    async def received(self) -> bytes:
        """Everything up to the end."""
        if self.reader is None:
            return content(self.target)
        os.set_blocking(self.reader, False)
        stream = FdReceiveStream(OwnedFd(_sys.dup(self.reader)))
        try:
            return b"".join([chunk async for chunk in stream])
        finally:
            stream.close()


@contextmanager
def place(kind: str, path: Path) -> Generator[Place]:
    """A destination of this kind."""
    with ExitStack() as stack:
        reader: int | None
        if kind == "file":
            target, reader = os.open(path / "file", os.O_RDWR | os.O_CREAT, 0o600), None
        elif kind == "pipe":
            reader, target = os.pipe()
        elif kind == "fifo":
            os.mkfifo(path / "fifo")
            reader = os.open(path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
            target = os.open(path / "fifo", os.O_WRONLY)
        elif kind.startswith("socket"):
            ours, theirs = socket.socketpair()
            reader, target = theirs.detach(), ours.detach()
        else:
            reader, target = _sys.openpty()
            mode = termios.tcgetattr(target)
            mode[_sys.OFLAG] &= ~termios.OPOST
            termios.tcsetattr(target, termios.TCSANOW, mode)
        if kind.endswith("non-blocking"):
            os.set_blocking(target, False)
        if reader is not None:
            stack.callback(os.close, reader)
        where = Place(target, reader)
        stack.callback(where.close_target)
        yield where


KINDS = ["file", "pipe", "fifo", "socket", "socket, non-blocking", "terminal"]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_byte_arrives(kind: str, tmp_path: Path) -> None:
    """A megabyte arrives whole, whatever the destination; its flags are never changed."""
    with place(kind, tmp_path) as where:
        io = FdIO(stdout=where.target)
        got: list[bytes] = []

        async def read() -> None:
            got.append(await where.received())

        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group, io:
                if where.reader is not None:
                    group.start_soon(read)
                process = await io.spawn(MEGABYTE)
                where.check()
                assert await process.wait() == 0
                result = await io.drain()
                where.check()
                assert result.complete
                assert result.stdout is not None
                assert result.stdout.moved == len(EXPECTED)
                if where.reader is None:
                    got.append(await where.received())
                await io.aclose()
                where.close_target()
        assert got == [EXPECTED]


async def test_file_object_and_offset(tmp_path: Path) -> None:
    """A file object will do; writing goes on where the shared description stands."""
    with open(tmp_path / "log", "w+") as file:
        file.write("before\n")
        file.flush()
        async with FdIO(stdout=file, stderr=file) as io:
            await io.spawn(["sh", "-c", "echo out"])
            await io.drain()
            assert io.stats.stdout is not None
            assert io.stats.stdout.bytes_out == 4
        file.write("after\n")
        file.flush()
        assert (tmp_path / "log").read_text() == "before\nout\nafter\n"


async def test_two_destinations() -> None:
    """Stdout and stderr may go to different places, and nowhere."""
    script = ["sh", "-c", "cat; echo out; echo err >&2"]
    for streams in (("stdout", "stderr"), ("stdout",), ("stderr",), ()):
        with memory_file() as out, memory_file() as err:
            async with FdIO(
                out if "stdout" in streams else None, err if "stderr" in streams else None
            ) as io:
                process = await io.spawn(script)
                assert await process.wait() == 0
                assert (await io.drain()).complete
            assert content(out) == (b"out\n" if "stdout" in streams else b"")
            assert content(err) == (b"err\n" if "stderr" in streams else b"")


async def test_stdin() -> None:
    """With stdin=True the child's input is the caller's to write."""
    with memory_file() as out:
        async with FdIO(stdout=out, stdin=True) as io:
            process = await io.spawn(["cat"])
            assert io.stdin is not None
            await io.stdin.send(b"hello")
            io.close_stdin()
            assert await process.wait() == 0
            await io.drain()
        assert content(out) == b"hello"


async def test_reader_gone() -> None:
    """A destination that nobody reads ends the stream with its error; the child gets EPIPE."""
    reader, writer = _sys.pipe()
    os.close(reader)
    io = FdIO(stdout=writer)
    os.close(writer)
    with anyio.fail_after(GUARD):
        process = await io.spawn(["yes"])
        assert await process.wait() == 141
        with pytest.raises(StreamFailedError) as caught:
            await io.drain()
        assert caught.value.stream == "stdout"
        assert isinstance(caught.value.__cause__, BrokenPipeError)
        await io.aclose()


async def test_stopped_terminal() -> None:
    """A terminal that is stopped with Ctrl-S stops the stream and not the loop."""
    master, slave = _sys.openpty()
    try:
        termios.tcflow(slave, termios.TCOOFF)
        async with FdIO(stdout=slave) as io:
            with anyio.fail_after(GUARD):
                process = await io.spawn(["echo", "hello"])
                assert await process.wait() == 0
                # The loop runs on beside a write that cannot be done.
                await anyio.sleep(0.05)
                termios.tcflow(slave, termios.TCOON)
                assert (await io.drain()).complete
        assert os.read(master, 100) == b"hello\r\n"
    finally:
        os.close(master)
        os.close(slave)


async def test_master() -> None:
    """A terminal's master is written itself: opening it again would be another terminal."""
    master, slave = _sys.openpty()
    try:
        async with FdIO(stdout=master) as io:
            await io.spawn(["echo", "typed"])
            await io.drain()
        assert os.read(slave, 100) == b"typed\n"
    finally:
        os.close(master)
        os.close(slave)


async def test_cannot_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's pipe is written through the description that we were given."""

    def refused(_fd: int, _flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_sys, "reopen", refused)
    reader, writer = _sys.pipe()
    try:
        async with FdIO(stdout=writer) as io:
            await io.spawn(["echo", "hello"])
            assert (await io.drain()).complete
        assert os.read(reader, 100) == b"hello\n"
        assert os.get_blocking(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_not_open_for_writing(tmp_path: Path) -> None:
    """A descriptor that cannot be written is refused before anything starts."""
    reader, writer = _sys.pipe()
    handle = os.open(tmp_path, os.O_PATH)
    try:
        for fd in (reader, handle):
            with pytest.raises(InvalidOptionError, match="open for writing"):
                FdIO(stdout=writer, stderr=fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            FdIO(stdout=987654)
    finally:
        for fd in (reader, writer, handle):
            os.close(fd)


def test_blocking_sink_that_is_full() -> None:
    """A description that somebody made non-blocking takes nothing while it is full."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        sink = fd_sink(ours)
        assert isinstance(sink, BlockingSink)
        assert isinstance(sink, Sink)
        assert (sink.blocking, sink.fileno(), sink.dropped) == (True, -1, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pyshimio.io.fd.PATIENCE", 0.01)
            while sink.write([b"x" * 65536]):
                pass
        # With more patience it waits for the reader.
        reader = threading.Timer(0.05, lambda: [theirs.recv(1 << 20) for _ in range(2)])
        reader.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pyshimio.io.fd.PATIENCE", GUARD)
            assert sink.write([b"x"])
        reader.join()
        sink.flush()
        sink.reopen()
        assert repr(sink) == "<BlockingSink open>"
        sink.close()
        assert repr(sink) == "<BlockingSink closed>"


async def test_repr() -> None:
    """The state in words."""
    async with FdIO(stdout=2) as io:
        assert repr(io) == "<FdIO open stdin=none stdout=open stderr=none>"
