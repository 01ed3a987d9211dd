"""Loggers that are killed, stall, hang, or come back broken, as often as they are started."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import BinaryIO, LoggerExited, LoggerRespawned
from pyshimio.errors import LoggerTimeoutError, StreamFailedError
from pyshimio.testing import FakeLogger
from support.children import GUARD, exists, until
from support.loggers import python_logger, shell_logger, uri_of

if TYPE_CHECKING:
    from pathlib import Path

    from pyshimio import DrainResult, IOEvent

READ = 65536
"""What a logger of these scenes reads at once."""
KILLS = 4
BLOCK = 200_000


async def start(uri: str, **options: Any) -> BinaryIO:
    """A BinaryIO with the names that every test gives."""
    with anyio.fail_after(GUARD):
        return await BinaryIO.start(uri, id="c1", namespace="ns1", **options)


def numbered(first: int, count: int) -> bytes:
    """Lines of eight bytes, *count* bytes of them."""
    return b"".join(b"%07d\n" % number for number in range(first, first + count // 8))


def gaps(output: bytes, found: list[bytes]) -> list[int]:
    """How far each part is from the one before; none may repeat a byte or leave out a piece."""
    result, end = [], 0
    for part in found:
        gap = 0
        while not output.startswith(part, end + gap):
            gap += 1
            assert end + gap <= len(output), f"what a logger read behind {end} is not the output"
        result.append(gap)
        end += gap + len(part)
    result.append(len(output) - end)
    return result


def _has_started(logger: FakeLogger, times: int) -> bool:
    return logger.starts == times


def _holds(path: Path, data: bytes) -> bool:
    return path.exists() and path.read_bytes() == data


@pytest.mark.parametrize("handover", [False, True])
async def test_killed_in_mid_stream_with_respawn(tmp_path: Path, handover: bool) -> None:
    """SIGKILL at any moment costs at most what the logger had read and not yet written.

    The files of all loggers, put together, are the output: nothing twice, and at each death
    at most one read's worth missing.
    """
    logger = FakeLogger.make(tmp_path / "logger")
    output = numbered(0, BLOCK * (KILLS + 1))
    async with await start(logger.uri(), on_death="respawn", stdin=True, handover=handover) as io:
        assert io.stdin is not None
        process = await io.spawn(["cat"])
        for number in range(KILLS):
            await io.stdin.send(output[number * BLOCK : (number + 1) * BLOCK])
            # It has begun to read, and there is more than it can have read.
            await until(lambda: logger.parts[-1:] not in ([], [b""]))
            victim = io.logger_pid
            os.kill(victim, signal.SIGKILL)
            await until(partial(_has_started, logger, number + 2))
        await io.stdin.send(output[KILLS * BLOCK :])
        io.close_stdin()
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
            result = await io.drain()
        assert result.logger_status == 0
        assert result.complete
    found = logger.parts
    assert len(found) == KILLS + 1
    missing = gaps(output, found)
    assert missing[0] == missing[-1] == 0
    assert all(0 <= gap <= READ for gap in missing), missing


async def test_killed_in_mid_stream_with_drain(tmp_path: Path) -> None:
    """The child runs to its end; what the logger got and what counts as dropped is the output."""
    logger = FakeLogger.make(tmp_path / "logger")
    output = numbered(0, 2 * BLOCK)
    async with await start(logger.uri(), on_death="drain", stdin=True) as io:
        assert io.stdin is not None
        process = await io.spawn(["cat"])
        await io.stdin.send(output[:BLOCK])
        await until(lambda: any(logger.parts))
        os.kill(io.logger_pid, signal.SIGKILL)
        await io.stdin.send(output[BLOCK:])
        io.close_stdin()
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
            result = await io.drain()
        stats = io.stats.stdout
    assert stats is not None
    assert result.stdout is not None
    assert result.logger_status == 128 + signal.SIGKILL
    assert not result.complete
    (taken,) = logger.parts
    assert output.startswith(taken)
    assert stats.bytes_in == stats.bytes_out + stats.dropped == len(output)
    # What a killed logger had read and not written only it could know.
    assert 0 <= stats.bytes_out - len(taken) <= READ
    assert stats.dropped > 0


async def test_killed_in_mid_stream_with_epipe(tmp_path: Path) -> None:
    """The child gets SIGPIPE at once, and drain() raises; what was written is a beginning."""
    logger = FakeLogger.make(tmp_path / "logger")
    async with await start(logger.uri()) as io:
        process = await io.spawn(["seq", "-f", "%07.0f", "0", "9999999"])
        await until(lambda: any(logger.parts))
        os.kill(io.logger_pid, signal.SIGKILL)
        with anyio.fail_after(GUARD):
            assert await process.wait() == 128 + signal.SIGPIPE
            with pytest.raises(StreamFailedError):
                await io.drain()
        stats = io.stats.stdout
    assert stats is not None
    (taken,) = logger.parts
    assert numbered(0, len(taken) + 8).startswith(taken)
    assert stats.bytes_in == stats.bytes_out + stats.dropped


@pytest.mark.parametrize("policy", ["respawn", "drain"])
async def test_killed_while_a_background_child_holds_its_pipe(tmp_path: Path, policy: str) -> None:
    """A logger that dies after the child's exit is missed as long as anybody can still write."""
    logger = FakeLogger.make(tmp_path / "logger")
    late = tmp_path / "late"
    script = (
        f"(while ! [ -e {late} ]; do sleep 0.01; done; echo late; echo $? >{late}) & echo early"
    )
    async with await start(logger.uri(), on_death=policy, handover=True) as io:
        process = await io.spawn(["sh", "-c", script])
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
        results: list[DrainResult] = []

        async def drain() -> None:
            results.append(await io.drain(linger=GUARD, sink_timeout=GUARD))

        async with anyio.create_task_group() as group:
            group.start_soon(drain)
            await until(lambda: logger.stdout)
            await anyio.wait_all_tasks_blocked()  # the drain has nothing more to wait for
            os.kill(io.logger_pid, signal.SIGKILL)
            if policy == "respawn":
                await until(lambda: logger.starts == 2)
            else:
                await until(lambda: io.stats.stdout is not None)
            late.touch()
    (result,) = results
    if policy == "respawn":
        assert logger.parts == [b"early\n", b"late\n"]
        assert result.complete
    else:
        assert logger.parts == [b"early\n"]
        assert result.stdout is not None
        assert (result.stdout.moved, result.stdout.dropped) == (0, 5)
    assert late.read_bytes() == b"0\n"


