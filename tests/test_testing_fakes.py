"""The fakes are real programs, and do what they are told: containers, loggers, clients, sinks."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import Command, ConsoleIO, FileIO, PipeIO, create_io
from pyshimio.errors import (
    LoggerError,
    LoggerExitedError,
    LoggerTimeoutError,
    StreamFailedError,
)
from pyshimio.testing import (
    FakeContainer,
    FakeFifos,
    FakeLogger,
    Recorder,
    numbered,
)
from support.children import GUARD, exists, until

if TYPE_CHECKING:
    from pathlib import Path

    from pyshimio import Process
    from pyshimio.testing import Shimio


async def ended(io: PipeIO) -> tuple[int, bytes]:
    """How the child of *io* ends, and what it has written to stdout meanwhile."""
    assert io.stdout is not None
    said = b""
    with anyio.fail_after(GUARD):
        async for data in io.stdout:
            said += data
    return (await _process(io).wait(), said)


def _process(io: PipeIO) -> Process:
    (process,) = io._processes
    return process


# -- containers -------------------------------------------------------------------------------


async def test_what_it_writes() -> None:
    """On the streams that were said, as often as was said, and then its exit status."""
    container = (
        FakeContainer()
        .write(b"out\n", times=2)
        .write(bytes(range(256)))
        .write(b"err\n", to="stderr")
        .pause(0.001)
        .numbered(100_000)
        .exit(3)
    )
    async with PipeIO() as io:
        await io.spawn(container.args)
        assert await ended(io) == (3, b"out\nout\n" + bytes(range(256)) + numbered(100_000))
        assert io.stderr is not None
        assert await io.stderr.receive() == b"err\n"


def test_numbered_lines_differ() -> None:
    """Of so many bytes exactly, each line with its own number."""
    lines = numbered(1_000_003)
    assert len(lines) == 1_000_003
    assert lines.splitlines()[:-1] == [b"%07d" % number for number in range(125_000)]


async def test_a_conversation(tmp_path: Path) -> None:
    """It waits for what it expects, says where it is, and is held where it is to be held."""
    container = (
        FakeContainer(tmp_path)
        .expect(b"one\n")
        .reach("one")
        .hold("two")
        .write(b"two\n")
        .expect_eof()
        .exit(0)
    )
    async with PipeIO() as io:
        process = await io.spawn(container.args)
        assert io.stdin is not None
        assert io.stdout is not None
        await io.stdin.send(b"one\n")
        await container.reached("one")
        assert not process.exited
        container.release("two")
        assert await io.stdout.receive() == b"two\n"
        io.close_stdin()
        assert await process.wait() == 0
    assert container.received == b"one\n"
    container.check()


async def test_an_expectation_that_is_not_met(tmp_path: Path) -> None:
    """The status says so, stderr says what, and so does check()."""
    container = FakeContainer(tmp_path).expect(b"yes\n").write(b"never\n")
    async with PipeIO() as io:
        process = await io.spawn(container.args)
        assert io.stdin is not None
        assert io.stderr is not None
        await io.stdin.send(b"no\n")
        io.close_stdin()
        assert await process.wait() == FakeContainer.UNMET
        assert b"expected b'yes\\n' on stdin, and got b'no" in await io.stderr.receive()
    with pytest.raises(AssertionError, match="expected b'yes"):
        container.check()
    with pytest.raises(AssertionError, match="not reached 'end': expected"):
        await container.reached("end", timeout=0.01)


async def test_a_second_start(tmp_path: Path) -> None:
    """It begins anew when it is told to: what was said and released before is forgotten."""
    container = FakeContainer(tmp_path).expect(b"x").reach("point").hold("go")
    for data in (b"x", b"y"):
        async with PipeIO() as io:
            process = await io.spawn(container.args)
            assert io.stdin is not None
            await io.stdin.send(data)
            if data == b"x":
                await container.reached("point")
                container.release("go")
                assert await process.wait() == 0
                assert container.received == b"x"
                container.forget()
                assert container.received == b""
                with pytest.raises(AssertionError, match="has not reached"):
                    await container.reached("point", timeout=0)
            else:
                assert await process.wait() == FakeContainer.UNMET
    assert container.received == b"y"


async def test_input_where_none_is_expected() -> None:
    """Bytes before the end of stdin are as wrong as others than those expected."""
    async with PipeIO(stderr=False) as io:
        process = await io.spawn(FakeContainer().expect_eof().args)
        assert io.stdin is not None
        await io.stdin.send(b"x")
        assert await process.wait() == FakeContainer.UNMET


async def test_signals(tmp_path: Path) -> None:
    """One is ignored, one ends it with a status, the others do what they do to any program."""
    container = FakeContainer(tmp_path).ignore("SIGTERM").exit_on("SIGUSR1", 4).reach("up").stay()
    async with PipeIO() as io:
        process = await io.spawn(container.args)
        await container.reached("up")
        process.send_signal(signal.SIGTERM)
        await until(lambda: container.signals)
        assert not process.exited
        process.send_signal(signal.SIGUSR1)
        assert await process.wait() == 4
    assert container.signals == ("SIGTERM", "SIGUSR1")
    async with PipeIO() as io:
        assert await (await io.spawn(FakeContainer().die("SIGQUIT").args)).wait() == 128 + 3
    async with PipeIO() as io:
        process = await io.spawn(FakeContainer().flood().args)
        assert io.stdout is not None
        await io.stdout.aclose()
        assert await process.wait() == 128 + signal.SIGPIPE


async def test_a_child_that_keeps_stdout(tmp_path: Path) -> None:
    """It is there when the container has exited: a drain says who holds the stream."""
    child = FakeContainer(tmp_path).exit_on("SIGUSR1").reach("child").write(b"late\n").stay()
    container = FakeContainer(tmp_path).write(b"early\n").fork(child).hold("end")
    recorder = Recorder()
    async with FileIO(tmp_path / "log") as io:
        io.attach("stdout", recorder)
        process = await io.spawn(container.args)
        await container.reached("child")
        container.release("end")
        assert await process.wait() == 0
        result = await io.drain(policy="exited", sink_timeout=1.0)
    assert result.holders_left
    assert bytes(recorder.data) == b"early\nlate\n"
    pids = [int(line.split()[0]) for line in (tmp_path / "processes").read_text().splitlines()]
    assert [exists(pid) for pid in pids] == [False, True]
    child.end()
    await until(lambda: not exists(pids[1]))
    child.end()


async def test_a_child_that_floods_stdout() -> None:
    """Its bytes come for ever, whatever became of the container."""
    container = FakeContainer().fork(FakeContainer().flood(b"x" * 100)).exit(0)
    async with PipeIO(stderr=False) as io:
        process = await io.spawn(container.args)
        assert await process.wait() == 0
        assert io.stdout is not None
        with anyio.fail_after(GUARD):
            seen = 0
            while seen < 1 << 20:
                seen += len(await io.stdout.receive())


async def test_a_daemon(tmp_path: Path) -> None:
    """One that closes its output ends the stream, and lives."""
    container = FakeContainer(tmp_path).close("stdout").close("stderr").hold("end")
    async with PipeIO() as io:
        process = await io.spawn(container.args)
        assert io.stdout is not None
        with pytest.raises(anyio.EndOfStream):
            await io.stdout.receive()
        assert not process.exited
        container.release("end")
        assert await process.wait() == 0


async def test_a_terminal(tmp_path: Path) -> None:
    """It waits for its terminal to have a size, and has to have one."""
    container = FakeContainer(tmp_path).reach("up").expect_size(20, 30).copy()
    async with ConsoleIO(size=(10, 10)) as io:
        process = await io.spawn(container.args)
        await container.reached("up")
        assert io.console is not None
        io.console.resize(20, 30)
        assert io.stdin is not None
        assert io.stdout is not None
        await io.stdin.send(b"hello\n")
        said = b""
        with anyio.fail_after(GUARD):
            while said.count(b"hello") < 2:
                said += await io.stdout.receive()
        io.close_stdin()
        assert await process.wait() == 0
    async with await Command(FakeContainer().expect_size(1, 1).args).start() as process:
        assert await process.wait() == FakeContainer.UNMET


def test_scripts_that_mean_nothing() -> None:
    """What cannot be done is refused when it is written down."""
    with pytest.raises(ValueError, match="numbered"):
        FakeContainer().write(bytes(100_000))
    with pytest.raises(ValueError, match="flood"):
        FakeContainer().write(b"x", times=-1)
    with pytest.raises(ValueError, match=r"FakeContainer\(directory\)"):
        FakeContainer().hold("x")
    with pytest.raises(ValueError, match=r"FakeContainer\(directory\)"):
        FakeContainer().check()
    with pytest.raises(KeyError):
        FakeContainer().ignore("SIGNONE")
    noise = FakeContainer()
    for _ in range(5):
        noise = noise.write(os.urandom(32_000))
    with pytest.raises(ValueError, match="the script has"):
        _ = noise.args


async def test_in_a_runtime(shimio: Shimio) -> None:
    """A bundle of the fake runtime runs it; what is left of it goes with the fixture."""
    container = shimio.container().write(b"up\n").reach("up").stay()
    bundle = shimio.bundle(container)
    runc = shimio.runtime.client()
    await runc.create("c1", bundle)
    await runc.start("c1")
    await container.reached("up")
    assert (await runc.state("c1")).status == "running"
    assert repr(shimio) == "<Shimio with 1 container, 1 runtime, 1 bundle>"


# -- loggers ----------------------------------------------------------------------------------


async def logged(
    logger: FakeLogger, *, count: int = 1000, sink_timeout: float = 10.0, **options: object
) -> bool:
    """Whether a child's *count* bytes all went to *logger*."""
    uri = logger.uri({"key": "value"})
    async with await create_io(uri, id="c1", namespace="ns", **options) as io:  # type: ignore[arg-type]
        await io.spawn(FakeContainer().numbered(count).write(b"err", to="stderr").args)
        with anyio.fail_after(GUARD):
            return (await io.drain(sink_timeout=sink_timeout)).complete


