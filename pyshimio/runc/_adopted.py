"""A process that a runtime started and left to us, or to somebody else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from .. import _sys
from .._children import Children
from .._process import Process
from ..errors import ChildReapedElsewhereError, NotSubreaperError

if TYPE_CHECKING:
    from ..errors import ProcessError

__all__ = ("Adopted", "Leftovers", "reap_group", "reap_strangers")

LEFT_SECONDS = 1.0
NAME_LENGTH = 15
PAUSE = 0.01


class Adopted(Process):
    """A container's process, followed by its pidfd.

    Its status is to be had only if it is our child, see :class:`Subreaper`; its exit in any case.

    Args:
        pid: From the runtime's pid file.
        args: For messages.

    Raises:
        NotSubreaperError: It has gone already, and was not our child.
        ChildReapedElsewhereError: It has gone already, and somebody here has waited for it.
    """

    def __init__(self, pid: int, args: tuple[str, ...] = ()) -> None:
        self.ours = _sys.parent_of(pid) == _sys.getpid()
        try:
            super().__init__(pid, args)
        except ChildReapedElsewhereError:
            if _sys.is_subreaper():
                raise
            raise self._loss(_whose(pid)) from None

    async def wait(self, timeout: float | None = None) -> int:
        """As for every :class:`~pyshimio.Process`.

        Raises:
            NotSubreaperError: It is not our child.
        """
        if not self.ours:
            raise self._loss(_whose(self.pid))
        return await super().wait(timeout)

    def _theft(self) -> str:
        return super()._theft() if self.ours else _whose(self.pid)

    def _loss(self, why: str) -> ProcessError:
        return super()._loss(why) if self.ours else NotSubreaperError(why, pid=self.pid)


def reap_strangers(namespace: int) -> None:
    """Reap those of our children in a container's pid namespace whom nobody follows.

    The kernel does not let a namespace's init go before the last zombie in it has been reaped,
    and who was started there from outside has an outer parent: us, when a runtime has left one
    behind (crun does when it cannot execute a program).

    Args:
        namespace: From :func:`~pyshimio._sys.pid_namespace`.
    """
    followed = Children.current()
    for pid in _sys.children():
        if not followed.claims(pid) and _sys.pid_namespace(pid) == namespace:
            _sys.reap(pid)


async def reap_group(group: int) -> None:
    """Reap what a runtime that died had begun, and that dies of it.

    Args:
        group: Its process group, which was its own.
    """
    with anyio.move_on_after(LEFT_SECONDS):
        while left := [pid for pid in _sys.children() if _sys.process_group(pid) == group]:
            for pid in left:
                _sys.reap(pid)
            await anyio.sleep(PAUSE)


class Leftovers:
    """What a runtime that fails leaves to us: what it had begun, maybe in a namespace of its own.

    Made before the runtime is started.

    Args:
        program: The runtime; what it forks has its name until it becomes another program.
    """

    def __init__(self, program: str) -> None:
        self._name = os.path.basename(program)[:NAME_LENGTH]
        self._before = frozenset(_sys.children())

    async def reap(self, *, ending: int = 0) -> None:
        """Reap them; those that are on their way out are waited for a moment.

        Args:
            ending: A container's pid namespace, in which they are killed, too: a runtime that was
                killed has told nobody what it had begun there.
        """
        with anyio.move_on_after(LEFT_SECONDS):
            while self._look(ending):  # noqa: ASYNC110 - the kernel tells nobody
                await anyio.sleep(PAUSE)

    def _look(self, ending: int) -> bool:
        """Whether there is somebody to wait for."""
        followed = Children.current()
        ours = _sys.pid_namespace(_sys.getpid())
        new = [pid for pid in _sys.children() if pid not in self._before]
        spaces = {pid: _sys.pid_namespace(pid) for pid in new if not followed.follows(pid)}
        left = [
            pid
            for pid, space in spaces.items()
            if (space not in {0, ours}) or (_sys.exiting(pid) and self._is_one(pid))
        ]
        if followed.expected:  # one of them may be what another runtime is about to leave to us
            return any(spaces[pid] == ending or _sys.exiting(pid) for pid in left)
        for pid in left:
            if spaces[pid] == ending:
                _sys.kill_child(pid)
            _sys.reap(pid)
        return bool(left)

    def _is_one(self, pid: int) -> bool:
        return _sys.command_name(pid).startswith(self._name)


def _whose(pid: int) -> str:
    return (
        f"process {pid} is not a child of this process, so its exit status is for somebody else;"
        " make the container inside `async with Subreaper()`"
    )
