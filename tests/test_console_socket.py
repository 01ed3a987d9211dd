"""The socket over which a runtime sends a terminal: who is heard, what is taken, what stays."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import Command, Console, ConsoleIO, ConsoleSocket, _sys
from pyshimio.errors import (
    ConsoleDescriptorCountError,
    ConsoleError,
    ConsoleMessageError,
    ConsoleMessageTooLongError,
    ConsolePeerClosedError,
    ConsoleRuntimeExitedError,
    ConsoleTimeoutError,
    ConsoleTruncatedError,
    IOStateError,
    NotARuntimeCommandError,
    NotATerminalError,
    SocketPathError,
)
from support.terminals import GUARD, RUNTIME, connect, make_script, pipe_fds, send

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NOBODY = 65534


@contextmanager
def closing(fds: Sequence[int]) -> Iterator[Sequence[int]]:
    """Close the descriptors that were sent: the peer's copies are not what is tested."""
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def gone(made: ConsoleSocket) -> bool:
    """Whether neither the socket nor its directory is there."""
    return not os.path.lexists(os.path.dirname(made.path))


# -- where it is ------------------------------------------------------------------------


def test_temp_makes_a_private_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but its user can reach a temporary socket, and closing removes all of it."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    made = ConsoleSocket.temp()
    directory = os.path.dirname(made.path)
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert os.path.dirname(directory) == tempfile.gettempdir()
    assert stat.S_ISSOCK(os.stat(made.path).st_mode)
    assert not os.stat(made.path).st_mode & stat.S_ISVTX
    assert "listening" in repr(made)
    made.close()
    made.close()
    assert gone(made)
    assert "closed" in repr(made)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with room for a socket's path, wherever pytest keeps its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def test_temp_prefers_the_runtime_directory(monkeypatch: pytest.MonkeyPatch, short: Path) -> None:
    """With XDG_RUNTIME_DIR the socket is there, sticky, so that cleaners leave it alone."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    made = ConsoleSocket.temp()
    try:
        assert Path(made.path).parent.parent == short
        assert os.stat(made.path).st_mode & stat.S_ISVTX
        assert stat.S_IMODE(os.stat(os.path.dirname(made.path)).st_mode) == 0o700
    finally:
        made.close()
    assert list(short.iterdir()) == []


@pytest.mark.parametrize("length", [90, 200])
def test_temp_keeps_its_path_short(
    monkeypatch: pytest.MonkeyPatch, short: Path, length: int
) -> None:
    """A runtime directory or TMPDIR whose name is too long is passed over, and left empty."""
    deep = Path(str(short) + "/" + "d" * (length - len(str(short)) - 1))
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with_slack = len(str(deep)) + len("/pty12345678/pty.sock") <= 107
    made = ConsoleSocket.temp()
    try:
        assert len(os.fsencode(made.path)) <= 107
        assert made.path.startswith(str(deep)) is with_slack
    finally:
        made.close()
    assert list(deep.iterdir()) == []


def test_temp_passes_over_a_missing_runtime_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """XDG_RUNTIME_DIR may name a directory that nobody made."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    made = ConsoleSocket.temp()
    made.close()
    assert gone(made)


def test_temp_says_that_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any directory the error is the socket's own, and nothing is left."""

    def refuse(prefix: str, dir: str) -> str:  # noqa: A002 - the name is mkdtemp's
        raise PermissionError(13, "Permission denied", dir)

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(SocketPathError):
        ConsoleSocket.temp()


def test_temp_undoes_its_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When the kernel refuses to listen, the directory goes again."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def refuse(path: str) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(_sys, "listen_unix", refuse)
    with pytest.raises(SocketPathError) as caught:
        ConsoleSocket.temp()
    assert caught.value.errno == 24
    assert list(tmp_path.iterdir()) == []


def test_a_path_of_107_bytes_and_no_more(tmp_path: Path) -> None:
    """The kernel's limit is said before anything is made."""
    path = f"{tmp_path}/".ljust(107, "p")
    ConsoleSocket(path).close()
    with pytest.raises(SocketPathError, match="107") as caught:
        ConsoleSocket(path + "p")
    assert caught.value.path == path + "p"
    with pytest.raises(SocketPathError):
        ConsoleSocket(f"{tmp_path}/".ljust(106, "p") + "é")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["taken", "missing/socket", "nul\0here"])
