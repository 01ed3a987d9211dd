"""Rings: sinks beside a stream, and FIFOs whose client is away, that hold nothing up."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyshimio import BytesDropped, FileIO, PipeIO, SinkFailed, Stdio, create_io
from pyshimio._events import EventHub
from pyshimio._fd import OwnedFd
from pyshimio._poller import Poller
from pyshimio._ring import RingSink
from pyshimio._sink import NullSink, PipeSink
from pyshimio.errors import IOStateError
from pyshimio.io.fd import BlockingSink
from pyshimio.testing import FakeClient, Recorder
from support.children import GUARD, until
from support.fifos import make_fifo
from support.threads import pool_threads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Buffer


class Kept(NullSink):
    """A sink in memory that can be told to refuse, or to fail."""

    def __init__(self) -> None:
        super().__init__(count=False)
        self.data = bytearray()
        self.error: OSError | None = None
        self.closed = False

    def write(self, buffers: Sequence[Buffer]) -> int:
        """Keep it."""
        if self.error is not None:
            raise self.error
        for buffer in buffers:
            self.data += buffer
        return sum(memoryview(buffer).nbytes for buffer in buffers)

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def pipe_sink() -> tuple[int, PipeSink]:
    """A pipe: the end to read, and a sink for the other."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    return reader, PipeSink(OwnedFd(writer))


def read_now(fd: int) -> bytes:
    """What is in the pipe."""
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


def lines(first: int, last: int) -> bytes:
    """Numbered lines of eight bytes."""
    return b"".join(b"%07d\n" % number for number in range(first, last))


def ring_over(sink: PipeSink | Kept, capacity: int, hub: EventHub | None = None) -> RingSink:
    """A ring as a tap has it."""
    return RingSink(
        "stdout",
        sink,
        capacity=capacity,
        lane=None,
        poller=Poller.current(),
        hub=EventHub() if hub is None else hub,
    )


class Model:
    """A ring as it would be written for clarity: lines in a list, dropped from the front."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.chunks: deque[bytes] = deque()
        self.cut = False
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Take it, and drop what is too much."""
        if data:
            self.chunks.append(data)
        while self.chunks:
            over = sum(map(len, self.chunks)) - self.capacity
            if over <= 0 and not self.cut:
                break
            chunk = self.chunks.popleft()
            lost = chunk[: max(over, 0)]
            rest = chunk[len(lost) :]
            if not lost.endswith(b"\n") and b"\n" in rest:
                line, newline, rest = rest.partition(b"\n")
                lost += line + newline
            self.dropped += len(lost)
            self.cut = not rest and not lost.endswith(b"\n")
            if rest:
                self.chunks.appendleft(rest)


@given(
    st.lists(st.text("a\n", max_size=12).map(str.encode), max_size=30),
    st.integers(min_value=1, max_value=20),
)
def test_drop_oldest_against_a_model(chunks: list[bytes], capacity: int) -> None:
    """Whatever is written, the newest stays, by lines where it can, and the rest counts."""

    async def main() -> None:
        ring = ring_over(Kept(), capacity)
        model = Model(capacity)
        written = b""
        for chunk in chunks:
            ring.write([chunk])
            model.write(chunk)
            written += chunk
            kept = b"".join(bytes(chunk) for chunk in ring._chunks)
            assert kept == b"".join(model.chunks)
            assert written.endswith(kept)
            assert ring.dropped == model.dropped == len(written) - len(kept)
            assert ring.waiting == len(kept) <= capacity
        ring.close()

    anyio.run(main)


async def test_order_and_nothing_lost_while_there_is_room() -> None:
    """A reader that is late within the capacity gets every byte in order."""
    reader, sink = pipe_sink()
    ring = ring_over(sink, 1 << 20)
    expected = lines(0, 30_000)
    for start in range(0, len(expected), 5000):
        assert ring.write([expected[start : start + 5000]]) <= 5000
    got = bytearray()
    while len(got) < len(expected):
        await anyio.sleep(0)
        got += read_now(reader)
    assert bytes(got) == expected
    with anyio.fail_after(GUARD):
        await ring.wait_empty()
    assert (ring.delivered, ring.dropped, ring.waiting) == (len(expected), 0, 0)
    ring.close()
    ring.close()
    os.close(reader)


