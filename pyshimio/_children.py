"""Which children somebody here follows, so that whoever reaps orphans leaves those alone.

An orphan that was given to us (see :class:`~pyshimio.runc.Subreaper`) cannot be told from a
child that is just being started, or that a runtime is about to leave to us.  So those who start
or expect one say so.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ._poller import LoopVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ("Children",)


class Children:
    """Those of one loop; kept by whoever follows one."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._expecting = 0
        self.when_free: Callable[[], None] | None = None
        """Called when fewer are claimed than before."""

    @classmethod
    def current(cls) -> Children:
        """The running loop's."""
        children = _current.get()
        if children is None:
            children = cls()
            _current.set(children)
        return children

    @property
    def expected(self) -> bool:
        """Whether somebody waits for a child whose pid is not known yet."""
        return bool(self._expecting)

    def follows(self, pid: int) -> bool:
        """Whether somebody waits for *pid*."""
        return pid in self._pids

    def claims(self, pid: int) -> bool:
        """Whether somebody waits for *pid*, or may do so yet."""
        return self.expected or self.follows(pid)

    def follow(self, pid: int) -> None:
        """Somebody waits for *pid* from now on."""
        self._pids.add(pid)

    def forget(self, pid: int) -> None:
        """It has been reaped.  Idempotent."""
        self._pids.discard(pid)
        self._tell()

    @contextmanager
    def expecting(self) -> Generator[None]:
        """A child whose pid is not known yet comes (or does not) meanwhile."""
        self._expecting += 1
        try:
            yield
        finally:
            self._expecting -= 1
            self._tell()

    def _tell(self) -> None:
        if self.when_free is not None:
            self.when_free()


_current: LoopVar[Children] = LoopVar()
