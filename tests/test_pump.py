"""Pumps: every byte once, whoever is slow, and a fair share for everybody."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

from pyshimio import BytesDropped, Command, IOStats, PipeIO, SinkFailed, Stdio, _sys, create_io
from pyshimio import _pipesize as pipesize
from pyshimio import _pump as pump_module
from pyshimio._fd import OwnedFd
from pyshimio._pipesize import Growth, PipeBudget
from pyshimio._poller import Poller
from pyshimio._sink import DescriptorSink, NullSink, PipeSink
from pyshimio.io._outlet import SinkOutlet
from pyshimio.testing import FakeClient
from support.children import GUARD, until
from support.fifos import make_fifo
from support.pump import Scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Buffer


async def test_quiet_stream_is_copied() -> None:
    """Chunks of less than a page are read and written."""
    scene = Scene()
    assert repr(scene.pump) == "<LoopPump stdout running -> <PipeSink open>>"
    assert (scene.pump.eof, scene.pump.left) == (False, False)
    assert scene.pump.stats().path == "idle"
    for _ in range(20):
        os.write(scene.writer, b"hello\n")
        assert await scene.read(6) == b"hello\n"
    stats = scene.pump.stats()
    assert (stats.path, scene.pump.reached) == ("copy", False)
    assert (stats.bytes_in, stats.bytes_out, stats.dropped, stats.writes) == (120, 120, 0, 20)
    scene.end()
    await scene.finish()
    assert scene.pump.eof
    assert scene.pump.reached
    assert repr(scene.pump) == "<LoopPump stdout ended -> <PipeSink closed>>"
    scene.close()


async def test_busy_stream_is_spliced() -> None:
    """A stream that comes by pages, with a reader that takes them, is spliced."""
    scene = Scene()
    for _ in range(20):
        os.write(scene.writer, b"x" * 65536)
        await scene.read(65536)
    assert scene.pump.stats().path == "splice"
    os.write(scene.writer, b"tail")
    assert await scene.read(4) == b"tail"
    assert scene.pump.stats().path == "copy"
    scene.close()


async def test_64_mib_through_a_fifo(tmp_path: Path) -> None:
    """64 MiB through a pipe and a FIFO arrive unchanged, mostly spliced."""
    path = make_fifo(tmp_path)
    size = 64 << 20
    program = (
        "import os\nblock = os.urandom(1 << 16)\nimport zlib; crc = 0\n"
        f"for i in range({size >> 16}):\n"
        "    view = memoryview(block)\n    crc = zlib.crc32(block, crc)\n"
        "    while view: view = view[os.write(1, view):]\n"
        "os.write(2, b'%d' % crc)"
    )
    crc = got = 0
    with FakeClient(path) as client:
        async with await create_io(Stdio(stdout=path)) as io, PipeIO(stdin=False) as side:
            command = Command([sys.executable, "-c", program])
            side.set(command)
            process = await io.spawn(command)
            side.close_after_start()

            async def read() -> None:
                nonlocal crc, got
                while data := await client.read(1 << 18):
                    crc = zlib.crc32(data, crc)
                    got += len(data)

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                assert side.stderr is not None
                with anyio.fail_after(GUARD * 2):
                    expected = int(await side.stderr.receive())
                    result = await io.drain(exited=process)
            stats = io.stats.stdout
            assert result.complete
            assert stats is not None
            assert stats.bytes_in == stats.bytes_out == got == size
            assert crc == expected


async def test_back_pressure() -> None:
    """While nobody reads the source is left alone, and the seconds are counted as they pass."""
    scene = Scene()
    written = 0
    while True:
        try:
            written += os.write(scene.writer, b"x" * 65536)
        except BlockingIOError:
            if scene.pump.stats().blocked and scene.unread() >= 65536:
                break
            await anyio.sleep(0.001)
    first = scene.pump.stats().blocked
    await anyio.sleep(0.05)
    assert scene.pump.stats().blocked >= first + 0.04
    assert scene.pump.counters.bytes_in < written
    scene.end()
    assert await scene.read(written) == b"x" * written
    await scene.finish()
    stats = scene.pump.stats()
    assert stats.blocked >= 0.05
    assert stats.bytes_in == stats.bytes_out == written
    scene.close()


@pytest.mark.parametrize("size", [1, 80, 4095, 4096, 4097, 70_000])
async def test_stall_and_go(size: int) -> None:
    """However writes and reads fall, with pauses on both sides, every byte comes through."""
    scene = Scene()
    total = size * 40
    expected = os.urandom(total)
    got = bytearray()

    async def write() -> None:
        view = memoryview(expected)
        while view:
            try:
                view = view[os.write(scene.writer, view[:size]) :]
            except BlockingIOError:
                await anyio.wait_writable(scene.writer)
            await anyio.sleep(0)
        scene.end()

    async def read() -> None:
        while len(got) < total:
            got.extend(await scene.read(min(total - len(got), max(1, size // 3) * 7)))
            await anyio.sleep(0)

    with anyio.fail_after(GUARD):
        async with anyio.create_task_group() as group:
            group.start_soon(write)
            await anyio.sleep(0.01)
            group.start_soon(read)
    await scene.finish()
    assert bytes(got) == expected
    scene.close()


async def test_data_and_hang_up_together() -> None:
    """A writer that writes and goes at once, in one turn of the loop, is read to its end."""
    for size in (1, 4096, 65536):
        scene = Scene()
        await anyio.sleep(0.001)
        os.write(scene.writer, b"x" * size)
        scene.end()
        assert await scene.read(size) == b"x" * size
        await scene.finish()
        assert scene.pump.eof
        scene.close()


async def test_part_of_a_chunk_is_not_left_waiting() -> None:
    """What a sink takes only in part follows at once, although no more output comes."""
    scene = Scene()
    os.write(scene.writer, b"a" * 4000)
    await until(lambda: scene.unread() == 4000)
    os.write(scene.writer, b"b" * 200)
    await until(lambda: scene.unread() == 4200)
    scene.close()


async def test_reader_that_comes_back_after_the_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that was blocked for longer than the idle time goes on when it is read."""
    monkeypatch.setattr(pump_module, "IDLE_SECONDS", 0.02)
    scene = Scene()
    os.write(scene.writer, b"x" * 65536)
    await until(lambda: scene.unread() == 65536)
    # The reader has taken something, so splice is tried, but it has not emptied a page.
    os.read(scene.reader, 10)
    os.write(scene.writer, b"y" * 8192)
    await until(lambda: scene.pump.stats().blocked > 0.1)
    assert await scene.read(65526 + 8192) == b"x" * 65526 + b"y" * 8192
    scene.end()
    await scene.finish()
    scene.close()


