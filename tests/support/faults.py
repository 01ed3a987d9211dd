"""The kernel's refusals, one after the other: make the k-th call fail, and then every call.

:func:`fail_syscall` makes one call of :mod:`pyshimio._sys` fail, come back short or be
interrupted.  :func:`every_failure` runs an operation again and again until each call that
it makes has failed in each way in which the kernel can fail it, and looks after every run
at what the operation said and at what it left behind.

A fault is one that Linux and CPython can produce: a call that CPython repeats after EINTR
(PEP 475) never raises InterruptedError, a ``close`` that fails has closed, and a child that
cannot be waited for has been waited for by somebody else.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from pyshimio import _sys
from pyshimio.errors import ShimIOError

from .leaks import GRACE, Snapshot, Temporary
from .loops import running_loop, tasks
from .strays import strays

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

__all__ = (
    "ANY",
    "FAULTS",
    "REPEATED",
    "SHORT",
    "SURE",
    "Calls",
    "Fault",
    "Report",
    "count_syscalls",
    "every_failure",
    "fail_syscall",
)

ANY = "*"
"""Stands for every name in :data:`FAULTS`, counted together."""

SHORT = frozenset({"read", "readv", "write", "writev", "splice", "recv_fds"})
"""Calls that may move fewer bytes than they were asked to."""

REPEATED = frozenset(
    {
        *{"open", "reopen", "read", "readv", "write", "writev", "splice", "fchown"},
        *{"dup", "status_flags", "pipe_size", "set_pipe_size"},
        *{"epoll_wait", "poll_now", "wait_writable", "waitid", "accept", "recv_fds"},
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
            repeats the call (:data:`REPEATED`) or raises InterruptedError.  An exception is
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
        # No calls of the kernel, or none that pyshimio makes.
        *{"getpid", "is_fifo", "never_blocks", "monotonic", "perf_counter", "makedirs", "raw_mode"},
    }
)
"""The rest of :mod:`pyshimio._sys`: what never fails."""

ENOUGH = 20
"""Wrong runs after which the rest need not be tried."""


@attrs.define(eq=False)
class Calls:
    """The calls that were reached, from any thread."""

    names: list[str] = attrs.field(factory=list[str])
    """In their order."""
    failed: str | None = None
    """The one that went wrong; None when it was not reached."""
    injected: BaseException | None = None
    """What it raised."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def add(self, name: str, wanted: str, k: int) -> bool:
        """One more call; whether it is the *k*-th of those that are counted."""
        with self._lock:
            self.names.append(name)
            if wanted not in {ANY, name} or self.failed is not None:
                return False
            if (len(self.names) if wanted == ANY else self.names.count(name)) != k:
                return False
            self.failed = name
            return True


@contextmanager
def count_syscalls() -> Generator[Calls]:
    """Record the calls that are made meanwhile; all of them happen."""
    with _replaced(ANY, 0, None) as calls:
        yield calls


@contextmanager
def fail_syscall(  # noqa: D417 - three ways to fail share a line
    name: str,
    k: int = 1,
    *,
    error: int | None = None,
    short: bool = False,
    interrupted: bool | BaseException = False,
) -> Generator[Calls]:
    """Let the *k*-th call of a function in :mod:`pyshimio._sys` go wrong, and no other.

    Calls count from any thread.  Everything is as before when the block is left.

    Args:
        name: The function, or :data:`ANY`.
        k: Counts from 1.
        error, short, interrupted: See :class:`Fault`.

    Yields:
        What was called, and which one went wrong.

    Raises:
        ValueError: There is no such function, or it cannot fail like that.
    """
    fault = Fault(error, short=short, interrupted=interrupted)
    if name != ANY and name not in FAULTS and name not in SURE:
        raise ValueError(f"pyshimio._sys has no call {name!r}")
    if short and name not in SHORT:
        raise ValueError(f"{name} moves no bytes, so it cannot come back short")
    if k < 1:
        raise ValueError(f"calls count from 1, not {k!r}")
    with _replaced(name, k, fault) as calls:
        yield calls


