"""Terminals that are stopped, hung up, or mistaken for one another; peers that are strangers."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import termios
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import (
    Command,
    Console,
    ConsoleSocket,
    FileIO,
    InheritIO,
    PipeIO,
    Stdio,
    _sys,
)
from pyshimio.errors import ConsoleTimeoutError
from pyshimio.testing import FakeClient
from support.children import GUARD, exists, until
from support.fifos import make_fifo
from support.terminals import connect, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534
STOP, START = b"\x13", b"\x11"
LINES = 300


@contextmanager
def own_terminal() -> Iterator[tuple[int, int]]:
    """A terminal as our own stdin, stdout and stderr: (master, slave)."""
    master, slave = _sys.openpty()
    saved = [_sys.dup(number, 50) for number in range(3)]
    try:
        for number in range(3):
            os.dup2(slave, number)
        yield master, slave
    finally:
        for number, fd in enumerate(saved):
            os.dup2(fd, number)
            os.close(fd)
        os.close(master)
        os.close(slave)


def blocked(pid: int) -> bool:
    """Whether a process sleeps (nothing but a full terminal makes ours do so)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"S"


async def show(master: int, wanted: bytes) -> bytes:
    """What the terminal shows up to and with *wanted*."""
    os.set_blocking(master, False)
    seen = b""
    with anyio.fail_after(GUARD):
        while not seen.endswith(wanted):
            await anyio.wait_readable(master)
            seen += os.read(master, 65536)
    return seen


@pytest.mark.parametrize("ends", [False, True])
async def test_stopped_terminal_under_inherit_holds_up_nobody_else(
    tmp_path: Path, ends: bool
) -> None:
    """Ctrl-S stops the child that writes to the terminal, and no other stream, and no end.

    After ctrl-Q every byte is shown; closing the IO meanwhile ends the child instead.
    """
    log = tmp_path / "log"
    with own_terminal() as (master, slave):
        os.write(master, STOP)
        await until(lambda: _stopped(slave))
        async with InheritIO() as io, FileIO(log) as other, PipeIO() as echo:
            process = await io.spawn(
                ["sh", "-c", f"echo begin; seq 1 {LINES}; echo over >&2; read x"]
            )
            await until(lambda: blocked(process.pid))
            assert echo.stdin is not None
            assert echo.stdout is not None
            await echo.spawn(["cat"])
            for number in range(50):
                await echo.stdin.send(b"%d\n" % number)
                with anyio.fail_after(GUARD):
                    assert await echo.stdout.receive() == b"%d\n" % number
            writer = await other.spawn(["seq", "100000"])
            with anyio.fail_after(GUARD):
                assert await writer.wait() == 0
                assert (await other.drain()).complete
            assert log.read_bytes() == b"".join(b"%d\n" % n for n in range(1, 100_001))
            assert not process.exited
            os.set_blocking(master, False)
            with pytest.raises(BlockingIOError):
                os.read(master, 1)
            if ends:
                with anyio.fail_after(GUARD):
                    await io.aclose()
                assert not exists(process.pid)
            else:
                os.write(master, START)
                shown = await show(master, b"over\r\n")
                os.write(master, b"\n")
                with anyio.fail_after(GUARD):
                    assert await process.wait() == 0
                    assert (await io.drain()).complete
                numbers = b"".join(b"%d\r\n" % n for n in range(1, LINES + 1))
                assert shown == b"begin\r\n" + numbers + b"over\r\n"


def _stopped(slave: int) -> bool:
    """Whether a write to the terminal would block."""
    return not _sys.poll_now(slave) & _sys.EPOLLOUT


async def test_slave_that_is_closed_and_opened_again(tmp_path: Path) -> None:
    """Ten processes open the slave one after the other, each after a hang-up: all is shown."""
    console, slave = Console.open()
    name = os.ttyname(slave.fileno())
    attributes = termios.tcgetattr(slave.fileno())
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave.fileno(), termios.TCSANOW, attributes)
    log = tmp_path / "log"
    expected = b""
    async with await console.copy(Stdio(stdout=f"file://{log}")) as io:
        slave.close()
        for number in range(10):
            with anyio.fail_after(GUARD):
                await console.hangup.wait()
                command = Command(["sh", "-c", f"seq {number} 3 3000 > {name}"])
                async with await command.start() as process:
                    assert await process.wait() == 0
            expected += b"".join(b"%d\n" % n for n in range(number, 3001, 3))
            await until(partial(_has_size, log, len(expected)))

        def counted() -> bool:  # a little after it is in the file
            stats = io.stats.stdout
            return stats is not None and stats.bytes_out == len(expected)

        await until(counted)
        stats = io.stats.stdout
        assert stats is not None
        assert stats.dropped == 0
    assert log.read_bytes() == expected


def _has_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size


