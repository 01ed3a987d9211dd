"""The process-wide switch that makes a container's processes our children."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from .. import _sys
from .._children import Children
from .._process import refuse_ignored_sigchld

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

__all__ = ("Subreaper",)

PAUSE = 1.0
"""Seconds between two looks for orphans that have exited."""


@attrs.define(eq=False)
class Subreaper:
    """Have the orphans among our descendants given to this process, instead of to pid 1.

    A container's processes are children of the runtime, which ends at once, and an exit status
    is for the parent alone; so :meth:`Container.wait` needs this.  It is a property of the whole
    process (``PR_SET_CHILD_SUBREAPER``), not of a loop or a thread: use it once, around
    everything, as containerd's shim does.  Leaving the block puts back what was before;
    processes that were given to us by then stay ours.

    Args:
        orphans: Reap the strangers, too, who were given to us because a container left them
            behind; each second it is looked for them.  By default only those are reaped that
            somebody here follows; the others stay zombies until this process ends.  By saying
            True you declare that nothing else in this process waits for children but this
            loop's :class:`~pyshimio.Command`, ``io.spawn`` and :class:`Container`: no
            ``subprocess``, no other loop.

    Raises:
        SigchldIgnoredError: No exit status could be had.

    Example:
        ::

            async with Subreaper():
                async with await Container.create(runc, "c1", "/bundles/c1") as container:
                    await container.start()
                    status = await container.wait()
    """

    orphans: bool = attrs.field(default=False, kw_only=True)
    _before: bool = attrs.field(default=False, init=False)
    _active: bool = attrs.field(default=False, init=False)
    _group: TaskGroup | None = attrs.field(default=None, init=False, repr=False)
    _children: Children | None = attrs.field(default=None, init=False, repr=False)

    async def __aenter__(self) -> Self:
        refuse_ignored_sigchld()
        self._before = _sys.is_subreaper()
        _sys.set_subreaper(on=True)
        self._active = True
        try:
            if self.orphans:
                group = anyio.create_task_group()
                await group.__aenter__()
                self._group = group
                group.start_soon(self._reap)
            else:
                await anyio.lowlevel.checkpoint()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _sys.set_subreaper(on=self._before)
        self._active = False
        group, self._group = self._group, None
        if group is not None:
            group.cancel_scope.cancel()
            # It is not told of an error of the body, which it would wrap.
            await group.__aexit__(None, None, None)

    async def _reap(self) -> None:
        self._children = Children.current()
        before, self._children.when_free = self._children.when_free, self._look
        try:
            # Not by SIGCHLD: uvloop keeps that for itself.
            while True:
                self._look()
                await anyio.sleep(PAUSE)
        finally:
            self._children.when_free = before

    def _look(self) -> None:
        """Reap those whom nobody claims; the kernel shows the next one when the first is gone."""
        assert self._children is not None
        while (pid := _sys.exited_child()) is not None:
            if self._children.claims(pid):
                return  # and look again when it has been reaped
            _sys.reap(pid)

    def __repr__(self) -> str:
        return f"<Subreaper {'active' if self._active else 'not active'}>"