async def test_a_good_logger(tmp_path: Path) -> None:
    """It has all that was written, and finds that our starter keeps to the contract."""
    logger = FakeLogger.make(tmp_path / "logger")
    assert await logged(logger, count=200_000)
    assert (logger.stdout, logger.stderr) == (numbered(200_000), b"err")
    assert (logger.starts, logger.ended, logger.signals) == (1, True, ())
    assert logger.args == ("key", "value")
    assert logger.env == {"CONTAINER_ID": "c1", "CONTAINER_NAMESPACE": "ns"}
    assert logger.about["cwd"] == "/"
    logger.check()


@pytest.mark.parametrize(
    "ready, error",
    [("exit", LoggerExitedError), ("crash", LoggerExitedError), ("never", LoggerTimeoutError)],
)
async def test_a_logger_that_does_not_become_ready(
    tmp_path: Path, ready: str, error: type[LoggerError]
) -> None:
    """The container does not start."""
    logger = FakeLogger.make(tmp_path / "logger", ready=ready)  # type: ignore[arg-type]
    timeout = 0.5 if ready == "never" else GUARD
    with pytest.raises(error):
        await create_io(logger.uri(), id="c", namespace="n", ready_timeout=timeout)


async def test_a_logger_that_says_no_byte(tmp_path: Path) -> None:
    """That is enough for ``binary``, and not for ``binary-v2``."""
    for scheme, good in (("binary", True), ("binary-v2", False)):
        logger = FakeLogger.make(tmp_path / scheme, ready="close")
        uri = logger.uri(scheme=scheme)  # type: ignore[arg-type]
        if good:
            async with await create_io(uri, id="c", namespace="n"):
                pass
        else:
            with pytest.raises(LoggerError):
                await create_io(uri, id="c", namespace="n")


