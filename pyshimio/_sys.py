"""The only module that calls the kernel for us.

Everything that pyshimio asks of Linux goes through a name in here, and the other modules
look the name up at each call (``_sys.read(...)``, never ``from ._sys import read``).  So
this is the one place to read when you want to know what a process that uses pyshimio can
do to your machine, and the one place where a test can make the k-th call fail.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import functools
import io
import os
import select
import signal
import socket
import stat
import struct
import sys
import termios
import time
from time import monotonic as monotonic
from time import perf_counter as perf_counter
from typing import TYPE_CHECKING, Any

from .errors import UnsupportedPlatformError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

if sys.platform != "linux":
    raise UnsupportedPlatformError(
        "pyshimio needs Linux (pidfd, splice, FIFOs); on this system it can only be imported"
    )

PAGE = 4096

# -- descriptors ----------------------------------------------------------------------

open = os.open  # noqa: A001 - it is what the call is named
close = os.close
read = os.read
readv = os.readv
write = os.write
pread = os.pread
fstat = os.fstat
fchown = os.fchown
SPLICE = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


IOV_MAX = 1024
"""Buffers that one call of the kernel takes."""


def writev(fd: int, buffers: Sequence[Buffer]) -> int:
    """Write from the front of *buffers*, of as many of them as one call may have."""
    return os.writev(fd, buffers[:IOV_MAX])


def splice(source: int, target: int, count: int) -> int:
    """Move up to *count* bytes between pipes without copying; never waits for a pipe."""
    return os.splice(source, target, count, flags=SPLICE)


def pipe() -> tuple[int, int]:
    """A pipe whose two ends are blocking and close-on-exec: (read end, write end)."""
    return os.pipe2(os.O_CLOEXEC)


def memory_file(name: str) -> int:
    """A file without a path, readable and writable; *name* is for whoever looks at it."""
    return os.memfd_create(name, os.MFD_CLOEXEC)


def set_nonblocking(fd: int) -> None:
    """Set O_NONBLOCK on the *description*: only for ends that nobody else shares."""
    os.set_blocking(fd, False)


def set_blocking(fd: int) -> None:
    """Clear O_NONBLOCK on a description that nobody shares yet."""
    os.set_blocking(fd, True)


def dup(fd: int, lowest: int = 3) -> int:
    """Another close-on-exec number, at least *lowest*, for the same description."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def reopen(fd: int, flags: int) -> int:
    """A new description of the object behind *fd* (works for pipes, FIFOs, files, slaves)."""
    return open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


def status_flags(fd: int) -> int:
    """The flags of the description (F_GETFL)."""
    return fcntl.fcntl(fd, fcntl.F_GETFL)


def unread(fd: int) -> int:
    """How many bytes wait in a pipe or FIFO (FIONREAD); either end may be asked."""
    answer = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, answer)
    return answer[0]


def pipe_size(fd: int) -> int:
    """Capacity of a pipe in bytes."""
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def set_pipe_size(fd: int, size: int) -> int:
    """Change the capacity of a pipe; returns what the kernel made of *size*."""
    return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)


FLOCK = "hhqqi0q"
"""``struct flock``: type, whence, start, length, pid."""


def mark(fd: int, byte: int) -> None:
    """Leave a sign on a file that lasts as long as any copy of this (readable) description.

    It is a lock, which belongs to the description, of one byte, far behind those that anybody
    else would lock.
    """
    lock = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)


def marked(fd: int, byte: int) -> bool:
    """Whether another description of the file behind *fd* with that sign is open anywhere."""
    lock = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = struct.unpack(FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, lock))
    return bool(answer[0] != fcntl.F_UNLCK)


def pipe_budget() -> int:
    """Bytes of pipe buffers that one unprivileged user may have in all (0: no limit)."""
    try:
        with io.open("/proc/sys/fs/pipe-user-pages-soft") as file:
            return int(file.read()) * PAGE
    except (OSError, ValueError):
        return 16384 * PAGE


