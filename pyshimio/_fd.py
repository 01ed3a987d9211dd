"""One owner for each descriptor.

A number that two places may close is how a process ends up closing somebody else's file:
numbers are reused at once.  So no other module keeps a bare number; each keeps an
:class:`OwnedFd`, which forgets the number when it is closed.
"""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeAlias

from anyio import ClosedResourceError

from . import _sys

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ("Descriptor", "HasFileno", "OwnedFd", "duplicate", "own_description")

PTMX = os.makedev(5, 2)


class HasFileno(Protocol):
    """Anything with a descriptor: a file, a socket, a process."""

    def fileno(self) -> int:
        """The number."""
        ...


Descriptor: TypeAlias = "int | HasFileno"


def duplicate(fd: Descriptor) -> OwnedFd:
    """A number of our own for the description behind *fd*, which stays the caller's."""
    return OwnedFd(_sys.dup(fd if isinstance(fd, int) else fd.fileno()))


def own_description(fd: OwnedFd, flags: int) -> OwnedFd | None:
    """A non-blocking description of our own of a pipe, a FIFO or a terminal.

    None for anything else, and for what may not be opened again: somebody else's.

    Args:
        fd: Stays open.
        flags: Which way.
    """
    status = _sys.fstat(fd.fileno())
    # Who opens a terminal's master again gets another terminal.
    slave = _sys.isatty(fd.fileno()) and status.st_rdev != PTMX
    if not (slave or _sys.is_fifo(status.st_mode)):
        return None
    try:
        return OwnedFd(_sys.reopen(fd.fileno(), flags | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return None


class OwnedFd:
    """A descriptor that closes once, whoever asks and however often.

    Args:
        fd: The number; from here on it belongs to this object.

    A thread may :meth:`lend` the number for one system call: a close meanwhile takes
    effect when the call has returned, so the number cannot be reused under it.
    """

    __slots__ = ("__weakref__", "_closing", "_fd", "_lent", "_lock")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lent = 0
        self._closing = False
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The number; :class:`~anyio.ClosedResourceError` once it is closed."""
        if self._closing:
            raise ClosedResourceError
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether the number is given back (or will be as soon as a lent call returns)."""
        return self._closing

    def detach(self) -> int:
        """Give the number away; the caller closes it."""
        fd = self.fileno()
        self._closing = True
        self._fd = -1
        return fd

    def lend(self) -> Loan:
        """The number for one system call in another thread: ``with fd.lend() as number``."""
        return Loan(self)

    def _take(self) -> int:
        with self._lock:
            if self._closing:
                raise ClosedResourceError
            self._lent += 1
        return self._fd

    def _give_back(self) -> None:
        with self._lock:
            self._lent -= 1
            last = self._closing and not self._lent
        if last:
            self._close()

    def close(self) -> None:
        """Give the number back to the kernel.  Idempotent, never raises, never waits."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            if self._lent:
                return
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        # close(2) reports errors of earlier writes (and EINTR) with the number already
        # gone; calling it again would hit whoever has the number by then.
        with suppress(OSError):
            _sys.close(fd)

    def __del__(self) -> None:
        if not self._closing:
            text = f"unclosed {self!r}"
            self._closing = True
            self._close()
            # Last, because it raises where warnings are errors.
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<OwnedFd {'closed' if self._closing else f'open({self._fd})'}>"


class Loan:
    """What :meth:`OwnedFd.lend` gives; a generator would cost as much as the call it is for."""

    __slots__ = ("_owner",)

    def __init__(self, owner: OwnedFd) -> None:
        self._owner = owner

    def __enter__(self) -> int:
        return self._owner._take()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._owner._give_back()
