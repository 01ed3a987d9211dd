"""``pyshimio attach``: in front of a container that somebody else runs behind FIFOs."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from .._stdio import Stdio
from ..client import RawTerminal, attach
from ..errors import FifoNotFoundError, ShimIOError
from . import FAILED
from ._control import ask, connected
from ._lock import locked
from ._say import say
from ._trouble import Refusal, say_bugs, say_what_goes_wrong
from .container import ATTACHED

if TYPE_CHECKING:
    from collections.abc import Generator

    from anyio.abc import TaskStatus

    from ..client import Attachment
    from ._control import Line

__all__ = ("AttachOptions", "attach_to")

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
PATIENCE = 10.0
"""Seconds, after a signal, for our stdout to take what was in the FIFOs."""


@attrs.frozen(kw_only=True)
class AttachOptions:
    """The command line; *directory* is that of ``pyshimio run --fifo-dir``."""

    directory: str
    stdin: bool
    detach_keys: bytes


def attach_to(options: AttachOptions) -> int:
    """Attach and return the exit status: the container's, 0 when it was detached."""
    say_what_goes_wrong()
    return anyio.run(_Attach(options).main)


class _Attach:
    def __init__(self, options: AttachOptions) -> None:
        self._options = options
        self._directory = os.path.abspath(options.directory)
        self._answer: dict[str, Any] | None = None
        self._signal = 0
        self._over: anyio.Event
        self._patience: anyio.CancelScope

    async def main(self) -> int:
        say_bugs()
        self._over, self._patience = anyio.Event(), anyio.CancelScope()
        try:
            # The line is open until the end, so that how it ended is told.
            async with connected(self._directory) as line:
                about = await line.ask("about")
                with self._alone():
                    return await self._attach(line, about)
        except FifoNotFoundError:
            say("the container has ended")
        except (ShimIOError, OSError, Refusal) as error:
            say(str(error))
        return FAILED

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Two clients would get parts of the output each."""
        path = os.path.join(self._directory, ATTACHED)
        try:
            lock = locked(path, os.O_RDWR)
        except FileNotFoundError:
            raise Refusal("the container has ended") from None
        if lock is None:
            raise Refusal(
                "somebody is attached already, and two would get parts of the output each"
            )
        try:
            yield
        finally:
            lock.close()

    async def _attach(self, line: Line, about: dict[str, Any]) -> int:
        stdio = Stdio(
            stdin=about["stdin"],
            stdout=about["stdout"],
            stderr=about["stderr"],
            terminal=bool(about["terminal"]),
        )
        stdin = 0 if stdio.stdin and self._options.stdin else None
        interactive = stdio.terminal and stdin is not None and os.isatty(0)
        attached = attach(
            stdio,
            stdin=stdin,
            stdout=1,
            stderr=2 if stdio.stderr else None,
            detach_keys=self._options.detach_keys if interactive else None,
        )
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            await group.start(self._end_by_signal, attached)
            try:
                with RawTerminal(0) if interactive else nullcontext() as terminal:
                    if terminal is not None and terminal.size is not None:
                        await self._tell(terminal.size)  # before what was typed ahead
                    async with attached:
                        group.start_soon(self._hear_the_end, line, attached)
                        group.start_soon(self._end_input, attached)
                        if terminal is not None:
                            group.start_soon(self._resize, terminal)
                        await self._stay(attached)
            except (ShimIOError, OSError) as error:
                failure = error  # raised below, without a group around it
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return self._status(attached)

    async def _hear_the_end(self, line: Line, attached: Attachment) -> None:
        with suppress(Refusal):  # said in the end
            self._answer = await line.ask("wait")
        # All of the output is in the FIFOs.  One that was empty has been closed maybe before it
        # was opened here, and would be waited for.
        attached.cancel()
        self._over.set()

    async def _stay(self, attached: Attachment) -> None:
        """Until the container has ended, or we are to leave."""
        with self._patience, suppress(anyio.ClosedResourceError):
            await attached.wait()
        if not attached.detached:  # its outputs may have ended long before it
            await self._over.wait()

    def _status(self, attached: Attachment) -> int:
        if self._answer is not None and self._answer["status"] is not None:
            return int(self._answer["status"])
        if self._signal:
            return 128 + self._signal
        if attached.detached:
            say("detached")
            return 0
        if self._answer is not None:
            raise Refusal("the container has ended, and its exit status was lost")
        raise Refusal(
            "whoever ran the container has gone, and left it maybe; `pyshimio rm` clears that"
        )

    async def _resize(self, terminal: RawTerminal) -> None:
        async for size in terminal.resizes():
            await self._tell(size)

    async def _tell(self, size: tuple[int, int]) -> None:
        with suppress(Refusal):  # it has ended
            await ask(self._directory, "resize", rows=size[0], columns=size[1])

    async def _end_input(self, attached: Attachment) -> None:
        await attached.stdin_ended.wait()
        with suppress(Refusal):  # it has ended
            await ask(self._directory, "close_stdin")

    async def _end_by_signal(self, attached: Attachment, *, task_status: TaskStatus[None]) -> None:
        # (Under nohup one that is ignored stays so.)
        heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*heard) as signals:
            task_status.started()
            async for number in signals:
                if self._signal:
                    attached.close()
                self._signal = number
                self._over.set()
                attached.cancel()
                self._patience.deadline = anyio.current_time() + PATIENCE
