"""``pyshimio attach``: in front of a container that somebody else runs behind FIFOs."""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import anyio
import attrs

from .._stdio import Stdio
from ..client import RawTerminal, attach
from ..errors import ShimIOError
from . import FAILED
from ._control import ask
from ._say import say
from ._trouble import Refusal, say_bugs, say_what_goes_wrong
from .container import ATTACHED

if TYPE_CHECKING:
    from collections.abc import Generator

    from anyio.abc import TaskStatus

    from ..client import Attachment

__all__ = ("AttachOptions", "attach_to")

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


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
        self._status: int | None = None
        self._signal = 0
        self._answered = anyio.Event()

    async def main(self) -> int:
        say_bugs()
        try:
            about = await ask(self._directory, "about")
            with self._alone():
                return await self._attach(about)
        except (ShimIOError, OSError, Refusal) as error:
            say(str(error))
            return FAILED

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Two clients would get parts of the output each."""
        path = os.path.join(self._directory, ATTACHED)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refusal(
                    "somebody is attached already, and two would get parts of the output each"
                ) from None
            yield
        finally:
            os.close(lock)

    async def _attach(self, about: dict[str, str]) -> int:
        stdio = Stdio(
            stdin=about["stdin"],
            stdout=about["stdout"],
            stderr=about["stderr"],
            terminal=bool(about["terminal"]),
        )
        stdin = 0 if stdio.stdin and self._options.stdin else None
        keys = self._options.detach_keys if os.isatty(0) else None
        failure: Exception | None = None
        attached = attach(
            stdio, stdin=stdin, stdout=1, stderr=2 if stdio.stderr else None, detach_keys=keys
        )
        async with anyio.create_task_group() as group:
            await group.start(self._end_by_signal, attached)
            group.start_soon(self._wait, attached)
            try:
                with RawTerminal(0) if stdio.terminal and stdin == 0 else nullcontext() as terminal:
                    if terminal is not None and terminal.size is not None:
                        await self._tell(terminal.size)  # before what was typed ahead
                    async with attached:
                        group.start_soon(self._end_input, attached)
                        if terminal is not None:
                            group.start_soon(self._resize, terminal)
                        await attached.wait()
                if not (attached.detached or self._signal):
                    await self._answered.wait()
            except (ShimIOError, OSError) as error:
                failure = error  # raised below, without a group around it
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if self._signal:
            return 128 + self._signal
        if attached.detached:
            say("detached")
            return 0
        if self._status is None:
            raise Refusal("whoever ran the container was killed; `pyshimio rm` clears what is left")
        return self._status

    async def _wait(self, attached: Attachment) -> None:
        try:
            self._status = (await ask(self._directory, "wait"))["status"]
        except Refusal:
            pass  # said when the output has ended
        finally:
            self._answered.set()
        # All of the output is in the FIFOs.  One that was empty has been closed maybe before it
        # was opened here, and would be waited for.
        attached.cancel()

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
        with anyio.open_signal_receiver(*ENDING) as signals:
            task_status.started()
            async for number in signals:
                self._signal = number
                attached.cancel()
