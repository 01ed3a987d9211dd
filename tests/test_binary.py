"""Loggers: what they are started with, when they are ready, how they die and how they end."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import BinaryIO, LoggerExited, LoggerRespawned, Stdio, create_io
from pyshimio.errors import (
    InvalidOptionError,
    IOStateError,
    LoggerDiedError,
    LoggerError,
    LoggerExitedError,
    LoggerIsDirectoryError,
    LoggerNotExecutableError,
    LoggerNotFoundError,
    LoggerNotReadyError,
    LoggerTimeoutError,
    MissingNamespaceError,
    StreamFailedError,
    UnknownSchemeError,
)
from pyshimio.testing import FakeLogger
from pyshimio.testing.faults import fail_syscall
from support.children import cancelled, exists, until
from support.loggers import shell_logger, uri_of

if TYPE_CHECKING:
    from pathlib import Path

    from pyshimio import IOEvent, Process
    from support.children import CancelKind

GUARD = 20.0
LINES = b"".join(b"%07d\n" % n for n in range(40_000))  # 320,000 bytes


async def start(uri: str, **options: Any) -> BinaryIO:
    """A BinaryIO with the names that every test gives."""
    with anyio.fail_after(GUARD):
        return await BinaryIO.start(uri, id="c1", namespace="ns1", **options)


def collector(tmp_path: Path) -> FakeLogger:
    """A logger that keeps everything."""
    return FakeLogger.make(tmp_path / "collector")


def mortal(tmp_path: Path, life: int) -> FakeLogger:
    """A logger that kills itself after *life* bytes."""
    return FakeLogger.make(tmp_path / "mortal", dies_after=life)


async def status_of(process: Process) -> int:
    """The exit status, in a bounded time."""
    with anyio.fail_after(GUARD):
        return await process.wait()


# -- what it is started with ------------------------------------------------------------


async def test_descriptors_arguments_environment(tmp_path: Path) -> None:
    """Descriptors 0 to 5 and no other; argv in URI order; two variables; its own group."""
    strangers = [os.dup2(0, number, inheritable=True) for number in (3, 5, 64, 200) if free(number)]
    logger = collector(tmp_path)
    args = (("z", "1 2"), ("a", "b"), ("z", ""), ("flag", ""), ("", "x"))
    try:
        async with await start(logger.uri(args)) as io:
            pid = io.logger_pid
            theirs = {
                number: os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0]
                for number in range(5)
            }
    finally:
        for fd in strangers:
            os.close(fd)
    logger.check()
    assert theirs == {**dict.fromkeys((0, 1, 2), "/dev/null"), **dict.fromkeys((3, 4), "pipe")}
    assert logger.args == tuple(part for pair in args for part in pair)
    assert logger.env == {"CONTAINER_ID": "c1", "CONTAINER_NAMESPACE": "ns1"}
    assert logger.about["cwd"] == "/"
    assert logger.about["pid"] == pid == logger.about["group"]
    assert logger.about["session"] == os.getsid(0)


def free(number: int) -> bool:
    """Whether nothing has this descriptor."""
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


async def test_signals_are_at_their_defaults(tmp_path: Path) -> None:
    """SIGPIPE and SIGXFSZ, which Python ignores, are not ignored in the logger."""
    said = tmp_path / "said"
    script = f"grep SigIgn /proc/self/status > {said}; echo >&5; exec cat <&3 >/dev/null"
    async with await start(uri_of(shell_logger(tmp_path, script))):
        mask = int(said.read_text().split()[1], 16)
    assert not mask & (1 << signal.SIGPIPE - 1)
    assert not mask & (1 << signal.SIGXFSZ - 1)


async def test_more_environment_and_another_directory(tmp_path: Path) -> None:
    """env= adds names and cannot replace the two; cwd= is where it runs."""
    logger = collector(tmp_path)
    env = {"TOKEN": "secret", "CONTAINER_ID": "other"}
    async with await start(logger.uri(), env=env, cwd=str(tmp_path)):
        pass
    assert logger.env == {"CONTAINER_ID": "c1", "CONTAINER_NAMESPACE": "ns1", "TOKEN": "secret"}
    assert logger.about["cwd"] == str(tmp_path)


@pytest.mark.parametrize("handover", [False, True])
async def test_both_streams_arrive(tmp_path: Path, handover: bool) -> None:
    """Every byte of both streams, and a drain that waits until the logger has ended well."""
    logger = collector(tmp_path)
    async with await start(logger.uri(), handover=handover) as io:
        script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
        process = await io.spawn(["sh", "-c", script])
        assert await status_of(process) == 0
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert result.complete
        assert (result.logger_ended, result.logger_status) == (True, 0)
        assert not result.logger_stopped
        if handover:
            assert (io.stats.stdout, io.stats.stderr) == (None, None)
            assert result.streams == ()
        else:
            assert io.stats.stdout is not None
            assert io.stats.stdout.bytes_out == len(logger.stdout)
    for name, got in (("out", logger.stdout), ("err", logger.stderr)):
        assert got.decode() == "".join(f"{name} {n}\n" for n in range(2000))
    assert logger.ended


async def test_one_stream_alone(tmp_path: Path) -> None:
    """The logger sees the end of the stream that it does not get at once."""
    logger = collector(tmp_path)
    async with await start(logger.uri(), streams=("stderr",)) as io:
        process = await io.spawn(["sh", "-c", "echo out; echo err >&2"])
        assert await status_of(process) == 0
        assert (await io.drain()).complete
        assert io.stats.stdout is None
    assert (logger.stdout, logger.stderr) == (b"", b"err\n")


async def test_stdin_is_a_pipe_on_request(tmp_path: Path) -> None:
    """stdin=True makes a pipe of it; otherwise the child reads /dev/null."""
    logger = collector(tmp_path)
    async with await start(logger.uri(), stdin=True) as io:
        assert io.stdin is not None
        process = await io.spawn(["cat"])
        await io.stdin.send(b"in\n")
        io.close_stdin()
        assert await status_of(process) == 0
        await io.drain()
    assert logger.stdout == b"in\n"


async def test_handover_gives_the_child_the_loggers_own_pipe(tmp_path: Path) -> None:
    """With handover the child's 1 and 2 are the logger's 3 and 4, with the owner that was asked."""
    logger = collector(tmp_path)
    me = {"uid": 1234, "gid": 4321} if os.geteuid() == 0 else {}
    async with await start(logger.uri(), handover=True, **me) as io:
        process = await io.spawn(["sleep", "100"])
        for mine, theirs in ((1, 3), (2, 4)):
            link = os.readlink(f"/proc/{io.logger_pid}/fd/{theirs}")
            assert os.readlink(f"/proc/{process.pid}/fd/{mine}") == link
            status = os.stat(f"/proc/{process.pid}/fd/{mine}")
            if me:
                assert (status.st_uid, status.st_gid) == (1234, 4321)
            flags = (tmp_path.parents[-1] / f"proc/{process.pid}/fdinfo/{mine}").read_text()
            assert not int(flags.split("flags:")[1].split()[0], 8) & os.O_NONBLOCK
        with pytest.raises(IOStateError):
            io.attach("stdout", None)  # type: ignore[arg-type]
        process.kill()


# -- when it is ready -------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["binary", "binary-v2"])
async def test_ready_by_a_byte(tmp_path: Path, scheme: str) -> None:
    """A byte on descriptor 5 is what both contracts want; the descriptor may stay open."""
    path = shell_logger(tmp_path, "echo >&5; cat <&3 >/dev/null")
    async with await start(uri_of(path, scheme=scheme)) as io:
        assert exists(io.logger_pid)


async def test_ready_by_closing(tmp_path: Path) -> None:
    """binary: takes a closed descriptor 5 for readiness while the logger lives."""
    path = shell_logger(tmp_path, "exec 5>&-; cat <&3 >/dev/null")
    async with await start(uri_of(path)) as io:
        assert exists(io.logger_pid)


async def test_closing_is_an_error_for_v2(tmp_path: Path) -> None:
    """binary-v2: wants the byte; the logger is killed and reaped."""
    path = shell_logger(tmp_path, f"echo $$ > {tmp_path}/pid; exec 5>&-; exec sleep 100")
    with pytest.raises(LoggerNotReadyError, match="did not call ready") as caught:
        await start(uri_of(path, scheme="binary-v2"))
    assert caught.value.path == str(path)
    assert not exists(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("scheme", ["binary", "binary-v2"])
async def test_an_exit_before_the_byte_is_an_error(tmp_path: Path, scheme: str) -> None:
    """A logger that crashed is not ready, however its exit and its EOF race each other."""
    path = shell_logger(tmp_path, "exit 3")
    for _ in range(5):
        with pytest.raises(LoggerExitedError) as caught:
            await start(uri_of(path, scheme=scheme))
        assert caught.value.status == 3
        assert caught.value.path == str(path)


async def test_strict_false_is_what_containerd_makes_of_it(tmp_path: Path) -> None:
    """For binary: a crash before the byte is readiness; for binary-v2: it is not."""
    path = shell_logger(tmp_path, "exit 3")
    async with await start(uri_of(path), strict=False, on_death="drain") as io:
        process = await io.spawn(["echo", "out"])
        assert await status_of(process) == 0
        result = await io.drain()
        assert result.logger_status == 3
        assert not result.complete
    with pytest.raises((LoggerExitedError, LoggerNotReadyError)):
        await start(uri_of(path, scheme="binary-v2"), strict=False)


async def test_a_byte_and_an_exit_is_ready(tmp_path: Path) -> None:
    """A logger that was ready and then died has died, and is no failure to start."""
    path = shell_logger(tmp_path, "echo >&5; exit 4")
    async with await start(uri_of(path)) as io:
        process = await io.spawn(["sh", "-c", "sleep 0.05; echo out"])
        await status_of(process)
        with pytest.raises(StreamFailedError) as caught:
            await io.drain()
        assert isinstance(caught.value.__cause__, BrokenPipeError)


async def test_a_logger_that_is_never_ready(tmp_path: Path) -> None:
    """After the deadline it is killed and reaped."""
    pid = tmp_path / "pid"
    path = shell_logger(tmp_path, f"echo $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 100")
    with pytest.raises(LoggerTimeoutError) as caught:
        await start(uri_of(path), ready_timeout=1.5)
    assert caught.value.timeout == 1.5
    assert isinstance(caught.value, TimeoutError)
    assert not exists(int(pid.read_text()))


async def test_a_helper_that_keeps_descriptor_5(tmp_path: Path) -> None:
    """A leaked descriptor 5 delays no error past the deadline, and no exit at all."""
    script = f"sleep 100 & echo $! > {tmp_path}/helper; exec 5>&-; %s"
    try:
        path = shell_logger(tmp_path, script % "exec cat <&3")
        with pytest.raises(LoggerTimeoutError):
            await start(uri_of(path), ready_timeout=1.5)
    finally:
        os.kill(int((tmp_path / "helper").read_text()), signal.SIGKILL)
    try:
        path = shell_logger(tmp_path, script % "exit 5")
        with pytest.raises(LoggerExitedError) as caught:
            await start(uri_of(path))
        assert caught.value.status == 5
    finally:
        os.kill(int((tmp_path / "helper").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_a_cancelled_start_leaves_nothing(tmp_path: Path, kind: CancelKind) -> None:
    """The logger that is not ready yet is killed and reaped."""
    pid = tmp_path / "pid"
    path = shell_logger(tmp_path, f"echo $$ > {pid}; exec sleep 100")
    with anyio.fail_after(GUARD):
        await cancelled(kind, lambda: start(uri_of(path)))
    if pid.exists() and (text := pid.read_text()):
        assert not exists(int(text))


# -- when it dies -----------------------------------------------------------------------


async def test_epipe_ends_the_streams(tmp_path: Path) -> None:
    """As with containerd: the child gets EPIPE, and drain() says what happened."""
    async with await start(mortal(tmp_path, 1).uri()) as io:
        process = await io.spawn(["yes"])
        assert await status_of(process) == 128 + signal.SIGPIPE
        with pytest.raises(StreamFailedError) as caught:
            await io.drain()
        assert isinstance(caught.value.__cause__, BrokenPipeError)


async def test_epipe_reaches_a_child_that_writes_later(tmp_path: Path) -> None:
    """The streams end when the logger dies, not at the next write."""
    async with await start(collector(tmp_path).uri(), stdin=True) as io:
        assert io.stdin is not None
        process = await io.spawn(["sh", "-c", "read x; echo late; echo $? > $0", f"{tmp_path}/st"])
        os.kill(io.logger_pid, signal.SIGKILL)
        await until(lambda: repr(io).count("ended") == 2)
        await io.stdin.send(b"\n")
        await status_of(process)
        with pytest.raises(StreamFailedError) as caught:
            await io.drain()
        assert isinstance(caught.value.__cause__, LoggerDiedError)
        assert caught.value.__cause__.status == 128 + signal.SIGKILL
        assert caught.value.result is not None
        assert caught.value.result.logger_status == 128 + signal.SIGKILL
    assert not (tmp_path / "st").exists() or (tmp_path / "st").read_text() != "0\n"


async def test_drain_lets_the_child_go_on(tmp_path: Path) -> None:
    """Each byte of the output is in the logger's file or counted as dropped."""
    source = tmp_path / "lines"
    source.write_bytes(LINES)
    logger = mortal(tmp_path, 50_000)
    async with await start(logger.uri(), on_death="drain") as io:
        process = await io.spawn(["cat", str(source)])
        assert await status_of(process) == 0
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert result.stdout is not None
        stats = io.stats.stdout
        assert stats is not None
        assert stats.bytes_in == len(LINES)
        (taken,) = logger.parts
        assert LINES.startswith(taken)
        assert stats.bytes_out == result.stdout.moved == len(taken)
        assert stats.dropped == result.stdout.dropped == len(LINES) - len(taken)
        assert not result.complete
        assert result.logger_status == 128 + signal.SIGKILL


