"""Endless writers: beside a stream that matters, and behind a process that has exited."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

from pyshimio import Command, FileIO, PipeIO, Stdio, create_io
from pyshimio._poller import Poller
from pyshimio.testing import FakeClient
from support.children import GUARD, until
from support.fifos import make_fifo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pyshimio._pump import Pump
    from pyshimio.io._base import BaseIO

FLOODS = 8
ECHOES = 20
Policy = Literal["eof", "exited", "keep"]
EARLY = b"".join(b"%d\n" % number for number in range(1, 10001))
"""What the child writes before it leaves somebody behind."""
POLICIES = pytest.mark.parametrize("policy", ["eof", "exited", "keep"])
KINDS = pytest.mark.parametrize("kind", ["file", "fifo", "null"])


class Turns:
    """Counts the turns that others get while bytes of one IO wait to be moved."""

    def __init__(self) -> None:
        self.pumps: list[Pump] = []
        self.others = 0
        self.total = 0
        self.most = 0
        self._moved = 0

    def begins(self) -> None:
        """A turn begins: somebody else's, if the bytes that wait did so at the last one."""
        self.total += 1
        moved = sum(pump.counters.bytes_in for pump in self.pumps)
        waiting = any(pump.source.waiting() for pump in self.pumps)
        self.others = self.others + 1 if waiting and moved == self._moved else 0
        self._moved = moved
        self.most = max(self.most, self.others)


@contextmanager
def counted_turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    """Count what runs through the pollers of this process."""
    turns = Turns()

    def counted(turn: Callable[[], None]) -> Callable[[], None]:
        def count_and_run() -> None:
            turns.begins()
            turn()

        return count_and_run

    soon, post = Poller.soon, Poller.post
    with monkeypatch.context() as patch:
        patch.setattr(Poller, "soon", lambda self, turn: soon(self, counted(turn)))
        patch.setattr(Poller, "post", lambda self, turn: post(self, counted(turn)))
        yield turns


async def flood(kind: str, directory: Path, stack: AsyncExitStack) -> None:
    """One ``yes``, on its way to a file, a FIFO that is read, or /dev/null."""
    if kind == "fifo":
        path = make_fifo(directory)
        reader = await stack.enter_async_context(PipeIO(stdin=False, stdout=False, stderr=False))
        await reader.spawn(["sh", "-c", f"exec cat {path} > /dev/null"])
        stdout = path
    else:
        path = str(directory / "log")
        stdout = "file:///dev/null" if kind == "null" else f"file://{path}"
    io = await stack.enter_async_context(await create_io(Stdio(stdout=stdout)))
    await io.spawn(["yes"])
    # Killed at once: what is still on its way is nobody's.
    stack.push_async_callback(io.discard)
    with anyio.fail_after(GUARD):
        while (stats := io.stats.stdout) is None or not stats.bytes_out:
            await anyio.sleep(0.001)


@KINDS
async def test_echo_beside_eight_floods_gets_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """However much eight ``yes`` write, an echo waits for three turns of each at the most."""
    out, stdin = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "in")
    async with AsyncExitStack() as stack:
        turns = stack.enter_context(counted_turns(monkeypatch))
        for number in range(FLOODS):
            directory = tmp_path / str(number)
            directory.mkdir()
            await flood(kind, directory, stack)
        client = stack.enter_context(FakeClient(out))
        io = await stack.enter_async_context(await create_io(Stdio(stdin=stdin, stdout=out)))
        await io.spawn(["cat"])
        writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
        stack.callback(os.close, writer)
        turns.pumps = list(io._pumps.values())
        stack.callback(turns.pumps.clear)
        turns.total = 0
        for number in range(ECHOES):
            text = b"echo %d\n" % number
            os.write(writer, text)
            assert await client.read(len(text)) == text
            for log in tmp_path.glob("*/log"):
                os.truncate(log, 0)
        assert turns.total > ECHOES, "the floods did not run"
        assert turns.most <= 3 * FLOODS


# -- behind the exit ----------------------------------------------------------------------


def numbers(count: int) -> bytes:
    """The first *count* bytes of what ``seq inf`` writes."""
    return subprocess.run(
        ["sh", "-c", f"seq inf 2>/dev/null | head -c {count}"], check=True, stdout=subprocess.PIPE
    ).stdout


