"""Everything of ours that claims a protocol keeps it; and what breaks a promise is found out."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import subprocess
import threading
import tty
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import (
    BinaryIO,
    ConsoleIO,
    FdIO,
    FileIO,
    InheritIO,
    NullIO,
    PipeIO,
    Stdio,
    create_io,
)
from pyshimio._events import EventHub
from pyshimio._fd import OwnedFd
from pyshimio._fifo import FifoHandle, FifoSink, KeepAlive
from pyshimio._file import FileSink, LogFile
from pyshimio._poller import Poller
from pyshimio._ring import RingSink
from pyshimio._sink import DescriptorSink, NullSink, PipeSink
from pyshimio._stdio import StdioURI
from pyshimio.io._console import TerminalSink
from pyshimio.io.fd import BlockingSink
from pyshimio.logging import find_driver, read_log
from pyshimio.logging._scheme import scheme
from pyshimio.testing import FakeLogger, Recorder
from pyshimio.testing.conformance import check_driver, check_io, check_sink, check_stream
from support.children import GUARD

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from pyshimio.abc import IO, Sink

pytestmark = pytest.mark.slow


# -- IOs --------------------------------------------------------------------------------------


async def test_pipe_io() -> None:
    """An IO whose streams are its caller's."""
    await check_io(PipeIO)


async def test_null_io() -> None:
    """An IO that throws everything away."""
    await check_io(NullIO)


async def test_console_io() -> None:
    """An IO with a terminal."""
    await check_io(ConsoleIO)


async def test_inherit_io(capfd: pytest.CaptureFixture[str]) -> None:
    """An IO whose streams are those of the process."""
    await check_io(InheritIO)
    capfd.readouterr()


class Logs:
    """A new pair of files for each IO."""

    def __init__(self, tmp_path: Path) -> None:
        self._where = tmp_path
        self._numbers = itertools.count()
        self._paths: dict[IO, dict[str, Path]] = {}

    def new(self) -> dict[str, Path]:
        """Their paths."""
        number = next(self._numbers)
        return {stream: self._where / f"{number}.{stream}" for stream in ("stdout", "stderr")}

    def of(self, io: IO, paths: dict[str, Path]) -> IO:
        """Remember that this one writes there."""
        self._paths[io] = paths
        return io

    async def output(self, io: IO, stream: str) -> bytes:
        """What has arrived."""
        return self._paths[io][stream].read_bytes()


async def test_file_io(tmp_path: Path) -> None:
    """An IO that appends to files."""
    logs = Logs(tmp_path)

    def make() -> IO:
        paths = logs.new()
        return logs.of(FileIO(paths["stdout"], paths["stderr"], stdin=True), paths)

    await check_io(make, output=logs.output)


async def test_fd_io(tmp_path: Path) -> None:
    """An IO that writes to descriptors of somebody else."""
    logs = Logs(tmp_path)

    @asynccontextmanager
    async def make() -> AsyncGenerator[IO]:
        paths = logs.new()
        with paths["stdout"].open("wb") as out, paths["stderr"].open("wb") as err:
            yield logs.of(FdIO(stdout=out, stderr=err), paths)

    await check_io(make, output=logs.output)


async def test_binary_io(tmp_path: Path) -> None:
    """An IO that hands everything to a logger."""
    numbers = itertools.count()
    loggers: dict[IO, FakeLogger] = {}

    async def make() -> IO:
        logger = FakeLogger.make(tmp_path / str(next(numbers)))
        io = await BinaryIO.start(logger.uri(), id="c1", namespace="ns")
        loggers[io] = logger
        return io

    async def output(io: IO, stream: str) -> bytes:
        return loggers[io].stdout if stream == "stdout" else loggers[io].stderr

    await check_io(make, output=output)
    # (Some of them were ended before the end, by whoever closes without waiting.)
    assert not [logger.wrong for logger in loggers.values() if logger.wrong]