def test_a_path_that_cannot_be_listened_at(tmp_path: Path, name: str) -> None:
    """A taken or impossible path is a SocketPathError, and what is there stays."""
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(SocketPathError):
        ConsoleSocket(tmp_path / name)
    assert (tmp_path / "taken").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_socket_that_cannot_listen_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A failure between bind and listen leaves no socket in the file system."""

    def refuse(self: socket.socket, backlog: int = 128) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket.socket, "listen", refuse)
    with pytest.raises(SocketPathError):
        ConsoleSocket(tmp_path / "socket")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A runtime with another working directory has to find it too."""
    monkeypatch.chdir(tmp_path)
    made = ConsoleSocket("socket")
    assert made.path == str(tmp_path / "socket")
    made.close()
    assert list(tmp_path.iterdir()) == []


# -- the flag -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args, index",
    [
        (["runc", "create", "c1"], 2),
        (["runc", "run", "-d", "c1"], 2),
        (["crun", "exec", "c1", "run"], 2),
        (["runc", "restore", "c1"], 2),
        (["runc", "--root", "run", "create", "c1"], 4),
        (["runc", "--root=run", "--debug", "exec", "c1"], 4),
        (["runc", "--log", "create", "--log-format", "json", "run", "c1"], 6),
        (["runc", "-root", "create", "run", "c1"], 4),
        (["crun", "--cgroup-manager", "exec", "create", "c1"], 4),
        (["/usr/bin/env-runc", "create"], 2),
    ],
)
def test_set_puts_the_flag_behind_the_verb(tmp_path: Path, args: list[str], index: int) -> None:
    """The flag follows the first create, run, exec or restore that is no flag's value."""
    made = ConsoleSocket(tmp_path / "socket")
    with Command(args) as command:
        made.set(command)
        expected = [*args[:index], "--console-socket", made.path, *args[index:]]
        assert command.args == expected
    made.close_after_start()
    made.close()
    assert not os.path.exists(made.path)


@pytest.mark.parametrize(
    "args",
    [
        ["runc"],
        ["runc", "--root", "run"],
        ["runc", "start", "run"],
        ["runc", "--version"],
        ["runc", "--log", "create"],
        ["run", "it"],
    ],
)
def test_set_refuses_other_commands(tmp_path: Path, args: list[str]) -> None:
    """A command that takes no console socket stays as it is."""
    made = ConsoleSocket(tmp_path / "socket")
    with Command(args) as command, pytest.raises(NotARuntimeCommandError) as caught:
        made.set(command)
    assert command.args == args
    assert caught.value.args_ == tuple(args)
    made.close()


def test_set_refuses_a_closed_socket(tmp_path: Path) -> None:
    """A runtime could not connect to it."""
    made = ConsoleSocket(tmp_path / "socket")
    made.close()
    with Command(["runc", "create"]) as command, pytest.raises(IOStateError):
        made.set(command)
    assert command.args == ["runc", "create"]


# -- what is taken ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"/dev/ptmx", b" ", b"\xff" * 4095])
async def test_receive_takes_a_terminal(name: bytes) -> None:
    """One terminal is a console, whatever the peer calls it (crun calls it a space)."""
    async with ConsoleSocket.temp() as made:
        with closing(os.openpty()) as (master, _):
            send(made.path, name, [master])
            async with await made.receive(GUARD) as console:
                assert isinstance(console, Console)
                assert fcntl.fcntl(console.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
                console.resize(7, 8)
                assert os.get_terminal_size(master) == (8, 7)
    assert gone(made)


def test_descriptors_are_close_on_exec_at_receipt() -> None:
    """Not a moment later: a child of another thread must not inherit a terminal."""
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(pipe_fds(2)) as sent:
        socket.send_fds(theirs, [b"x"], sent)
        data, fds, cut = _sys.recv_fds(ours, 16)
        with closing(fds):
            assert (data, len(fds), cut) == (b"x", 2, False)
            assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds)


async def test_receive_waits_for_the_peer() -> None:
    """A peer may connect late and speak later still."""
    async with ConsoleSocket.temp() as made:
        with closing(os.openpty()) as (master, _):
            consoles = []

            async def receive() -> None:
                consoles.append(await made.receive(GUARD))

            async with anyio.create_task_group() as group:
                group.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                with connect(made.path) as peer:
                    await anyio.wait_all_tasks_blocked()
                    socket.send_fds(peer, [b"x"], [master])
            consoles[0].close()
            consoles[0].close()
            assert repr(consoles[0]) == "<Console closed>"


async def test_two_descriptors_are_refused() -> None:
    """Exactly one was due; both are closed."""
    async with ConsoleSocket.temp() as made:
        with closing(os.openpty()) as fds:
            send(made.path, b"/dev/ptmx", fds)
            with pytest.raises(ConsoleDescriptorCountError) as caught:
                await made.receive(GUARD)
    assert caught.value.count == 2


