"""What log drivers ask of the kernel: all of it goes through these names.

The same rule as for :mod:`pyshimio._sys` (looked up at each call, so that a test can make the k-th
one fail, or kill the process before it), in a module that loads nothing: a logger is started for
each container, and the container waits for it.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import FrameType
else:
    import _signal  # what `signal` loads beside it takes longer than all of this

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What passes: a disk that is full may have room again."""
F_SETSIG = 10
F_SETLEASE = 1024
SIGURG: int = _signal.SIGURG
SIGTERM: int = _signal.SIGTERM
SIGUSR1: int = _signal.SIGUSR1

clock = time.time_ns
close = os.close
fstat = os.fstat
ftruncate = os.ftruncate
listdir = os.listdir
makedirs = os.makedirs
monotonic = time.monotonic
open = os.open  # noqa: A001 - it is what the call is named
pread = os.pread
read = os.read
rename = os.rename
sleep = time.sleep
stat = os.stat
symlink = os.symlink
unlink = os.unlink
write = os.write


def pipe() -> tuple[int, int]:
    """A pipe, close-on-exec and non-blocking: (read end, write end)."""
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


def set_close_on_exec(fd: int) -> None:
    """Keep a descriptor from children."""
    os.set_inheritable(fd, False)  # noqa: FBT003


def poll(fds: list[int], timeout: float | None) -> list[int]:
    """Those that have bytes or an end, within *timeout* seconds (None: as soon as one has)."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    milliseconds = None if timeout is None else max(0, int(timeout * 1000 + 0.999))
    return [fd for fd, _events in poller.poll(milliseconds)]


def handle(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
    """Call *handler* for a signal."""
    _signal.signal(number, handler)


def wake_by(fd: int) -> None:
    """Have each signal that is handled leave a byte in *fd*, a non-blocking pipe."""
    _signal.set_wakeup_fd(fd, warn_on_full_buffer=False)


def lock(fd: int) -> bool:
    """Have a file's lock, which ends with the description; False when somebody else has it."""
    from fcntl import LOCK_EX, LOCK_NB, flock  # noqa: PLC0415 - few loggers compress

    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unread(fd: int) -> int:
    """How many bytes wait in a pipe."""
    from fcntl import ioctl  # noqa: PLC0415 - only when something is lost
    from termios import FIONREAD  # noqa: PLC0415

    answer = bytearray(4)
    ioctl(fd, FIONREAD, answer)
    return int.from_bytes(answer, sys.byteorder)


def has_writer(fd: int) -> bool:
    """Whether anybody has a file open for writing; True where the kernel does not tell us.

    A read lease is given only when nobody has; it is for the file's owner and for root.
    """
    from fcntl import F_RDLCK, F_UNLCK, fcntl  # noqa: PLC0415 - not for loggers

    try:
        fcntl(fd, F_SETSIG, SIGURG)  # who opens it meanwhile would end us by SIGIO
        fcntl(fd, F_SETLEASE, F_RDLCK)
    except OSError:
        return True
    fcntl(fd, F_SETLEASE, F_UNLCK)
    return False