async def test_a_logger_that_keeps_descriptor_5(tmp_path: Path) -> None:
    """The byte is enough; nothing waits for the end of that pipe."""
    logger = FakeLogger.make(tmp_path / "logger", ready="keep")
    assert await logged(logger)


async def test_a_logger_that_dies(tmp_path: Path) -> None:
    """After so many bytes exactly; a new one goes on where it may."""
    logger = FakeLogger.make(tmp_path / "logger", dies_after=500)
    with pytest.raises(StreamFailedError):
        await logged(logger, count=3_000_000)  # more than there is room for on the way
    assert len(logger.stdout) + len(logger.stderr) == 500
    again = FakeLogger.make(tmp_path / "again", dies_after=500)
    await logged(again, count=2000, on_death="respawn")
    assert again.starts > 1


async def test_a_logger_that_stalls_and_ignores_sigterm(tmp_path: Path) -> None:
    """It has to be killed; what it has read up to there is known."""
    logger = FakeLogger.make(tmp_path / "logger", stalls_after=500, ignores={"SIGTERM"})
    async with await create_io(logger.uri(), id="c", namespace="n", logger_grace=0.1) as io:
        await io.spawn(FakeContainer().numbered(100_000).args)
        await logger.got(500)
        assert not (await io.drain(sink_timeout=0.1)).complete
    assert logger.stdout == numbered(500)
    assert "SIGTERM" in logger.signals
    assert not exists(logger.about["pid"])


