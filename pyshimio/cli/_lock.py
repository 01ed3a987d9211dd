"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import fcntl
import os

from .._fd import OwnedFd

__all__ = ("locked",)


def locked(path: str, flags: int) -> OwnedFd | None:
    """A file or a directory, open and locked until it is closed; None where somebody else has it.

    Args:
        path: No symbolic link.
        flags: To open it with; what is made is for us alone.
    """
    fd = OwnedFd(os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    try:
        fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fd.close()
        return None
    except BaseException:
        fd.close()
        raise
    return fd