async def test_pipes_grow_and_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that proves busy gets larger pipes, and gives them back when it is idle."""
    monkeypatch.setattr(pump_module, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(pump_module, "TURN_BYTES", 1 << 16)
    monkeypatch.setattr(pipesize, "HASTE_BYTES", 1 << 18)
    scene = Scene()
    budget = Poller.current().pipes
    left = budget.left
    while fcntl.fcntl(scene.reader, fcntl.F_GETPIPE_SZ) < 1 << 20:
        os.write(scene.writer, b"x" * 65536)
        await scene.read(65536)
    assert fcntl.fcntl(scene.writer, fcntl.F_GETPIPE_SZ) == 1 << 20
    assert budget.left == left - 2 * ((1 << 20) - 65536)
    await until(lambda: fcntl.fcntl(scene.reader, fcntl.F_GETPIPE_SZ) == 65536)
    assert fcntl.fcntl(scene.writer, fcntl.F_GETPIPE_SZ) == 65536
    assert budget.left == left
    os.write(scene.writer, b"again")
    assert await scene.read(5) == b"again"
    scene.close()


def test_growth_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPERM, EBUSY and a used-up budget leave the pipe as it is and are no error.

    A pipe that is too full to shrink goes on using the budget until it is emptied or closed.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK)
    source = OwnedFd(reader)
    budget = PipeBudget()
    budget.take(budget.left)
    growth = Growth(source, budget)
    growth.grow()
    assert _sys.pipe_size(reader) == 65536
    budget.give(1 << 22)

    def refuse(fd: int, size: int) -> int:
        raise PermissionError(errno.EPERM, "as for a user over the limit")

    with monkeypatch.context() as patch:
        patch.setattr(_sys, "set_pipe_size", refuse)
        growth.grow()
    assert budget.left == 1 << 22
    growth.grow()
    growth.grow()
    growth.grow()
    assert _sys.pipe_size(reader) == 1 << 20
    os.write(writer, b"x" * (1 << 19))
    growth.shrink()  # the kernel says EBUSY: more is in it than that
    assert _sys.pipe_size(reader) == 1 << 20
    assert budget.left == (1 << 22) - (1 << 20) + 65536  # it is large, so it counts
    os.read(reader, 1 << 19)
    assert budget.left == 1 << 22
    assert _sys.pipe_size(reader) == 65536
    growth.grow()
    os.write(writer, b"x" * (1 << 17))
    growth.shrink()
    os.close(writer)
    source.close()
    assert budget.left == 1 << 22


def test_budget_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without a soft limit, which says 0, does not forbid growing."""
    monkeypatch.setattr(_sys, "pipe_budget", lambda: 0)
    assert PipeBudget().take(1 << 30)


