"""Terminals: their streams, their copies, their ends, and the children they control."""

from __future__ import annotations

import errno
import os
import signal
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import Command, Console, ConsoleIO, Stdio, StdioURI, create_io
from pyshimio.errors import (
    ChownError,
    FifoTimeoutError,
    InvalidOptionError,
    IOStateError,
    NotATerminalError,
    StreamFailedError,
    UnknownSchemeError,
)
from pyshimio.testing.faults import count_syscalls, fail_syscall
from support.terminals import GUARD, make_script, read_all, read_until, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyshimio.io._base import BaseIO

NOBODY = 65534

LOGGER = """#!/bin/sh
exec 4<&-
echo >&5
exec 5>&-
exec cat <&3 >"$2"
"""


@contextmanager
def fifo_reader(path: Path) -> Iterator[int]:
    """A new FIFO's reading client."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


async def read_fifo(fd: int) -> bytes:
    """Everything that comes until the last writer closes."""
    seen = b""
    with anyio.fail_after(GUARD):
        while True:
            await anyio.wait_readable(fd)
            if not (data := os.read(fd, 65536)):
                return seen
            seen += data


async def started(path: Path, text: bytes) -> None:
    """Wait until *text* has reached a log file."""
    await until(lambda: path.exists() and text in path.read_bytes())


# -- the console itself -------------------------------------------------------------------


async def test_size_and_resize() -> None:
    """A new terminal has no size; a new size is both sides' and is seen at once."""
    console, slave = Console.open()
    async with console:
        assert console.size == (0, 0)
        assert console.stdin is console.stdin
        console.resize(24, 80)
        assert console.size == (24, 80)
        assert os.get_terminal_size(slave.fileno()) == (80, 24)
        assert repr(console) == "<Console open 24x80>"
        slave.close()
    assert console.closed
    await console.aclose()
    assert repr(console) == "<Console closed>"


async def test_resize_tells_the_foreground_process() -> None:
    """SIGWINCH reaches the child, which then sees the new size."""
    async with ConsoleIO(size=(24, 80)) as io:
        script = 'trap "stty size; exit 0" WINCH; stty size; while :; do sleep 0.02; done'
        process = await io.spawn(["sh", "-c", script])
        assert io.console is not None
        await read_until(io.console, b"24 80")
        io.console.resize(50, 132)
        assert b"50 132" in await read_all(io.console)
        assert await process.wait(GUARD) == 0


async def test_resize_before_the_start() -> None:
    """A size given between set() and start() is the child's first size."""
    async with ConsoleIO() as io:
        command = Command(["stty", "size"])
        io.set(command)
        assert io.console is not None
        io.console.resize(30, 100)
        async with await command.start() as process:
            io.close_after_start()
            assert await read_all(io.console) == b"30 100\r\n"
            assert await process.wait(GUARD) == 0


async def test_set_raw_passes_every_byte() -> None:
    """Raw: no echo, no signals, no lines; but output is still processed, as containerd has it."""
    console, slave = Console.open()
    async with console:
        console.set_raw()
        lflag = termios.tcgetattr(slave.fileno())[3]
        assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        await console.stdin.send(b"\x03\x04\r\x00")
        assert os.read(slave.fileno(), 16) == b"\x03\x04\r\x00"
        os.write(slave.fileno(), b"x\n")
        assert await console.stdout.receive() == b"x\r\n"
        slave.close()


async def test_hangup_is_seen_by_a_reading_task() -> None:
    """The end of the stream is the hang-up."""
    async with ConsoleIO() as io:
        await io.spawn(["echo", "hello"])
        console = io.console
        assert console is not None
        assert not console.hangup.is_set()
        assert await read_all(console) == b"hello\r\n"
        assert console.hangup.is_set()


async def test_streams_carry_both_ways() -> None:
    """Without destinations the caller types and looks."""
    async with ConsoleIO() as io:
        assert (io.stdin, io.stdout, io.stderr) == (None, None, None)
        process = await io.spawn(["sh", "-c", "stty -echo; echo ready; read x; echo got $x"])
        assert io.console is not None
        assert io.stdin is io.console.stdin
        assert io.stdout is io.console.stdout
        assert "stdout=open" in repr(io)
        await read_until(io.console, b"ready")
        await io.console.stdin.send(b"typed\n")
        await read_until(io.console, b"got typed")
        assert await process.wait(GUARD) == 0


