"""A process's FIFOs as streams of the caller's."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import Stdio, _sys, create_io
from pyshimio.client import Direct, FifoSet, direct
from pyshimio.errors import FifoNotFoundError, IOStateError
from pyshimio.testing.faults import cancel_everywhere, every_failure
from support.children import GUARD, cancelled, until
from support.fifos import Shim

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from anyio.abc import ByteReceiveStream

    from support.children import CancelKind


@pytest.fixture
def fifos(tmp_path: Path) -> FifoSet:
    """The FIFOs of a process without a terminal."""
    return FifoSet.create("c1", directory=tmp_path / "fifos")


async def read_all(stream: ByteReceiveStream | None) -> bytes:
    """Everything up to the end."""
    assert stream is not None
    with anyio.fail_after(GUARD):
        return b"".join([chunk async for chunk in stream])


async def test_a_process_through_its_streams(fifos: FifoSet) -> None:
    """What is sent comes to the child, and both of its outputs come back to their ends."""
    data = b"%0100000d\n" % 7
    async with await create_io(fifos.stdio) as io, direct(fifos) as streams:
        assert streams.stdin is not None
        await io.spawn(["sh", "-c", "tee /dev/stderr"])
        got: dict[str, bytes] = {}

        async def read(name: str, stream: ByteReceiveStream | None) -> None:
            got[name] = await read_all(stream)

        async with anyio.create_task_group() as group:
            group.start_soon(read, "stdout", streams.stdout)
            group.start_soon(read, "stderr", streams.stderr)
            await streams.stdin.send(data)
            await streams.stdin.aclose()
            io.close_stdin()
            await io.drain()
    assert got == {"stdout": data, "stderr": data}


async def test_streams_that_there_are(tmp_path: Path) -> None:
    """There is a stream for each FIFO, from the start of the block on, and for nothing else."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    streams = direct(Stdio(stdout=fifo, stderr="file:///tmp/x"))
    assert repr(streams) == "<Direct new>"
    async with streams:
        assert (streams.stdin, streams.stderr) == (None, None)
        assert streams.stdout is not None
        assert repr(streams) == "<Direct open stdout=open>"
    assert repr(streams) == "<Direct closed stdout=closed>"
    for stdio in (Stdio(), Stdio(stderr=fifo, terminal=True)):
        async with direct(stdio) as streams:
            assert (streams.stdin, streams.stdout, streams.stderr) == (None, None, None)


async def test_reading_before_there_is_a_writer(fifos: FifoSet) -> None:
    """It waits for the first writer, and for the next word of a silent one; no one is no end."""
    got: list[bytes] = []

    async def read(streams: Direct) -> None:
        got.append(await read_all(streams.stdout))

    async with direct(fifos) as streams, anyio.create_task_group() as group:
        group.start_soon(read, streams)
        await anyio.wait_all_tasks_blocked()
        with Shim(fifos.stdio.stdout) as shim:
            await anyio.wait_all_tasks_blocked()
            shim.put(b"first")
            await anyio.wait_all_tasks_blocked()
            shim.put(b" last")
            assert got == []
    assert got == [b"first last"]