async def test_turn_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that always has more does not keep the loop for longer than its budget."""
    monkeypatch.setattr(pump_module, "TURN_BYTES", 1 << 18)

    class Slow(NullSink):
        def write(self, buffers: Sequence[Buffer]) -> int | None:
            time.sleep(0.0005)
            return super().write(buffers)

    scene = Scene(Slow(count=False))
    moved: list[int] = []
    with anyio.fail_after(GUARD):
        while len(moved) < 20:
            with suppress(BlockingIOError):
                os.write(scene.writer, b"x" * 65536)
            before = scene.pump.counters.bytes_in
            await anyio.sleep(0)
            moved.append(scene.pump.counters.bytes_in - before)
    assert max(moved) <= 1 << 19
    scene.close()


async def test_exhausted() -> None:
    """A stream is exhausted when nothing is left, here or in the pipe, and nobody can write."""
    scene = Scene()
    pump = scene.pump
    assert not pump.exhausted()
    os.write(scene.writer, b"x")
    scene.end()
    assert not pump.exhausted()
    assert os.read(pump.source.fd.fileno(), 2) == b"x"
    assert pump.exhausted()
    pump._pending = memoryview(b"y")
    assert not pump.exhausted()
    pump._pending = None
    scene.close()


def test_several_buffers_at_once() -> None:
    """They go in one call, fill the pipe's last page like one, and say when there is no room."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    sink = PipeSink(OwnedFd(writer))
    assert sink.write([b"ab", b"cd"]) == 4
    assert sink.write([b"e", b"f"]) == 2
    assert (sink._written, sink._tail) == (6, 6)
    assert os.read(reader, 10) == b"abcdef"
    sink._tail = 0
    assert sink.write([bytes(_sys.PAGE), b"x"]) == _sys.PAGE + 1
    assert sink._tail == 1
    while sink.write([bytes(1 << 16), b"x"]) is not None:
        pass
    sink.close()
    os.close(reader)


def test_nothing_as_a_sink() -> None:
    """A sink that keeps nothing is never waited for."""
    sink = NullSink(count=False)
    assert (sink.fileno(), sink.dropped, repr(sink)) == (-1, 0, "<NullSink>")
    assert (sink.write([b"abc", b"d"]), sink.dropped) == (4, 0)


async def test_echo_beside_eight_floods(tmp_path: Path) -> None:
    """Eight endless writers leave an interactive stream its share."""
    out, stdin = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "in")
    ios = [await create_io("file:///dev/null") for _ in range(8)]
    try:
        for io in ios:
            await io.spawn(["yes"])
        with FakeClient(out) as client:
            async with await create_io(Stdio(stdin=stdin, stdout=out)) as io:
                await io.spawn(["cat"])
                writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
                for number in range(4):
                    text = b"%d\n" % number
                    os.write(writer, text)
                    assert await client.read(len(text)) == text
                os.close(writer)
                io.close_stdin()
                with anyio.fail_after(GUARD):
                    await io.drain()
        for io in ios:
            await until(lambda io=io: (stats := io.stats.stdout) is not None and stats.bytes_in > 0)  # type: ignore[misc]
    finally:
        for io in ios:
            io.close()
            await io.aclose()
        await until(lambda: all(process.exited for io in ios for process in io._processes))