STALLED = """
import os, signal, sys
os.write(5, b"r")
os.close(5)
with open(sys.argv[2], "ab", 0) as file:
    while data := os.read(4, 65536):
        file.write(data)
    file.write(b"end\\n")
signal.pause()
"""
"""Reads stderr alone, and does not end."""
MUCH = 8 << 20
"""More than all pipes and pumps on the way can hold."""


@pytest.mark.parametrize("handover", [False, True])
async def test_one_that_reads_one_stream_only(tmp_path: Path, handover: bool) -> None:
    """A logger that does not read stdout holds up who writes it, but neither stderr nor the end.

    drain() and aclose() come back in the time that they were given; every byte is accounted for.
    """
    err = tmp_path / "err"
    uri = uri_of(python_logger(tmp_path, STALLED), ("err", str(err)))
    script = (
        f"head -c {MUCH} /dev/zero & writer=$!; while read x; do echo $x >&2; done;"
        f" exec 2>/dev/null; kill $writer; wait $writer; echo $? > {tmp_path}/status"
    )
    async with await start(uri, handover=handover, stdin=True, logger_grace=0.2) as io:
        pid = io.logger_pid
        process = await io.spawn(["sh", "-c", script])
        assert io.stdin is not None
        expected = b""
        for number in range(50):
            line = b"%d\n" % number
            expected += line
            await io.stdin.send(line)
            await until(partial(_holds, err, expected))
        io.close_stdin()
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
            result = await io.drain(linger=0.1, sink_timeout=0.2)
        assert not result.complete
        assert result.logger_ended is False
        stats = io.stats.stdout
        if not handover:
            assert stats is not None
            assert 0 < stats.bytes_in == stats.bytes_out + stats.dropped < MUCH
        await until(partial(_holds, err, expected + b"end\n"))
        with anyio.fail_after(GUARD):
            await io.aclose()
    assert not exists(pid)
    assert (tmp_path / "status").read_text() == "143\n", "the writer was not held up"
    assert err.read_bytes() == expected + b"end\n"


