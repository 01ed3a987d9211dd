"""No stdio at all: go-runc's ``NewNullIO``, but one that can be written to."""

from __future__ import annotations

import os
from typing import Literal

from .. import _sys
from .._fd import OwnedFd
from ._base import GRACE, BaseIO

__all__ = ("NullIO",)


class NullIO(BaseIO):
    """``/dev/null`` for all three streams.

    go-runc opens it read-only, and an ``echo`` of a process that was started with
    ``runc exec -d`` fails with EBADF.  Here it is open for reading and writing.

    Args:
        grace: Seconds between SIGTERM and SIGKILL for a child alive at the end.
        on_exit: ``"leave"`` lets such a child live on.
    """

    def __init__(self, *, grace: float = GRACE, on_exit: Literal["kill", "leave"] = "kill") -> None:
        super().__init__(grace=grace, on_exit=on_exit)
        try:
            for number in range(3):
                self._children[number] = OwnedFd(_sys.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        except BaseException:
            self.close()
            raise