async def test_more_descriptors_than_fit_are_refused() -> None:
    """A control message that the kernel cut is an error of its own; what came is closed."""
    async with ConsoleSocket.temp() as made:
        with closing(pipe_fds(100)) as fds:
            send(made.path, b"/dev/ptmx", fds)
            with pytest.raises(ConsoleTruncatedError):
                await made.receive(GUARD)


async def test_a_regular_file_is_refused(tmp_path: Path) -> None:
    """A descriptor that is no terminal is closed."""
    async with ConsoleSocket.temp() as made:
        with open(tmp_path / "file", "w") as file:
            send(made.path, b"/dev/ptmx", [file.fileno()])
            with pytest.raises(NotATerminalError):
                await made.receive(GUARD)


@pytest.mark.parametrize(
    "payload, error",
    [
        (b"", ConsolePeerClosedError),
        (b"garbage", ConsoleMessageError),
        (b"x" * 4095, ConsoleMessageError),
        (b"x" * 4096, ConsoleMessageTooLongError),
        (b"x" * 5000, ConsoleMessageTooLongError),
    ],
)
async def test_messages_without_a_terminal(payload: bytes, error: type[ConsoleError]) -> None:
    """Nothing, garbage and too much are told apart, and all are OSErrors."""
    async with ConsoleSocket.temp() as made:
        send(made.path, payload)
        with pytest.raises(error) as caught:
            await made.receive(GUARD)
        assert isinstance(caught.value, OSError)
    assert gone(made)


async def test_a_long_message_with_a_terminal_is_refused() -> None:
    """A terminal that comes with 5,000 bytes is closed again."""
    async with ConsoleSocket.temp() as made:
        with closing(os.openpty()) as (master, _):
            send(made.path, b"x" * 5000, [master])
            with pytest.raises(ConsoleMessageTooLongError):
                await made.receive(GUARD)


async def test_silence_is_a_timeout() -> None:
    """Neither a peer that never comes nor one that never speaks is waited for for ever."""
    async with ConsoleSocket.temp() as made:
        with pytest.raises(ConsoleTimeoutError) as caught:
            await made.receive(0.02)
        assert caught.value.timeout == 0.02
        with connect(made.path), pytest.raises(ConsoleTimeoutError):
            await made.receive(0.02)


@pytest.mark.root
async def test_peers_of_another_user_are_not_heard() -> None:
    """Somebody else's terminal is not taken; accepting goes on to the next peer."""
    directory = tempfile.mkdtemp()
    os.chmod(directory, 0o755)
    try:
        async with ConsoleSocket(f"{directory}/socket") as made:
            os.chmod(made.path, 0o777)
            with closing(os.openpty()) as theirs, closing(os.openpty()) as ours:
                os.seteuid(NOBODY)
                try:
                    send(made.path, b"/dev/ptmx", [theirs[0]])
                    silent = connect(made.path)
                finally:
                    os.seteuid(0)
                send(made.path, b"/dev/ptmx", [ours[0]])
                async with await made.receive(GUARD) as console:
                    console.resize(11, 12)
                assert os.get_terminal_size(ours[0]) == (12, 11)
                with silent:
                    silent.settimeout(GUARD)
                    assert silent.recv(1) == b""
    finally:
        os.rmdir(directory)


