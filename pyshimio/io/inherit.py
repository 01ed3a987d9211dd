"""Our own stdio for the child: go-runc's ``NewSTDIO``."""

from __future__ import annotations

import errno
from typing import Literal

from .._fd import duplicate
from ._base import GRACE, BaseIO

__all__ = ("InheritIO",)


class InheritIO(BaseIO):
    """The child reads and writes what this process has as 0, 1 and 2.

    The descriptions are shared and left as they are: no flag of them is ever changed, and
    nothing is copied.  A descriptor that is closed here is ``/dev/null`` there.

    Args:
        grace: Seconds between SIGTERM and SIGKILL for a child alive at the end.
        on_exit: ``"leave"`` lets such a child live on.
    """

    def __init__(self, *, grace: float = GRACE, on_exit: Literal["kill", "leave"] = "kill") -> None:
        super().__init__(grace=grace, on_exit=on_exit)
        try:
            for number in range(3):
                try:
                    self._children[number] = duplicate(number)
                except OSError as error:
                    if error.errno != errno.EBADF:
                        raise
        except BaseException:
            self.close()
            raise
