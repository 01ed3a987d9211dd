"""Make the k-th call of a function fail, come back short or be interrupted."""

from __future__ import annotations

import errno
import os
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs

from ... import _sys
from ...logging import _kernel
from ._table import FAULTS, REPEATED, SHORT, SURE, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import ModuleType

__all__ = ("ANY", "Calls", "count_syscalls", "fail_syscall", "replaced")

ANY = "*"
"""Stands for every name in ``FAULTS``, counted together."""


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
    with replaced(ANY, 0, None) as calls:
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
    """Let the *k*-th call of one of pyshimio's functions go wrong, and no other.

    Those are the functions of :mod:`pyshimio._sys`, and what log drivers and readers of logs ask
    of the kernel in this process: ``log.open``, ``log.write`` and so on.

    Calls count from any thread.  Everything is as before when the block is left.

    Args:
        name: The function, or ``ANY``.
        k: Counts from 1.
        error, short, interrupted: See :class:`Fault`.

    Yields:
        What was called, and which one went wrong.

    Raises:
        ValueError: There is no such function, or it cannot fail like that.
    """
    fault = Fault(error, short=short, interrupted=interrupted)
    if name != ANY and name not in FAULTS and name not in SURE:
        raise ValueError(f"pyshimio makes no call {name!r}; FAULTS and SURE have their names")
    if short and name not in SHORT:
        raise ValueError(f"{name} moves no bytes, so it cannot come back short")
    if k < 1:
        raise ValueError(f"calls count from 1, not {k!r}")
    with replaced(name, k, fault) as calls:
        yield calls


@contextmanager
def replaced(wanted: str, k: int, fault: Fault | None) -> Generator[Calls]:
    calls = Calls()
    names = set(FAULTS) if wanted == ANY else {*FAULTS, wanted}
    real = {name: getattr(*_place(name)) for name in names}

    def replacement(name: str) -> Callable[..., Any]:
        function = real[name]

        def call(*args: Any, **options: Any) -> Any:
            if calls.add(name, wanted, k) and fault is not None:
                return _go_wrong(calls, name, function, fault, args, options)
            return function(*args, **options)

        return call

    for name in names:
        setattr(*_place(name), replacement(name))
    try:
        yield calls
    finally:
        for name, function in real.items():
            setattr(*_place(name), function)


def _place(name: str) -> tuple[ModuleType, str]:
    """The module of a call, and what it is named there."""
    kind, _, rest = name.rpartition(".")
    return (_kernel if kind else _sys, rest)


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
        return function(*_fewer(_place(name)[1], args), **options)
    if isinstance(fault.interrupted, BaseException):
        calls.injected = fault.interrupted
        raise fault.interrupted
    if fault.interrupted and name in REPEATED:
        return function(*args, **options)
    code = errno.EINTR if fault.error is None else fault.error
    if name in {"close", "log.close"}:
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
