"""A container from its creation to the last thing that is cleared away."""

from __future__ import annotations

import os
import shutil
import signal as signals
import tempfile
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import attrs

from .. import _sys
from .._children import Children
from ..errors import NotSubreaperError, RuntimeFailedError, ShimIOError
from ..io.null import NullIO
from ._adopted import Leftovers, reap_strangers
from ._bundle import Bundle
from ._client import missing
from ._exec import Exec, process_user
from ._exits import Exits
from ._finish import finish
from ._life import PHASE_SECONDS, Life, Phases, PidFile, State, open_io
from ._options import CreateOptions, ExecOptions
from ._unmount import unmount

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Any, Self

    from .._stdio import Stdio
    from ..abc import IO
    from ..io._result import DrainResult
    from ._client import Runc

__all__ = ("Container",)

LOOK_SECONDS = 10.0
STUCK_SECONDS = 0.5
"""After which it is looked whether init, on its way out, waits for somebody to be reaped."""
FROZEN_SECONDS = 1.0
"""After which somebody else seems to have frozen a container that was killed."""
STATES: Mapping[str, State] = {"running": "running", "paused": "paused"}
"""What a runtime says of a container that lives; else it is not started yet."""


class Container(Life):
    """A container and its init, as containerd's shim keeps one.

    Its states are ``created``, ``running``, ``paused``, ``stopped`` and ``deleted``; what cannot
    be done in a state raises :class:`~pyshimio.errors.ContainerStateError`.  Make one with
    :meth:`create`; leaving the block kills and deletes it.

    Example:
        ::

            async with Subreaper():
                async with await Container.create(
                    Runc(), "c1", "/bundles/c1", io="file:///var/log/c1.log"
                ) as container:
                    await container.start()
                    status = await container.wait(io=True)
                    await container.delete()
    """

    def __init__(
        self,
        runc: Runc,
        id: str,  # noqa: A002 - the runtime's word
        bundle: Bundle,
        io: IO,
        *,
        rootfs: str | None,
        exits: Exits | None,
    ) -> None:
        super().__init__(id, id, io)
        self.runc = runc
        self.bundle = bundle
        """What its configuration says."""
        self.exits: Exits = Exits() if exits is None else exits
        """Who has exited: its execs, and last its init."""
        self._own_exits = exits is None
        # Looked up now: later, somebody else's file system may not answer any more.
        self._rootfs = None if rootfs is None else os.path.realpath(rootfs)
        self._execs: dict[str, Exec] = {}
        self._namespace = 0
        self._made = False
        self._published = False
        self._changing = anyio.Lock()
        self._deleting = anyio.Lock()
        self._directory: str | None = None
        self._pid_files = 0

    # -- how it comes about -------------------------------------------------------------

    @classmethod
    async def create(
        cls,
        runc: Runc,
        id: str,  # noqa: A002
        bundle: str | os.PathLike[str],
        *,
        io: IO | Stdio | str | None = None,
        namespace: str = "default",
        options: CreateOptions | None = None,
        rootfs: str | None = None,
        exits: Exits | None = None,
    ) -> Self:
        """Make a container, up to the moment before its program begins (the shim's Create).

        Its FIFOs are open and its bytes move when this returns.  A failure or a cancellation
        leaves no container, and *io* closed.

        Args:
            runc: The client of its runtime.
            id: Its name.
            bundle: Directory with ``config.json``.
            io: Its stdio: an IO, which is owned from here on; or what
                :func:`~pyshimio.create_io` takes, with a terminal and an owner as the bundle
                says.  None is ``/dev/null``.
            namespace: For loggers.
            options: See :class:`CreateOptions`.
            rootfs: A directory on which its root file system was mounted for it; what is mounted
                there or below is unmounted by :meth:`delete`.
            exits: Where exits are published, for several containers together; closed by whoever
                made it.

        Raises:
            RuntimeFailedError: The runtime failed.
            InvalidOptionError: *bundle* is none.
            FifoTimeoutError: A client did not come.
            ConsoleError: The runtime sent no terminal.
            ShimIOError: What :func:`~pyshimio.create_io` raises.
        """
        async with open_io(io, bundle, id=id, namespace=namespace) as (found, stdio):
            leftovers = Leftovers(runc.program)
            self = cls(runc, id, found, stdio, rootfs=rootfs, exits=exits)
            try:
                await self._create(options or CreateOptions())
            except BaseException:
                await finish(partial(self._undo, leftovers))
                raise
        return self

    async def _create(self, options: CreateOptions) -> None:
        with (
            PidFile(options.pid_file, self._pid_file()) as pid_file,
            Children.current().expecting(),
        ):
            options = attrs.evolve(options, pid_file=pid_file.path)
            await self.runc.create(self.id, self.bundle.path, io=self.io, options=options)
            self._made = True
            pid = pid_file.read()
            try:
                self._follow_init(pid)
            except BaseException:
                _sys.kill_and_reap(pid)  # nobody else would do that any more
                raise
        await self.io.copy()

    def _follow_init(self, pid: int) -> None:
        if self.bundle.private_pids:
            self._namespace = _sys.pid_namespace(pid)
        self._follow(pid, self._init_exited)

    async def _undo(self, leftovers: Leftovers) -> None:
        if self._made:
            phases = Phases(self._done)
            remove = partial(self.runc.delete, self.id, force=True)
            await phases.take("the runtime's delete", remove, seconds=PHASE_SECONDS)
            if self._process is not None:
                await phases.take("its end", self.gone, seconds=PHASE_SECONDS)
            phases.log()
        await leftovers.reap()
        self._forget()

    @classmethod
    async def load(
        cls,
        runc: Runc,
        id: str,  # noqa: A002
        *,
        rootfs: str | None = None,
        exits: Exits | None = None,
    ) -> Self:
        """Take over a container that somebody else has made, who is gone, say.

        It can be killed, waited for with :meth:`gone`, have processes beside its init, and be
        deleted.  Its stdio has gone with whoever had it, and its status is for its parent.

        Raises:
            RuntimeFailedError: There is none.
        """
        known = await runc.state(id)
        bundle = Bundle.read(known.bundle)
        self = cls(runc, id, bundle, NullIO(), rootfs=rootfs, exits=exits)
        self._told = STATES.get(known.status, "created")
        try:
            if known.pid and known.status != "stopped":
                self._follow_init(known.pid)
                # Before it was followed the pid may have become somebody else's.
                if (await runc.state(id)).pid != known.pid:
                    self._close_process()
                    self._process = None
            if self._process is None:
                self._loss = NotSubreaperError(
                    f"the container {id!r} had ended before it was loaded, so its exit status is"
                    " not to be had",
                    pid=0,
                )
        except BaseException:
            self.close()
            raise
        return self

    def _pid_file(self) -> str:
        """In the bundle, as the shim has it; where that is read-only, in a directory of our own."""
        self._pid_files += 1
        where = self.bundle.path
        if not os.access(where, os.W_OK):
            if self._directory is None:
                volatile = os.environ.get("XDG_RUNTIME_DIR") or None
                self._directory = tempfile.mkdtemp(prefix="container-", dir=volatile)
            where = self._directory
        return os.path.join(where, f"{self.id}-{_sys.getpid()}-{self._pid_files}.pid")

    # -- what it does -------------------------------------------------------------------

    async def start(self) -> None:
        """Let its program begin.

        Raises:
            ContainerStateError: It is not ``created``.
            RuntimeFailedError: The runtime failed.
        """
        await self._change("be started", "created", "running", self.runc.start)

    async def pause(self) -> None:
        """Freeze all of its processes; it is ``paused`` then.  Raises as :meth:`start` does."""
        await self._change("be paused", "running", "paused", self.runc.pause)

    async def resume(self) -> None:
        """Let them go on; it is ``running`` then.  Raises as :meth:`start` does."""
        await self._change("be resumed", "paused", "running", self.runc.resume)

    async def _change(
        self,
        operation: str,
        before: State,
        after: State,
        call: Callable[[str], Awaitable[None]],
    ) -> None:
        async with self._changing:
            self._check(operation, before)
            try:
                await call(self.id)
            except BaseException:
                await finish(self._look)  # it may have happened all the same
                raise
            self._tell(after)

    async def _look(self) -> None:
        with anyio.move_on_after(LOOK_SECONDS):
            with suppress(ShimIOError, OSError):  # what is wrong is said by the call that failed
                self._tell(STATES.get((await self.runc.state(self.id)).status, self._told))

    def _tell(self, state: State) -> None:
        if self._told != "deleted":  # it may have been meanwhile
            self._told = state

    async def kill(self, signal: int = signals.SIGTERM, *, all: bool = False) -> None:  # noqa: A002
        """Send *signal* to init, or to all of its processes.

        Args:
            signal: The number.
            all: To those as well that are left when init has gone, where they share our pids.

        Raises:
            ContainerStateError: There is nobody to get it.
            RuntimeFailedError: The runtime failed.
        """
        left: tuple[State, ...] = ("stopped",) if all else ()
        self._check("be killed", "created", "running", "paused", *left)
        try:
            await self.runc.kill(self.id, signal, all=all)
        except RuntimeFailedError as error:
            if self._process is not None and self._process.has_exited():
                await self._process.gone()
                raise self._wrong("be killed") from error
            raise

    async def pids(self) -> tuple[int, ...]:
        """The pids of all its processes, as we see them.

        Raises:
            ContainerStateError: It has none.
            RuntimeFailedError: The runtime failed.
        """
        self._check("be asked for its processes", "created", "running", "paused")
        return await self.runc.ps(self.id)

    async def exec(
        self,
        id: str,  # noqa: A002 - containerd's word
        process: Mapping[str, Any] | Sequence[str],
        *,
        io: IO | Stdio | str | None = None,
        namespace: str = "default",
        options: ExecOptions | None = None,
    ) -> Exec:
        """Prepare another process in it; :meth:`Exec.start` starts it.

        Args:
            id: Its name in this container.
            process: Arguments, or an OCI process specification.
            io: As for :meth:`create`; a :class:`~pyshimio.client.FifoSet`'s ``stdio``, say.  A
                terminal is for ``Stdio(terminal=True)`` or a console to ask.
            namespace: For loggers.
            options: See :class:`ExecOptions`.

        Raises:
            ContainerStateError: It has stopped, or has a process of that name.
            ShimIOError: What :func:`~pyshimio.create_io` raises.
        """
        self._check("run another process", "created", "running", "paused")
        options = options or ExecOptions()
        user = process_user(process, options, self.bundle)
        async with open_io(io, self.bundle, user=user, id=id, namespace=namespace) as (_, stdio):
            self._check("run another process", "created", "running", "paused")
            if id in self._execs or id == self.id:
                raise self._wrong(f"have two processes named {id!r}")
            self._execs[id] = made = Exec(self, id, process, stdio, options)
        return made

    def owner_of(
        self, process: Mapping[str, Any] | Sequence[str], options: ExecOptions | None = None
    ) -> tuple[int, int]:
        """(uid, gid) as we see them of what :meth:`exec` would run, for an IO of one's own."""
        return self.bundle.outside(*process_user(process, options or ExecOptions(), self.bundle))

    # -- its end ------------------------------------------------------------------------

    async def gone(self) -> None:
        """Wait until it has exited, whether or not its status can be had."""
        while True:
            with anyio.move_on_after(STUCK_SECONDS):
                return await super().gone()
            if self._namespace and _sys.exiting(self.pid):
                reap_strangers(self._namespace)

    def _init_exited(self) -> None:
        if not self.bundle.private_pids:
            for process in self._execs.values():
                process.end()  # the kernel does it where pids are private
        self.publish_exit()

    def publish_exit(self) -> None:
        """Publish init's exit once all of its execs' are out; for :class:`Exec`."""
        if self._exit is None or self._published:
            return
        if not any(process.live for process in self._execs.values()):
            self._published = True
            self.exits.publish(self._exit)
            if self._own_exits:
                self.exits.close()

    def forget_exec(self, id: str) -> None:  # noqa: A002
        """It is deleted; for :class:`Exec`."""
        self._execs.pop(id, None)

    async def delete(
        self,
        *,
        force: bool = False,
        drain_timeout: float = PHASE_SECONDS,
        runtime_timeout: float = PHASE_SECONDS,
        unmount_timeout: float = PHASE_SECONDS,
    ) -> DrainResult | None:
        """Wait for the rest of its output, remove it, unmount, close its stdio.

        Each of these has time of its own and happens whatever becomes of the others; a
        cancellation is raised when all is done (in containerd the drain uses up everybody's
        time: #13377).  Idempotent, and what has failed may be tried again.

        Args:
            force: Kill it first if it lives.
            drain_timeout: Seconds for the output.
            runtime_timeout: Seconds for the runtime.
            unmount_timeout: Seconds for the unmount.

        Returns:
            What became of its output; None if it was deleted before that could be known.

        Raises:
            ContainerStateError: It lives.
            RuntimeFailedError: The runtime failed; the container may be there still.
            ExitTimeoutError: The runtime, or the container's end, took too long.
            UnmountError: Something is still mounted.
            StreamFailedError: A sink failed for good; the container is deleted.
        """
        return await finish(
            partial(
                self._delete,
                force=force,
                drain=drain_timeout,
                runtime=runtime_timeout,
                unmounting=unmount_timeout,
            )
        )

    async def _delete(
        self, *, force: bool, drain: float, runtime: float, unmounting: float
    ) -> DrainResult | None:
        async with self._deleting:
            if self._told == "deleted":
                return self.result
            if not force:
                self._check("be deleted without force", "created", "stopped")
            phases = Phases(self._done)
            if not self._exited:
                await phases.take("its end", self._end, seconds=runtime)
            empty = partial(
                phases.take, "drain", partial(self._drain_within, drain), seconds=drain + 1
            )
            await self._delete_execs(drain)
            if ended := self._exited:
                await empty()
            remove = partial(self._remove, force=force)
            await phases.take("the runtime's delete", remove, seconds=runtime)
            if not ended and phases.all_done("the runtime's delete"):  # it has ended them
                await self._delete_execs(drain)
                await empty()
            if self._rootfs is not None:
                away = partial(unmount, self._rootfs, unmounting)
                await phases.take("unmount", away, seconds=unmounting + 1)
            await self._close_io(phases)
            if phases.all_done("the runtime's delete", *(["unmount"] if self._rootfs else [])):
                self._told = "deleted"
                self._forget()
        phases.end()
        return self.result

    async def _end(self) -> None:
        assert self._process is not None
        self._process.kill()
        frozen = self._told == "paused"
        while True:
            if not frozen:
                with anyio.move_on_after(FROZEN_SECONDS):
                    return await self.gone()
            with suppress(RuntimeFailedError):  # it is not frozen
                await self.runc.resume(self.id)
            frozen = False

    async def _delete_execs(self, drain: float) -> None:
        async with anyio.create_task_group() as group:
            for process in tuple(self._execs.values()):
                group.start_soon(process.delete_quietly, drain)

    async def _remove(self, *, force: bool) -> None:
        try:
            await self.runc.delete(self.id, force=force)
        except RuntimeFailedError as error:
            if not missing(error, self.id):
                raise

    def _forget(self) -> None:
        self._close_process()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._own_exits:
            self.exits.close()

    def close(self) -> None:
        """Let go of it, which lives on: :meth:`load` finds it again.

        Its stdio is closed and its processes are followed no more; this object is done, and
        says ``deleted``.  Idempotent, never waits.
        """
        if self._told != "deleted":
            self._told = "deleted"
            for process in tuple(self._execs.values()):
                process.close()
            self.io.close()
            self._forget()

    def __repr__(self) -> str:
        return f"<Container {self.id!r} {self.state}{f' pid {self.pid}' if self.pid else ''}>"