async def respawning(tmp_path: Path, logger: FakeLogger, handover: bool) -> list[IOEvent]:
    """Send the lines through mortal loggers; returns the events."""
    source = tmp_path / "lines"
    source.write_bytes(LINES)
    events: list[IOEvent] = []
    async with await start(logger.uri(), on_death="respawn", handover=handover) as io:

        async def listen() -> None:
            async for event in io.events():
                events.append(event)

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            process = await io.spawn(["cat", str(source)])
            assert await status_of(process) == 0
            with anyio.fail_after(GUARD):
                result = await io.drain()
            assert result.complete
            assert result.logger_status == 0
            if not handover:
                assert io.stats.stdout is not None
                assert io.stats.stdout.bytes_out == len(LINES)
            group.cancel_scope.cancel()
    return events


@pytest.mark.parametrize("handover", [False, True])
async def test_respawn_goes_on_where_the_last_one_stopped(tmp_path: Path, handover: bool) -> None:
    """What all the loggers read, put together, is the output without gap or repeat."""
    logger = mortal(tmp_path, 100_000)
    events = await respawning(tmp_path, logger, handover)
    parts = logger.parts
    assert len(parts) == 4
    assert b"".join(parts) == LINES
    assert sum(isinstance(event, LoggerExited) for event in events) == 3
    restarts = [event.restarts for event in events if isinstance(event, LoggerRespawned)]
    assert restarts == [1, 2, 3]