def test_a_console_needs_a_terminal(tmp_path: Path) -> None:
    """Anything else is refused and closed."""
    with pytest.raises(NotATerminalError):
        Console(os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC))
    with pytest.raises(NotATerminalError):
        Console(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))


@pytest.mark.root
async def test_a_terminal_that_may_not_be_given_away() -> None:
    """A refused chown is a typed error, and nothing of the terminal is left."""
    os.seteuid(NOBODY)
    try:
        with pytest.raises(ChownError) as caught:
            Console.open(uid=1, gid=1)
    finally:
        os.seteuid(0)
    assert (caught.value.uid, caught.value.gid) == (1, 1)


# -- a plain child ----------------------------------------------------------------------------


async def test_a_plain_child_is_controlled_by_its_terminal() -> None:
    """It leads a session whose terminal this is, in the foreground, on all three streams."""
    async with ConsoleIO() as io:
        script = 'tty; echo via >/dev/tty; echo err >&2; read -r line </proc/$$/stat; echo "$line"'
        process = await io.spawn(["sh", "-c", script])
        assert io.console is not None
        lines = (await read_all(io.console)).decode().splitlines()
        assert lines[0].startswith("/dev/pts/")
        assert lines[1:3] == ["via", "err"]
        pgrp, session, terminal, foreground = map(int, lines[3].rpartition(")")[2].split()[2:6])
        assert pgrp == session == foreground == process.pid
        assert terminal


@pytest.mark.root
async def test_a_plain_child_as_another_user_in_another_place(tmp_path: Path) -> None:
    """User, directory and terminal go together, and the terminal is the user's."""
    async with ConsoleIO(uid=NOBODY, gid=NOBODY) as io:
        script = 'stat -c %u:%g "$(tty)"; echo via >/dev/tty; pwd; id -u'
        await io.spawn(Command(["sh", "-c", script], user=NOBODY, cwd="/usr"))
        assert io.console is not None
        shown = await read_all(io.console)
        assert shown == f"{NOBODY}:{NOBODY}\r\nvia\r\n/usr\r\n{NOBODY}\r\n".encode()


async def test_typed_signals_reach_the_child() -> None:
    """A ctrl-C is the foreground's SIGINT."""
    async with ConsoleIO() as io:
        process = await io.spawn(["sh", "-c", "echo ready; exec sleep 60"])
        assert io.console is not None
        await read_until(io.console, b"ready")
        await io.console.stdin.send(b"\x03")
        assert await process.wait(GUARD) == 128 + signal.SIGINT


async def test_child_fds_are_the_slave() -> None:
    """For whoever starts children otherwise: one slave, three times, until it is given back."""
    async with ConsoleIO(size=(3, 4)) as io:
        fds = io.child_fds()
        assert io.child_fds() == fds
        assert len(set(fds.values())) == 1
        assert os.get_terminal_size(fds[0]) == (4, 3)
        os.write(fds[1], b"hello\n")
        assert io.console is not None
        await read_until(io.console, b"hello")
        io.close_after_start()
        with pytest.raises(IOStateError):
            io.child_fds()


# -- copies --------------------------------------------------------------------------------------


async def test_copy_to_and_from_fifos(tmp_path: Path) -> None:
    """What a client types goes in, what the terminal shows comes out."""
    os.mkfifo(tmp_path / "in")
    stdio = Stdio(stdin=f"{tmp_path}/in", stdout=f"fifo://{tmp_path}/out", terminal=True)
    with fifo_reader(tmp_path / "out") as shown:
        async with await create_io(stdio) as io:
            assert io.stdin is None
            process = await io.spawn(["sh", "-c", "stty -echo; cat; echo end"])
            typing = os.open(tmp_path / "in", os.O_WRONLY)
            os.write(typing, b"one\ntwo\n")
            os.close(typing)
            io.close_stdin()
            io.close_stdin()
            assert await process.wait(GUARD) == 0
            result = await io.drain()
            assert result.complete
            text = await read_fifo(shown)
            assert text.replace(b"\r", b"").endswith(b"one\ntwo\nend\n")
            assert io.stats.stdout is not None
            assert io.stats.stdout.bytes_out == len(text)


async def test_copy_to_a_file(tmp_path: Path) -> None:
    """A terminal can be logged into a file, which containerd cannot do."""
    log = tmp_path / "deep" / "log"
    stdio = Stdio(stdout=f"file://{log}", stderr="unknown:///ignored", terminal=True)
    async with await create_io(stdio, size=(24, 80)) as io:
        process = await io.spawn(["sh", "-c", "stty size; echo err >&2; exit 4"])
        result = await io.drain()
        assert result.complete
        assert result.stderr is None
        assert process.status == 4
    assert log.read_bytes() == b"24 80\r\nerr\r\n"


