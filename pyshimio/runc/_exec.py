"""Another process in a container."""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import attrs

from .. import _sys
from .._children import Children
from ..errors import InvalidOptionError, RuntimeFailedError
from ._adopted import Leftovers
from ._finish import finish
from ._life import PHASE_SECONDS, Life, Phases, PidFile, drop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..abc import IO
    from ..io._result import DrainResult
    from ._bundle import Bundle
    from ._container import Container
    from ._options import ExecOptions

__all__ = ("Exec", "process_user")

SIGNALLED = 128
"""A status above is a signal's."""


def process_user(
    process: Mapping[str, Any] | Sequence[str], options: ExecOptions, bundle: Bundle
) -> tuple[int, int]:
    """(uid, gid) in the container of what an exec runs; init's where nothing is said.

    Raises:
        InvalidOptionError: The user is none.
    """
    if isinstance(process, Mapping):
        user: Mapping[str, int] = process.get("user") or {}
        return user.get("uid", 0), user.get("gid", 0)
    if not options.user:
        return bundle.uid, bundle.gid
    found = re.fullmatch(r"(\d+)(?::(\d+))?", options.user, re.ASCII)
    if found is None:
        raise InvalidOptionError(
            f'user is "uid" or "uid:gid" in numbers, not {options.user!r}', option="user"
        )
    return int(found[1]), int(found[2] or bundle.gid)


def _said_something(error: BaseException) -> bool:
    """Whether that is a runtime's own error, so that what it had begun is over."""
    return isinstance(error, RuntimeFailedError) and error.status < SIGNALLED


class Exec(Life):
    """A process beside a container's init, made by :meth:`Container.exec`.

    Its states are those of a :class:`Container` but ``paused``.  Leaving the block kills and
    deletes it.

    Example:
        ::

            async with await container.exec("e1", ["ls"], io="file:///tmp/ls.log") as process:
                await process.start()
                status = await process.wait(io=True)
    """

    def __init__(
        self,
        container: Container,
        id: str,  # noqa: A002 - containerd's word
        process: Mapping[str, Any] | Sequence[str],
        io: IO,
        options: ExecOptions,
    ) -> None:
        super().__init__(container.id, id, io)
        self._container = container
        self._what = process
        self._options = options
        self._starting = False
        self._deleting = anyio.Lock()

    @property
    def live(self) -> bool:
        """Whether it runs, or is being started."""
        return self._starting or self.state == "running"

    async def start(self) -> None:
        """Start it; its bytes move when this returns.

        A failure or a cancellation leaves no process, and it is ``deleted`` then.

        Raises:
            ContainerStateError: It was started before, or the container has stopped.
            RuntimeFailedError: The runtime failed; there is no such program, say.
            FifoTimeoutError: A client did not come.
            ConsoleError: The runtime sent no terminal.
        """
        self._check("be started", "created")
        self._container._check("run another process", "created", "running", "paused")
        if self._starting:
            raise self._wrong("be started twice")
        self._starting = True
        try:
            leftovers = Leftovers(self._container.runc.program)
            try:
                await self._run()
                await self.io.copy()
            except BaseException as error:
                await finish(partial(self._undo, leftovers, told=_said_something(error)))
                raise
        finally:
            self._starting = False
            self._container.publish_exit()

    async def _run(self) -> None:
        container = self._container
        with (
            PidFile(self._options.pid_file, container._pid_file()) as pid_file,
            Children.current().expecting(),
        ):
            options = attrs.evolve(self._options, detach=True, pid_file=pid_file.path)
            try:
                await container.runc.exec(container.id, self._what, io=self.io, options=options)
            except BaseException:
                with suppress(OSError, ValueError):  # it has not begun
                    self._began(pid_file)
                raise
            self._began(pid_file)
        if container.state in {"stopped", "deleted"}:
            self.end()  # where pids are shared it could live on

    def _began(self, pid_file: PidFile) -> None:
        pid = pid_file.read()
        self._told = "running"
        try:
            self._follow(pid, self._note)
        except BaseException:
            _sys.kill_and_reap(pid)  # nobody else could do that any more
            self._told = "created"
            raise

    async def _undo(self, leftovers: Leftovers, *, told: bool) -> None:
        """End what has begun although nobody will hear of it."""
        if self._told == "running":
            phases = Phases(self._done)
            await phases.take("its end", self._end, seconds=PHASE_SECONDS)
            phases.log()
        await leftovers.reap(ending=0 if told else self._container._namespace)
        await drop(self.io)
        self._forget()

    def _note(self) -> None:
        assert self._exit is not None
        self._container.exits.publish(self._exit)
        self._container.publish_exit()

    async def kill(self, signal: int = signals.SIGTERM) -> None:
        """Send *signal* to it.

        Raises:
            ContainerStateError: It does not run.
        """
        await anyio.lowlevel.checkpoint()
        self._check("be killed", "running")
        assert self._process is not None
        self._process.send_signal(signal)

    def end(self) -> None:
        """SIGKILL, if it runs; never waits."""
        if self._process is not None:
            self._process.kill()

    async def delete(
        self, *, force: bool = False, drain_timeout: float = PHASE_SECONDS
    ) -> DrainResult | None:
        """Wait for the rest of its output and close its stdio.

        A background child of its own may hold the output open, and may go on writing: what the
        process itself wrote is delivered, and nobody is waited for longer than the drain's
        linger.  Not interrupted by a cancellation.  Idempotent.

        Args:
            force: Kill it first if it runs.
            drain_timeout: Seconds for the output.

        Returns:
            What became of its output; None if it was never started.

        Raises:
            ContainerStateError: It runs.
            ExitTimeoutError: It did not end although it was killed.
            StreamFailedError: A sink failed for good.
        """
        return await finish(partial(self._delete, force=force, drain=drain_timeout))

    async def delete_quietly(self, drain: float) -> None:
        """The same as a part of its container's end, which goes on whatever happens here."""
        async with self._deleting:
            if self._told != "deleted":
                (await self._take_down(drain)).log()

    async def _delete(self, *, force: bool, drain: float) -> DrainResult | None:
        async with self._deleting:
            if self._told == "deleted":
                return self.result
            if not force:
                self._check("be deleted without force", "created", "stopped")
            phases = await self._take_down(drain)
        phases.end()
        return self.result

    async def _take_down(self, drain: float) -> Phases:
        phases = Phases(self._done)
        if self._told == "running":
            if not self._exited:
                await phases.take("its end", self._end, seconds=PHASE_SECONDS)
            if not self._exited:
                return phases  # and all of it is to be tried again
            await phases.take("drain", partial(self._drain_within, drain), seconds=drain + 1)
        await self._close_io(phases)
        self._forget()
        return phases

    async def _end(self) -> None:
        self.end()
        await self.gone()

    def _forget(self) -> None:
        self._told = "deleted"
        self._close_process()
        self._container.forget_exec(self.id)

    def close(self) -> None:
        """Let go of it, which lives on; see :meth:`Container.close`."""
        if self._told != "deleted":
            self.io.close()
            self._forget()

    def __repr__(self) -> str:
        where = f" pid {self.pid}" if self.pid else ""
        return f"<Exec {self.id!r} of {self.container_id!r} {self.state}{where}>"
