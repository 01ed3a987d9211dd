"""What a command of a runtime leaves running when it is killed in the middle.

Each command of :class:`Runc` has a log that is named after the process that began it; so it can
be told from all others, and so can what it has forked, until that becomes another program.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from .. import _sys
from .._fd import OwnedFd

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("end_orphans", "log_path")

PAUSE = 0.01


def log_path(process: int, number: int | str = "") -> str:
    """The name of a log: a descriptor of *process*; without *number* how all of its begin."""
    return f"/proc/{process}/fd/{number}"


async def end_orphans(
    begun: Callable[[list[str]], bool], *, seconds: float, with_groups: bool = False
) -> None:
    """Kill those that are left, until there is none.

    Args:
        begun: Tells from a command line whether it is one of them.
        seconds: How long.
        with_groups: Those that lead a process group are killed with it.

    Raises:
        TimeoutError: One cannot be killed.
    """
    with anyio.fail_after(seconds):
        while found := [pid for pid in _pids() if begun(_args(pid))]:
            for pid in found:
                with suppress(ProcessLookupError):
                    pidfd = OwnedFd(_sys.pidfd_open(pid))
                    try:
                        if begun(_args(pid)):  # it is that one still
                            _end(pid, pidfd, with_group=with_groups)
                    finally:
                        pidfd.close()
            await anyio.sleep(PAUSE)


def _end(pid: int, pidfd: OwnedFd, *, with_group: bool) -> None:
    if with_group and _sys.process_group(pid) == pid:
        os.killpg(pid, signal.SIGKILL)
    _sys.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _args(pid: int) -> list[str]:
    """Its command line; empty when it has gone, or waits to be reaped."""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return [os.fsdecode(arg) for arg in file.read().split(b"\0")[:-1]]
    return []