async def background(directory: Path, kind: str, program: str) -> tuple[BaseIO, FakeClient | None]:
    """A shell that leaves *program* behind in the background, and has exited by now."""
    client = None
    io: BaseIO
    if kind == "fifo":
        path = make_fifo(directory)
        client = FakeClient(path).attach()
        io = await create_io(Stdio(stdout=path))
    else:
        io = FileIO(directory / "log")
    process = await io.spawn(["sh", "-c", f"seq 10000; {program} & echo $! > {directory}/pid"])
    with anyio.fail_after(GUARD):
        assert await process.wait() == 0
    return io, client


def holder_lives(directory: Path) -> bool:
    """Whether the background process is still there (a zombie is not)."""
    try:
        with open(f"/proc/{(directory / 'pid').read_text().strip()}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@POLICIES
@pytest.mark.parametrize("kind", ["file", "fifo"])
async def test_background_flood_ends_as_the_policy_says(
    tmp_path: Path, kind: str, policy: Policy
) -> None:
    """A grandchild that writes for ever ends no drain late; what arrives is its first bytes, all.

    ``exited`` and ``eof`` end the stream, and the writer gets EPIPE; with ``keep`` it goes on
    until the IO is closed.
    """
    io, client = await background(tmp_path, kind, "seq 10001 inf 2>/dev/null")
    got = bytearray()

    async def read(reader: FakeClient) -> None:
        got.extend(await reader.read_all())

    async with anyio.create_task_group() as group:
        if client is not None:
            group.start_soon(read, client)
        with anyio.fail_after(GUARD):
            result = await io.drain(policy=policy, linger=0.1, sink_timeout=GUARD)
            assert result.stdout is not None
            assert result.complete
            assert result.holders_left
            if policy == "keep":
                assert holder_lives(tmp_path)
                stats = io.stats.stdout
                assert stats is not None
                while io.stats.stdout.bytes_out <= stats.bytes_out:  # type: ignore[union-attr]
                    await anyio.sleep(0.001)
            else:
                await until(lambda: not holder_lives(tmp_path))
            await io.aclose()
            await until(lambda: not holder_lives(tmp_path))
    stats = io.stats.stdout
    assert stats is not None
    assert stats.bytes_in == stats.bytes_out + stats.dropped
    data = (tmp_path / "log").read_bytes() if client is None else bytes(got)
    if client is not None:
        client.detach()
    assert len(data) == stats.bytes_out
    assert data == numbers(len(data))
    assert result.stdout is not None
    if policy != "keep":
        assert (result.stdout.moved, result.stdout.dropped) == (len(data), 0)
    assert len(data) >= len(EARLY)


@POLICIES
@pytest.mark.parametrize("kind", ["file", "fifo"])
async def test_background_holder_ends_as_the_policy_says(
    tmp_path: Path, kind: str, policy: Policy
) -> None:
    """A grandchild that holds the pipe in silence costs ``eof`` its linger and the others nothing.

    What it writes later arrives with ``keep``, and is refused with EPIPE after the others.
    """
    go = make_fifo(tmp_path, "go")
    later = f"(read x < {go}; trap '' PIPE; echo late || echo broken > {tmp_path}/broken)"
    io, client = await background(tmp_path, kind, f"{later} 2>/dev/null")
    long = 3600.0
    with anyio.fail_after(GUARD):
        result = await io.drain(
            policy=policy, linger=0.1 if policy == "eof" else long, sink_timeout=long
        )
    assert result.stdout is not None
    assert (result.complete, result.holders_left) == (True, True)
    assert (result.stdout.moved, result.stdout.dropped) == (len(EARLY), 0)
    with anyio.fail_after(GUARD):
        writer = await anyio.to_thread.run_sync(os.open, go, os.O_WRONLY)
        os.write(writer, b"go\n")
        os.close(writer)
        await until(lambda: not holder_lives(tmp_path))
    assert (tmp_path / "broken").exists() is (policy != "keep")
    expected = EARLY + b"late\n" if policy == "keep" else EARLY
    if client is None:
        await io.aclose()
        data = (tmp_path / "log").read_bytes()
    else:
        data = await client.read(len(expected))
        await io.aclose()
        assert await client.read_all() == b""
        client.detach()
    assert data == expected


async def test_background_process_outlives_the_block(tmp_path: Path) -> None:
    """Leaving the block ends the child, not what that left in the background, nor waits for it."""
    program = f"trap '' TERM; sleep 100 & echo $! > {tmp_path}/pid; echo hello; exit 0"
    log = tmp_path / "log"
    with anyio.fail_after(GUARD):
        async with FileIO(log) as io:
            await (await io.spawn(Command(["sh", "-c", program]))).wait()
    assert log.read_bytes() == b"hello\n"
    assert holder_lives(tmp_path)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