def close_strangers(lowest: int) -> list[tuple[int, ...]]:
    """posix_spawn actions that close what a child would inherit from *lowest* on."""
    if sys.version_info >= (3, 13) and hasattr(os, "POSIX_SPAWN_CLOSEFROM"):
        return [(os.POSIX_SPAWN_CLOSEFROM, lowest)]
    found: list[tuple[int, ...]] = []
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        # A number may be gone by now: the listing's own descriptor always is.
        with contextlib.suppress(OSError):
            if fd >= lowest and not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.append((os.POSIX_SPAWN_CLOSE, fd))
    return found


# -- readiness ------------------------------------------------------------------------

EPOLLIN = select.EPOLLIN
EPOLLOUT = select.EPOLLOUT
EPOLLERR = select.EPOLLERR
EPOLLHUP = select.EPOLLHUP
EPOLLET = select.EPOLLET
EPOLLONESHOT = select.EPOLLONESHOT


def epoll_create() -> select.epoll:
    """A close-on-exec epoll instance."""
    return select.epoll()


def epoll_add(epoll: select.epoll, fd: int, mask: int) -> None:
    """EPOLL_CTL_ADD; PermissionError for what cannot be waited for (regular files)."""
    epoll.register(fd, mask)


def epoll_modify(epoll: select.epoll, fd: int, mask: int) -> None:
    """EPOLL_CTL_MOD; what is ready at this moment makes an edge again."""
    epoll.modify(fd, mask)


def epoll_remove(epoll: select.epoll, fd: int) -> None:
    """EPOLL_CTL_DEL; always before the descriptor is closed."""
    epoll.unregister(fd)


def epoll_wait(epoll: select.epoll) -> list[tuple[int, int]]:
    """The (descriptor, events) that are ready now; never waits."""
    return epoll.poll(0)


def poll_now(fd: int, mask: int = 0) -> int:
    """The events of one descriptor, asked without waiting (POLLERR and POLLHUP included)."""
    poller = select.poll()
    poller.register(fd, mask)
    ready = poller.poll(0)
    return ready[0][1] if ready else 0


def wait_readable(fd: int, timeout: float) -> bool:
    """Wait in a thread, for at most *timeout* seconds, until *fd* has bytes or an end."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(int(timeout * 1000)))


def wait_writable(fd: int, timeout: float) -> None:
    """Wait in a thread, for at most *timeout* seconds, until *fd* takes bytes again."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    poller.poll(int(timeout * 1000))


