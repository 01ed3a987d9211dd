"""Children that close, leave or ignore their streams, and others that wait for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import Command, FileIO, PipeIO, SinkFailed, Stdio, create_io
from pyshimio.errors import ChildReapedElsewhereError
from pyshimio.testing import FakeClient
from support.children import GUARD, exists, until
from support.fifos import make_fifo

if TYPE_CHECKING:
    from pathlib import Path

KINDS = pytest.mark.parametrize("kind", ["file", "fifo"])
PIPE = 65536


async def test_stdout_closed_early(tmp_path: Path) -> None:
    """A child that closes stdout and goes on ends that stream alone, there and then."""
    out, err, go = (make_fifo(tmp_path, name) for name in ("out", "err", "go"))
    program = f"echo out; exec >&-; read x < {go}; echo err >&2; exit 3"
    with FakeClient(out) as stdout, FakeClient(err) as stderr:
        async with await create_io(Stdio(stdout=out, stderr=err)) as io:
            process = await io.spawn(["sh", "-c", program])
            assert await stdout.read_all() == b"out\n"
            assert not process.exited
            assert repr(io) == "<PipeIO copying stdin=none stdout=ended stderr=copying>"
            with anyio.fail_after(GUARD):
                writer = await anyio.to_thread.run_sync(os.open, go, os.O_WRONLY)
                os.write(writer, b"go\n")
                os.close(writer)
                result = await io.drain()
                assert await process.wait() == 3
            assert (result.complete, result.holders_left) == (True, False)
            assert [stream.moved for stream in result.streams] == [4, 4]
            assert await stderr.read_all() == b"err\n"


@KINDS
@pytest.mark.parametrize("size", [0, 1, 4096, PIPE])
async def test_gone_before_copy(tmp_path: Path, kind: str, size: int) -> None:
    """A child that has exited before copy() loses none of what its pipe holds."""
    data = os.urandom(size)
    (tmp_path / "data").write_bytes(data)
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        stdout = path if kind == "fifo" else f"file://{tmp_path}/log"
        async with await create_io(Stdio(stdout=stdout)) as io:
            command = Command(["cat", str(tmp_path / "data")])
            io.set(command)
            async with await command.start() as process:
                io.close_after_start()
                with anyio.fail_after(GUARD):
                    assert await process.wait() == 0
                    await io.copy()
                    result = await io.drain(exited=process)
            assert result.complete
            assert result.stdout is not None
            assert (result.stdout.moved, result.stdout.holders_left) == (size, False)
            got = await client.read(size) if kind == "fifo" else (tmp_path / "log").read_bytes()
    assert got == data


async def test_gone_before_copy_with_stdin(tmp_path: Path) -> None:
    """The same with a stdin that its client still fills: the client gets EPIPE, nobody waits."""
    out, stdin = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "in")
    with FakeClient(out) as client:
        async with await create_io(Stdio(stdin=stdin, stdout=out)) as io:
            command = Command(["echo", "bye"])
            io.set(command)
            async with await command.start() as process:
                io.close_after_start()
                with anyio.fail_after(GUARD):
                    await process.wait()
                    await io.copy()
                    writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
                    with suppress(BrokenPipeError):
                        os.write(writer, b"too late\n")
                    result = await io.drain(exited=process)
            assert result.complete
            assert await client.read_all() == b"bye\n"
            with pytest.raises(BrokenPipeError):
                os.write(writer, b"x")
            os.close(writer)


@pytest.mark.parametrize("end", ["killed", "closes"])
async def test_stdin_that_nobody_reads(tmp_path: Path, end: str) -> None:
    """A child that dies, or closes stdin, with stdin full ends that stream, with every byte told.

    Its output is untouched, and the client that fills stdin gets EPIPE.
    """
    out, stdin, go = (make_fifo(tmp_path, name) for name in ("out", "in", "go"))
    program = f"echo begin; read x < {go}; exec <&-; echo end; exec sleep 100"
    with FakeClient(out) as client:
        async with await create_io(Stdio(stdin=stdin, stdout=out)) as io:
            events = io.events()
            process = await io.spawn(["sh", "-c", program])
            assert await client.read(6) == b"begin\n"
            writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
            sent = 0
            with anyio.fail_after(GUARD):
                while not ((stats := io.stats.stdin) and stats.blocked):
                    with suppress(BlockingIOError):
                        sent += os.write(writer, bytes(PIPE))
                    await anyio.sleep(0.001)
                if end == "killed":
                    process.kill()
                else:
                    door = await anyio.to_thread.run_sync(os.open, go, os.O_WRONLY)
                    os.write(door, b"go\n")
                    os.close(door)
                    assert await client.read(4) == b"end\n"
                event = await anext(aiter(events))
                assert isinstance(event, SinkFailed)
                assert event.stream == "stdin"
                assert isinstance(event.error, BrokenPipeError)
                process.kill()
                result = await io.drain()
            assert process.status == 128 + signal.SIGKILL
            assert result.complete
            stats = io.stats.stdin
            assert stats is not None
            assert stats.bytes_in == stats.bytes_out + stats.dropped <= sent
            assert stats.bytes_out >= PIPE
            with pytest.raises(BrokenPipeError):
                os.write(writer, b"x")
            os.close(writer)


# -- others who wait ----------------------------------------------------------------------


class Rival:
    """A thread that waits for every child of the process, as a careless library does."""

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self._over = False
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._over:
            with suppress(ChildProcessError):
                self.taken.add(os.waitpid(-1, os.WNOHANG)[0])

    def stop(self) -> None:
        """No more stealing."""
        self._over = True
        self._thread.join()


async def test_rival_that_waits_for_everybody(tmp_path: Path) -> None:
    """Beside ``waitpid(-1)`` each wait() has the right status or says who took it; no byte is lost.

    Neither drain() nor the end of a block hangs, and no signal goes to a stranger.
    """
    stolen = 0
    logs: dict[Path, bytes] = {}
    rival = Rival()

    async def one(number: int) -> None:
        nonlocal stolen
        log = tmp_path / str(number)
        try:
            async with FileIO(log) as io:
                process = await io.spawn(["sh", "-c", f"echo {number}; exit {number}"])
                logs[log] = b"%d\n" % number
                assert (await io.drain()).complete
                assert await process.wait() == number
        except ChildReapedElsewhereError as error:
            stolen += "waitpid(-1)" in str(error)

    try:
        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group:
                for number in range(40):
                    group.start_soon(one, number)
            async with PipeIO(grace=3600) as io:
                process = await io.spawn(["sleep", "100"])
            with suppress(ChildReapedElsewhereError):
                assert await process.wait() == 128 + signal.SIGTERM
            assert not exists(process.pid)
    finally:
        rival.stop()
    assert stolen, "the rival took nothing"
    for log, expected in logs.items():
        assert log.read_bytes() == expected


IGNORED = """
import signal, sys
import anyio
from pyshimio import Command, PipeIO
from pyshimio.errors import SigchldIgnoredError