@pytest.mark.parametrize("handover", [False, True])
async def test_too_many_restarts_become_drain(tmp_path: Path, handover: bool) -> None:
    """After max_restarts the child still runs to its end, and what is lost is counted."""
    source = tmp_path / "lines"
    source.write_bytes(LINES)
    logger = mortal(tmp_path, 60_000)
    async with await start(
        logger.uri(), on_death="respawn", max_restarts=1, handover=handover
    ) as io:
        process = await io.spawn(["cat", str(source)])
        assert await status_of(process) == 0
        with anyio.fail_after(GUARD):
            result = await io.drain()
        taken = logger.stdout
        assert logger.starts == 2
        assert LINES.startswith(taken)
        assert result.stdout is not None
        assert result.stdout.dropped == len(LINES) - len(taken)
        assert not result.complete


async def test_handover_with_drain(tmp_path: Path) -> None:
    """A child that has the pipe itself is read on when the logger dies."""
    source = tmp_path / "lines"
    source.write_bytes(LINES)
    logger = mortal(tmp_path, 50_000)
    async with await start(logger.uri(), on_death="drain", handover=True) as io:
        process = await io.spawn(["cat", str(source)])
        assert await status_of(process) == 0
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert result.stdout is not None
        (taken,) = logger.parts
        assert result.stdout.dropped == len(LINES) - len(taken)


