"""Disks that are full, frozen, or refuse, beside streams that have nothing to do with them."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import FileIO, PipeIO, SinkFailed, SinkRecovered
from pyshimio._poller import Poller
from pyshimio.errors import StreamFailedError
from support.children import GUARD, until
from support.mounts import ext4, frozen, tmpfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyshimio import IOEvent

LONGEST = 2.0
"""Seconds that one turn of the loop may take here; a stuck write takes as long as it is stuck."""


class Watchdog:
    """Asks the loop for a sign of life, from a thread, and remembers the longest wait."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.answers = 0
        self._asked = 0.0
        self._answered = threading.Event()
        self._over = threading.Event()
        self._poller = Poller.current()
        self._hold = self._poller.hold()
        self._thread = threading.Thread(target=self._run, name="watchdog")
        self._thread.start()

    def _answer(self) -> None:
        self.answers += 1
        self.longest = max(self.longest, time.monotonic() - self._asked)
        self._answered.set()

    def _run(self) -> None:
        while not self._over.wait(0.005):
            self._answered.clear()
            self._asked = time.monotonic()
            self._poller.post(self._answer)
            while not self._answered.wait(0.05) and not self._over.is_set():
                self.longest = max(self.longest, time.monotonic() - self._asked)

    def close(self) -> None:
        """Stop asking."""
        self._over.set()
        self._thread.join()
        self._hold.close()


@contextmanager
def watchdog() -> Iterator[Watchdog]:
    """Watch the running loop."""
    dog = Watchdog()
    try:
        yield dog
    finally:
        dog.close()


@pytest.mark.root
async def test_frozen_disk_under_one_file(tmp_path: Path) -> None:
    """While a disk is frozen every other stream goes on, and no turn of the loop is long.

    After the thaw the stuck file has every byte in order.
    """
    free = tmp_path / "free.log"
    line = b"%07d\n"
    with ext4(tmp_path / "disk") as disk:
        stuck = disk / "stuck.log"
        async with FileIO(stuck, stdin=True) as io, FileIO(free) as other, PipeIO() as echo:
            assert io.stdin is not None
            process = await io.spawn(["cat"])
            await io.stdin.send(line % 0)
            await until(lambda: stuck.read_bytes() == line % 0)
            assert echo.stdin is not None
            assert echo.stdout is not None
            await echo.spawn(["cat"])
            # (Freezing a busy disk, and thawing it, take their time, and are not what is watched.)
            with frozen(disk):
                with watchdog() as dog:
                    await until(lambda: dog.answers)
                    # A pipe's worth may wait, and not more: the rest stays with its writer.
                    for number in range(1, 5001):
                        await io.stdin.send(line % number)
                    writer = await other.spawn(["seq", "300000"])
                    with anyio.fail_after(GUARD):
                        assert await writer.wait() == 0
                        assert (await other.drain()).complete
                        for number in range(50):
                            await echo.stdin.send(line % number)
                            assert await echo.stdout.receive() == line % number
                    assert free.read_bytes() == b"".join(b"%d\n" % n for n in range(1, 300_001))
                    # The stuck write was given LONGEST seconds to be noticed by the watchdog.
                    await anyio.sleep(LONGEST + 0.2)
                    assert stuck.read_bytes() == line % 0
                    assert not process.exited
                assert 0 < dog.longest < LONGEST
            io.close_stdin()
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
                assert (await io.drain()).complete
        assert stuck.read_bytes() == b"".join(line % number for number in range(5001))


async def test_watchdog_notices() -> None:
    """The watchdog of these scenes sees a turn that is long."""
    with watchdog() as dog:
        await until(lambda: dog.answers)
        time.sleep(0.5)
        await until(lambda: dog.longest > 0.3)


@pytest.mark.root
async def test_immutable_file_ends_its_own_stream_only(tmp_path: Path) -> None:
    """EPERM ends the stream, its writer gets SIGPIPE, and the other file goes on."""
    with ext4(tmp_path / "disk") as disk:
        out, err = disk / "out.log", disk / "err.log"
        async with FileIO(out, err, stdin=True) as io:
            assert io.stdin is not None
            script = "while read x; do (echo $x); echo $x >&2; done"
            process = await io.spawn(["sh", "-c", script])
            await io.stdin.send(b"0\n")
            await until(lambda: out.read_bytes() == b"0\n")
            subprocess.run(["chattr", "+i", str(out)], check=True)
            try:
                for number in range(1, 100):
                    await io.stdin.send(b"%d\n" % number)
                io.close_stdin()
                with anyio.fail_after(GUARD):
                    assert await process.wait() == 0
                    with pytest.raises(StreamFailedError) as caught:
                        await io.drain()
            finally:
                subprocess.run(["chattr", "-i", str(out)], check=True)
            stats = io.stats
        assert caught.value.stream == "stdout"
        assert isinstance(caught.value.__cause__, PermissionError)
        assert out.read_bytes() == b"0\n"
        assert err.read_bytes() == b"".join(b"%d\n" % number for number in range(100))
        assert stats.stdout is not None
        assert stats.stdout.bytes_in == stats.stdout.bytes_out + stats.stdout.dropped
        assert stats.stdout.dropped > 0