@pytest.mark.parametrize("task", ["reads", "copies"])
async def test_consoles_that_get_each_others_numbers(tmp_path: Path, task: str) -> None:
    """Readiness that was meant for a console never reaches the next one with its number.

    Each is closed with output ready, unread and announced, in the turn in which the next one
    is opened; every byte of each is its own.
    """
    numbers = set()
    for turn in range(10):
        client = FakeClient(make_fifo(tmp_path, f"{turn}")).attach()
        old, old_slave = Console.open()
        numbers.add(old.fileno())
        copy = await old.copy(Stdio(stdout=f"{tmp_path}/{turn}"))
        os.write(old_slave.fileno(), b"first\n")
        assert await client.read(7) == b"first\r\n"
        # Ready from now on, and not looked at before both are gone.
        os.write(old_slave.fileno(), b"stale\n")
        if turn % 2:
            copy.close()
        else:
            old.close()
        old_slave.close()
        new, slave = Console.open()
        assert new.fileno() in numbers
        numbers.add(new.fileno())
        log = tmp_path / f"log{turn}"
        if task == "copies":
            async with await new.copy(Stdio(stdout=f"file://{log}")):
                copy.close()
                for number in range(20):
                    os.write(slave.fileno(), b"%d.%d\n" % (turn, number))
                wanted = b"".join(b"%d.%d\r\n" % (turn, number) for number in range(20))
                await until(partial(_has_size, log, len(wanted)))
                slave.close()
            assert log.read_bytes() == wanted
        else:
            with anyio.move_on_after(0.01):
                # Nothing is there to be read: nobody may say so.
                pytest.fail(f"read {await new.stdout.receive()!r}")
            copy.close()
            os.write(slave.fileno(), b"mine\n")
            with anyio.fail_after(GUARD):
                assert await new.stdout.receive() == b"mine\r\n"
            slave.close()
            new.close()
        with client:
            assert await client.read_all() in {b"", b"stale\r\n"}


CROWD = 40
CONNECT = """
import socket, sys
peers = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[2]))]
for peer in peers:
    peer.connect(sys.argv[1])
print("there", flush=True)
sys.stdin.read()
"""


@pytest.mark.root
async def test_crowd_of_strangers_at_the_console_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two strangers that are turned away other tasks get their turn."""
    turns = 0
    met: list[int] = []
    real = _sys.peer_uid

    def meet(connection: socket.socket) -> int:
        met.append(turns)
        return real(connection)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0)

    monkeypatch.setattr(_sys, "peer_uid", meet)
    directory = tempfile.mkdtemp()
    os.chmod(directory, 0o755)
    try:
        async with ConsoleSocket(f"{directory}/socket") as made:
            os.chmod(made.path, 0o777)
            with subprocess.Popen(
                ["/usr/bin/python3", "-ISc", CONNECT, made.path, str(CROWD)],
                user=NOBODY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as strangers:
                assert strangers.stdout is not None
                assert strangers.stdout.readline() == b"there\n"
                async with anyio.create_task_group() as group:
                    group.start_soon(others)
                    group.start_soon(made.receive, GUARD)
                    await until(lambda: len(met) == CROWD)
                    group.cancel_scope.cancel()
    finally:
        os.rmdir(directory)
    assert len(set(met)) > CROWD / 3  # (trio takes tasks of one turn in any order)


@pytest.mark.root
async def test_strangers_at_the_console_socket() -> None:
    """A peer of another user is hung up on, and ours is waited for, before and after it.

    If only strangers come, that is a timeout, as if nobody had come; their terminals are closed.
    """
    directory = tempfile.mkdtemp()
    os.chmod(directory, 0o755)
    try:
        async with ConsoleSocket(f"{directory}/socket") as made:
            os.chmod(made.path, 0o777)
            for _ in range(3):
                master, slave = os.openpty()
                stranger = _connect_as(NOBODY, made.path)
                socket.send_fds(stranger, [b"/dev/ptmx"], [master])
                os.close(master)
                with stranger:
                    with pytest.raises(ConsoleTimeoutError):
                        await made.receive(1.0)
                    assert _hung_up(stranger)
                # Whoever took the terminal would keep it from hanging up.
                assert _sys.poll_now(slave) & _sys.EPOLLHUP
                os.close(slave)
            silent = _connect_as(NOBODY, made.path)
            ours, slave = os.openpty()
            send(made.path, b"/dev/ptmx", [ours])
            with anyio.fail_after(GUARD):
                async with await made.receive(GUARD) as console:
                    console.resize(11, 12)
            assert os.get_terminal_size(ours) == (12, 11)
            os.close(ours)
            os.close(slave)
            with silent:
                assert _hung_up(silent)
    finally:
        os.rmdir(directory)


def _hung_up(peer: socket.socket) -> bool:
    """Whether the other side has closed; with what we sent unread that is a reset."""
    peer.settimeout(GUARD)
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def _connect_as(user: int, path: str) -> socket.socket:
    os.seteuid(user)
    try:
        return connect(path)
    finally:
        os.seteuid(0)