async def test_a_logger_that_does_not_end(tmp_path: Path) -> None:
    """It is told to, by SIGTERM, when it has everything."""
    logger = FakeLogger.make(tmp_path / "logger", ends=False)
    assert not await logged(logger, logger_grace=0.1, sink_timeout=0.5)
    assert logger.ended
    assert logger.signals == ("SIGTERM",)
    logger.check()


async def test_a_logger_that_is_killed(tmp_path: Path) -> None:
    """It has not done what it was to do, and says so when it is asked."""
    logger = FakeLogger.make(tmp_path / "logger")
    async with await create_io(logger.uri(), id="c", namespace="n") as io:
        os.kill(logger.about["pid"], signal.SIGKILL)
        await io.drain(exited=anyio.lowlevel.checkpoint(), sink_timeout=0.5)
    with pytest.raises(AssertionError, match="start 1 was ended before the end"):
        logger.check()


async def test_a_python_with_a_space_in_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes none in a script's first line; the logger starts, and sees no difference."""
    python = tmp_path / "my python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    logger = FakeLogger.make(tmp_path / "logger")
    assert await logged(logger)
    assert logger.env == {"CONTAINER_ID": "c1", "CONTAINER_NAMESPACE": "ns"}
    logger.check()


CARELESS = """
import os, signal, sys
out, err, ready, stray = os.pipe(), os.pipe(), os.pipe(), os.open("/dev/null", os.O_RDONLY)
os.set_blocking(out[0], False)
for number, fd in ((103, out[0]), (104, err[1]), (105, ready[1]), (107, stray)):
    os.dup2(fd, number)
for number in (3, 4, 5, 7):
    os.dup2(number + 100, number)
os.closerange(8, 200)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.environ.pop("CONTAINER_ID", None)
os.environ["CONTAINER_NAMESPACE"] = "ns"
os.execv(sys.argv[1], [sys.argv[1], "lonely"])
"""
"""A starter that does everything wrong; nobody has the other ends, so it soon ends."""


async def test_a_starter_that_breaks_the_contract(tmp_path: Path) -> None:
    """Each of its faults is named."""
    logger = FakeLogger.make(tmp_path / "logger")
    command = Command([sys.executable, "-c", CARELESS, logger.path])
    async with await command.start() as process:
        await process.wait(GUARD)
    told = "; ".join(logger.wrong)
    for fault in (
        "descriptor 7 is none of ours: /dev/null",
        "descriptor 3 does not block",
        "descriptor 4 is no pipe that one reads",
        "CONTAINER_ID is not in the environment",
        "no pairs: ['lonely']",
        "signals are blocked",
        "SIGTERM is ignored",
    ):
        assert fault in told
    with pytest.raises(AssertionError, match="does not block"):
        logger.check()
    with pytest.raises(AssertionError, match="not started"):
        FakeLogger.make(tmp_path / "other").check()


# -- clients ----------------------------------------------------------------------------------


async def test_a_client_that_comes_late(tmp_path: Path) -> None:
    """The container waits for it, and it has every byte."""
    fifos = FakeFifos.make(tmp_path / "fifos")
    with fifos.stdin, fifos.stderr:
        async with await create_io(fifos.stdio) as io, anyio.create_task_group() as group:
            group.start_soon(io.spawn, FakeContainer().copy().args)
            await anyio.wait_all_tasks_blocked()
            with fifos.stdout:
                await fifos.stdin.send(b"hello")
                assert await fifos.stdout.read(5) == b"hello"
                fifos.stdin.detach()
                io.close_stdin()
                assert await fifos.stdout.read_all() == b""