async def listen(io: FileIO, events: list[IOEvent]) -> None:
    """Collect what it says."""
    async for event in io.events():
        events.append(event)


@pytest.mark.root
async def test_room_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up three times holds whole lines, and at most one cut by each end.

    No line is glued to a half one, every lost byte is counted and said, and none twice.
    """
    monkeypatch.setattr("pyshimio._file.RETRY", 0.05)
    monkeypatch.setattr("pyshimio._filepump.RETRY", 0.05)
    events: list[IOEvent] = []
    sent = bytearray()
    with tmpfs(tmp_path / "small", "256k") as disk:
        path, filler = disk / "app.log", disk / "filler"
        async with FileIO(path, stdin=True) as io, anyio.create_task_group() as group:
            group.start_soon(listen, io, events)
            await anyio.lowlevel.checkpoint()
            assert io.stdin is not None
            process = await io.spawn(["cat"])

            async def send(count: int) -> None:
                assert io.stdin is not None
                # Of odd length, so that no page ends with a line.
                first = len(sent) // 11
                block = b"".join(b"%010d\n" % n for n in range(first, first + count))
                sent.extend(block)
                await io.stdin.send(block)

            for _ in range(3):
                fill(filler)
                failures = told(events, SinkFailed)
                while told(events, SinkFailed) == failures:
                    await send(200)
                    await anyio.sleep(0.005)
                os.truncate(filler, 0)
                recoveries = told(events, SinkRecovered)
                while told(events, SinkRecovered) == recoveries:
                    await send(1)
                    await anyio.sleep(0.005)
            await send(1)
            io.close_stdin()
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
                result = await io.drain()
            group.cancel_scope.cancel()
        text = path.read_bytes()
    assert result.stdout is not None
    dropped = result.stdout.dropped
    assert dropped > 0
    assert result.stdout.moved + dropped == len(sent)
    assert sum(event.dropped for event in events if isinstance(event, SinkRecovered)) == dropped
    assert told(events, SinkFailed) == told(events, SinkRecovered) == 3
    lines = text.split(b"\n")
    assert lines.pop() == b""
    whole = [line for line in lines if len(line) == 10]
    cut = [line for line in lines if len(line) != 10]
    assert [int(line) for line in whole] == sorted({int(line) for line in whole})
    assert all(len(line) < 10 for line in cut), f"glued: {cut}"
    assert len(cut) <= 3
    # The newline that keeps a half line from the next one is ours, and counts nowhere.
    assert result.stdout.moved == len(text) - len(cut)
    assert int(lines[-1]) == len(sent) // 11 - 1


def told(events: list[IOEvent], kind: type[IOEvent]) -> int:
    """How many events of that kind there were."""
    return sum(isinstance(event, kind) for event in events)


def fill(path: Path) -> None:
    """Take all the room that a file system has."""
    with path.open("ab", 0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


async def test_dev_full_beside_a_file(tmp_path: Path) -> None:
    """A device that is full for ever drops its own stream, counted and said, and no other."""
    err = tmp_path / "err.log"
    events: list[IOEvent] = []
    async with FileIO("/dev/full", err) as io, anyio.create_task_group() as group:
        group.start_soon(listen, io, events)
        await anyio.lowlevel.checkpoint()
        process = await io.spawn(["sh", "-c", "seq 100000; seq 100000 >&2"])
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
            result = await io.drain()
        await until(lambda: told(events, SinkFailed))
        group.cancel_scope.cancel()
    wanted = b"".join(b"%d\n" % number for number in range(1, 100_001))
    assert err.read_bytes() == wanted
    assert result.stdout is not None
    assert result.stderr is not None
    assert (result.stdout.moved, result.stdout.dropped) == (0, len(wanted))
    assert (result.stderr.moved, result.stderr.dropped) == (len(wanted), 0)
    assert not result.complete