async def test_handover_with_epipe(tmp_path: Path) -> None:
    """A child that has the pipe itself gets EPIPE from the kernel."""
    async with await start(mortal(tmp_path, 1).uri(), handover=True) as io:
        process = await io.spawn(["yes"])
        assert await status_of(process) == 128 + signal.SIGPIPE
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert result.logger_status == 128 + signal.SIGKILL
        assert not result.complete


@pytest.mark.parametrize("handover", [False, True])
@pytest.mark.parametrize("policy", ["drain", "epipe"])
async def test_a_logger_that_dies_before_the_child_starts(
    tmp_path: Path, policy: Any, handover: bool
) -> None:
    """Then nothing is left open either: all is dropped, or the child gets EPIPE."""
    async with await start(collector(tmp_path).uri(), on_death=policy, handover=handover) as io:
        os.kill(io.logger_pid, signal.SIGKILL)
        await until(lambda: io._loggers[0].ended)
        process = await io.spawn(["sh", "-c", "echo out; echo err >&2"])
        status = await status_of(process)
        with anyio.fail_after(GUARD):
            if policy == "drain":
                result = await io.drain()
                assert status == 0
                assert [stream.dropped for stream in result.streams] == [4, 4]
            elif handover:
                assert not (await io.drain()).complete
            else:
                with pytest.raises(StreamFailedError):
                    await io.drain()


