"""Streams into files: bulk, order, fairness, and figures that add up whenever they end."""

from __future__ import annotations

import os
import threading
import time
import zlib
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import FdIO, FileIO, _sys
from pyshimio._filepump import FilePump
from pyshimio._poller import Poller
from pyshimio.errors import StreamFailedError
from support.children import GUARD, until
from support.mounts import ext4, frozen, tmpfs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

    from pyshimio import StreamStats

MIB = 1 << 20

RANDOM = """
import os, sys, zlib
block = os.urandom(1 << 20)
crc = 0
for n in range(int(sys.argv[1])):
    block = block[1:] + block[:1]
    crc = zlib.crc32(block, crc)
    os.write(1, block)
with open(sys.argv[2], "w") as file:
    file.write(str(crc))
"""
"""Writes as many MiB as it is told to, and their checksum into a file."""


def crc_of(path: Path) -> int:
    """The checksum of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(MIB):
            crc = zlib.crc32(block, crc)
    return crc


def balanced(stats: StreamStats | None) -> StreamStats:
    """Stats whose bytes have all gone somewhere."""
    assert stats is not None
    assert stats.bytes_in == stats.bytes_out + stats.dropped, stats
    return stats


async def bulk(path: Path, crc: Path, mebibytes: int) -> None:
    """Send random bytes through a FileIO and compare the checksums."""
    async with FileIO(path) as io:
        process = await io.spawn(["python3", "-c", RANDOM, str(mebibytes), str(crc)])
        assert await process.wait() == 0
        result = await io.drain()
        assert result.complete
        stats = balanced(io.stats.stdout)
        assert stats.path == "file"
        assert stats.bytes_out == mebibytes * MIB
        assert 0 < stats.writes < mebibytes * 256
    assert path.stat().st_size == mebibytes * MIB
    assert crc_of(path) == int(crc.read_text())


async def test_sixteen_mebibytes_arrive_unchanged(tmp_path: Path) -> None:
    """Every byte, in order, in large writes."""
    await bulk(tmp_path / "bulk", tmp_path / "crc", 16)


@pytest.mark.slow
@pytest.mark.root
async def test_a_quarter_of_a_gibibyte_arrives_unchanged(tmp_path: Path) -> None:
    """The same for as much as makes the pipe grow to its end."""
    with tmpfs(tmp_path / "memory", "300m") as memory:
        await bulk(memory / "bulk", tmp_path / "crc", 256)


async def test_two_streams_to_one_file_keep_their_order(tmp_path: Path) -> None:
    """Chunks of the two may alternate; within each, nothing is lost, doubled or swapped."""
    path = tmp_path / "both.log"
    # Digits and letters tell the streams apart even where a line is cut by the other's.
    digits = "import os\nfor n in range(30000): os.write(1, b'%06d\\n' % n)"
    letters = (
        "import os\nfor n in range(30000):"
        " os.write(2, (b'%06d' % n).translate(bytes.maketrans(b'0123456789', b'abcdefghij'))+b';')"
    )
    async with FileIO(path, path) as io:
        process = await io.spawn(
            ["sh", "-c", 'python3 -c "$1" & python3 -c "$2"; wait', "sh", digits, letters]
        )
        assert await process.wait() == 0
        result = await io.drain()
        assert result.complete
        balanced(io.stats.stdout)
        balanced(io.stats.stderr)
    text = path.read_bytes()
    upper = bytes(byte for byte in text if byte in b"0123456789\n")
    lower = bytes(byte for byte in text if byte not in b"0123456789\n")
    assert upper == b"".join(b"%06d\n" % n for n in range(30000))
    assert lower.translate(bytes.maketrans(b"abcdefghij;", b"0123456789\n")) == upper


@pytest.mark.root
async def test_a_frozen_file_system_stops_neither_the_loop_nor_other_streams(
    tmp_path: Path,
) -> None:
    """While one file is stuck, another stream goes on and the loop's turns stay short."""
    with ext4(tmp_path / "disk") as disk:
        stuck, free = disk / "stuck.log", tmp_path / "free.log"
        async with FileIO(stuck, free, stdin=True) as io:
            assert io.stdin is not None
            script = "while read x; do echo o$x; echo e$x >&2; done"
            await io.spawn(["sh", "-c", script])
            await io.stdin.send(b"0\n")
            await until(lambda: stuck.read_bytes() == b"o0\n")
            longest = 0.0
            with frozen(disk):
                last = anyio.current_time()
                for n in range(1, 50):
                    await io.stdin.send(b"%d\n" % n)
                    wanted = b"e%d\n" % n
                    while not free.read_bytes().endswith(wanted):
                        await anyio.sleep(0.001)
                        now = anyio.current_time()
                        longest, last = max(longest, now - last), now
                assert stuck.read_bytes() == b"o0\n"
            io.close_stdin()
            assert (await io.drain()).complete
        assert stuck.read_bytes() == b"".join(b"o%d\n" % n for n in range(50))
    # A write to the frozen file would have held the loop for as long as it is frozen; how
    # long a turn takes on a busy machine is not for a test to say.
    assert longest < 5


