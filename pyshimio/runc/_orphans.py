"""What a command of a runtime leaves running when it is killed in the middle.

crun's child, which is to become the container, does not end with its parent; and a runtime does not
end with whoever began it.  Each is known by its command line, which is the runtime's own until it
becomes another program.
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
    from collections.abc import Callable, Sequence

__all__ = ("begun_after", "end_orphans", "lives", "log_path")

PAUSE = 0.01


def log_path(process: int, number: int | str = "") -> str:
    """The name of a command's log: a descriptor of whoever began it.

    Args:
        process: That one.
        number: The descriptor; without it this is how the names of all of its logs begin.
    """
    return f"/proc/{process}/fd/{number}"


def begun_after(pid: int) -> list[int]:
    """Processes that are younger than *pid*, of which there are few; 0 for all.

    Nothing else of the others is looked at: to read somebody's command line takes a lock that a
    process on a file system that has died may hold for ever.
    """
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if not pid:
        return pids
    with open("/proc/loadavg", encoding="ascii") as file:
        last = int(file.read().split()[-1])
    if last >= pid:
        return [one for one in pids if pid < one <= last]
    return [one for one in pids if one > pid or one <= last]  # the numbers began anew


async def end_orphans(
    begun: Callable[[Sequence[str]], bool], *, after: int = 0, with_groups: bool = False
) -> None:
    """Kill those that are left, until there is none; the caller has a deadline for it.

    Args:
        begun: Tells from a command line whether it is one of them.
        after: They are younger than this process; 0: nothing is known.
        with_groups: Those that lead a process group are killed with it.

    Raises:
        PermissionError: One is somebody else's.
    """
    ended: set[int] = set()
    while found := [pid for pid in begun_after(after) if begun(_args(pid))]:
        ended.update(found)
        for pid in found:
            with suppress(ProcessLookupError):
                pidfd = OwnedFd(_sys.pidfd_open(pid))
                try:
                    if begun(_args(pid)):  # it is that one still
                        _end(pid, pidfd, with_group=with_groups)
                finally:
                    pidfd.close()
        await anyio.sleep(PAUSE)
    for pid in ended.intersection(_sys.children()):  # nobody else would
        _sys.reap(pid)


def _end(pid: int, pidfd: OwnedFd, *, with_group: bool) -> None:
    if with_group and _sys.process_group(pid) == pid:
        os.killpg(pid, signal.SIGKILL)
    _sys.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)


def lives(pid: int) -> bool:
    """Whether there is such a process, and no zombie."""
    return bool(_args(pid))


def _args(pid: int) -> list[str]:
    """Its command line; empty when it has gone, or waits to be reaped."""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return [os.fsdecode(arg) for arg in file.read().split(b"\0")[:-1]]
    return []