@pytest.mark.parametrize("scheme", ["binary", "binary-v2"])
async def test_copy_to_a_logger(tmp_path: Path, scheme: str) -> None:
    """A logger gets the screen on descriptor 3 and its end with the terminal's."""
    program = make_script(tmp_path / "logger", LOGGER)
    uri = StdioURI.build(scheme, program, [("to", str(tmp_path / "log"))])
    stdio = Stdio(stdout=str(uri), terminal=True)
    async with await create_io(stdio, id="c1", namespace="ns") as io:
        await io.spawn(["sh", "-c", "echo out; echo err >&2"])
        with anyio.fail_after(GUARD):
            result = await io.drain()
        assert result.complete
        assert result.logger_ended
    assert (tmp_path / "log").read_bytes() == b"out\r\nerr\r\n"


@pytest.mark.parametrize("stdout", ["", "null:"])
async def test_a_screen_that_nobody_looks_at(stdout: str) -> None:
    """Without a destination the output goes nowhere, and stops nobody."""
    async with await create_io(Stdio(stdout=stdout, terminal=True)) as io:
        process = await io.spawn(["seq", "20000"])
        assert await process.wait(GUARD) == 0


async def test_a_console_copies_itself(tmp_path: Path) -> None:
    """copy() of a console gives an IO that owns it; its streams are taken then."""
    console, slave = Console.open()
    os.write(slave.fileno(), b"before\n")
    io = await console.copy(Stdio(stdout=f"file://{tmp_path}/log"))
    async with io:
        with pytest.raises(anyio.BusyResourceError):
            await console.stdout.receive()
        os.write(slave.fileno(), b"after\n")
        await started(tmp_path / "log", b"after\r\n")
        slave.close()
        with anyio.fail_after(GUARD):
            await console.hangup.wait()
    assert console.closed
    assert (tmp_path / "log").read_bytes() == b"before\r\nafter\r\n"


async def test_a_copy_that_cannot_be_leaves_the_console_alone(tmp_path: Path) -> None:
    """A bad destination is said before anything happens; one that fails later closes all."""
    console, slave = Console.open()
    with pytest.raises(UnknownSchemeError):
        await console.copy(Stdio(stdout="unknown:///x"))
    assert os.isatty(console.fileno())
    os.mkfifo(tmp_path / "out")
    with pytest.raises(FifoTimeoutError):
        await console.copy(Stdio(stdout=str(tmp_path / "out")), client_timeout=0.02)
    assert console.closed
    slave.close()


@pytest.mark.parametrize("kind", ["file", "fifo"])
async def test_a_slave_that_is_opened_again(tmp_path: Path, kind: str) -> None:
    """A hang-up is no end: who opens the slave again is heard again, twice."""
    console, slave = Console.open()
    name = os.ttyname(slave.fileno())
    slave.close()
    shown = b""
    with fifo_reader(tmp_path / "out") as reader:
        stdio = Stdio(stdout=f"{kind}://{tmp_path}/{'out' if kind == 'fifo' else 'log'}")
        async with await console.copy(stdio):
            for number in range(3):
                with open(name, "w") as terminal:
                    terminal.write(f"{number}\n")
                with anyio.fail_after(GUARD):
                    await console.hangup.wait()
                if kind == "file":
                    await started(tmp_path / "log", b"%d\r\n" % number)
                    shown = (tmp_path / "log").read_bytes()
                else:
                    with anyio.fail_after(GUARD):
                        await anyio.wait_readable(reader)
                    shown += os.read(reader, 100)
    assert shown == b"0\r\n1\r\n2\r\n"


@pytest.mark.parametrize("target", ["null", "file"])
async def test_a_hung_up_terminal_does_not_spin(tmp_path: Path, target: str) -> None:
    """A terminal without slaves costs nothing while nothing happens, wherever it goes."""
    console, slave = Console.open()
    slave.close()
    uri = "null:" if target == "null" else f"file://{tmp_path}/log"
    async with await console.copy(Stdio(stdout=uri)):
        with anyio.fail_after(GUARD):
            await console.hangup.wait()
        await anyio.wait_all_tasks_blocked()
        with count_syscalls() as calls:
            await anyio.sleep(0.3)
        assert sum(name in {"read", "readv"} for name in calls.names) < 10