async def test_fifo_io(tmp_path: Path) -> None:
    """An IO of FIFOs, with a client at each."""
    logs = Logs(tmp_path)

    @asynccontextmanager
    async def make() -> AsyncGenerator[IO]:
        paths = logs.new()
        fifos = {stream: f"{path}.fifo" for stream, path in paths.items()}
        with contextlib.ExitStack() as stack:
            for stream, path in paths.items():
                os.mkfifo(fifos[stream])
                with path.open("wb") as file:
                    client = subprocess.Popen(["cat", fifos[stream]], stdout=file)
                stack.callback(client.wait)
                stack.callback(client.terminate)
            stdio = Stdio(stdout=fifos["stdout"], stderr=fifos["stderr"])
            yield logs.of(await create_io(stdio), paths)

    async def output(io: IO, stream: str) -> bytes:
        with anyio.fail_after(10):
            while len(data := await logs.output(io, stream)) < 200_000:
                await anyio.sleep(0.005)
        return data

    await check_io(make, output=output)


async def test_log_driver_io(tmp_path: Path) -> None:
    """An IO whose lines go to a driver of this process."""
    numbers = itertools.count()

    async def make() -> IO:
        return await create_io(f"log+raw://{tmp_path}/{next(numbers)}", id="c1", namespace="ns")

    await check_io(make)


# -- sinks ------------------------------------------------------------------------------------


async def test_recorder() -> None:
    """The kit's own sink, which takes everything at once, or little by little, or in a thread."""

    def read(recorder: Recorder) -> bytes:
        return bytes(recorder.data)

    await check_sink(Recorder, read=read)
    await check_sink(lambda: Recorder(blocking=True), read=read)
    await check_sink(lambda: Recorder(takes=1000), read=read)


async def test_null_sink() -> None:
    """What throws everything away."""
    await check_sink(lambda: NullSink(count=False))


async def test_file_sink(tmp_path: Path) -> None:
    """A log file."""
    paths = [tmp_path / str(number) for number in range(50)]
    current: dict[Sink, Path] = {}

    def make() -> Sink:
        path = paths.pop()
        sink = FileSink(LogFile(str(path)))
        current[sink] = path
        return sink

    await check_sink(make, read=lambda sink: current[sink].read_bytes())


@pytest.mark.parametrize("kind", [PipeSink, DescriptorSink])
async def test_descriptor_sinks(tmp_path: Path, kind: type[DescriptorSink]) -> None:
    """A pipe that somebody reads."""
    numbers = itertools.count()
    readers: dict[Sink, tuple[subprocess.Popen[bytes], Path]] = {}

    @asynccontextmanager
    async def make() -> AsyncGenerator[Sink]:
        path = tmp_path / str(next(numbers))
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writer, False)
        with path.open("wb") as file:
            process = subprocess.Popen(["cat"], stdin=reader, stdout=file)
        os.close(reader)
        sink = kind(OwnedFd(writer))
        readers[sink] = process, path
        try:
            yield sink
        finally:
            sink.close()
            process.wait()

    def read(sink: Sink) -> bytes:
        process, path = readers[sink]
        process.wait()
        return path.read_bytes()

    await check_sink(make, read=read)


async def test_blocking_sink(tmp_path: Path) -> None:
    """A descriptor that a thread writes to."""
    numbers = itertools.count()
    paths: dict[Sink, Path] = {}

    def make() -> Sink:
        path = tmp_path / str(next(numbers))
        sink = BlockingSink(OwnedFd(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)))
        paths[sink] = path
        return sink

    await check_sink(make, read=lambda sink: paths[sink].read_bytes())


async def test_fifo_sink(tmp_path: Path) -> None:
    """A FIFO whose reader it keeps alive, and a client."""
    numbers = itertools.count()
    clients: dict[Sink, tuple[subprocess.Popen[bytes], Path]] = {}

    @asynccontextmanager
    async def make() -> AsyncGenerator[Sink]:
        path = tmp_path / str(next(numbers))
        fifo = f"{path}.fifo"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        handle = FifoHandle(fifo)
        sink = FifoSink.open_now(handle, KeepAlive())
        handle.close()
        os.set_blocking(reader, True)
        with path.open("wb") as file:
            client = subprocess.Popen(["cat"], stdin=reader, stdout=file)
        os.close(reader)
        clients[sink] = client, path
        try:
            yield sink
        finally:
            sink.close()
            client.wait(GUARD)

    def read(sink: Sink) -> bytes:
        client, path = clients[sink]
        client.wait(GUARD)
        return path.read_bytes()

    await check_sink(make, read=read)