@contextmanager
def _replaced(wanted: str, k: int, fault: Fault | None) -> Generator[Calls]:
    calls = Calls()
    names = set(FAULTS) if wanted == ANY else {*FAULTS, wanted}
    real = {name: getattr(_sys, name) for name in names}

    def replacement(name: str) -> Callable[..., Any]:
        function = real[name]

        def call(*args: Any, **options: Any) -> Any:
            if calls.add(name, wanted, k) and fault is not None:
                return _go_wrong(calls, name, function, fault, args, options)
            return function(*args, **options)

        return call

    for name in names:
        setattr(_sys, name, replacement(name))
    try:
        yield calls
    finally:
        for name, function in real.items():
            setattr(_sys, name, function)


def _go_wrong(  # noqa: PLR0917 - handed on as they are
    calls: Calls,
    name: str,
    function: Callable[..., Any],
    fault: Fault,
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    if name in {"read", "readv"} and not _may_read_less(args[0], fault):
        return function(*args, **options)
    if fault.short:
        return function(*_fewer(name, args), **options)
    if isinstance(fault.interrupted, BaseException):
        calls.injected = fault.interrupted
        raise fault.interrupted
    if fault.interrupted and name in REPEATED:
        return function(*args, **options)
    code = errno.EINTR if fault.error is None else fault.error
    if name == "close":
        function(*args)  # the number is gone whatever close(2) says
    elif (name, code) == ("pidfd_send_signal", errno.ESRCH):
        with suppress(ProcessLookupError):
            function(args[0], signal.SIGKILL)
    elif (name, code) == ("pidfd_open", errno.ESRCH):
        _somebody_waits(args[0])
    elif (name, code) == ("waitid", errno.ECHILD) and function(*args) is None:
        return None  # it runs yet, so nobody can have waited for it
    calls.injected = OSError(code, os.strerror(code))
    raise calls.injected


def _may_read_less(fd: int, fault: Fault) -> bool:
    """Whether Linux would ever do this to whoever reads *fd*.

    A pipe gives all it has: who got less knows that an edge is to come.  A terminal's EIO
    says that it is empty and that nobody can write to it.
    """
    if os.isatty(fd):
        return fault.short
    return not (fault.short and _sys.is_fifo(os.fstat(fd).st_mode) and _sys.unread(fd) > 1)


def _fewer(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same call for one byte."""
    if name in {"readv", "writev"}:
        filled = [view for view in (memoryview(buffer) for buffer in args[1]) if view.nbytes]
        return (args[0], [view.cast("B")[:1] for view in filled[:1]], *args[2:])
    if name == "write":
        return (args[0], memoryview(args[1]).cast("B")[:1])
    if name == "splice":
        return (*args[:2], min(args[2], 1))
    return (args[0], min(args[1], 1), *args[2:])


def _somebody_waits(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


# -- every failure -----------------------------------------------------------------------


@attrs.define(eq=False)
class Report:
    """What :func:`every_failure` tried."""

    name: str
    loop: str
    reached: Counter[str] = attrs.field(factory=Counter[str])
    """Different calls that were made to fail, for each function."""
    runs: int = 0
    refused: int = 0
    """Runs that ended with an error."""
    seconds: float = 0.0

    @property
    def calls(self) -> int:
        """How many different calls were made to fail."""
        return self.reached.total()

    def __str__(self) -> str:
        each = ", ".join(f"{name} {count}" for name, count in sorted(self.reached.items()))
        return (
            f"every failure of {self.name} on {self.loop}: {self.calls} calls, {self.runs} runs,"
            f" {self.refused} refused, {self.seconds:.1f} s ({each})"
        )


async def every_failure(
    operation: Callable[[], Awaitable[object]],
    *,
    name: str,
    faults: Mapping[str, Sequence[Fault]] = FAULTS,
    only: Sequence[str] | None = None,
    sample: int | None = None,
    deadline: float = 15.0,
    most: int = 200,
) -> Report:
    """Run *operation* until each of its calls has failed in each way.

    After each run it must have returned (and then been right, which it checks itself, by
    assertions), or raised an error of pyshimio, one of anyio's for closed and broken streams,
    or the very error that was injected.  It must not have outlived *deadline*, nor left a
    descriptor, a child, a thread or a task, nor raised where nobody could catch it.

    Args:
        operation: From nothing to nothing: what it opens, it closes.
        name: For the report.
        faults: How each call can fail.
        only: These calls alone.
        sample: So many of a call's faults, other ones for each k, for an operation that
            takes long.
        deadline: Seconds for one run.
        most: The largest k; an operation that goes on for ever is no operation.

    Returns:
        What was tried.  It is printed, too.

    Raises:
        AssertionError: Something was wrong after a run; the message says which.
    """
    started = time.monotonic()
    report = Report(name, running_loop())
    with count_syscalls() as calls:
        await _run(operation, calls, report, "no fault", deadline)
    assert report.refused == 0, "the operation fails without any fault"
    wrong: list[AssertionError] = []
    names = [call for call in dict.fromkeys(calls.names) if call in faults]
    for call in names:
        if only is not None and call not in only:
            continue
        for k in range(1, most + 1):
            reached = False
            for fault in _sampled(faults[call], k, sample):
                with _replaced(call, k, fault) as calls:
                    what = f"{call} number {k}: {fault}"
                    try:
                        await _run(operation, calls, report, what, deadline)
                    except AssertionError as error:
                        wrong.append(error)
                if len(wrong) >= ENOUGH:
                    break
                reached = reached or calls.failed is not None
                if not reached:
                    break
            if not reached or len(wrong) >= ENOUGH:
                break
            report.reached[call] += 1
        else:
            raise AssertionError(f"{name} reaches more than {most} calls of {call}")
        # What the others reach may be reached on some runs only.
        names.extend(set(calls.names) & set(faults) - set(names))
    report.seconds = time.monotonic() - started
    print(report)
    if wrong:
        found = "\n".join(map(str, wrong))
        raise AssertionError(f"{report}\n{len(wrong)} runs were wrong:\n{found}") from wrong[0]
    return report


def _sampled(faults: Sequence[Fault], k: int, sample: int | None) -> list[Fault]:
    if sample is None or sample >= len(faults):
        return list(faults)
    return [faults[(k * sample + number) % len(faults)] for number in range(sample)]


async def _run(
    operation: Callable[[], Awaitable[object]],
    calls: Calls,
    report: Report,
    what: str,
    deadline: float,
) -> None:
    """One run, and the look at it."""
    where = f"{report.name} on {report.loop}, {what}"
    before, tasks_before = Snapshot.take(), tasks()
    report.runs += 1
    with strays() as stray:
        with anyio.move_on_after(deadline) as scope:
            try:
                await operation()
            except Exception as error:
                report.refused += 1
                if not _allowed(error, calls):
                    raise AssertionError(f"{where}: raised {error!r}") from error
        assert not scope.cancelled_caught, f"{where}: hangs"
        left: list[object] = []
        until = time.monotonic() + GRACE
        while True:
            left = [*before.left_behind(grace=0), *(tasks() - tasks_before)]
            if calls.failed in {"unlink", "rmdir"}:  # the fault itself leaves something there
                for thing in left:
                    if isinstance(thing, Temporary):
                        shutil.rmtree(thing.path)
                left = [thing for thing in left if not isinstance(thing, Temporary)]
            if not left or time.monotonic() > until:
                break
            await anyio.sleep(0.002)
    assert not left, f"{where}: left behind: {', '.join(map(str, left))}"
    assert not stray, f"{where}: nobody could catch: {', '.join(stray)}"


def _allowed(error: Exception, calls: Calls) -> bool:
    if isinstance(error, (ShimIOError, anyio.ClosedResourceError, anyio.BrokenResourceError)):
        return True
    return error is calls.injected