async def test_a_successor_that_is_not_ready_counts_as_dead(tmp_path: Path) -> None:
    """A logger that cannot be started again ends in drain, and not in a loop."""
    script = (
        f"if [ -e {tmp_path}/first ]; then exit 7; fi\n"
        f"touch {tmp_path}/first; echo >&5; head -c 10 <&3 >/dev/null; exit 6"
    )
    async with await start(
        uri_of(shell_logger(tmp_path, script)), on_death="respawn", max_restarts=2
    ) as io:
        process = await io.spawn(["sh", "-c", f"cat {sys.executable}"])
        assert await status_of(process) == 0
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert result.logger_status == 7
        assert result.stdout is not None
        assert result.stdout.dropped > 0


async def test_a_successor_that_hangs_is_killed(tmp_path: Path) -> None:
    """The deadline holds for every start."""
    script = (
        f"if [ -e {tmp_path}/first ]; then exec sleep 100; fi\n"
        f"touch {tmp_path}/first; echo >&5; exit 6"
    )
    async with await start(
        uri_of(shell_logger(tmp_path, script)),
        on_death="respawn",
        max_restarts=1,
        ready_timeout=1.5,
    ) as io:
        process = await io.spawn(["echo", "out"])
        assert await status_of(process) == 0
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert result.logger_status == 128 + signal.SIGKILL


async def test_a_logger_whose_file_is_gone_is_not_started_again(tmp_path: Path) -> None:
    """A start that fails outright is the end of respawning."""
    logger = mortal(tmp_path, 1)
    async with await start(logger.uri(), on_death="respawn") as io:
        os.unlink(logger.path)
        process = await io.spawn(["sh", "-c", "echo one; echo two"])
        assert await status_of(process) == 0
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert not result.complete


# -- how it ends ------------------------------------------------------------------------