async def test_whole_lines_of_the_oldest_go() -> None:
    """A reader that stays away gets what the pipe holds, and the newest whole lines after it."""
    hub = EventHub()
    events = hub.events()
    reader, sink = pipe_sink()
    ring = ring_over(sink, 8000, hub)
    for start in range(0, 20_000, 500):
        ring.write([lines(start, start + 500)])
        await until(lambda: not ring.waiting or sink.unread() == 65536)
    await until(lambda: ring.waiting + ring.dropped + ring.delivered == 160_000)
    got = bytearray()
    while not bytes(got).endswith(b"0019999\n"):
        got += read_now(reader)
        await anyio.sleep(0)
    assert ring.dropped == 160_000 - len(got) > 0
    assert bytes(got[:65536]) == lines(0, 8192)
    assert bytes(got[65536:]) == lines(20_000 - (len(got) - 65536) // 8, 20_000)
    assert isinstance(await anext(aiter(events)), BytesDropped)
    ring.close()
    os.close(reader)


async def test_no_line_is_glued_to_a_half_one() -> None:
    """A line that the reader has the beginning of, and whose rest was dropped, is ended.

    The newline is counted nowhere; where the rest was not dropped there is none.
    """
    reader, sink = pipe_sink()
    ring = ring_over(sink, 8000)
    long = b"x" * 100 + b"\n"
    written = 0
    for start in range(0, 20_000, 50):
        text = b"".join(b"%06d" % number + long for number in range(start, start + 50))
        written += ring.write([text])
        await until(lambda: not ring.waiting or sink.unread() == 65536)
    await until(lambda: ring.waiting + ring.dropped + ring.delivered == written)
    got = bytearray()
    while not bytes(got).endswith(b"019999" + long):
        got += read_now(reader)
        await anyio.sleep(0)
    with anyio.fail_after(GUARD):
        await ring.wait_empty()
    lines_got = bytes(got).splitlines(keepends=True)
    half = [line for line in lines_got if len(line) != 107]
    assert [len(line) for line in half] == [65536 % 107 + 1]
    whole = [int(line[:6]) for line in lines_got if len(line) == 107]
    assert whole == sorted(set(whole))
    assert (ring.delivered, ring.waiting) == (len(got) - 1, 0)
    assert ring.delivered + ring.dropped == written
    ring.close()
    os.close(reader)


@given(
    st.lists(st.text("ab\n", max_size=12).map(str.encode), max_size=30),
    st.lists(st.integers(min_value=0, max_value=8), max_size=30),
    st.integers(min_value=1, max_value=20),
)
def test_half_lines_are_ended_wherever_the_sink_stops(
    chunks: list[bytes], takes: list[int], capacity: int
) -> None:
    """Whatever a sink takes at a time, what was dropped glues nothing to the half line before.

    Each byte is delivered, dropped or waiting, and only newlines are added.
    """

    class Reluctant(Kept):
        """A sink that takes as much as it is told to."""

        room = 0

        def write(self, buffers: Sequence[Buffer]) -> int:
            """Some of it."""
            data = b"".join(bytes(buffer) for buffer in buffers)[: self.room]
            self.room -= len(data)
            return super().write([data])

    async def main() -> None:
        sink = Reluctant()
        ring = ring_over(sink, capacity)
        total, pieces = 0, [0]
        for number, chunk in enumerate(chunks):
            before = ring.dropped
            total += ring.write([chunk])
            if ring.dropped != before:
                pieces.append(len(sink.data))
            sink.room = takes[number] if number < len(takes) else 0
            while sink.room and (taken := ring._take()) is not None:
                if not ring._pass_on(taken):
                    break
            assert ring.delivered + ring.dropped + ring.waiting == total
        sink.room = 1 << 20
        while (taken := ring._take()) is not None:
            ring._pass_on(taken)
        assert total == ring.delivered + ring.dropped
        assert all(
            place == 0 or place == len(sink.data) or b"\n" in sink.data[place - 1 : place + 1]
            for place in pieces
        )
        assert len(sink.data) - ring.delivered <= len(pieces) - 1
        ring.close()

    anyio.run(main)


async def test_sink_that_fails() -> None:
    """A sink's error is stored and told once; everything from then on is taken and counted."""
    hub = EventHub()
    events = hub.events()
    sink = Kept()
    ring = ring_over(sink, 1000, hub)
    ring.write([b"good\n"])
    await until(lambda: sink.data == b"good\n")
    sink.error = OSError(5, "broken")
    ring.write([b"bad\n"])
    with anyio.fail_after(GUARD):
        await ring.wait_empty()
        event = await anext(aiter(events))
    assert isinstance(event, SinkFailed)
    assert event.error is ring.error is sink.error
    assert ring.write([b"more\n"]) == 5
    assert (ring.delivered, ring.dropped, ring.waiting) == (5, 9, 0)
    ring.reopen()
    ring.flush()
    ring.close()
    assert sink.closed
    assert "RingSink" in repr(ring)


# -- attach -----------------------------------------------------------------------------


async def test_attach_beside_a_file(tmp_path: Path) -> None:
    """A tap gets what the file gets, from the moment of its coming."""
    reader, sink = pipe_sink()
    path = tmp_path / "log"
    async with FileIO(path) as io:
        tap = io.attach("stdout", sink)
        await io.spawn(["sh", "-c", "echo one; echo two"])
        result = await io.drain()
        assert result.complete
    assert path.read_bytes() == read_now(reader) == b"one\ntwo\n"
    assert (tap.delivered, tap.dropped) == (8, 0)
    assert "closed" in repr(tap)
    os.close(reader)


class Opened(Recorder):
    """A sink that has to be opened, in a thread."""

    def __init__(self) -> None:
        super().__init__(blocking=True)
        self.opened_by = 0
        self.failure: OSError | None = None

    def open(self) -> None:
        """Once."""
        assert not self.opened_by
        self.opened_by = threading.get_ident()
        if self.failure is not None:
            raise self.failure


async def test_attach_opens_what_has_to_be_opened(tmp_path: Path) -> None:
    """A sink that blocks is opened by its thread, before its first write; a failure is told."""
    for failure in (None, OSError(errno.EACCES, "no")):
        sink = Opened()
        sink.failure = failure
        async with FileIO(tmp_path / "log") as io:
            tap = io.attach("stdout", sink)
            await io.spawn(["echo", "one"])
            assert (await io.drain()).complete
            await tap.detach()
        assert sink.opened_by not in {0, threading.get_ident()}
        assert bytes(sink.data) == (b"" if failure else b"one\n")
        assert tap.dropped == (4 if failure else 0)


class Slow(Opened):
    """A sink that takes its time to open."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.is_open = False

    def open(self) -> None:
        """When it is told to go on."""
        super().open()
        self.begun.set()
        self.goes_on.wait(GUARD)
        self.is_open = True

    def close(self) -> None:
        """What is open."""
        self.is_open = False


async def test_a_sink_that_is_closed_while_it_opens(tmp_path: Path) -> None:
    """It is closed again when it has opened, so that nothing stays open."""
    sink = Slow()
    async with FileIO(tmp_path / "log") as io:
        tap = io.attach("stdout", sink)
        await io.spawn(["echo", "one"])
        await until(sink.begun.is_set)
        await tap.detach(0.01)
        sink.goes_on.set()
        assert (await io.drain()).complete
    await until(lambda: not pool_threads())
    assert sink.opened_by
    assert not sink.is_open


async def test_attach_beside_a_fifo_in_mid_stream(tmp_path: Path) -> None:
    """A tap that comes later gets what comes later, and the stream loses nothing by it."""
    out, stdin = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "in")
    reader, sink = pipe_sink()
    with FakeClient(out) as client:
        async with await create_io(Stdio(stdin=stdin, stdout=out)) as io:
            await io.spawn(["cat"])
            writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, b"before\n")
            assert await client.read(7) == b"before\n"
            tap = io.attach("stdout", sink)
            assert "open" in repr(tap)
            os.write(writer, b"during\n")
            assert await client.read(7) == b"during\n"
            await tap.detach()
            await tap.detach()
            os.write(writer, b"after\n")
            os.close(writer)
            io.close_stdin()
            await io.drain()
            assert await client.read_all() == b"after\n"
    assert read_now(reader) == b"during\n"
    assert (tap.delivered, tap.dropped) == (7, 0)
    os.close(reader)


async def test_tap_that_is_not_read_holds_nothing_up(tmp_path: Path) -> None:
    """Beside a tap whose reader sleeps the file still gets everything; the tap counts its loss."""
    reader, sink = pipe_sink()
    path = tmp_path / "log"
    async with FileIO(path) as io:
        tap = io.attach("stdout", sink, ring=100_000)
        program = "import os\nfor i in range(50): os.write(1, (b'y' * 79 + b'\\n') * 512)"
        await io.spawn([sys.executable, "-c", program])
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert result.complete
    total = path.stat().st_size
    assert total == 80 * 50 * 512
    assert tap.dropped > 0
    assert tap.delivered + tap.dropped == total
    assert len(read_now(reader)) == tap.delivered
    os.close(reader)


async def test_failing_tap_does_not_harm_the_stream(tmp_path: Path) -> None:
    """A tap whose reader is gone ends alone: the stream and the other tap go on."""
    reader, sink = pipe_sink()
    os.close(reader)
    other, second = pipe_sink()
    path = tmp_path / "log"
    async with FileIO(path) as io:
        events = io.events()
        tap = io.attach("stdout", sink)
        io.attach("stdout", second)
        await io.spawn(["echo", "x"])
        assert (await io.drain()).complete
    assert path.read_bytes() == read_now(other) == b"x\n"
    assert tap.dropped == 2
    failures = [event async for event in events if isinstance(event, SinkFailed)]
    assert [type(event.error) for event in failures] == [BrokenPipeError]
    os.close(other)


async def test_tap_that_blocks_is_written_by_a_thread(tmp_path: Path) -> None:
    """A tap may be a file: it gets all of the stream before the IO is closed."""
    out = make_fifo(tmp_path)
    copy = tmp_path / "copy"
    with FakeClient(out) as client:
        async with await create_io(Stdio(stdout=out)) as io:
            fd = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
            tap = io.attach("stdout", BlockingSink(OwnedFd(fd)))
            await io.spawn([sys.executable, "-c", "print('x' * 10000)"])
            await io.drain()
            assert len(await client.read_all()) == 10_001
    assert copy.stat().st_size == tap.delivered == 10_001


async def test_detach_gives_up_in_time(tmp_path: Path) -> None:
    """A tap that takes nothing is left after the time that detach() was given."""
    out, stdin = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "in")
    reader, sink = pipe_sink()
    os.write(sink.fileno(), b"z" * 65536)
    with FakeClient(out) as client:
        async with await create_io(Stdio(stdin=stdin, stdout=out)) as io:
            await io.spawn(["echo", "hello"])
            tap = io.attach("stdout", sink)
            assert await client.read(6) == b"hello\n"
            with anyio.fail_after(GUARD):
                await tap.detach(0.05)
            assert (tap.delivered, tap.dropped) == (0, 6)
    os.close(reader)


async def test_attach_to_a_stream_that_is_not_moved() -> None:
    """A stream that the caller reads itself cannot have a tap."""
    async with PipeIO() as io:
        for stream in ("stdin", "stdout"):
            with pytest.raises(IOStateError, match="not moved"):
                io.attach(stream, NullSink(count=False))


async def test_attach_after_the_end(tmp_path: Path) -> None:
    """A tap on a stream that has ended gets nothing and is closed."""
    sink = Kept()
    async with FileIO(tmp_path / "log") as io:
        await io.spawn(["true"])
        await io.drain()
        io.attach("stdout", sink)
        assert sink.closed


# -- ring= for FIFOs --------------------------------------------------------------------


async def test_ring_waits_for_no_client(tmp_path: Path) -> None:
    """With ring= the child starts and ends without a client, who finds what was written."""
    path = make_fifo(tmp_path)
    async with await create_io(Stdio(stdout=path), ring=1 << 16) as io:
        process = await io.spawn(["echo", "hello"])
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
        await until(lambda: io.stats.stdout and io.stats.stdout.bytes_out == 6)
        with FakeClient(path) as client:
            result = await io.drain()
            assert result.complete
            assert await client.read_all() == b"hello\n"


async def test_ring_keeps_the_newest(tmp_path: Path) -> None:
    """A child that writes much beside an absent client is not stopped; the newest bytes arrive."""
    path = make_fifo(tmp_path)
    program = "import sys\nfor i in range(50000): sys.stdout.write('%07d\\n' % i)"
    async with await create_io(Stdio(stdout=path), ring=80_000) as io:
        process = await io.spawn([sys.executable, "-c", program])
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
        await until(lambda: io.stats.stdout and io.stats.stdout.bytes_in == 400_000)
        with FakeClient(path) as client:
            got = bytearray()

            async def read() -> None:
                got.extend(await client.read_all())

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                with anyio.fail_after(GUARD):
                    result = await io.drain()
        assert bytes(got).endswith(lines(41_000, 50_000))
        assert not result.complete
        assert result.stdout is not None
        assert result.stdout.moved == len(got)
        assert result.stdout.dropped == 400_000 - len(got)
        stats = io.stats.stdout
        assert stats is not None
        assert stats.bytes_in == stats.bytes_out + stats.dropped == 400_000


async def test_ring_without_any_client_ends_in_time(tmp_path: Path) -> None:
    """drain() gives a ring its time, then drops and counts what no client came for."""
    path = make_fifo(tmp_path)
    async with await create_io(Stdio(stdout=path), ring=1 << 20) as io:
        await io.spawn([sys.executable, "-c", "import os; os.write(1, b'x' * 200000)"])
        with anyio.fail_after(GUARD):
            result = await io.drain(sink_timeout=0.2)
        assert result.stdout is not None
        assert result.stdout.dropped == 200_000 - 65_536
        assert (result.unread, result.abandoned) == (65_536, 65_536)
        assert not result.stdout.finished
        assert not result.complete
