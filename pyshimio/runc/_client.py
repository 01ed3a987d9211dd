"""The client: one method for each command of a runtime, over one call."""

from __future__ import annotations

import json
import os
import re
import signal as signals
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs

from .. import _sys
from ..errors import InvalidOptionError, RuntimeFailedError
from ..io._console_socket import ConsoleSocket
from ..io.console import ConsoleIO
from ..io.null import NullIO
from ._call import Answer, Call
from ._events import RuntimeEvents
from ._options import CheckpointOptions, CreateOptions, ExecOptions, RestoreOptions, flags
from ._records import ContainerState, RuntimeEvent, RuntimeVersion, decode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._fd import Descriptor
    from ..abc import StartIO

__all__ = ("Runc", "missing")

T = TypeVar("T")

PRIVATE = frozenset({"NOTIFY_SOCKET"})
"""What is for us and not for a runtime: it would report itself ready in our place."""

PATIENCE = 10.0
"""Seconds for a cancelled ``exec --detach``: killed, it may leave a process that nobody knows."""


@attrs.frozen(kw_only=True)
class Runc:
    """An OCI runtime's command line as coroutines (go-runc's ``Runc``).

    A command that fails raises :class:`~pyshimio.errors.RuntimeFailedError` with its exit
    status, what it wrote on stderr, and the entries of its own log.  A call that is cancelled
    leaves no runtime process and, where it was to make a container, no half-made one.

    Args:
        program: ``runc``, ``crun`` or a path.
        root: Where the runtime keeps the states of containers; None for its own default.
        log: A file for its log; each call adds what it has logged when it ends.
        log_format: ``"json"`` or ``"text"``.
        debug: Have it log much.
        systemd_cgroup: Have systemd make the cgroups.
        rootless: Say whether this is one, where the runtime is not to find out itself.
        env: Added to our environment for the runtime.
        extra_args: More global options.

    Example:
        ::

            runc = Runc(root="/run/my-containers")
            async with await create_io("file:///var/log/c1.log") as io:
                await runc.create("c1", "/bundles/c1", io=io, options=CreateOptions(pid_file=pid))
                await io.copy()
                await runc.start("c1")
    """

    program: str = "runc"
    root: str | None = None
    log: str | None = None
    log_format: Literal["json", "text"] = "json"
    debug: bool = False
    systemd_cgroup: bool = False
    rootless: bool | None = None
    env: Mapping[str, str] = attrs.field(factory=dict[str, str], hash=False)
    extra_args: tuple[str, ...] = ()

    def _head(self) -> Sequence[str]:
        head = [self.program]
        if self.root is not None:
            head += ["--root", self.root]
        if self.debug:
            head.append("--debug")
        if self.systemd_cgroup:
            head.append("--systemd-cgroup")
        if self.rootless is not None:
            head.append(f"--rootless={'true' if self.rootless else 'false'}")
        return [*head, *self.extra_args]

    def _environment(self) -> dict[str, str] | None:
        """None for ours as it is, which need not be looked through at each call."""
        if not self.env and PRIVATE.isdisjoint(os.environ):
            return None
        ours = {name: value for name, value in os.environ.items() if name not in PRIVATE}
        return {**ours, **self.env}

    async def call(
        self,
        *args: str,
        io: StartIO | None = None,
        extra_files: Sequence[Descriptor] = (),
        stdin: bytes | None = None,
        undo: Callable[[], Awaitable[None]] | None = None,
        patience: float = 0.0,
        check: bool = True,
        apart: bool | None = None,
    ) -> Answer:
        """Run any command of the runtime to its end.

        Args:
            args: The command and what belongs to it, without global options.
            io: Its stdio, if it is to make a container or a process in one; without, what it
                prints is in the answer.
            extra_files: Arrive as 3, 4 and so on.
            stdin: Bytes for it to read.
            undo: Called when the command was cancelled or killed: removes what is half done.
            patience: Seconds that a cancelled command gets to end by itself before it is killed.
            check: Raise when it fails.
            apart: Have a process group of its own, so that Ctrl-C does not end it half way; by
                default it does where it has no *io*, which may be our terminal.

        Raises:
            RuntimeFailedError: It ended with another status than 0.
            CommandNotFoundError, CommandNotExecutableError, SpawnError: There is no runtime.
        """
        with Call(
            self._head(),
            args,
            log=self.log,
            log_format=self.log_format,
            env=self._environment(),
            extra_files=extra_files,
            stdin=stdin,
            captured=io is None,
            apart=io is None if apart is None else apart,
        ) as call:
            answer = await call.run(io, undo=undo, patience=patience)
        if check and answer.status:
            raise answer.failure()
        return answer

    async def _ask(self, make: Callable[[Any], T], *args: str) -> T:
        answer = await self.call(*args)
        return decode(answer.args, answer.stdout, make)

    # -- containers ---------------------------------------------------------------------

    async def create(
        self,
        id: str,  # noqa: A002 - the runtime's word
        bundle: str | os.PathLike[str],
        *,
        io: StartIO | None = None,
        options: CreateOptions | None = None,
    ) -> None:
        """Make a container, up to the moment before its program begins.

        Args:
            id: Its name; nobody else's.
            bundle: Directory with ``config.json``.
            io: The container's stdio: any IO or a :class:`~pyshimio.ConsoleSocket`; its child ends
                are given back here.  None is ``/dev/null``.
            options: See :class:`CreateOptions`.

        Raises:
            RuntimeFailedError: See the class.
        """
        options = options or CreateOptions()
        line = ["--bundle", os.fspath(bundle), *flags(options)]
        await self._make("create", id, io, line, files=options.preserve_fds, apart=True)

    async def run(
        self,
        id: str,  # noqa: A002
        bundle: str | os.PathLike[str],
        *,
        io: StartIO | None = None,
        options: CreateOptions | None = None,
        detach: bool = False,
    ) -> int:
        """Make a container, start it, wait for it and delete it; its exit status.

        Nothing moves an IO's bytes by itself: where it has destinations, ``await io.copy()``
        first (or in a task beside it, for a terminal, which the runtime has to send).

        Args:
            id: As for :meth:`create`.
            bundle: The same.
            io: The same.
            options: The same.
            detach: Return when it runs.

        Raises:
            RuntimeFailedError: The runtime failed; a container that fails is no error.
        """
        options = options or CreateOptions()
        line = ["--bundle", os.fspath(bundle), *flags(options), *(["--detach"] if detach else [])]
        files = options.preserve_fds
        answer = await self._make("run", id, io, line, files=files, check=False, apart=detach)
        return _status_of(answer, detach=detach)

    async def restore(
        self,
        id: str,  # noqa: A002
        bundle: str | os.PathLike[str],
        *,
        io: StartIO | None = None,
        options: RestoreOptions | None = None,
    ) -> int:
        """Bring a container back from a checkpoint; its exit status, 0 with ``detach``."""
        options = options or RestoreOptions()
        line = ["--bundle", os.fspath(bundle), *flags(options)]
        answer = await self._make("restore", id, io, line, check=False, apart=options.detach)
        return _status_of(answer, detach=options.detach)

    async def _make(
        self,
        verb: str,
        id: str,  # noqa: A002
        io: StartIO | None,
        options: Sequence[str],
        *,
        apart: bool,
        files: Sequence[Descriptor] = (),
        check: bool = True,
    ) -> Answer:
        undo = partial(self._remove, id, datetime.now(UTC))
        line = (verb, *options, id)
        return await self._contain(line, io, files=files, apart=apart, undo=undo, check=check)

    async def _contain(
        self,
        args: Sequence[str],
        io: StartIO | None,
        *,
        files: Sequence[Descriptor],
        apart: bool,
        undo: Callable[[], Awaitable[None]] | None = None,
        patience: float = 0.0,
        check: bool = False,
    ) -> Answer:
        """:meth:`call` for what has a container's stdio, which is /dev/null without an IO."""
        async with AsyncExitStack() as stack:
            return await self.call(
                *args,
                io=io or await stack.enter_async_context(NullIO()),
                extra_files=files,
                apart=apart,
                undo=undo,
                patience=patience,
                check=check,
            )

    async def _remove(self, id: str, since: datetime) -> None:  # noqa: A002
        """Remove what a half-done command has made, and nothing that was there before."""
        try:
            created = (await self.state(id)).created
        except RuntimeFailedError as error:
            if not missing(error, id):
                raise
            # It may have a directory already, which has no state in it.
        else:
            if created is None or created < since:
                return
        with suppress(RuntimeFailedError):
            await self.delete(id, force=True)

    async def start(self, id: str) -> None:  # noqa: A002
        """Let the program of a created container begin."""
        await self.call("start", id)

    async def exec(
        self,
        id: str,  # noqa: A002
        process: Mapping[str, Any] | Sequence[str],
        *,
        io: StartIO | None = None,
        options: ExecOptions | None = None,
    ) -> int:
        """Run another process in a container.

        Without ``detach`` it waits for the process; see :meth:`run` for its IO then.

        Args:
            id: The container.
            process: Arguments, or an OCI process specification.
            io: Its stdio, as for :meth:`create`.
            options: See :class:`ExecOptions`.

        Returns:
            Its exit status; 0 with ``detach``.

        Cancelled, it ends the runtime, but not a process that runs already: :class:`Exec` ends
        that, too.  With ``detach`` it is waited for, so that the pid file says what has begun.

        Raises:
            RuntimeFailedError: The runtime failed.
        """
        options = options or ExecOptions()
        if isinstance(process, str) or not process:
            raise InvalidOptionError(
                'process is a sequence of arguments, such as ["ls", "-l"], or a specification',
                option="process",
            )
        if isinstance(io, (ConsoleIO, ConsoleSocket)) and not isinstance(process, Mapping):
            options = attrs.evolve(options, tty=True)
        if not isinstance(process, Mapping):
            return await self._exec(("exec", *flags(options), id, *process), io, options)
        path = _written(process)
        try:
            line = ("exec", *flags(options), "--process", path, id)
            return await self._exec(line, io, options)
        finally:
            _sys.unlink(path)

    async def _exec(self, line: Sequence[str], io: StartIO | None, options: ExecOptions) -> int:
        detach, files = options.detach, options.preserve_fds
        patience = PATIENCE if detach else 0.0
        answer = await self._contain(line, io, files=files, apart=detach, patience=patience)
        return _status_of(answer, detach=detach)

    async def kill(
        self,
        id: str,  # noqa: A002
        signal: int = signals.SIGTERM,
        *,
        all: bool = False,  # noqa: A002 - the runtime's word
    ) -> None:
        """Send *signal* to the container's init, or to all of its processes."""
        await self.call("kill", *(["--all"] if all else []), id, str(int(signal)))

    async def delete(self, id: str, *, force: bool = False) -> None:  # noqa: A002
        """Remove a stopped container, or with *force* any."""
        await self.call("delete", *(["--force"] if force else []), id)

    async def pause(self, id: str) -> None:  # noqa: A002
        """Freeze all of its processes."""
        await self.call("pause", id)

    async def resume(self, id: str) -> None:  # noqa: A002
        """Let them go on."""
        await self.call("resume", id)

    async def update(self, id: str, resources: Mapping[str, Any]) -> None:  # noqa: A002
        """Change its limits; *resources* as in the OCI specification (``linux.resources``)."""
        await self.call("update", "--resources", "-", id, stdin=json.dumps(resources).encode())

    async def checkpoint(
        self,
        id: str,  # noqa: A002
        *,
        options: CheckpointOptions | None = None,
    ) -> None:
        """Save it with CRIU."""
        await self.call("checkpoint", *flags(options or CheckpointOptions()), id)

    # -- answers ------------------------------------------------------------------------

    async def state(self, id: str) -> ContainerState:  # noqa: A002
        """What the runtime knows of a container."""
        return await self._ask(ContainerState.of, "state", id)

    async def list(self) -> tuple[ContainerState, ...]:
        """All containers under this root."""
        return await self._ask(_each(ContainerState.of), "list", "--format", "json")

    async def ps(self, id: str) -> tuple[int, ...]:  # noqa: A002
        """The pids of its processes, as we see them."""
        return await self._ask(_each(int), "ps", "--format", "json", id)

    async def stats(self, id: str) -> RuntimeEvent:  # noqa: A002
        """Its use of CPU, memory and the rest, now."""
        return await self._ask(RuntimeEvent.of, "events", "--stats", id)

    def events(self, id: str, *, interval: float = 5.0) -> RuntimeEvents:  # noqa: A002
        """Statistics each *interval* seconds, and an event when memory runs out.

        Use it in ``async with``, and iterate over it.
        """
        args = ("events", "--interval", f"{max(1, round(interval * 1000))}ms", id)
        return RuntimeEvents((*self._head(), *args), self._environment())

    async def version(self) -> RuntimeVersion:
        """What it says of itself."""
        return RuntimeVersion.of((await self.call("--version")).stdout.decode())

    async def features(self) -> Mapping[str, Any]:
        """What it can do, as the OCI specification for ``features`` has it."""
        return await self._ask(dict[str, Any], "features")


def _each(make: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    return lambda answer: tuple(make(one) for one in answer or ())


def missing(error: RuntimeFailedError, id: str) -> bool:  # noqa: A002
    """Whether that is what a runtime says of a container that it does not know."""
    said = "\n".join([error.stderr, *(entry.message for entry in error.entries)])
    # crun names the file (for state) or the directory (for delete) that it cannot open.
    name = re.escape(id)
    unknown = rf"container\b.{{0,200}}does not exist|/{name}(/status)?['`]: No such file"
    return bool(re.search(unknown, said))


def _status_of(answer: Answer, *, detach: bool) -> int:
    """The container's or process's status; an error where it is the runtime's own."""
    if answer.killed or (answer.status and (detach or answer.errors)):
        raise answer.failure()
    return answer.status


def _written(process: Mapping[str, Any]) -> str:
    """A file with a process specification."""
    text = json.dumps(process)
    where = os.environ.get("XDG_RUNTIME_DIR") or None
    file, path = tempfile.mkstemp(prefix="process-", suffix=".json", dir=where)
    try:
        with open(file, "w", encoding="utf-8") as target:
            target.write(text)
    except BaseException:
        _sys.unlink(path)
        raise
    return path