async def test_eof_reaches_the_logger_although_somebody_holds_the_pipe(tmp_path: Path) -> None:
    """A background child cannot keep the logger waiting."""
    logger = collector(tmp_path)
    async with await start(logger.uri()) as io:
        process = await io.spawn(["sh", "-c", "sleep 100 & echo $!"])
        assert await status_of(process) == 0
        with anyio.fail_after(GUARD):
            result = await io.drain(linger=0.05)
        os.kill(int(logger.stdout), signal.SIGKILL)
        assert result.complete
        assert result.holders_left
        assert result.logger_ended


async def test_a_logger_that_does_not_end_gets_sigterm(tmp_path: Path) -> None:
    """EOF, a grace, SIGTERM; drain() has said before that it had not ended."""
    script = (
        f"trap 'echo term > {tmp_path}/said; exit 0' TERM; echo >&5; "
        "cat <&3 >/dev/null; while :; do sleep 0.05; done"
    )
    async with await start(uri_of(shell_logger(tmp_path, script)), logger_grace=1.5) as io:
        process = await io.spawn(["echo", "out"])
        await status_of(process)
        result = await io.drain(sink_timeout=0.1)
        assert result.logger_ended is False
        assert result.logger_status is None
        assert not result.complete
        pid = io.logger_pid
        with anyio.fail_after(GUARD):
            await io.aclose()
    assert not exists(pid)
    assert (tmp_path / "said").read_text() == "term\n"


async def test_a_logger_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """EOF, SIGTERM, SIGKILL, and it is reaped."""
    script = "trap '' TERM; echo >&5; cat <&3 >/dev/null; while :; do sleep 0.05; done"
    io = await start(uri_of(shell_logger(tmp_path, script)), logger_grace=0.2)
    pid = io.logger_pid
    with anyio.fail_after(GUARD):
        await io.aclose()
        await io.aclose()
    assert not exists(pid)


async def test_a_logger_with_a_nonzero_status(tmp_path: Path) -> None:
    """It ended by itself, but not well."""
    path = shell_logger(tmp_path, "echo >&5; cat <&3 >/dev/null; cat <&4 >/dev/null; exit 9")
    async with await start(uri_of(path)) as io:
        process = await io.spawn(["echo", "out"])
        await status_of(process)
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert (result.logger_ended, result.logger_status) == (True, 9)
        assert not result.complete


@pytest.mark.parametrize("policy", ["epipe", "drain"])
async def test_what_a_logger_leaves_unread_is_no_delivery(tmp_path: Path, policy: str) -> None:
    """Bytes in the pipe of a logger that ends without reading them were dropped."""
    go = tmp_path / "go"
    script = f"echo >&5; read line <&3; while ! [ -e {go} ]; do sleep 0.01; done"
    async with await start(uri_of(shell_logger(tmp_path, script)), on_death=policy) as io:
        process = await io.spawn(["sh", "-c", "echo first; echo second; echo third >&2"])
        assert await status_of(process) == 0
        await until(lambda: "stdout=ended stderr=ended" in repr(io))
        go.touch()
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert (result.logger_ended, result.logger_status) == (True, 0)
        assert [(stream.moved, stream.dropped) for stream in result.streams] == [(6, 7), (0, 6)]
        assert not result.complete


async def test_what_waits_for_a_successor_is_no_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A logger that is to be started again when the IO is closed will read nothing any more."""
    monkeypatch.setattr("pyshimio.io._logger.BACKOFF", 1000.0)
    path = shell_logger(tmp_path, "echo >&5; exit 1")
    io = await start(uri_of(path), on_death="respawn", max_restarts=50, logger_grace=0.05)
    (logger,) = io._loggers
    await io.spawn(["echo", "hello"])
    # The first successor comes at once, the second one would much later.
    await until(lambda: len(logger._restarts) == 2 and logger._backoff is not None)
    await io.drain(sink_timeout=0.1)
    await io.aclose()
    stats = io.stats.stdout
    assert stats is not None
    assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (6, 0, 6)


async def test_what_a_dying_logger_has_not_read_is_no_delivery(tmp_path: Path) -> None:
    """The child gets EPIPE, and what stood in the logger's pipe by then counts as dropped."""
    script = "echo >&5; read line <&3; kill -9 $$"
    async with await start(uri_of(shell_logger(tmp_path, script)), stdin=True) as io:
        process = await io.spawn(["sh", "-c", "printf 'first\\nsecond\\n'; read line; echo third"])
        events = io.events()
        async for event in events:
            if isinstance(event, LoggerExited):
                break
        io.close_stdin()
        assert await status_of(process) == 128 + signal.SIGPIPE
        with pytest.raises(StreamFailedError), anyio.fail_after(GUARD):
            await io.drain()
        stats = io.stats.stdout
    assert stats is not None
    assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (13, 6, 7)