async def test_two_consoles_with_the_same_numbers(tmp_path: Path) -> None:
    """Closing what is left of the first does not silence the one that has its numbers now."""
    os.mkfifo(tmp_path / "in")
    first, slave = Console.open()
    one = await first.copy(Stdio(stdin=f"{tmp_path}/in", stdout=f"file://{tmp_path}/one"))
    number = first.fileno()
    first.close()
    slave.close()
    second, slave = Console.open()
    assert second.fileno() == number
    async with await second.copy(Stdio(stdout=f"file://{tmp_path}/two")):
        os.write(slave.fileno(), b"1\n")
        await started(tmp_path / "two", b"1\r\n")
        one.close()
        os.write(slave.fileno(), b"2\n")
        await started(tmp_path / "two", b"2\r\n")
        slave.close()


# -- the end of typing --------------------------------------------------------------------------


async def end_of_typing(
    tmp_path: Path, typed: bytes, console: Console, **options: object
) -> BaseIO:
    """Copy from a FIFO into which a client typed and went away, up to its end."""
    os.mkfifo(tmp_path / "in")
    io = await create_io(
        Stdio(stdin=str(tmp_path / "in"), stdout="null:", terminal=True),
        console=console,
        **options,  # type: ignore[arg-type]
    )
    await io.copy()
    client = os.open(tmp_path / "in", os.O_WRONLY)
    os.write(client, typed)
    os.close(client)
    io.close_stdin()
    with anyio.fail_after(GUARD):
        await io._pumps["stdin"].done.wait()
    return io


@pytest.mark.parametrize(
    "typed, reads",
    [
        (b"", [b""]),
        (b"abc\n", [b"abc\n", b""]),
        (b"abc\r", [b"abc\n", b""]),
        (b"abc", [b"abc", b""]),
        (b"one\nabc", [b"one\n", b"abc", b""]),
        (b"abc\x04", [b"abc"]),
        (b"abc\x15", [b""]),
    ],
)
async def test_eof_char_ends_the_input_once(
    tmp_path: Path, typed: bytes, reads: list[bytes]
) -> None:
    """The end-of-input character: once at a line's start, twice in an unfinished line."""
    console, slave = Console.open()
    async with await end_of_typing(tmp_path, typed, console):
        if typed.endswith(b"\x04"):
            reads = [*reads, b""]
        os.write(console.fileno(), b"next\n")
        assert [os.read(slave.fileno(), 100) for _ in reads] == reads
        assert os.read(slave.fileno(), 100) == b"next\n"
        slave.close()


async def test_eof_char_is_the_terminals_own(tmp_path: Path) -> None:
    """The character is asked for, not assumed."""
    console, slave = Console.open()
    attributes = termios.tcgetattr(slave.fileno())
    attributes[6][termios.VEOF] = b"\x01"
    termios.tcsetattr(slave.fileno(), termios.TCSANOW, attributes)
    async with await end_of_typing(tmp_path, b"\x04", console):
        assert os.read(slave.fileno(), 100) == b"\x04"
        assert os.read(slave.fileno(), 100) == b""
        slave.close()


@pytest.mark.parametrize("disabled", [False, True])
async def test_eof_char_types_nothing_where_there_is_none(tmp_path: Path, disabled: bool) -> None:
    """With ICANON off, or the character disabled, nothing is typed."""
    console, slave = Console.open()
    if disabled:
        attributes = termios.tcgetattr(slave.fileno())
        attributes[6][termios.VEOF] = b"\x00"
        termios.tcsetattr(slave.fileno(), termios.TCSANOW, attributes)
    else:
        tty.setraw(slave.fileno())
    async with await end_of_typing(tmp_path, b"abc", console):
        os.write(console.fileno(), b"d\n")
        seen = b""
        while len(seen) < 5:
            seen += os.read(slave.fileno(), 100)
        assert seen == b"abcd\n"
        slave.close()


async def test_ignore_types_nothing(tmp_path: Path) -> None:
    """With "ignore" the end of the FIFO is nobody's business."""
    console, slave = Console.open()
    io = await end_of_typing(tmp_path, b"abc", console, stdin_eof="ignore")
    async with io:
        io.close_stdin()
        os.write(console.fileno(), b"d\n")
        assert os.read(slave.fileno(), 100) == b"abcd\n"
        slave.close()