def eventfd() -> int:
    """A non-blocking, close-on-exec eventfd."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def eventfd_set(fd: int) -> None:
    """Make an eventfd readable."""
    os.eventfd_write(fd, 1)


def eventfd_clear(fd: int) -> None:
    """Make an eventfd unreadable again."""
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(fd)


if sys.version_info >= (3, 13):

    def timerfd() -> int:
        """A non-blocking, close-on-exec timer of the monotonic clock."""
        return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def timerfd_set(fd: int, seconds: float) -> None:
        """Make the timer readable once, after *seconds* (less than one)."""
        os.timerfd_settime(fd, initial=seconds)

else:

    def timerfd() -> int:
        """A non-blocking, close-on-exec timer of the monotonic clock."""
        return _libc().timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)

    def timerfd_set(fd: int, seconds: float) -> None:
        """Make the timer readable once, after *seconds* (less than one)."""
        _libc().timerfd_settime(fd, seconds)


@functools.cache
def _libc() -> _Libc:
    return _Libc()


class _Libc:
    """What os does not have, or has from Python 3.13 on; ctypes is loaded when it is used first."""

    def __init__(self) -> None:
        import ctypes  # noqa: PLC0415 - three milliseconds that few processes need

        self._errno = ctypes.get_errno
        self._library = ctypes.CDLL(None, use_errno=True)
        self._spec = (ctypes.c_long * 4)()
        self._set = self._library.timerfd_settime
        self._set.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._where = ctypes.addressof(self._spec)
        self._long, self._int, self._reference = ctypes.c_ulong, ctypes.c_int, ctypes.byref

    def timerfd_create(self, clock: int, flags: int) -> int:
        return self._checked(self._library.timerfd_create(clock, flags))

    def timerfd_settime(self, fd: int, seconds: float) -> None:
        self._spec[3] = int(seconds * 1e9)
        self._checked(self._set(fd, 0, self._where, None))

    def set_subreaper(self, *, on: bool) -> None:
        zero = self._long(0)
        self._checked(self._library.prctl(PR_SET_CHILD_SUBREAPER, self._long(on), zero, zero, zero))

    def get_subreaper(self) -> bool:
        answer = self._int()
        zero = self._long(0)
        where = self._reference(answer)
        self._checked(self._library.prctl(PR_GET_CHILD_SUBREAPER, where, zero, zero, zero))
        return bool(answer.value)

    def _checked(self, result: int) -> int:
        if result < 0:
            code = self._errno()
            raise OSError(code, os.strerror(code))
        return result


# -- children -------------------------------------------------------------------------

PF_EXITING = 0x4
posix_spawn = os.posix_spawn
pidfd_send_signal = signal.pidfd_send_signal
getpid = os.getpid


def pidfd_open(pid: int) -> int:
    """A close-on-exec descriptor for a process; readable once it has exited."""
    return os.pidfd_open(pid)


def waitid(pidfd: int) -> os.waitid_result | None:
    """Reap the child behind *pidfd* if it has exited; None while it has not."""
    return os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def exiting(pid: int) -> bool:
    """Whether a child is on its way out: its descriptors close before its pidfd tells."""
    try:
        with io.open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return fields[0] in b"ZX" or bool(int(fields[6]) & PF_EXITING)


PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


def set_subreaper(*, on: bool) -> None:
    """Have the kernel give us the orphans among our descendants, or not (the whole process)."""
    _libc().set_subreaper(on=on)


def is_subreaper() -> bool:
    """Whether it does."""
    return _libc().get_subreaper()


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when there is no such process."""
    try:
        with io.open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def children() -> list[int]:
    """The children of this process, zombies too; none where the kernel does not list them."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), io.open(f"/proc/self/task/{thread}/children") as file:
            found += map(int, file.read().split())
    return found


def process_group(pid: int) -> int:
    """The process group of a process (a zombie's too); 0 when there is no such process."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def pid_namespace(pid: int) -> int:
    """What tells the pid namespace of a process (a zombie's too) from others; 0 without one."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return 0


def command_name(pid: int) -> str:
    """What a process (a zombie, too) calls itself, in 15 characters; empty when it has gone."""
    try:
        with io.open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def exited_child() -> int | None:
    """A child of ours that waits to be reaped; None when there is none.  It goes on waiting."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def reap(pid: int) -> None:
    """Reap a child that has exited; nothing happens where somebody was quicker."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def kill_child(pid: int) -> None:
    """SIGKILL for a child that nobody has reaped yet; nothing happens where somebody has."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_and_reap(pid: int) -> None:
    """End a child that nobody has seen yet, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def sigchld_ignored() -> bool:
    """Whether the kernel would throw away the exit status of our children."""
    return signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN


# -- unix sockets -----------------------------------------------------------------------


def listen_unix(path: str) -> socket.socket:
    """A non-blocking listening stream socket at *path*."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(path)
        try:
            listener.listen()
        except BaseException:
            unlink(path)
            raise
    except BaseException:
        listener.close()
        raise
    return listener


def accept(listener: socket.socket) -> socket.socket:
    """The next waiting connection, non-blocking; BlockingIOError when there is none."""
    connection, _ = listener.accept()
    connection.setblocking(False)  # noqa: FBT003
    return connection


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process that connected (SO_PEERCRED)."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


MOST_FDS = 64
"""Descriptors that :func:`recv_fds` has room for."""


def recv_fds(connection: socket.socket, size: int) -> tuple[bytes, list[int], bool]:
    """One message with its descriptors, close-on-exec from the first moment.

    Returns:
        The payload, the descriptors, and whether the kernel cut the control message.
    """
    # socket.recv_fds() would leave them inheritable for a moment, and a copy of a master
    # in some unrelated child means that closing it hangs nobody up.
    room = socket.CMSG_SPACE(MOST_FDS * array.array("i").itemsize)
    data, control, flags, _ = connection.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds), bool(flags & socket.MSG_CTRUNC)


# -- terminals ------------------------------------------------------------------------

TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
TIOCGSID = 0x5429
IFLAG, OFLAG, CFLAG, LFLAG, _ISPEED, _OSPEED, CC = range(7)


def openpty() -> tuple[int, int]:
    """A new terminal: (master, slave), both close-on-exec; the slave is nobody's ctty."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    return master, slave


def isatty(fd: int) -> bool:
    """Whether *fd* is a terminal (a master counts)."""
    return os.isatty(fd)


def has_session(master: int) -> bool:
    """Whether the terminal controls a session (it does until the leader exits)."""
    try:
        fcntl.ioctl(master, TIOCGSID, struct.pack("i", 0))
    except OSError:
        return False
    return True


def set_raw(fd: int) -> None:
    """Raw mode as containerd's console package has it: cfmakeraw, but OPOST stays on."""
    attributes = _attributes(fd)
    _make_raw(attributes)
    attributes[OFLAG] |= termios.OPOST
    _set_attributes(fd, attributes)


def _attributes(fd: int) -> list[Any]:
    try:
        return termios.tcgetattr(fd)
    except termios.error as error:  # which is no OSError
        raise OSError(*error.args) from error


def _set_attributes(fd: int, attributes: list[Any]) -> None:
    try:
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    except termios.error as error:
        raise OSError(*error.args) from error


def _make_raw(attributes: list[Any]) -> None:
    attributes[IFLAG] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    attributes[OFLAG] &= ~termios.OPOST
    attributes[LFLAG] &= ~(
        termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
    )
    attributes[CFLAG] = attributes[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8


def terminal_mode(fd: int) -> list[Any]:
    """How a terminal is set."""
    return _attributes(fd)


def raw_mode(mode: list[Any]) -> list[Any]:
    """The same, but raw (``cfmakeraw``)."""
    raw = [*mode[:CC], list(mode[CC])]
    _make_raw(raw)
    raw[CC][termios.VMIN], raw[CC][termios.VTIME] = 1, 0
    return raw


def set_terminal_mode(fd: int, mode: list[Any], *, from_background: bool = False) -> None:
    """Set a terminal; what was typed ahead stays (TCSANOW).

    Args:
        fd: The terminal.
        mode: As :func:`terminal_mode` has it.
        from_background: Do so at once where it would otherwise stop us (SIGTTOU).
    """
    blocked = {signal.SIGTTOU} if from_background else ()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        _set_attributes(fd, mode)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def eof_character(fd: int) -> bytes:
    """What ends input on this terminal (VEOF), or ``b""`` when lines are not assembled."""
    attributes = _attributes(fd)
    if not attributes[LFLAG] & termios.ICANON:
        return b""
    character = attributes[CC][termios.VEOF]
    return b"" if character == b"\0" else bytes(character)


def line_ends(fd: int) -> set[bytes]:
    """The characters that leave no unfinished line behind when they are typed."""
    attributes = _attributes(fd)
    special = (
        termios.VEOF,
        termios.VEOL,
        termios.VEOL2,
        termios.VINTR,
        termios.VKILL,
        termios.VQUIT,
        termios.VSUSP,
    )
    ends = {bytes(attributes[CC][name]) for name in special} - {b"\0"}
    return ends | ({b"\n", b"\r"} if attributes[IFLAG] & termios.ICRNL else {b"\n"})


def get_window_size(fd: int) -> tuple[int, int]:
    """(rows, columns) of a terminal."""
    rows, columns, _, _ = struct.unpack(
        "4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
    )
    return rows, columns


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """Change the size of a terminal; its foreground processes get SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


# -- the file system ------------------------------------------------------------------

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG})
makedirs = os.makedirs
mkdir = os.mkdir
mkfifo = os.mkfifo
rmdir = os.rmdir
unlink = os.unlink
chmod = os.chmod


def is_fifo(mode: int) -> bool:
    """Whether ``st_mode`` says FIFO (an unnamed pipe says so too)."""
    return stat.S_ISFIFO(mode)


def never_blocks(status: os.stat_result) -> bool:
    """Whether this is one of the memory devices (/dev/null, /dev/full, /dev/zero)."""
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == 1
