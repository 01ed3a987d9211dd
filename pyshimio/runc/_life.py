"""What a container's init and a process beside it have in common, from start to drain."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio

from .. import _sys
from .._events import logger
from .._stdio import Stdio
from ..errors import (
    ChildReapedElsewhereError,
    ContainerStateError,
    ExitTimeoutError,
    IOStateError,
    NotSubreaperError,
    ProcessError,
)
from ..io._base import LINGER, SINK_TIMEOUT
from ..io.create import create_io
from ..io.null import NullIO
from ._adopted import Adopted
from ._bundle import Bundle
from ._exits import ExitEvent
from ._finish import finish

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from ..abc import IO
    from ..io._console import Console
    from ..io._result import DrainPolicy, DrainResult

__all__ = ("PHASE_SECONDS", "Life", "Phases", "PidFile", "State", "drop", "open_io")

State: TypeAlias = Literal["created", "running", "paused", "stopped", "deleted"]

PHASE_SECONDS = 10.0
"""For each step of an end."""
CLOSE_SECONDS = 10.0
"""For an IO to end its logger and to give absent clients a moment, before it is just closed."""


class Life:
    """One process in a container: :class:`Container` has its init, :class:`Exec` another."""

    def __init__(self, container_id: str, id: str, io: IO) -> None:  # noqa: A002
        self.container_id = container_id
        self.id = id
        self.io = io
        """Its stdio; closed by ``delete()``."""
        self.result: DrainResult | None = None
        """What became of its output, once that was waited for."""
        self.exited_at: datetime | None = None
        """When it exited, in UTC."""
        self._process: Adopted | None = None
        self._loss: ProcessError | None = None
        self._exit: ExitEvent | None = None
        self._told: State = "created"
        self._done: set[str] = set()

    # -- where it stands ----------------------------------------------------------------

    @property
    def state(self) -> str:
        """``created``, ``running``, ``paused``, ``stopped`` or ``deleted``."""
        return "stopped" if self._told != "deleted" and self._exited else self._told

    @property
    def _exited(self) -> bool:
        return self._loss is not None or (self._process is not None and self._process.exited)

    @property
    def pid(self) -> int:
        """As we see it; 0 before there is a process."""
        return 0 if self._process is None else self._process.pid

    @property
    def pidfd(self) -> int:
        """It stays this object's, and is closed by ``delete()``.

        Raises:
            ContainerStateError: There is no process yet, or none any more.
        """
        if self._process is None or self._told == "deleted":
            raise self._wrong("be asked for its pidfd")
        return self._process.pidfd

    @property
    def status(self) -> int | None:
        """The exit status, 128+n after a death by signal n; None as long as there is none."""
        return None if self._process is None else self._process.status

    def _check(self, operation: str, *states: State) -> None:
        if self.state not in states:
            raise self._wrong(operation)

    def _wrong(self, operation: str) -> ContainerStateError:
        what = "the container" if self.id == self.container_id else f"process {self.id!r} of"
        name = f"{self.container_id!r}"
        return ContainerStateError(
            f"{what} {name} is {self.state}, so it cannot {operation}",
            id=self.id,
            state=self.state,
            operation=operation,
        )

    # -- its process --------------------------------------------------------------------

    def _follow(self, pid: int, then: Callable[[], None]) -> None:
        """A runtime has said which process it is."""
        try:
            self._process = Adopted(pid, (self.container_id, self.id))
        except (ChildReapedElsewhereError, NotSubreaperError) as error:
            self._loss = error
            self._note_exit(pid, then)
        else:
            self._process.when_exited(lambda: self._note_exit(pid, then))

    def _note_exit(self, pid: int, then: Callable[[], None]) -> None:
        self.exited_at = datetime.now(UTC)
        self._exit = ExitEvent(
            container_id=self.container_id,
            id=self.id,
            pid=pid,
            exit_status=self.status,
            exited_at=self.exited_at,
        )
        then()

    async def wait(self, *, io: bool = False, timeout: float | None = None) -> int:
        """The exit status, 128+n after a death by signal n.

        Args:
            io: Return only when every byte that it wrote has arrived at its sink as well
                (containerd's clients call Delete on an exit, and lose what is on its way:
                #770, nerdctl #5006).  :attr:`result` is there then.
            timeout: Seconds for all of it; None waits for ever.

        Raises:
            NotSubreaperError: It is no child of ours; see :class:`Subreaper`.
            ChildReapedElsewhereError: Another part of this program waited for it.
            ContainerStateError: It has not been started, or is deleted.
            ExitTimeoutError: The time is up; nothing was ended.
            StreamFailedError: A sink failed for good.
        """
        if self._loss is not None:
            raise self._loss
        if self._process is None or (self._told == "deleted" and not self._process.exited):
            raise self._wrong("be waited for")
        if not self._process.ours:
            await self._process.wait()
        with anyio.move_on_after(timeout) as scope:
            await self.gone()
            status = await self._process.wait()
            if io and self._told != "deleted":
                await self.drain(sink_timeout=math.inf)
            return status
        assert scope.cancelled_caught
        still = "still runs" if not self._exited else "has output that has not arrived"
        raise ExitTimeoutError(
            f"{self.id!r} {still} after {timeout} s",
            timeout=math.inf if timeout is None else timeout,
        )

    async def gone(self) -> None:
        """Wait until it has exited, whether or not its status can be had."""
        if self._loss is None:
            if self._process is None:
                raise self._wrong("be waited for")
            await self._process.gone()

    async def drain(
        self,
        *,
        policy: DrainPolicy = "eof",
        linger: float = LINGER,
        sink_timeout: float = SINK_TIMEOUT,
    ) -> DrainResult:
        """Wait for the exit and then for every byte that it wrote.

        See :meth:`~pyshimio.abc.IO.drain`.
        """
        await self.gone()
        self.result = await self.io.drain(policy=policy, linger=linger, sink_timeout=sink_timeout)
        return self.result

    # -- its stdio ----------------------------------------------------------------------

    def close_stdin(self) -> None:
        """It is to see the end of its input (containerd's CloseIO).

        Valid at any time, before the start as well: it takes effect when it can (containerd
        loses it then: #4489).  Idempotent, never waits.
        """
        self.io.close_stdin()

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal (containerd's ResizePty).

        Raises:
            IOStateError: It has none (yet, or any more).
            InvalidOptionError: No terminal can have that size.
        """
        console: Console | None = getattr(self.io, "console", None)
        if console is None or console.closed:
            raise IOStateError(f"{self.id!r} has no terminal to resize")
        console.resize(rows, columns)

    # -- its end ------------------------------------------------------------------------

    async def _drain_within(self, seconds: float) -> None:
        """What is left of the output, with a deadline for the sinks; counted if it was too late."""
        linger = min(LINGER, seconds)
        await self.drain(linger=linger, sink_timeout=max(0.0, seconds - linger))

    async def _close_io(self, phases: Phases) -> None:
        await phases.take("stdio", self.io.aclose, seconds=CLOSE_SECONDS)
        self.io.close()

    async def delete(self, *, force: bool = False) -> DrainResult | None:
        """Wait for the rest of its output, and give everything back."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.delete(force=True)
        except Exception as failure:
            # An error that is on its way already is not to be hidden.
            if exc_value is None:
                raise
            logger.warning("%s", failure)

    def _close_process(self) -> None:
        if self._process is not None:
            self._process.close()


class Phases:
    """Steps of which none is left out because of another, each with time of its own.

    containerd's drain uses up the time of the whole request, and ``runc delete`` and the unmount
    get none (containerd #13377).

    Args:
        done: The steps that were taken by an earlier call, to which is added.
    """

    def __init__(self, done: set[str]) -> None:
        self._done = done
        self._failures: list[Exception] = []

    async def take(
        self, name: str, step: Callable[[], Awaitable[object]], *, seconds: float
    ) -> None:
        """Take a step, unless it has been taken; an error waits for :meth:`end`."""
        if name in self._done:
            return
        try:
            with anyio.move_on_after(seconds):
                await step()
                self._done.add(name)
                return
        except Exception as error:  # noqa: BLE001 - an IO may be anybody's, and raise anything
            self._failures.append(error)
        else:
            self._failures.append(
                ExitTimeoutError(
                    f"{name} took more than {seconds} s and was given up; delete() may be called"
                    " again",
                    timeout=seconds,
                )
            )

    def all_done(self, *names: str) -> bool:
        """Whether each of these has been taken."""
        return self._done.issuperset(names)

    def end(self) -> None:
        """Raise the first error; the others are notes of it."""
        if self._failures:
            first, *others = self._failures
            for other in others:
                first.add_note(f"and then: {other}")
            raise first

    def log(self) -> None:
        """Log the errors, where one is on its way already."""
        for failure in self._failures:
            logger.warning("%s", failure)


@asynccontextmanager
async def open_io(
    io: IO | Stdio | str | None,
    bundle: str | os.PathLike[str] | Bundle,
    *,
    user: tuple[int, int] | None = None,
    id: str,  # noqa: A002
    namespace: str,
) -> AsyncGenerator[tuple[Bundle, IO]]:
    """The stdio of a process, closed if the body fails.

    Args:
        io: One that exists, or what to make.
        bundle: What says who owns it, and whether there is to be a terminal.
        user: (uid, gid) in the container, for one that is not init.
        id: For loggers.
        namespace: The same.
    """
    made: IO | None = None if isinstance(io, (Stdio, str)) else io
    try:
        found = bundle if isinstance(bundle, Bundle) else Bundle.read(bundle)
        if io is None:
            made = NullIO()
        elif isinstance(io, (Stdio, str)):
            if isinstance(io, str):
                terminal = user is None and found.terminal
                io = Stdio(stdout=io, stderr="" if terminal else io, terminal=terminal)
            uid, gid = found.outside(*((found.uid, found.gid) if user is None else user))
            made = await create_io(
                io, id=id, namespace=namespace, uid=uid, gid=gid, chown="try", runtime=True
            )
        assert made is not None
        yield found, made
    except BaseException:
        if made is not None:
            await finish(partial(drop, made))
        raise


async def drop(io: IO) -> None:
    """Close an IO that nobody needs any more, and have a logger that was killed reaped."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        with suppress(Exception):  # what is on its way already says more
            await io.aclose()
    io.close()


class PidFile:
    """Where a runtime is to write a pid; what somebody else wrote there before is not it.

    Args:
        given: A path of the caller's, whose file stays.
        ours: Where there is none; what comes there is removed when the block is left.
    """

    def __init__(self, given: str | None, ours: str) -> None:
        self.path: str = given or ours
        self._ours = not given
        with suppress(FileNotFoundError):
            _sys.unlink(self.path)

    def read(self) -> int:
        """The pid that the runtime has written."""
        with open(self.path, encoding="ascii") as file:
            return int(file.read())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ours:
            with suppress(OSError):  # it goes with the container's directory
                _sys.unlink(self.path)