@pytest.mark.root
async def test_root_may_send_to_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that is set-uid root is heard by whoever started it."""
    async with ConsoleSocket.temp() as made:
        with closing(os.openpty()) as (master, _):
            send(made.path, b"/dev/ptmx", [master])
            os.seteuid(NOBODY)
            try:
                console = await made.receive(GUARD)
            finally:
                os.seteuid(0)
            console.close()


# -- racing the runtime --------------------------------------------------------------------


async def test_a_runtime_that_exits_ends_the_wait() -> None:
    """A runtime that sent nothing cannot send any more, so nobody waits for the timeout."""
    async with ConsoleSocket.temp() as made:
        with anyio.fail_after(GUARD):
            async with await Command(["sh", "-c", "exit 3"]).start() as runtime:
                with pytest.raises(ConsoleRuntimeExitedError) as caught:
                    await made.receive(None, runtime=runtime)
                assert caught.value.status == 3
                with pytest.raises(ConsoleRuntimeExitedError):
                    await made.receive(None, runtime=runtime)
    assert gone(made)


async def test_a_runtime_that_exits_ends_the_wait_for_a_silent_peer() -> None:
    """The same while somebody is connected and says nothing."""
    async with ConsoleSocket.temp() as made:
        with connect(made.path), anyio.fail_after(GUARD):
            async with await Command(["sh", "-c", "exit 4"]).start() as runtime:
                with pytest.raises(ConsoleRuntimeExitedError):
                    await made.receive(None, runtime=runtime)


@pytest.mark.parametrize("first", ["receive", "exit"])
async def test_a_runtime_that_sends_and_exits_delivers(tmp_path: Path, first: str) -> None:
    """What was sent before the exit is taken, however close together they are."""
    program = make_script(tmp_path / "runtime", RUNTIME)
    with anyio.fail_after(GUARD):
        for _ in range(5):
            async with ConsoleSocket.temp() as made:
                command = Command([program, "create", "c1"])
                made.set(command)
                async with await command.start() as runtime:
                    made.close_after_start()
                    if first == "exit":
                        await runtime.wait()
                    async with await made.receive(runtime=runtime) as console:
                        assert console.size == (0, 0)
                    assert await runtime.wait() == 0


# -- who else uses it ------------------------------------------------------------------------


async def test_only_one_task_receives() -> None:
    """The second one would wait for a terminal that the first one gets."""
    async with ConsoleSocket.temp() as made, anyio.create_task_group() as group:
        group.start_soon(made.receive, None)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await made.receive(GUARD)
        group.cancel_scope.cancel()


async def test_close_ends_a_wait() -> None:
    """Whoever waits when the socket is closed is told so, before and after a peer came."""
    for connected in (False, True):
        made = ConsoleSocket.temp()
        errors: list[object] = []

        async def receive(made: ConsoleSocket = made, errors: list[object] = errors) -> None:
            with pytest.raises(IOStateError) as caught:
                await made.receive(None)
            errors.append(caught.value)

        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group:
                peer = connect(made.path) if connected else None
                group.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                await made.aclose()
        if peer is not None:
            peer.close()
        assert len(errors) == 1
        assert gone(made)


async def test_a_cancelled_receive_can_be_repeated() -> None:
    """Cancelling leaves the socket as it was."""
    async with ConsoleSocket.temp() as made:
        with anyio.move_on_after(0.02) as scope:
            await made.receive(None)
        assert scope.cancelled_caught
        with closing(os.openpty()) as (master, _):
            send(made.path, b"x", [master])
            (await made.receive(GUARD)).close()


async def test_nothing_is_left_whatever_happened() -> None:
    """Socket and directory go with the block, after an error, and when they are gone already."""
    made = ConsoleSocket.temp()
    with pytest.raises(ZeroDivisionError):
        async with made:
            raise ZeroDivisionError
    assert gone(made)
    async with ConsoleSocket.temp() as made:
        os.unlink(made.path)
    assert gone(made)
    async with ConsoleSocket.temp() as made:
        os.unlink(made.path)
        os.rmdir(os.path.dirname(made.path))
    assert gone(made)
    with pytest.raises(IOStateError):
        await made.receive(GUARD)


async def test_a_runtime_that_fails_leaves_nothing_of_a_console_io(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """spawn() with a runtime that sends no terminal undoes everything, the socket included."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    io = ConsoleIO(runtime=True)
    with pytest.raises(ConsoleRuntimeExitedError), anyio.fail_after(GUARD):
        await io.spawn(["false", "create"])
    assert list(tmp_path.iterdir()) == []
    assert "closed" in repr(io)


async def test_a_console_io_refuses_what_is_no_runtime_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime's other commands have no terminal; the socket made for them goes again."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with ConsoleIO() as io:
        with Command(["runc", "list"]) as command, pytest.raises(NotARuntimeCommandError):
            io.set(command)
        assert list(tmp_path.iterdir()) == []


async def test_a_console_io_takes_what_its_runtime_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The go-runc way: set, start, close_after_start, and copy() receives the terminal."""
    program = make_script(tmp_path / "runc", RUNTIME)
    sockets = tmp_path / "run"
    sockets.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets))
    async with ConsoleIO(size=(5, 6)) as io:
        command = Command([program, "run", "c1"])
        io.set(command)
        async with await command.start() as runtime:
            io.close_after_start()
            assert await runtime.wait(GUARD) == 0
        assert (io.console, io.stdin, io.stdout) == (None, None, None)
        await io.copy()
        assert list(sockets.iterdir()) == []
        assert io.console is not None
        assert io.console.size == (5, 6)
        with pytest.raises(IOStateError):
            await io.copy()