async def test_hangup_ends_the_session(tmp_path: Path) -> None:
    """With "hangup" the end of the FIFO is the session's SIGHUP, as containerd has it."""
    os.mkfifo(tmp_path / "in")
    stdio = Stdio(stdin=str(tmp_path / "in"), stdout=f"file://{tmp_path}/log", terminal=True)
    async with await create_io(stdio, stdin_eof="hangup") as io:
        process = await io.spawn(["sh", "-c", "echo ready; exec sleep 60"])
        await started(tmp_path / "log", b"ready")
        io.close_stdin()
        assert await process.wait(GUARD) == 128 + signal.SIGHUP
        with anyio.fail_after(GUARD):
            await io.drain()


async def test_eof_waits_until_the_terminal_has_room(tmp_path: Path) -> None:
    """More lines than a terminal holds all arrive, and the end of input behind them."""
    lines = [b"%0100d\n" % number for number in range(2000)]
    console, slave = Console.open()
    os.mkfifo(tmp_path / "in")
    async with await console.copy(Stdio(stdin=str(tmp_path / "in"), stdout="null:")) as io:
        client = os.open(tmp_path / "in", os.O_RDWR | os.O_NONBLOCK)
        os.set_blocking(slave.fileno(), False)

        async def write() -> None:
            view = memoryview(b"".join(lines))
            while view:
                await anyio.wait_writable(client)
                view = view[os.write(client, view[:4096]) :]
            os.close(client)
            io.close_stdin()

        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group:
                group.start_soon(write)
                # Nothing is read before all room is used up.
                await anyio.sleep(0.1)
                for line in lines:
                    assert await read_some(slave.fileno()) == line
                assert await read_some(slave.fileno()) == b""
        slave.close()


async def read_some(fd: int) -> bytes:
    """One read of a non-blocking terminal, as soon as there is something."""
    while True:
        try:
            return os.read(fd, 65536)
        except BlockingIOError:
            await anyio.wait_readable(fd)


async def test_long_canonical_input_goes_by_lines(tmp_path: Path) -> None:
    """Far more than the 4,095 bytes that a terminal holds reach a child that reads lines."""
    os.mkfifo(tmp_path / "in")
    stdio = Stdio(stdin=str(tmp_path / "in"), stdout=f"file://{tmp_path}/log", terminal=True)
    async with await create_io(stdio) as io:
        process = await io.spawn(["sh", "-c", "stty -echo; echo ready; wc"])
        await started(tmp_path / "log", b"ready")
        client = os.open(tmp_path / "in", os.O_WRONLY)
        os.write(client, (b"x" * 99 + b"\n") * 500)
        os.close(client)
        io.close_stdin()
        assert await process.wait(GUARD) == 0
        assert (await io.drain()).complete
    assert (tmp_path / "log").read_text().split()[1:] == ["500", "500", "50000"]


@pytest.mark.parametrize("typed", [b"", b"abc\n", b"abc"])
async def test_close_stdin_of_a_typing_caller(typed: bytes) -> None:
    """Without a FIFO close_stdin() ends the caller's typing, in an unfinished line too."""
    async with ConsoleIO() as io:
        process = await io.spawn(["sh", "-c", "stty -echo; echo ready; cat; echo end"])
        assert io.console is not None
        await read_until(io.console, b"ready")
        if typed:
            await io.console.stdin.send(typed)
        io.close_stdin()
        io.close_stdin()
        assert b"end" in await read_all(io.console)
        assert await process.wait(GUARD) == 0
        io.close_stdin()
        with pytest.raises(anyio.BusyResourceError):
            await io.console.stdin.send(b"more")


@pytest.mark.parametrize("policy", ["eof_char", "hangup"])
async def test_close_stdin_is_a_latch(tmp_path: Path, policy: str) -> None:
    """Called before there is a terminal it takes effect when there is one."""
    async with ConsoleIO(stdin_eof=policy) as io:  # type: ignore[arg-type]
        io.close_stdin()
        process = await io.spawn(["cat"])
        assert await process.wait(GUARD) == (0 if policy == "eof_char" else 128 + signal.SIGHUP)


async def test_hang_up_while_both_ways_are_copied(tmp_path: Path) -> None:
    """hang_up() ends both pumps before it closes their numbers, and can be repeated."""
    os.mkfifo(tmp_path / "in")
    stdio = Stdio(stdin=str(tmp_path / "in"), stdout=f"file://{tmp_path}/log", terminal=True)
    async with await create_io(stdio) as io:
        assert isinstance(io, ConsoleIO)
        process = await io.spawn(["sleep", "60"])
        io.hang_up()
        io.hang_up()
        assert await process.wait(GUARD) == 128 + signal.SIGHUP


