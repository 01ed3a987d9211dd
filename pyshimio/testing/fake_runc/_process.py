"""How a process of a container begins: its session, its terminal, its stdio, its program."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import struct
import termios
from typing import TYPE_CHECKING, Any, NoReturn

from ._store import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._mischief import Mischief

__all__ = (
    "begin",
    "end",
    "exit_code",
    "hold_signals",
    "relay_signals",
    "write_pid_file",
)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RELAYED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1)
DEFAULT = (*RELAYED, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGUSR2)
GO = b"0"


def begin(
    process: Mapping[str, Any],
    mischief: Mischief,
    *,
    fifo: str | None = None,
    console_socket: str | None = None,
    pidfd_socket: str | None = None,
    preserve: int = 0,
) -> tuple[int, int]:
    """Start a process with the stdio that we have.

    Args:
        process: As in OCI's specification.
        mischief: What is to go wrong.
        fifo: It waits there until somebody opens that for reading.
        console_socket: Who gets the master of its terminal, if it is to have one.
        pidfd_socket: Who gets a pidfd of it.
        preserve: How many descriptors from 3 on it keeps.

    Returns:
        Its pid; and with *fifo* a pipe, into which a byte has to be written when it is known to
        others: if that is closed before, it ends.

    Raises:
        Failure: There is no such program or directory, or nobody at the socket.
    """
    args = [str(arg) for arg in process.get("args") or ()]
    env = dict(entry.partition("=")[::2] for entry in process.get("env") or ())
    cwd = process.get("cwd") or "/"
    if not args:
        raise Failure("args must not be empty")
    if not os.path.isdir(cwd):
        raise Failure(
            f"chdir to cwd ({cwd!r}) set in config.json failed: no such file or directory"
        )
    if console_socket and not process.get("terminal"):
        raise Failure("cannot use console socket if runc will not detach or allocate tty")
    program = _program(args[0], env.get("PATH", PATH), cwd)
    terminal = _Terminal.open(process) if process.get("terminal") else None
    ready, told = os.pipe()  # ends when it waits for its fifo, or runs its program
    gate, known = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(known)
        _become(program, args, env, cwd, terminal, fifo, told, gate, preserve)
    os.close(told)
    os.close(gate)
    try:
        _check(ready, waits=fifo is not None)
        if terminal is not None:
            terminal.send(console_socket, mischief)
        if pidfd_socket is not None:
            _send_pidfd(pidfd_socket, pid)
    except BaseException:
        end(pid)
        os.close(known)
        raise
    finally:
        os.close(ready)
        if terminal is not None:
            terminal.close()
    return pid, known


def end(pid: int) -> None:
    """Kill a child of ours, and wait for it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _program(name: str, path: str, cwd: str) -> str:
    found = os.path.join(cwd, name) if "/" in name else shutil.which(name, path=path)
    if found is None:
        raise Failure(f'exec: "{name}": executable file not found in $PATH')
    if not os.path.exists(found):
        raise Failure(f'exec: "{name}": stat {name}: no such file or directory')
    if os.path.isdir(found) or not os.access(found, os.X_OK):
        raise Failure(f'exec: "{name}": permission denied')
    return found


def _check(ready: int, *, waits: bool) -> None:
    """Wait until it waits, or runs; what went wrong is what it says before that."""
    said = b""
    while data := os.read(ready, 4096):
        said += data
        if said == GO:
            return
    if said or waits:
        raise Failure(said.decode(errors="replace") or "the container's init has died")


class _Terminal:
    """A pty for a process."""

    def __init__(self, master: int, slave: int) -> None:
        self.master, self.slave = master, slave

    @classmethod
    def open(cls, process: Mapping[str, Any]) -> _Terminal:
        master, slave = os.openpty()
        if size := process.get("consoleSize"):
            packed = struct.pack("HHHH", size["height"], size["width"], 0, 0)
            fcntl.ioctl(slave, termios.TIOCSWINSZ, packed)
        return cls(master, slave)

    def send(self, path: str | None, mischief: Mischief) -> None:
        if path is None:
            raise Failure("cannot allocate tty if runc will detach without setting console socket")
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(path)
            except OSError as error:
                raise Failure(f"dial unix {path}: connect: {error.strerror}") from error
            if mischief.descriptors >= 0:
                _send(connection, b"/dev/pts/ptmx", [self.master] * mischief.descriptors)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def _send(connection: socket.socket, name: bytes, fds: list[int]) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    connection.sendmsg([name], [rights] if fds else [])


def _send_pidfd(path: str, pid: int) -> None:
    """Have whoever listens at a socket get a pidfd."""
    pidfd = os.pidfd_open(pid)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            _send(connection, b"pidfd", [pidfd])
    except OSError as error:
        raise Failure(f"dial unix {path}: connect: {error.strerror}") from error
    finally:
        os.close(pidfd)


def write_pid_file(path: str, pid: int) -> None:
    """All at once, as whoever looks for it expects."""
    directory, name = os.path.split(path)
    new = os.path.join(directory, f".{name}")
    with open(new, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.replace(new, path)


def _become(  # noqa: PLR0917 - what a process is made of
    program: str,
    args: list[str],
    env: Mapping[str, str],
    cwd: str,
    terminal: _Terminal | None,
    fifo: str | None,
    told: int,
    gate: int,
    preserve: int,
) -> NoReturn:
    """In the child."""
    kept = told
    try:
        os.setsid()
        for number in DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if terminal is not None:
            fcntl.ioctl(terminal.slave, termios.TIOCSCTTY, 0)
            for fd in range(3):
                os.dup2(terminal.slave, fd)
        kept = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, 3 + preserve)
        gate = fcntl.fcntl(gate, fcntl.F_DUPFD_CLOEXEC, 3 + preserve)
        for name in os.listdir("/proc/self/fd"):
            if int(name) >= 3 + preserve and int(name) not in {kept, gate}:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        os.chdir(cwd)
        if fifo is not None:
            os.write(kept, GO)
            os.close(kept)
            if not os.read(gate, 1):  # who made us was killed before anybody could know of us
                os._exit(1)
            waiting = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
            os.write(waiting, GO)
            os.close(waiting)
        os.execve(program, args, dict(env))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(kept, f'exec: "{program}": {error.strerror}'.encode())
        os._exit(126 if error.errno == errno.EACCES else 127)
    finally:
        os._exit(127)


def hold_signals() -> None:
    """Until :func:`relay_signals`: those that come before there is a process wait for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)


def relay_signals(pid: int) -> None:
    """What comes to us goes to a process that we wait for."""

    def relay(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in RELAYED:
        signal.signal(number, relay)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RELAYED)


def exit_code(pid: int) -> int:
    """Wait for our child; its status as a shell has it."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