async def main():
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    io = PipeIO(stdin=False)
    try:
        await io.spawn(["true"])
    except SigchldIgnoredError as error:
        assert "SIG_DFL" in str(error)
    else:
        sys.exit("started a child whose status nobody can have")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    async with PipeIO(stdin=False) as io:
        process = await io.spawn(["sh", "-c", "echo x; exit 3"])
        assert await io.stdout.receive() == b"x\\n"
        assert await process.wait() == 3
    print("done")

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_sigchld_ignored_by_who_started_us(backend: str) -> None:
    """SIGCHLD that was ignored before the program began is refused in words that help."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", IGNORED, backend], stdout=subprocess.PIPE, text=True
        )
        output, _ = child.communicate(timeout=GUARD)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert output == "done\n"


async def test_children_do_not_inherit_an_ignored_sigchld(tmp_path: Path) -> None:
    """While SIGCHLD is as it should be here, a child has it so as well."""
    async with FileIO(tmp_path / "log") as io:
        await io.spawn(["grep", "SigIgn", "/proc/self/status"])
        assert (await io.drain()).complete
    ignored = int((tmp_path / "log").read_text().split()[1], 16)
    assert not ignored & 1 << (signal.SIGCHLD - 1)


async def test_status_that_was_taken_holds_up_no_block() -> None:
    """An IO whose child was reaped by another part of the program closes at once."""
    async with PipeIO(grace=3600) as io:
        process = await io.spawn(["true"])
        await until(process.has_exited)
        with suppress(ChildProcessError):
            os.waitpid(process.pid, 0)
        with anyio.fail_after(GUARD):
            await io.aclose()
