"""Larger pipes for streams that prove busy, out of a bounded budget.

The kernel counts the pages of all pipes of one user, and past a soft limit it gives new
pipes two pages instead of sixteen.  So one loop grows its pipes by a quarter of that limit
in all, and gives back what a stream does not need any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _sys

if TYPE_CHECKING:
    from ._fd import OwnedFd

__all__ = ("Growth", "Haste", "PipeBudget", "SharedGrowth")

STEPS = (1 << 18, 1 << 20)
HASTE_BYTES, HASTE_SECONDS = 4 << 20, 1.0
"""A stream that moves so much in so short a time gets larger pipes, in two steps."""


class Haste:
    """Whether a stream is fast enough for larger pipes; tell it of each turn."""

    def __init__(self) -> None:
        self._since = 0.0
        self._at = 0

    def proves(self, total: int, now: float) -> bool:
        """Whether the next step is due.

        Args:
            total: Bytes that the stream has moved so far.
            now: Seconds.
        """
        if now - self._since > HASTE_SECONDS:
            self._since = now
            self._at = total + HASTE_BYTES
            return False
        if total < self._at:
            return False
        self._since = 0.0
        return True


class PipeBudget:
    """Bytes by which the pipes of one loop may still grow."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._pid = _sys.getpid()
        self._owing: list[Growth] = []

    @property
    def left(self) -> int:
        """What is left of a quarter of ``pipe-user-pages-soft``."""
        if self._left is None:
            self._left = (_sys.pipe_budget() or 1 << 40) // 4
        # A pipe that was too full to shrink may be empty, or closed, by now.
        owing, self._owing = self._owing, []
        for growth in owing:
            if not growth.wanted:
                growth.shrink()
        return self._left

    def take(self, count: int) -> bool:
        """Use *count* bytes of it, if they are there."""
        if count > self.left:
            return False
        self._left = self.left - count
        return True

    def give(self, count: int) -> None:
        """Return *count* bytes."""
        self._left = (self._left or 0) + count

    def forked(self) -> bool:
        """Whether this is a copy in a forked process: the pipes are still its parent's, too."""
        return _sys.getpid() != self._pid

    def owe(self, growth: Growth) -> None:
        """A pipe stays large for now; ask it again whenever the budget is asked."""
        self._owing.append(growth)


class Growth:
    """One pipe that may be larger than it was made.

    Args:
        fd: Either end; stays the caller's.
        budget: Whose bytes are used.
    """

    def __init__(self, fd: OwnedFd, budget: PipeBudget) -> None:
        self.wanted: bool = True
        """Somebody uses it, so that it is not to be made smaller."""
        self._fd = fd
        self._budget = budget
        self._first = self._size = _sys.pipe_size(fd.fileno())

    def grow(self) -> bool:
        """The next step, if the budget and the kernel allow it; whether they did."""
        wanted = next((step for step in STEPS if step > self._size), self._size)
        if wanted == self._size or not self._budget.take(wanted - self._size):
            return False
        if not self._set(wanted):
            self._budget.give(wanted - self._size)
            return False
        self._size = wanted
        return True

    def look_through(self, fd: OwnedFd) -> None:
        """It is wanted by whoever has *fd*, another of the pipe's ends, from here on."""
        self.wanted = True
        self._fd = fd

    def shrink(self) -> None:
        """Back to the first size; a pipe that holds more than that owes it."""
        self.wanted = False
        if self._size == self._first or self._budget.forked():
            return
        if self._fd.closed or self._set(self._first):
            self._budget.give(self._size - self._first)
            self._size = self._first
        else:
            self._budget.owe(self)

    def _set(self, size: int) -> bool:
        # EPERM: the user's limit; EBUSY: more bytes in it than that.  Neither is an error.
        try:
            _sys.set_pipe_size(self._fd.fileno(), size)
        except OSError:
            return False
        return True


class SharedGrowth:
    """A pipe that several streams write into: any of them makes it larger, the last one smaller."""

    def __init__(self) -> None:
        self._growth: Growth | None = None
        self._shares: list[Share] = []

    def join(self, fd: OwnedFd, budget: PipeBudget) -> Share:
        """One stream's part in it; *fd* is its own, and has to be open until the part is over."""
        if self._growth is None:
            self._growth = Growth(fd, budget)
        elif not self._shares:  # it may be large still
            self._growth.look_through(fd)
        share = Share(self, fd)
        self._shares.append(share)
        return share

    def grow(self) -> bool:
        """The next step, as :meth:`Growth.grow`."""
        return self._growth is not None and self._growth.grow()

    def leave(self, share: Share) -> None:
        """One part is over.  Idempotent."""
        if share not in self._shares or self._growth is None:
            return
        self._shares.remove(share)
        if self._shares:
            self._growth.look_through(self._shares[0].fd)
        else:
            self._growth.shrink()


class Share:
    """What one of those streams has of :class:`SharedGrowth`; used like a :class:`Growth`."""

    def __init__(self, shared: SharedGrowth, fd: OwnedFd) -> None:
        self._shared = shared
        self.fd = fd

    def grow(self) -> bool:
        """The next step."""
        return self._shared.grow()

    def shrink(self) -> None:
        """This stream needs no larger pipe any more."""
        self._shared.leave(self)