async def test_a_fifo_is_no_logger(tmp_path: Path) -> None:
    """What is there and no program is said to be that, by the logger's own error."""
    os.mkfifo(tmp_path / "logger", 0o777)
    with pytest.raises(LoggerNotExecutableError, match="no program"):
        await start(uri_of(tmp_path / "logger"))


async def test_a_logger_that_the_kernel_refuses(tmp_path: Path) -> None:
    """A program that cannot be started for another reason is a logger's error, too."""
    with fail_syscall("posix_spawn", error=errno.ENOEXEC), pytest.raises(LoggerError):
        await start(uri_of(shell_logger(tmp_path, "exit 0")))


@pytest.mark.parametrize("env", [{"A=B": "x"}, {"": "x"}, {1: "x"}, {"A": 5}, {"A": "\0"}])
async def test_an_environment_that_cannot_be(tmp_path: Path, env: Any) -> None:
    """Names and values that no environment holds are refused before anything is made."""
    with pytest.raises(InvalidOptionError):
        await start(uri_of(shell_logger(tmp_path, "exit 0")), env=env)


async def test_a_logger_that_does_not_wait_for_an_end(tmp_path: Path) -> None:
    """One that has read every byte and ends before the streams do has made no stream fail."""
    go = tmp_path / "go"
    script = f"echo >&5; read line <&3; while ! [ -e {go} ]; do sleep 0.01; done; exit 9"
    async with await start(uri_of(shell_logger(tmp_path, script)), stdin=True) as io:
        process = await io.spawn(["sh", "-c", "echo out; read line"])
        await until(lambda: (stats := io.stats.stdout) is not None and stats.bytes_out == 4)
        io.close_stdin()
        go.touch()
        # Both end while this loop does nothing, so it hears of everything at once.
        for pid in (process.pid, io.logger_pid):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert (result.logger_ended, result.logger_status) == (True, 9)
        assert [(stream.moved, stream.finished) for stream in result.streams] == [
            (4, True),
            (0, True),
        ]


@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_a_cancelled_close_kills_and_reaps(tmp_path: Path, kind: CancelKind) -> None:
    """Cancelled, aclose() gives no grace, and leaves no zombie."""
    script = "echo >&5; cat <&3 >/dev/null; while :; do sleep 0.05; done"
    io = await start(uri_of(shell_logger(tmp_path, script)))
    pid = io.logger_pid
    await cancelled(kind, io.aclose)
    assert not exists(pid)


async def test_a_failing_spawn_ends_the_logger(tmp_path: Path) -> None:
    """A child that cannot be started undoes everything before it."""
    io = await start(collector(tmp_path).uri())
    pid = io.logger_pid
    with pytest.raises(FileNotFoundError):
        await io.spawn([str(tmp_path / "missing")])
    await io.aclose()
    assert not exists(pid)


async def test_close_kills_the_logger(tmp_path: Path) -> None:
    """Without waiting; the loop reaps it a moment later."""
    io = await start(collector(tmp_path).uri())
    pid = io.logger_pid
    io.close()
    io.close()
    await until(lambda: not exists(pid))


async def test_a_logger_in_its_backoff_when_the_io_is_closed(tmp_path: Path) -> None:
    """No successor is started after the end."""
    script = f"echo x >> {tmp_path}/starts; echo >&5; exit 1"
    io = await start(uri_of(shell_logger(tmp_path, script)), on_death="respawn", max_restarts=20)
    starts = tmp_path / "starts"
    await until(lambda: starts.read_text().count("x") >= 4)
    await until(lambda: io._loggers[0]._backoff is not None)
    io.close()
    count = starts.read_text()
    await until(lambda: io._loggers[0].ended)
    assert starts.read_text() == count
    assert "Logger" in repr(io._loggers[0])