async def test_round_trip_of_stdin(tmp_path: Path) -> None:
    """Bytes go from a client through stdin's FIFO, ``cat`` and stdout's FIFO to another client."""
    out, stdin = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "in")
    data = os.urandom(3_000_000)
    with FakeClient(out) as client:
        async with await create_io(Stdio(stdin=stdin, stdout=out)) as io:
            process = await io.spawn(["cat"])
            writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
            got = bytearray()

            async def write() -> None:
                view = memoryview(data)
                while view:
                    try:
                        view = view[os.write(writer, view) :]
                    except BlockingIOError:
                        await anyio.wait_writable(writer)
                os.close(writer)
                io.close_stdin()

            async with anyio.create_task_group() as group:
                group.start_soon(write)
                got += await client.read(len(data))
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
                await io.drain()
            assert bytes(got) == data
            stats = io.stats
            assert stats.stdin is not None
            assert stats.stdout is not None
            assert stats.stderr is None
            assert stats.stdin.bytes_out == stats.stdout.bytes_in == len(data)


async def test_stdin_of_a_child_that_closed_it(tmp_path: Path) -> None:
    """EPIPE on stdin ends that stream with an event, and neither the others nor drain()."""
    out, stdin = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "in")
    with FakeClient(out) as client:
        async with await create_io(Stdio(stdin=stdin, stdout=out)) as io:
            events = io.events()
            await io.spawn(["sh", "-c", "exec 0<&-; echo closed; read x <&1; echo never"])
            assert await client.read(7) == b"closed\n"
            writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, b"nobody reads this\n")
            with anyio.fail_after(GUARD):
                event = await anext(aiter(events))
            assert isinstance(event, SinkFailed)
            assert (event.stream, event.final) == ("stdin", True)
            assert isinstance(event.error, BrokenPipeError)
            stats = io.stats.stdin
            assert stats is not None
            assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (18, 0, 18)
            with pytest.raises(BrokenPipeError):
                os.write(writer, b"x")
            os.close(writer)


async def test_sink_that_raises() -> None:
    """Whatever a sink raises is stored, ends the stream, and everything is accounted for."""

    class Bad(NullSink):
        def write(self, buffers: Sequence[Buffer]) -> int | None:
            assert buffers
            raise ZeroDivisionError

    scene = Scene(Bad(count=False))
    os.write(scene.writer, b"hello")
    await scene.finish()
    assert isinstance(scene.pump.error, ZeroDivisionError)
    stats = scene.pump.stats()
    assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (5, 0, 5)
    with pytest.raises(BrokenPipeError):
        os.write(scene.writer, b"x")
    scene.pump.fail(OSError())
    scene.pump.mark(stop=True)
    scene.pump.end()
    with anyio.fail_after(GUARD):
        await scene.pump.wait_marked()
    scene.close()


async def test_end_accounts_for_everything() -> None:
    """A stream that is ended with bytes on the way counts them: in is out and dropped."""
    scene = Scene()
    written = 0
    while not scene.pump.stats().blocked:
        with suppress(BlockingIOError):
            written += os.write(scene.writer, b"x" * 30_000)
        await anyio.sleep(0.001)
    written += os.write(scene.writer, b"x" * 1000)  # waits in the source
    scene.pump.end()
    stats = scene.pump.stats()
    assert stats.bytes_in == stats.bytes_out + stats.dropped == written
    assert stats.bytes_out == scene.unread()
    assert stats.dropped > 0
    assert scene.pump.left
    scene.hub.close()
    assert [event async for event in scene.events] == [
        BytesDropped("stdout", stats.dropped, "the sink did not take it in time")
    ]
    scene.close()