async def test_a_writer_between_two_looks(fifos: FifoSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes, writes and goes just after nobody was seen is not taken for an end."""
    poll_now = _sys.poll_now

    def come_and_go(fd: int, mask: int = 0) -> int:
        monkeypatch.setattr(_sys, "poll_now", poll_now)
        events = poll_now(fd, mask)
        with open(fifos.stdio.stdout, "wb") as writer:
            writer.write(b"data")
        return events

    async with direct(fifos) as streams:
        monkeypatch.setattr(_sys, "poll_now", come_and_go)
        assert await read_all(streams.stdout) == b"data"


async def test_sending_waits_for_a_reader(fifos: FifoSet) -> None:
    """The first send opens the FIFO, when the shim reads it."""
    async with direct(fifos) as streams, anyio.create_task_group() as group:
        assert streams.stdin is not None
        assert "stdin=waiting" in repr(streams)
        group.start_soon(streams.stdin.send, b"typed")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await streams.stdin.send(b"between")
        reader = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
        await until(lambda: _sys.unread(reader) == 5)
        assert "stdin=open" in repr(streams)
        os.close(reader)
        with pytest.raises(anyio.BrokenResourceError):
            await streams.stdin.send(b"nobody reads any more")


def _end_by_cancel(streams: Direct) -> None:
    streams.cancel()


def _end_by_close(streams: Direct) -> None:
    streams.close()


@pytest.mark.parametrize("end", [_end_by_cancel, _end_by_close])
async def test_who_waits_for_the_other_side(fifos: FifoSet, end: Callable[[Direct], None]) -> None:
    """Cancel() and close() wake whoever waits for a FIFO to be opened, and refuse the next."""
    failed: list[Exception] = []

    async def use(name: str, streams: Direct) -> None:
        try:
            if name == "stdin":
                assert streams.stdin is not None
                await streams.stdin.send(b"x")
            else:
                await read_all(getattr(streams, name))
        except Exception as error:
            failed.append(error)

    async with direct(fifos) as streams:
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for name in ("stdin", "stdout", "stderr"):
                    group.start_soon(use, name, streams)
                await anyio.wait_all_tasks_blocked()
                end(streams)
    assert [type(error) for error in failed] == [anyio.ClosedResourceError] * 6


async def test_cancel_leaves_alone_what_is_connected(fifos: FifoSet) -> None:
    """A silent writer, a reader and what is in a FIFO are there, so their streams go on."""
    got: list[bytes] = []

    async def read(stream: ByteReceiveStream | None) -> None:
        got.append(await read_all(stream))

    process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
    async with direct(fifos) as streams, anyio.create_task_group() as group:
        assert streams.stdin is not None
        await streams.stdin.send(b"a")
        with Shim(fifos.stdio.stdout) as out, Shim(fifos.stdio.stderr) as err:
            group.start_soon(read, streams.stdout)
            await anyio.wait_all_tasks_blocked()
            err.put(b"there")
            streams.cancel()
            streams.cancel()
            await anyio.wait_all_tasks_blocked()
            out.put(b"later")
            await streams.stdin.send(b"b")
        await read(streams.stderr)
        assert os.read(process_stdin, 10) == b"ab"
        os.close(process_stdin)
    assert sorted(got) == [b"later", b"there"]


@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_a_cancelled_task(fifos: FifoSet, kind: CancelKind) -> None:
    """A send and a receive that are cancelled while they wait can be done again."""
    async with direct(fifos) as streams:
        stdin, stdout = streams.stdin, streams.stdout
        assert stdin is not None
        assert stdout is not None
        await cancelled(kind, lambda: stdin.send(b"never"))
        await cancelled(kind, stdout.receive)
        reader = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
        await stdin.send(b"once")
        assert os.read(reader, 100) == b"once"
        os.close(reader)
        with Shim(fifos.stdio.stdout) as shim:
            shim.put(b"word")
            assert await stdout.receive(2) == b"wo"
        assert await read_all(stdout) == b"rd"


async def test_what_is_not_read_stays(fifos: FifoSet) -> None:
    """Closing takes nothing out of a FIFO."""
    with Shim(fifos.stdio.stdout) as shim:
        async with direct(fifos) as streams:
            shim.put(b"for the next one")
            await streams.aclose()
            await streams.aclose()
        assert shim.rest() == b"for the next one"


async def test_the_order_of_steps(fifos: FifoSet) -> None:
    """It is used once, and a FIFO that is missing is named with nothing left open."""
    streams = direct(fifos)
    async with streams:
        pass
    with pytest.raises(IOStateError):
        await streams.__aenter__()
    os.unlink(fifos.stdio.stderr)
    with pytest.raises(FifoNotFoundError) as caught:
        await direct(fifos).__aenter__()
    assert caught.value.path == fifos.stdio.stderr


# -- at great length -------------------------------------------------------------------------


@pytest.mark.thorough
async def test_every_failure(fifos: FifoSet) -> None:
    """Whatever the kernel refuses is raised, and nothing stays open."""

    async def streams_of_a_process() -> None:
        process_stdin = os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK)
        try:
            with Shim(fifos.stdio.stdout) as shim:
                async with direct(fifos) as streams:
                    assert streams.stdin is not None
                    await streams.stdin.send(b"typed")
                    assert os.read(process_stdin, 10) == b"typed"
                    shim.put(b"shown")
                    shim.end()
                    assert await read_all(streams.stdout) == b"shown"
        finally:
            os.close(process_stdin)

    report = await every_failure(streams_of_a_process, name="direct")
    assert report.calls >= 19, str(report)


@pytest.mark.thorough
async def test_cancelled_anywhere(fifos: FifoSet) -> None:
    """A send and a receive that are cancelled before, and after, the shim comes lose nothing."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[list[bytes]]:
        got: list[bytes] = []
        opened: list[int] = []
        shims: list[Shim] = []
        async with anyio.create_task_group() as group:

            async def come() -> None:
                await anyio.sleep(0.005)
                opened.append(os.open(fifos.stdio.stdin, os.O_RDONLY | os.O_NONBLOCK))
                opened.append(os.open(fifos.stdio.stdin, os.O_WRONLY))
                shims.append(Shim(fifos.stdio.stdout))
                shims[0].put(b"shown")

            group.start_soon(come)
            yield got
        assert _sys.unread(opened[0]) in {0, 5}
        assert got == ([] if shims[0].rest() else [b"shown"])
        shims[0].end()
        for fd in opened:
            os.close(fd)

    async def streams_of_a_process(got: list[bytes]) -> None:
        async with direct(fifos) as streams:
            assert streams.stdin is not None
            assert streams.stdout is not None
            await streams.stdin.send(b"typed")
            got.append(await streams.stdout.receive())

    report = await cancel_everywhere(streams_of_a_process, name="direct", around=around)
    assert report.suspensions >= 4, str(report)