# -- draining --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "fifo"])
async def test_a_million_lines(tmp_path: Path, kind: str) -> None:
    """Not one of a million lines is lost, whatever the sink."""
    target = tmp_path / "log"
    stdio = Stdio(stdout=f"{kind}://{target}", terminal=True)
    expected = sum(len(str(number)) + 2 for number in range(1, 1_000_001))
    if kind == "fifo":
        os.mkfifo(target)
        counter = Command(["sh", "-c", f"tr -d '\\r' <{target} | cksum >{tmp_path}/sum"])
    else:
        counter = Command(["true"])
    async with await counter.start() as client:
        async with await create_io(stdio) as io:
            process = await io.spawn(["seq", "1000000"])
            assert await process.wait(50) == 0
            result = await io.drain()
            assert result.complete
            assert result.stdout is not None
            assert result.stdout.moved == expected
        await client.wait(GUARD)
    if kind == "file":
        lines = target.read_bytes().split(b"\r\n")
        assert len(lines) == 1_000_001
        assert lines[-2:] == [b"1000000", b""]
    else:
        reference = Command(["sh", "-c", f"seq 1000000 | cksum >{tmp_path}/reference"])
        async with await reference.start() as process:
            await process.wait(GUARD)
        assert (tmp_path / "sum").read_text() == (tmp_path / "reference").read_text()


async def test_the_end_of_a_session_ends_the_drain(tmp_path: Path) -> None:
    """A background process that holds the slave costs no linger: its terminal is gone."""
    stdio = Stdio(stdout=f"file://{tmp_path}/log", terminal=True)
    async with await create_io(stdio) as io:
        await io.spawn(["sh", "-c", 'trap "" HUP; sleep 60 & echo $! >&2; echo hi'])
        with anyio.fail_after(GUARD):
            result = await io.drain(linger=3600)
        assert result.complete
    number, hello = (tmp_path / "log").read_text().split()
    os.kill(int(number), signal.SIGKILL)
    assert hello == "hi"


async def test_a_hung_up_terminal_costs_no_linger(tmp_path: Path) -> None:
    """After the exit a terminal that nobody has open is at its end, whoever controlled it."""
    console, slave = Console.open()
    async with await console.copy(Stdio(stdout=f"file://{tmp_path}/log")) as io:
        async with await Command(["echo", "hi"], stdout=slave).start() as process:
            slave.close()
            with anyio.fail_after(GUARD):
                result = await io.drain(exited=process, linger=3600)
        assert result.complete
    assert (tmp_path / "log").read_bytes() == b"hi\r\n"


async def test_a_holder_outside_the_session_does_not_delay_the_drain(tmp_path: Path) -> None:
    """With the policy "exited" nobody waits for who holds the slave; all before is there."""
    console, slave = Console.open()
    command = Command(["sh", "-c", "echo hi"], stdout=slave)
    async with await console.copy(Stdio(stdout=f"file://{tmp_path}/log")) as io:
        async with await command.start() as process:
            with anyio.fail_after(GUARD):
                result = await io.drain(exited=process, policy="exited")
        assert result.stdout is not None
        assert result.stdout.holders_left
        assert (tmp_path / "log").read_bytes() == b"hi\r\n"
        slave.close()


async def test_drain_takes_a_bounded_rest(tmp_path: Path) -> None:
    """A background writer on the slave cannot hold the drain longer than 64 KiB."""
    console, slave = Console.open()
    with slave_command(slave.fileno(), ["yes"]) as command:
        async with await console.copy(Stdio(stdout="null:")) as io:
            async with await command.start() as writer, await Command(["true"]).start() as process:
                slave.close()
                assert await process.wait(GUARD) == 0
                assert io.stats.stdout is not None
                before = io.stats.stdout.bytes_in
                with anyio.fail_after(GUARD):
                    result = await io.drain(exited=process, policy="exited")
                assert result.complete
                assert io.stats.stdout.bytes_in - before <= 65536
                console.close()
                await writer.wait(GUARD)


@contextmanager
def slave_command(slave: int, args: list[str]) -> Iterator[Command]:
    """A command with a terminal as its streams that does not control it."""
    with Command(args, stdin=slave, stdout=slave, stderr=slave) as command:
        yield command