async def test_a_slow_client(shimio: Shimio) -> None:
    """One that reads a little at a time, with rests, gets everything in its order."""
    fifos = shimio.fifos().attach()
    async with await create_io(fifos.stdio) as io:
        await io.spawn(FakeContainer().numbered(5000).args)
        begin = time.monotonic()
        assert await fifos.stdout.read_all(chunk=500, pause=0.01) == numbered(5000)
        assert time.monotonic() - begin >= 0.1
        assert (await io.drain()).complete


async def test_a_client_that_goes_and_comes_again(shimio: Shimio) -> None:
    """What it has not read waits for it."""
    fifos = shimio.fifos().attach()
    container = shimio.container().numbered(20_000).reach("written").hold("end")
    async with await create_io(fifos.stdio) as io:
        await io.spawn(container.args)
        first = await fifos.stdout.read(1000)
        fifos.stdout.detach()
        assert not fifos.stdout.attached
        await container.reached("written")
        container.release("end")
        fifos.stdout.attach()
        assert first + await fifos.stdout.read(19_000) == numbered(20_000)
        assert (await io.drain()).complete


async def test_who_reads_the_input(shimio: Shimio) -> None:
    """It waits for the first one, and is told when that one has gone."""
    stdin = shimio.fifos().stdin.attach()
    async with anyio.create_task_group() as group:
        group.start_soon(stdin.send, b"hello")
        await anyio.wait_all_tasks_blocked()
        reader = os.open(stdin.path, os.O_RDONLY)
    assert os.read(reader, 10) == b"hello"
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        await stdin.send(b"?")
    stdin.detach()
    with pytest.raises(TimeoutError):
        await stdin.send(b"?", timeout=0.05)


async def test_fifos_with_a_terminal(shimio: Shimio) -> None:
    """There is none for stderr."""
    fifos = shimio.fifos(terminal=True)
    assert (fifos.stdio.stderr, fifos.stdio.terminal) == ("", True)
    assert not os.path.exists(fifos.stderr.path)
    with fifos:
        async with await create_io(fifos.stdio) as io:
            await io.spawn(FakeContainer().write(b"x").args)
            assert await fifos.stdout.read(1) == b"x"


# -- sinks ------------------------------------------------------------------------------------


async def test_a_recorder_keeps_everything(shimio: Shimio, tmp_path: Path) -> None:
    """Little by little, if it is told to, and it knows that the stream has ended."""
    recorder = shimio.recorder(takes=100)
    async with FileIO(tmp_path / "log") as io:
        io.attach("stdout", recorder)
        await io.spawn(FakeContainer().numbered(5000).args)
        assert (await io.drain()).complete
    assert bytes(recorder.data) == numbered(5000)
    assert max(recorder.writes) == 100
    assert (recorder.flushes, recorder.closed, recorder.dropped) == (1, True, 0)


async def test_a_recorder_that_is_paused(shimio: Shimio, tmp_path: Path) -> None:
    """It takes nothing until it is resumed, and then everything."""
    recorder = shimio.recorder()
    recorder.pause()
    container = shimio.container().numbered(5000).reach("written").hold("end")
    async with FileIO(tmp_path / "log") as io:
        io.attach("stdout", recorder)
        await io.spawn(container.args)
        await container.reached("written")
        assert not recorder.data
        recorder.resume()
        await until(lambda: len(recorder.data) == 5000)
        container.release("end")
        assert (await io.drain()).complete
    with pytest.raises(ValueError, match="takes="):
        Recorder(blocking=True).pause()


def test_a_recorder_that_fails() -> None:
    """After so many bytes, with the error that was said."""
    recorder = Recorder(fails_after=3, error=errno.ENOSPC)
    assert recorder.write([b"ab", b"cd"]) == 3
    with pytest.raises(OSError, match="No space") as caught:
        recorder.write([b"d"])
    assert caught.value.errno == errno.ENOSPC
    recorder.reopen()
    assert recorder.reopens == 1