async def test_a_logger_that_still_reads_delays_the_drain(tmp_path: Path) -> None:
    """drain() returns when the logger has read all, not when the pipe has taken it."""
    script = f"echo >&5; sleep 0.3; cat <&3 > {tmp_path}/out"
    async with await start(uri_of(shell_logger(tmp_path, script))) as io:
        process = await io.spawn(["echo", "out"])
        await status_of(process)
        with anyio.fail_after(GUARD):
            assert (await io.drain()).complete
        assert (tmp_path / "out").read_bytes() == b"out\n"


# -- bad input --------------------------------------------------------------------------


async def test_bad_input(tmp_path: Path) -> None:
    """Each its own error, before a process or a pipe is made."""
    good = shell_logger(tmp_path, f"touch {tmp_path}/started")
    plain = tmp_path / "plain"
    plain.touch()
    cases: list[tuple[Path, type[LoggerError], type[OSError]]] = [
        (tmp_path / "missing", LoggerNotFoundError, FileNotFoundError),
        (plain, LoggerNotExecutableError, PermissionError),
        (tmp_path, LoggerIsDirectoryError, IsADirectoryError),
    ]
    for path, kind, builtin in cases:
        with pytest.raises(kind) as caught:
            await start(uri_of(path))
        assert caught.value.path == str(path)
        assert issubclass(kind, builtin)
    with pytest.raises(MissingNamespaceError):
        await BinaryIO.start(uri_of(good), id="c1", namespace="")
    with pytest.raises(UnknownSchemeError):
        await start(f"file://{good}")
    options: list[tuple[str, dict[str, Any]]] = [
        ("on_death", {"on_death": "restart"}),
        ("streams", {"streams": ("stdin",)}),
        ("cwd", {"cwd": str(tmp_path / "missing")}),
        ("env", {"env": {"A": "\0"}}),
        ("chown", {"chown": "never"}),
        ("on_exit", {"on_exit": "stay"}),
    ]
    for option, values in options:
        with pytest.raises(InvalidOptionError) as refused:
            await start(uri_of(good), **values)
        assert refused.value.option == option
    with pytest.raises(InvalidOptionError):
        await BinaryIO.start(uri_of(good), id="\0", namespace="ns")
    with pytest.raises(TypeError, match=r"await BinaryIO\.start"):
        BinaryIO()
    assert not (tmp_path / "started").exists()


async def test_a_file_that_the_kernel_cannot_execute(tmp_path: Path) -> None:
    """An executable file without a format that is known ends before it is ready."""
    path = tmp_path / "noise"
    path.write_bytes(b"\x00\x01\x02")
    path.chmod(0o755)
    with pytest.raises(LoggerExitedError) as caught:
        await start(uri_of(path))
    assert caught.value.status == 127


async def test_two_loggers_of_one_io(tmp_path: Path) -> None:
    """Different URIs for stdout and stderr are two loggers, and each sees its own stream."""
    out, err = (FakeLogger.make(tmp_path / name) for name in ("o", "e"))
    stdio = Stdio(stdout=out.uri(), stderr=err.uri())
    async with await create_io(stdio, id="c1", namespace="ns1") as io:
        assert isinstance(io, BinaryIO)
        process = await io.spawn(["sh", "-c", "echo out; echo err >&2"])
        await status_of(process)
        assert (await io.drain()).complete
    assert (out.stdout, out.stderr) == (b"out\n", b"")
    assert (err.stdout, err.stderr) == (b"", b"err\n")


async def test_a_second_logger_that_fails_ends_the_first(tmp_path: Path) -> None:
    """A failure undoes the earlier steps, a started and ready logger included."""
    first = collector(tmp_path)
    second = FakeLogger.make(tmp_path / "second", ready="exit", status=3)
    stdio = Stdio(stdout=first.uri(), stderr=second.uri())
    with pytest.raises(LoggerExitedError):
        await create_io(stdio, id="c1", namespace="ns1")
    assert not exists(first.about["pid"])