async def test_keep_goes_on_after_the_drain(tmp_path: Path) -> None:
    """With "keep" the terminal is heard until the IO is closed."""
    console, slave = Console.open()
    async with await console.copy(Stdio(stdout=f"file://{tmp_path}/log")) as io:
        os.write(slave.fileno(), b"one\n")
        async with await Command(["true"]).start() as process:
            with anyio.fail_after(GUARD):
                await io.drain(exited=process, policy="keep")
        assert (tmp_path / "log").read_bytes() == b"one\r\n"
        os.write(slave.fileno(), b"two\n")
        await started(tmp_path / "log", b"two\r\n")
        slave.close()


# -- closing and misuse -----------------------------------------------------------------------


async def test_a_cancelled_aclose_gives_no_grace() -> None:
    """A child that minds nothing is dead and reaped when a cancelled aclose() returns."""
    io = ConsoleIO()
    process = await io.spawn(
        ["sh", "-c", 'trap "" TERM HUP; echo ready; while :; do sleep 1; done']
    )
    assert io.console is not None
    await read_until(io.console, b"ready")
    with anyio.move_on_after(0.02) as scope:
        await io.aclose()
    assert scope.cancelled_caught
    assert process.status == 128 + signal.SIGKILL
    assert io.console.closed
    assert "closed" in repr(io)
    await io.aclose()


async def test_close_never_waits() -> None:
    """close() hangs up and kills at once; the loop reaps."""
    io = ConsoleIO()
    process = await io.spawn(["sleep", "60"])
    io.close()
    io.close()
    assert await process.wait(GUARD) in {128 + signal.SIGKILL, 128 + signal.SIGHUP}


async def test_misuse_of_a_console_io(tmp_path: Path) -> None:
    """One terminal for each IO, known options, and a terminal before a copy."""
    with pytest.raises(InvalidOptionError):
        ConsoleIO(stdin_eof="bell")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError):
        ConsoleIO(on_exit="maybe")  # type: ignore[arg-type]
    for wrong in ({"uid": -5}, {"gid": 1 << 40}, {"chown": "maybe"}, {"size": (70000, 1)}):
        with pytest.raises(InvalidOptionError):
            ConsoleIO(**wrong)
        with pytest.raises(InvalidOptionError):
            await create_io(Stdio(stdout=f"file://{tmp_path}/log", terminal=True), **wrong)
    assert not (tmp_path / "log").exists()
    async with ConsoleIO() as io:
        with pytest.raises(IOStateError):
            await io.copy()
        with Command(["true"]) as command:
            io.set(command)
            with pytest.raises(IOStateError):
                io.set(command)
        assert io.console is not None
        console = io.console
        io.child_fds()
    assert console.closed
    with pytest.raises(IOStateError):
        io.child_fds()
    with pytest.raises(IOStateError):
        io.set(Command(["true"]))
    with pytest.raises(IOStateError):
        await io.copy()


async def test_a_terminal_s_owner_that_the_kernel_refuses(tmp_path: Path) -> None:
    """A refused chown is an error before anything is made, or none at all with "try"."""
    destinations = Stdio(stdout=f"file://{tmp_path}/log", terminal=True)
    with fail_syscall("fchown", error=errno.EPERM), pytest.raises(ChownError):
        await create_io(destinations, uid=1234, runtime=False)
    assert not (tmp_path / "log").exists()
    # Nobody knows yet whether a runtime, which needs no such right, will be run.
    with fail_syscall("fchown", error=errno.EPERM) as calls:
        undecided = ConsoleIO(1234)
        assert calls.failed is None
        with pytest.raises(ChownError):
            await undecided.spawn(["true"])
    with fail_syscall("fchown", error=errno.EPERM) as calls:
        io = await create_io(destinations, uid=1234, chown="try", runtime=False)
    assert calls.failed == "fchown"
    async with io:
        with fail_syscall("fchown", error=errno.EPERM) as calls:
            process = await io.spawn(["sh", "-c", "test -t 1 && echo yes"])
        assert calls.failed == "fchown"
        assert await process.wait() == 0
        await io.drain()
    assert (tmp_path / "log").read_bytes() == b"yes\r\n"


