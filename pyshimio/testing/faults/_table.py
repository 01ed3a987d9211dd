"""How the kernel can fail each call that pyshimio makes.

Calls are those of :mod:`pyshimio._sys`, through which everything goes that pyshimio asks of the
kernel, and those of log drivers and of who reads logs: ``log.open`` and so on.  A fault is one that
Linux and CPython can produce: a call that CPython repeats after EINTR (PEP 475) never raises
InterruptedError, a ``close`` that fails has closed, and a child that cannot be waited for has been
waited for by somebody else.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("FAULTS", "REPEATED", "SHORT", "SURE", "Fault")

SHORT = frozenset({"read", "readv", "write", "writev", "splice", "recv_fds", "log.write"})
"""Calls that may move fewer bytes than they were asked to."""

REPEATED = frozenset(
    {
        *{"open", "reopen", "read", "readv", "write", "writev", "splice", "fstat"},
        *{"dup", "fchown", "status_flags", "pipe_size", "set_pipe_size"},
        *{"epoll_wait", "poll_now", "wait_writable", "waitid", "accept", "recv_fds"},
        *{"log.open", "log.write", "log.read", "log.pread", "log.fstat", "log.ftruncate"},
        *{"log.lock", "log.poll", "log.sleep"},
    }
)
"""Calls that CPython repeats by itself when a signal interrupts them."""


@attrs.frozen
class Fault:
    """One way in which a call can go wrong; exactly one of the three is given.

    Args:
        error: It fails with this errno, and (but for ``close``) nothing has happened.
        short: It moves one byte.
        interrupted: A signal interrupts it.  True: the signal's handler returns, so CPython
            repeats the call (``REPEATED``) or raises InterruptedError.  An exception is
            what the handler raises; then the call has not happened.
    """

    error: int | None = None
    short: bool = attrs.field(default=False, kw_only=True)
    interrupted: bool | BaseException = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        given = (self.error is not None, self.short, self.interrupted is not False)
        if sum(given) != 1:
            raise ValueError("a fault is one of error=, short= and interrupted=")

    def __str__(self) -> str:
        if self.error is not None:
            return errno.errorcode[self.error]
        return "short" if self.short else "interrupted"


def _errors(*codes: int) -> tuple[Fault, ...]:
    return tuple(map(Fault, codes))


_SHORT = Fault(short=True)

FAULTS: Mapping[str, tuple[Fault, ...]] = {
    # What makes descriptors.
    "open": _errors(errno.EMFILE, errno.ENOMEM, errno.EACCES),
    "reopen": _errors(errno.ENFILE, errno.ENOENT),  # ENOENT: no /proc here
    "pipe": _errors(errno.EMFILE, errno.ENFILE),
    "dup": _errors(errno.EMFILE),
    "epoll_create": _errors(errno.EMFILE, errno.ENOMEM),
    "eventfd": _errors(errno.EMFILE, errno.ENOMEM),
    "timerfd": _errors(errno.EMFILE, errno.ENOMEM),
    "pidfd_open": _errors(errno.EMFILE, errno.ENOMEM, errno.ESRCH),
    "openpty": _errors(errno.EMFILE, errno.ENOSPC),
    "listen_unix": _errors(errno.EMFILE, errno.EADDRINUSE),
    "accept": _errors(errno.EMFILE, errno.ECONNABORTED),
    "close_strangers": _errors(errno.EMFILE),
    # What moves bytes.
    # (EAGAIN of a pipe means that an edge is to come, which no fault can make up.)
    "read": (*_errors(errno.EIO), _SHORT),
    "readv": (*_errors(errno.EIO), _SHORT),
    "write": (*_errors(errno.ENOSPC, errno.EIO, errno.EPIPE), _SHORT),
    "writev": (*_errors(errno.ENOSPC, errno.EIO, errno.EPIPE), _SHORT),
    "splice": (*_errors(errno.EINVAL, errno.ENOMEM, errno.EPIPE), _SHORT),
    "recv_fds": (*_errors(errno.ECONNRESET, errno.ENOMEM), _SHORT),
    "close": _errors(errno.EINTR, errno.EIO),
    # What describes them.
    "fstat": _errors(errno.ENOMEM, errno.EIO),
    "memory_file": _errors(errno.EMFILE, errno.ENOMEM),
    "mark": _errors(errno.ENOLCK, errno.ENOMEM),
    "fchown": _errors(errno.EPERM, errno.EROFS),
    "set_nonblocking": _errors(errno.EPERM),
    "set_blocking": _errors(errno.EPERM),
    "set_pipe_size": _errors(errno.EPERM, errno.EBUSY, errno.ENOMEM),
    "epoll_add": _errors(errno.ENOMEM, errno.ENOSPC, errno.EPERM),
    "eof_character": _errors(errno.EIO),
    "line_ends": _errors(errno.EIO),
    "set_raw": _errors(errno.EIO, errno.EINTR),
    "terminal_mode": _errors(errno.EIO),
    "set_terminal_mode": _errors(errno.EIO, errno.EINTR),
    "get_window_size": _errors(errno.EIO),
    "set_window_size": _errors(errno.EIO, errno.EINTR),
    # Children.
    "posix_spawn": _errors(errno.EAGAIN, errno.ENOMEM, errno.ENOENT),
    "pidfd_send_signal": _errors(errno.ESRCH, errno.EPERM),
    "waitid": _errors(errno.ECHILD),
    # Names.
    "mkdir": _errors(errno.EACCES, errno.ENOSPC),
    "mkfifo": _errors(errno.EACCES, errno.ENOSPC),
    "rmdir": _errors(errno.ENOTEMPTY),
    "unlink": _errors(errno.EACCES),
    "chmod": _errors(errno.EPERM),
    # Log drivers, and who reads logs.
    "log.open": _errors(errno.EMFILE, errno.ENOSPC),
    "log.write": (*_errors(errno.ENOSPC, errno.EIO), _SHORT),
    "log.read": _errors(errno.EIO),
    "log.pread": _errors(errno.EIO),
    "log.close": _errors(errno.EINTR, errno.EIO),
    "log.fstat": _errors(errno.EIO),
    "log.stat": _errors(errno.EACCES, errno.EIO),
    "log.ftruncate": _errors(errno.EIO),
    "log.lock": _errors(errno.ENOLCK),
    "log.listdir": _errors(errno.EACCES, errno.EMFILE),
    "log.makedirs": _errors(errno.EACCES, errno.ENOSPC),
    "log.rename": _errors(errno.EACCES, errno.ENOSPC),
    "log.symlink": _errors(errno.EACCES, errno.ENOSPC),
    "log.unlink": _errors(errno.EACCES),
}
"""How the kernel can fail each call."""

SURE = frozenset(
    {
        # For a descriptor that is open and of its kind, the kernel has no reason to refuse these.
        *{"status_flags", "pread", "unread", "marked", "pipe_size", "epoll_modify", "epoll_remove"},
        *{"epoll_wait", "poll_now", "wait_readable", "wait_writable", "peer_uid"},
        *{"eventfd_set", "eventfd_clear", "timerfd_set"},
        # These say no instead of raising.
        *{"isatty", "has_session", "exiting", "pipe_budget", "kill_and_reap", "sigchld_ignored"},
        *{
            "parent_of",
            "children",
            "process_group",
            "command_name",
            "pid_namespace",
            "exited_child",
            "reap",
            "kill_child",
        },
        *{"set_subreaper", "is_subreaper"},
        # These say no instead of raising, or ask for nothing.
        *{"log.has_writer", "log.unread", "log.poll", "log.clock", "log.monotonic", "log.sleep"},
        # The start of a logger, which is a process of its own.
        *{"log.pipe", "log.set_close_on_exec", "log.handle", "log.wake_by"},
        # No calls of the kernel, or none that pyshimio makes.
        *{"getpid", "is_fifo", "never_blocks", "monotonic", "perf_counter", "makedirs", "raw_mode"},
    }
)
"""The rest of them: what never fails."""