async def test_child_is_not_held_up_after_the_logger_was_killed(tmp_path: Path) -> None:
    """With "drain" a stalled logger stops the child until it dies, and then no more."""
    path = shell_logger(tmp_path, "echo >&5; exec sleep 1000")
    output = numbered(0, 1_000_000)
    source = tmp_path / "lines"
    source.write_bytes(output)
    async with await start(uri_of(path), on_death="drain") as io:
        process = await io.spawn(["cat", str(source)])
        await until(lambda: (s := io.stats.stdout) is not None and s.bytes_in > 0)
        assert not process.exited
        os.kill(io.logger_pid, signal.SIGKILL)
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
            result = await io.drain()
    assert result.stdout is not None
    assert (result.stdout.moved, result.stdout.dropped) == (0, len(output))


async def test_helper_with_descriptor_5_does_not_delay_readiness(tmp_path: Path) -> None:
    """A helper that keeps descriptor 5 open for ever is nobody's business once there is a byte."""
    script = f"sleep 1000 3<&- 4<&- & echo $! > {tmp_path}/helper; echo >&5"
    path = shell_logger(tmp_path, f"{script}; cat <&3 > {tmp_path}/out; cat <&4")
    try:
        async with await start(uri_of(path), ready_timeout=GUARD) as io:
            process = await io.spawn(["echo", "out"])
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
                result = await io.drain()
            assert result.complete
            assert result.logger_status == 0
        assert (tmp_path / "out").read_bytes() == b"out\n"
    finally:
        os.kill(int((tmp_path / "helper").read_text()), signal.SIGKILL)


async def test_never_ready_and_deaf_to_sigterm(tmp_path: Path) -> None:
    """A logger that is not ready in time is killed at once, whatever it ignores, and reaped."""
    pid = tmp_path / "pid"
    path = shell_logger(tmp_path, f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.05; done")
    with pytest.raises(LoggerTimeoutError), anyio.fail_after(GUARD):
        await start(uri_of(path), ready_timeout=1.5, logger_grace=3600.0)
    assert not exists(int(pid.read_text()))


@pytest.mark.parametrize("handover", [False, True])
async def test_one_that_keeps_crashing(tmp_path: Path, handover: bool) -> None:
    """It is started once and max_restarts times again, not once more; then all is dropped."""
    path = shell_logger(tmp_path, f"echo $$ >> {tmp_path}/starts; echo >&5; exit 6")
    output = numbered(0, 400_000)
    source = tmp_path / "lines"
    source.write_bytes(output)
    events: list[IOEvent] = []
    async with await start(
        uri_of(path), on_death="respawn", max_restarts=3, handover=handover
    ) as io:

        async def listen() -> None:
            async for event in io.events():
                events.append(event)

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            process = await io.spawn(["cat", str(source)])
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
                result = await io.drain()
            group.cancel_scope.cancel()
    pids = (tmp_path / "starts").read_text().split()
    assert len(pids) == 4
    assert not any(exists(int(pid)) for pid in pids)
    assert [event.restarts for event in events if isinstance(event, LoggerRespawned)] == [1, 2, 3]
    exits = [event for event in events if isinstance(event, LoggerExited)]
    assert [str(event.pid) for event in exits][-3:] == pids[-3:]
    assert {event.status for event in exits} == {6}
    assert result.stdout is not None
    assert (result.stdout.moved, result.stdout.dropped) == (0, len(output))
    assert (result.complete, result.logger_status) == (False, 6)