async def test_lost_sink_is_read_on() -> None:
    """After discard() the source is read to its end and all of it counts as dropped."""
    scene = Scene()
    written = 0
    while not scene.pump.stats().blocked:
        with suppress(BlockingIOError):
            written += os.write(scene.writer, b"x" * 65536)
        await anyio.sleep(0.001)
    scene.pump.discard()
    # The one who takes the lost sink over may wait for it.
    scene.poller.watch(scene.sink.fileno(), _sys.EPOLLOUT, print).close()
    scene.end()
    await scene.finish()
    assert scene.pump.eof
    assert scene.pump.error is None
    stats = scene.pump.stats()
    assert stats.bytes_in == stats.bytes_out + stats.dropped == written
    assert stats.bytes_out == scene.unread()
    assert stats.dropped > 0
    scene.close()


@pytest.mark.parametrize("waiting", [0, 100, 4096, 5000, 60_000])
@pytest.mark.parametrize("stop", [True, False])
async def test_mark(waiting: int, stop: bool) -> None:
    """A mark is passed when the bytes before it are in the sink, and stops there if asked."""
    scene = Scene()
    await anyio.sleep(0.001)
    os.write(scene.writer, b"x" * waiting or b"x")
    if not waiting:
        await until(lambda: scene.unread() == 1)
    scene.pump.mark(stop=stop)
    with anyio.fail_after(GUARD):
        await scene.pump.wait_marked()
    assert scene.pump.reached
    assert scene.unread() == (waiting or 1)
    assert scene.pump.done.is_set() is stop
    if not stop:
        os.write(scene.writer, b"y" * 5000)
        scene.pump.mark(stop=True)
        with anyio.fail_after(GUARD):
            await scene.pump.wait_marked()
        assert scene.unread() == (waiting or 1) + 5000
        assert scene.pump.done.is_set()
    assert scene.pump.left
    scene.close()


async def test_socket_as_a_sink() -> None:
    """A sink that is no pipe is written when it is writable, and never spliced."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    scene = Scene(DescriptorSink(OwnedFd(ours.detach())))
    total = 0
    while not scene.pump.stats().blocked:
        try:
            total += os.write(scene.writer, b"x" * 65536)
        except BlockingIOError:
            await anyio.sleep(0.001)
        await anyio.sleep(0)
    scene.end()
    got = 0
    with anyio.fail_after(GUARD):
        while got < total:
            await anyio.wait_readable(theirs)
            got += len(theirs.recv(1 << 20))
    await scene.finish()
    assert scene.pump.stats().path == "copy"
    scene.sink.flush()
    scene.sink.reopen()
    assert "closed" in repr(scene.sink)
    theirs.close()
    scene.close()


async def test_stats_of_streams_that_are_not_moved() -> None:
    """Streams that the caller reads itself have no figures."""
    async with PipeIO() as io:
        await io.spawn(["true"])
        assert io.stats == IOStats()


class _Kept:
    """A sink that remembers what it was told, in order."""

    dropped = 0

    def __init__(self, *, blocking: bool) -> None:
        self.blocking = blocking
        self.calls: list[str] = []
        self.data = b""

    def fileno(self) -> int:
        return -1

    def write(self, buffers: Sequence[Buffer]) -> int:
        data = b"".join(bytes(buffer) for buffer in buffers)
        self.data += data
        if self.calls[-1:] != ["write"]:
            self.calls.append("write")
        return len(data)

    def flush(self) -> None:
        self.calls.append("flush")

    def reopen(self) -> None:
        self.calls.append("reopen")

    def close(self) -> None:
        if self.calls[-1:] != ["close"]:
            self.calls.append("close")


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("policy", ["eof", "exited"])
async def test_a_sink_is_flushed_once_before_it_is_closed(
    blocking: bool, policy: Literal["eof", "exited"]
) -> None:
    """A sink and a tap each get every byte, then one flush, then their close."""
    sink, beside = _Kept(blocking=blocking), _Kept(blocking=blocking)
    async with PipeIO(stdin=False, stderr=False) as io:
        io.bind({"stdout": SinkOutlet(sink)}, None)
        io.attach("stdout", beside)
        await io.spawn(["sh", "-c", "echo hello"])
        await io.drain(policy=policy)

    for kept in (sink, beside):
        assert kept.data == b"hello\n"
        assert kept.calls == ["write", "flush", "close"]