class Slow:
    """A sink whose writes wait to be let through, taking at most so many bytes at a time."""

    blocking = True

    def __init__(self, most: int = 1 << 30) -> None:
        self.dropped = 0
        self.most = most
        self.error: OSError | None = None
        self.taken = bytearray()
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.flushed = 0
        self.closed = False

    def fileno(self) -> int:
        """Nothing to wait for."""
        return -1

    def write(self, buffers: Sequence[Buffer]) -> int:
        """Wait, then take."""
        self.entered.set()
        assert self.opened.wait(20)
        if self.error is not None:
            raise self.error
        data = b"".join(bytes(buffer) for buffer in buffers)[: self.most]
        self.taken += data
        return len(data)

    def flush(self) -> None:
        """Count."""
        self.flushed += 1

    def reopen(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Remember."""
        self.closed = True


def io_into(*sinks: Slow) -> FdIO:
    """An IO whose stdout (and stderr) goes to *sinks*."""
    from pyshimio.io._outlet import SinkOutlet  # noqa: PLC0415 - the way create_io() does it

    io = FdIO(stdin=True)
    for number, sink in enumerate(sinks, 1):
        io._add_pipe(number)
        io.bind({("stdout", "stderr")[number - 1]: SinkOutlet(sink)}, None)
    return io


def gone() -> bool:
    """Whether the pool's threads have ended."""
    return all(thread.name != "pyshimio-file" for thread in threading.enumerate())


async def test_a_stream_that_ends_while_its_sink_is_stuck(tmp_path: Path) -> None:
    """What a write has in hand counts as dropped at the end, and as nothing else afterwards."""
    sink = Slow()
    async with io_into(sink) as io:
        process = await io.spawn(["sh", "-c", "echo one; read x; echo two"])
        await until(sink.entered.is_set)
        io.close_stdin()
        await process.wait()
        result = await io.drain(linger=0.01, sink_timeout=0.05)
        stats = balanced(io.stats.stdout)
        assert (stats.bytes_in, stats.dropped) == (8, 8)
        assert result.stdout is not None
        assert not result.stdout.finished
        assert sink.closed
        sink.opened.set()
        await until(gone)
        assert io.stats.stdout == stats


async def test_a_close_while_the_sink_is_stuck(tmp_path: Path) -> None:
    """close() does not wait for the write either."""
    sink = Slow()
    io = io_into(sink)
    process = await io.spawn(["sh", "-c", "echo one; exec sleep 100"])
    await until(sink.entered.is_set)
    with anyio.fail_after(5):
        io.close()
    stats = balanced(io.stats.stdout)
    sink.opened.set()
    await until(gone)
    assert io.stats.stdout == stats
    assert await process.wait() == 128 + 9
    await io.aclose()


async def test_a_sink_that_fails_after_the_end_is_no_error(tmp_path: Path) -> None:
    """Nobody is told about a stream that is over."""
    sink = Slow()
    async with io_into(sink) as io:
        process = await io.spawn(["echo", "one"])
        await process.wait()
        await until(sink.entered.is_set)
        await io.drain(linger=0.01, sink_timeout=0.01)
        sink.error = OSError(5, "late")
        sink.opened.set()
        await until(gone)
        balanced(io.stats.stdout)


async def test_a_sink_that_raises_ends_its_stream(tmp_path: Path) -> None:
    """The bytes in hand count as dropped; the child gets EPIPE; drain() raises."""
    sink = Slow()
    sink.error = OSError(13, "refused")
    sink.opened.set()
    async with io_into(sink) as io:
        process = await io.spawn(["yes"])
        with anyio.fail_after(20):
            assert await process.wait() == 128 + 13
            with pytest.raises(StreamFailedError) as caught:
                await io.drain()
        assert caught.value.errno == 13
        assert balanced(io.stats.stdout).dropped > 0


async def test_a_sink_that_takes_a_little_at_a_time(tmp_path: Path) -> None:
    """What it leaves is offered again, and flush() comes once, at the end."""
    sink = Slow(most=7)
    sink.opened.set()
    async with io_into(sink) as io:
        process = await io.spawn(["seq", "1000"])
        await process.wait()
        assert (await io.drain()).complete
        assert balanced(io.stats.stdout).writes >= 3893 // 7
    assert bytes(sink.taken) == b"".join(b"%d\n" % n for n in range(1, 1001))
    assert sink.flushed == 1


async def test_a_background_holder_does_not_keep_the_sink_from_being_flushed() -> None:
    """A stream that ends at the mark of its drain is flushed as well."""
    sink = Slow()
    sink.opened.set()
    async with io_into(sink) as io:
        process = await io.spawn(["sh", "-c", "sleep 100 & echo $!; echo one"])
        assert await process.wait() == 0
        with anyio.fail_after(10):
            result = await io.drain(policy="exited")
        assert result.complete
        assert result.holders_left
    pid, _, rest = bytes(sink.taken).partition(b"\n")
    os.kill(int(pid), 9)
    assert rest == b"one\n"
    assert sink.flushed == 1


async def test_the_mark_of_a_drain_is_exact_while_a_thread_reads(tmp_path: Path) -> None:
    """With a background `yes`, drain(policy="exited") ends at what was there, whatever is read."""
    for _ in range(10):
        async with FileIO(tmp_path / "yes.log") as io:
            process = await io.spawn(["sh", "-c", "yes & echo $! >&2; sleep 0.02"])
            await process.wait()
            with anyio.fail_after(20):
                result = await io.drain(policy="exited")
            assert result.stdout is not None
            assert result.stdout.finished
            balanced(io.stats.stdout)


async def test_a_mark_that_is_set_while_a_thread_reads_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread reads while the pipe is asked how much it holds does not count twice."""
    sink, holder = Slow(), tmp_path / "holder"
    real = _sys.unread

    def slow(fd: int) -> int:
        answer = real(fd)
        sink.opened.set()  # the thread goes on, and would read all this now
        time.sleep(0.1)
        return answer

    async with io_into(sink) as io:
        script = f"echo a; read x; head -c 50000 /dev/zero; sleep 100 & echo $! > {holder}"
        process = await io.spawn(["sh", "-c", script])
        await until(sink.entered.is_set)
        io.close_stdin()
        await process.wait()
        monkeypatch.setattr(_sys, "unread", slow)
        result = await io.drain(policy="exited", sink_timeout=5)
        os.kill(int(holder.read_text()), 9)
        assert result.stdout is not None
        assert result.stdout.finished
    assert len(sink.taken) == 50002


async def test_a_mark_while_the_news_of_another_one_is_on_its_way(tmp_path: Path) -> None:
    """A mark is passed when its own bytes have arrived, not when an earlier one's have."""
    log = tmp_path / "log"
    async with FileIO(log, stdin=True) as io:
        await io.spawn(["cat"])
        assert io.stdin is not None
        await io.stdin.send(b"first\n")
        await until(lambda: log.exists() and log.read_bytes() == b"first\n")
        pump = io._pumps["stdout"]
        assert isinstance(pump, FilePump)
        await until(lambda: not pump._in_job)
        pump.mark(stop=False)
        wait_for(lambda: bool(Poller.current()._posted))  # the loop has not heard it yet
        os.write(io._parents["stdin"]._fd.fileno(), b"second\n")
        wait_for(lambda: pump.source.waiting() == 7)
        pump.mark(stop=True)
        with anyio.fail_after(GUARD):
            await pump.done.wait()
        assert pump.reached
    assert log.read_bytes() == b"first\nsecond\n"


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait, and keep the loop from running meanwhile."""
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def test_what_a_sink_refused_is_kept_while_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that wait for a sink are not in a buffer that the thread uses for others."""
    monkeypatch.setattr("pyshimio._filepump.RETRY", 0.05)
    out, err = Slow(most=0), Slow()
    out.opened.set()
    err.opened.set()
    async with io_into(out, err) as io:
        process = await io.spawn(["sh", "-c", "echo out; read x; echo error >&2"])
        await until(out.entered.is_set)
        io.close_stdin()
        await process.wait()
        await until(lambda: err.taken == b"error\n")
        out.most = 100
        assert (await io.drain()).complete
    assert out.taken == b"out\n"


async def test_counters_add_up_whenever_a_stream_is_ended(tmp_path: Path) -> None:
    """Ended at any moment, what was read is what was written plus what was dropped."""
    for n in range(30):
        path = tmp_path / f"{n}.log"
        io = FileIO(path)
        process = await io.spawn(["yes"])
        await until(lambda io=io: (s := io.stats.stdout) is not None and s.bytes_out)  # type: ignore[misc]
        await anyio.sleep(0.0003 * n)
        io.close()
        stats = balanced(io.stats.stdout)
        await process.wait()
        # A write that was under way may still have arrived, and counts as dropped.
        assert stats.bytes_out <= path.stat().st_size <= stats.bytes_in
    await until(gone)


async def test_keep_leaves_the_stream_open(tmp_path: Path) -> None:
    """After a drain that keeps it, a background child's bytes still arrive."""
    path, go = tmp_path / "app.log", tmp_path / "go"
    os.mkfifo(go)
    async with FileIO(path) as io:
        process = await io.spawn(["sh", "-c", f"(read x < {go}; echo late) & echo early"])
        await process.wait()
        result = await io.drain(policy="keep")
        assert result.stdout is not None
        assert result.stdout.finished
        assert result.holders_left
        assert path.read_bytes() == b"early\n"
        with go.open("w") as gate:
            gate.write("\n")
        await until(lambda: path.read_bytes() == b"early\nlate\n")
    balanced(io.stats.stdout)


async def test_larger_pipes_are_given_back(tmp_path: Path) -> None:
    """A busy stream's pipe grows, out of the loop's budget, which is whole again at the end."""
    path = f"/dev/shm/pyshimio-test-{os.getpid()}"  # (a test runs in several processes)
    hold = Poller.current().hold()
    try:
        budget = Poller.current().pipes
        before = budget.left
        async with FileIO(path) as io:
            process = await io.spawn(["head", "-c", str(64 * MIB), "/dev/zero"])
            await until(lambda: budget.left < before or process.exited)
            grown = before - budget.left
            await process.wait()
            assert (await io.drain()).complete
        assert budget.left == before
        assert grown > 0
    finally:
        hold.close()
        os.unlink(path)


async def test_larger_pipes_are_given_back_when_nothing_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that was busy once does not keep its large pipe while it rests."""
    monkeypatch.setattr("pyshimio._filepump.IDLE_SECONDS", 0.05)
    hold = Poller.current().hold()
    try:
        budget = Poller.current().pipes
        before = budget.left
        script = "head -c 67108864 /dev/zero; echo >&2; exec sleep 60"
        async with FileIO(tmp_path / "log", grace=0) as io:
            process = await io.spawn(["sh", "-c", script])
            await until(lambda: budget.left < before)
            await until(lambda: budget.left == before)
            assert not process.exited
    finally:
        hold.close()


async def test_a_mark_that_finds_no_thread_ends_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be started, a drain fails instead of waiting for ever."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with (tmp_path / "log").open("wb") as file:
        async with FdIO(stdout=file, grace=0) as io:
            await io.spawn(["sleep", "60"])
            monkeypatch.setattr(threading.Thread, "start", refuse)
            with anyio.fail_after(GUARD), pytest.raises(StreamFailedError):
                await io.drain(exited=anyio.lowlevel.checkpoint(), policy="exited")
            monkeypatch.undo()