@pytest.mark.parametrize("lines", [0, 1, 20_000])
async def test_a_file_is_typed_in(tmp_path: Path, lines: int) -> None:
    """A file as a terminal's stdin is typed to its end, and then the end, however slowly read."""
    text = b"".join(b"%07d\n" % number for number in range(lines))
    (tmp_path / "in").write_bytes(text)
    source, screen = (f"file://{tmp_path}/{name}" for name in ("in", "log"))
    destinations = Stdio(stdin=source, stdout=screen, terminal=True)
    async with await create_io(destinations) as io:
        assert io.stdin is None
        process = await io.spawn(["sh", "-c", f"stty -echo; sleep 0.1; cat > {tmp_path}/out"])
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
        await io.drain()
        stats = io.stats.stdin
        assert stats is not None
        assert stats.bytes_out >= len(text)
    assert (tmp_path / "out").read_bytes() == text


async def test_a_device_is_typed_in(tmp_path: Path) -> None:
    """/dev/null is a file without a byte."""
    async with await create_io(Stdio(stdin="/dev/null", terminal=True)) as io:
        process = await io.spawn(["cat"])
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
        await io.drain()


async def test_another_terminal_is_typed_in() -> None:
    """What is typed at one terminal goes to the other one, and close_stdin() ends it."""
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        stdin = f"file://{os.ttyname(slave)}"
        async with await create_io(Stdio(stdin=stdin, terminal=True)) as io:
            process = await io.spawn(["sh", "-c", "stty -echo; read x; test $x = yes && cat"])
            os.write(master, b"yes\n")
            await until(lambda: (stats := io.stats.stdin) is not None and stats.bytes_out == 4)
            io.close_stdin()
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
    finally:
        os.close(master)
        os.close(slave)


async def test_another_terminal_is_typed_in_faster_than_read(tmp_path: Path) -> None:
    """A paste that is larger than the other terminal waits, and arrives whole."""
    text = b"".join(b"%0500d\n" % number for number in range(40))
    go, out = tmp_path / "go", tmp_path / "out"
    os.mkfifo(go)
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        stdin = f"file://{os.ttyname(slave)}"
        async with await create_io(Stdio(stdin=stdin, terminal=True)) as io:
            script = f"stty -echo; read go < {go}; head -c {len(text)} > {out}"
            process = await io.spawn(["sh", "-c", script])
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, _write_all, master, text)
                await until(lambda: (stats := io.stats.stdin) is not None and stats.blocked > 0)
                await anyio.to_thread.run_sync(go.write_bytes, b"go\n")
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
    finally:
        os.close(master)
        os.close(slave)
    assert out.read_bytes() == text


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


async def test_lines_of_another_terminal(tmp_path: Path) -> None:
    """Each read of a terminal gets one line; those that wait behind it are typed as well."""
    master, slave = os.openpty()
    try:
        os.write(master, b"one\ntwo\nthree\n")
        stdin = f"file://{os.ttyname(slave)}"
        async with await create_io(Stdio(stdin=stdin, terminal=True)) as io:
            process = await io.spawn(["sh", "-c", "read a && read b && read c"])
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
    finally:
        os.close(master)
        os.close(slave)


async def test_close_stdin_ends_a_file_that_is_typed_in() -> None:
    """Who has heard enough of an endless file says so, and the end is typed."""
    async with await create_io(Stdio(stdin="file:///dev/zero", terminal=True)) as io:
        process = await io.spawn(["sh", "-c", "stty raw -echo; exec head -c 100000"])
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
        io.close_stdin()
        await io.drain()


async def test_a_given_console_serves_no_child() -> None:
    """An IO around a received console starts nothing and makes no second terminal."""
    console, slave = Console.open()
    async with ConsoleIO(console=console) as io:
        with Command(["true"]) as command, pytest.raises(IOStateError):
            io.set(command)
        with pytest.raises(IOStateError):
            io.child_fds()
        assert io.console is console
        slave.close()
    assert console.closed


async def test_a_runtimes_io_makes_no_terminal() -> None:
    """A runtime sends the terminal; the child's ends are not to be had."""
    async with ConsoleIO() as io:
        with Command(["runc", "create", "c1"]) as command:
            io.set(command)
            with pytest.raises(IOStateError):
                io.child_fds()


async def test_a_sink_that_fails_ends_the_copy(tmp_path: Path) -> None:
    """A full disk with on_error="fail" is drain()'s to say, and hangs nobody."""
    stdio = Stdio(stdout="file:///dev/full", terminal=True)
    async with await create_io(stdio, on_error="fail") as io:
        process = await io.spawn(["sh", "-c", "echo x; sleep 60"])
        with anyio.fail_after(GUARD):
            await io._pumps["stdout"].done.wait()
        process.kill()
        with pytest.raises(StreamFailedError):
            await io.drain()
