"""The end of a process that is not our child, and may be gone already."""

from __future__ import annotations

import contextlib
import os
import signal

from .fake_runc._store import started

__all__ = ("kill",)


def kill(pid: int, start: int) -> None:
    """Kill this process, and no other one that has got its number since.

    Args:
        pid: Its number.
        start: When it began, in the kernel's ticks (field 22 of ``/proc/PID/stat``).
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        pidfd = os.pidfd_open(pid)
        try:
            if started(pid) == start:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