async def test_terminal_sink() -> None:
    """The input of a terminal that does not assemble lines."""
    readers: dict[Sink, Callable[[], bytes]] = {}

    @asynccontextmanager
    async def make() -> AsyncGenerator[Sink]:
        master, slave = pty.openpty()
        tty.setraw(slave)
        sink = TerminalSink(OwnedFd(os.dup(master)))
        os.set_blocking(sink.fileno(), False)
        got = bytearray()

        def copy() -> None:
            while not got.endswith(b"\0"):
                got.extend(os.read(slave, 65536))

        def end() -> bytes:
            if reader.is_alive():
                os.set_blocking(master, True)  # the sink's description, which is this one
                os.write(master, b"\0")
                reader.join(GUARD)
            return bytes(got[:-1])

        reader = threading.Thread(target=copy, daemon=True)
        reader.start()
        readers[sink] = end
        try:
            yield sink
        finally:
            sink.close()
            end()
            os.close(master)
            os.close(slave)

    await check_sink(make, read=lambda sink: readers[sink]())


async def test_ring_sink() -> None:
    """A ring that holds nothing up, before a sink that takes little at a time."""
    recorders: dict[Sink, Recorder] = {}

    def make() -> Sink:
        recorder = Recorder(takes=1000)
        sink = RingSink(
            *("stdout", recorder),
            capacity=1 << 20,
            lane=None,
            poller=Poller.current(),
            hub=EventHub(),
        )
        recorders[sink] = recorder
        return sink

    await check_sink(make, read=lambda sink: bytes(recorders[sink].data))


async def test_driver_sink(tmp_path: Path) -> None:
    """A log driver in this process."""
    numbers = itertools.count()
    paths: dict[Sink, Path] = {}

    def make() -> Sink:
        path = tmp_path / str(next(numbers))
        uri = StdioURI.parse(f"log+raw://{path}")
        sink = scheme.sinks(uri, streams=["stdout"], id="c1", namespace="ns")["stdout"]
        paths[sink] = path
        return sink

    await check_sink(make, read=lambda sink: paths[sink].read_bytes())


# -- drivers ----------------------------------------------------------------------------------


async def lines_of(path: str) -> list[bytes]:
    """A log's lines, by our own reader."""
    async with read_log(path) as log:
        return [line.text async for line in log]


@pytest.mark.parametrize("name", ["json-file", "cri"])
async def test_drivers_that_are_read_back(name: str) -> None:
    """json-file and CRI give back what they were given, but for what JSON cannot hold."""

    async def read(directory: str) -> Sequence[bytes]:
        return await lines_of(f"{directory}/c.log")

    await check_driver(
        find_driver(name),
        lambda directory: {"log-path": f"{directory}/c.log"},
        read=read,
        takes_any_bytes=name == "cri",
        keeps_files=True,
    )


async def test_raw_driver() -> None:
    """Bytes as they are."""

    async def read(directory: str) -> Sequence[bytes]:
        data = Path(f"{directory}/c.log").read_bytes()
        return data.removesuffix(b"\n").split(b"\n") if data else []

    await check_driver(
        find_driver("raw"), lambda directory: {"log-path": f"{directory}/c.log"}, read=read
    )


async def test_driver_that_keeps_nothing() -> None:
    """It does what the others do."""
    await check_driver(find_driver("none"), lambda _: {})


# -- streams ----------------------------------------------------------------------------------


async def test_streams_of_a_child() -> None:
    """What a child gets as stdin and gives as stdout."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[Any, Any]]:
        async with PipeIO(stderr=False) as io:
            await io.spawn(["cat"])
            yield io.stdin, io.stdout

    await check_stream(make)
