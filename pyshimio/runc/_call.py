"""One command of a runtime: run, watched, and heard out.

What it prints is taken in files without a name, never in pipes: a container inherits the
descriptors of the runtime that makes it, and whoever waits for the end of such a pipe waits
for the container's (go-runc#31, runc#1721).
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import anyio
import attrs

from .. import _sys
from .._command import Command
from .._events import logger
from .._fd import OwnedFd
from ..errors import RuntimeFailedError
from ._adopted import reap_group
from ._finish import finish
from ._orphans import end_orphans, log_path
from ._records import log_entries

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from .._fd import Descriptor
    from .._process import Process
    from ..abc import StartIO
    from ._records import LogEntry

__all__ = ("Answer", "Call", "Page")

END_SECONDS = 10.0
"""For what a cancelled call has to put away."""


@attrs.frozen
class Answer:
    """How a command ended, and what it said.

    ``killed``: a signal ended the runtime itself, so its status says nothing of a container's.
    """

    args: tuple[str, ...]
    status: int
    killed: bool
    stdout: bytes
    stderr: bytes
    entries: tuple[LogEntry, ...]

    @property
    def errors(self) -> tuple[LogEntry, ...]:
        """The entries of its log that are errors."""
        return tuple(entry for entry in self.entries if entry.level in {"error", "fatal", "panic"})

    def failure(self) -> RuntimeFailedError:
        """The error that says all of it."""
        stderr = self.stderr.decode(errors="replace")
        why = [entry.message for entry in self.errors] or stderr.strip().splitlines()[-1:]
        return RuntimeFailedError(
            f"{' '.join(self.args)!r} ended with status {self.status}"
            + (f": {why[-1]}" if why else "; it said nothing"),
            args_=self.args,
            status=self.status,
            stderr=stderr,
            entries=self.entries,
        )


class Page:
    """A file without a name that a child writes on."""

    def __init__(self) -> None:
        self.fd = OwnedFd(_sys.memory_file("pyshimio"))

    @property
    def path(self) -> str:
        """A name for it, as long as it is open here."""
        return log_path(_sys.getpid(), self.fd.fileno())

    def read(self) -> bytes:
        """All that was written."""
        fd = self.fd.fileno()
        return _sys.pread(fd, _sys.fstat(fd).st_size, 0)


class Call:
    """A command before, while and after it runs; close it (``with``).

    Args:
        head: Program and global options.
        tail: The rest of the command line.
        log: A file that gets the runtime's log, which is taken here first: others may write
            there at the same time, and what failed here is not to be blamed on them.
        log_format: ``"json"`` or ``"text"``.
        env: Its environment; None for ours.
        extra_files: See :class:`Command`.
        stdin: Bytes for it to read.
        captured: Whether its stdout and stderr are heard; a container must not inherit them.
        apart: Have a process group of its own.  So Ctrl-C does not reach it (a runtime that is
            ended in the middle leaves something half done), and what it leaves behind is known
            by that group.  Not for one that uses our terminal itself.
    """

    def __init__(
        self,
        head: Sequence[str],
        tail: Sequence[str],
        *,
        log: str | None,
        log_format: str,
        env: Mapping[str, str] | None,
        extra_files: Sequence[Descriptor] = (),
        stdin: bytes | None = None,
        captured: bool = True,
        apart: bool = True,
    ) -> None:
        self._pages: list[Page] = []
        self._apart = apart
        self._log_path = log
        self._log_format = log_format
        self._command: Command | None = None
        try:
            self._log = self._page()
            head = [*head, "--log", self._log.path, "--log-format", log_format]
            self.args = (*head, *tail)
            self._out = self._page() if captured else None
            self._err = self._page() if captured else None
            self._command = Command(
                self.args, env=env, extra_files=extra_files, process_group=0 if apart else None
            )
            for number, page in ((1, self._out), (2, self._err)):
                if page is not None:
                    self._command.set_fd(number, page.fd)
            if stdin is not None:
                page = self._page()
                _sys.write(page.fd.fileno(), stdin)
                # A description of its own, which begins at the beginning.
                reader = OwnedFd(_sys.reopen(page.fd.fileno(), os.O_RDONLY))
                try:
                    self._command.set_fd(0, reader)
                finally:
                    reader.close()
        except BaseException:
            self.close()
            raise

    def _page(self) -> Page:
        page = Page()
        self._pages.append(page)
        return page

    async def run(
        self,
        io: StartIO | None = None,
        *,
        undo: Callable[[], Awaitable[None]] | None = None,
        patience: float = 0.0,
    ) -> Answer:
        """Start it and wait for its end.

        Cancelled, it kills the runtime, reaps it and calls *undo*, in a time of their own.
        The same when the runtime was killed.

        Args:
            io: For the container; its ends are given back when the runtime has started.
            undo: Removes what a half-done command may have left.
            patience: Seconds for a cancelled runtime to come to its end by itself.
        """
        assert self._command is not None
        if io is not None:
            io.set(self._command)
        try:
            process = await self._command.start()
        except BaseException:
            if pid := self._command._pid:  # it was there, and may even have been successful
                await finish(partial(self._clear, pid, undo))
            raise
        try:
            if io is not None:
                io.close_after_start()
            status = await process.wait()
            killed = process.raw_status is not None and process.raw_status.si_code != os.CLD_EXITED
            answer = self._answer(status, killed=killed)
        except BaseException:
            # All of it at once: another cancellation must not come in between.
            await finish(partial(self._put_away, process, patience, undo))
            raise
        finally:
            process.close()
            self._pass_log_on()
        if killed:
            await finish(partial(self._clear, process.pid, undo))
        elif status and self._apart:
            await finish(partial(reap_group, process.pid))
        return answer

    async def _put_away(
        self, process: Process, patience: float, undo: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Leave nothing of a command that was not successful."""
        if not process.exited:
            await _end(process, patience)
        await self._clear(process.pid, undo)

    async def _clear(self, pid: int, undo: Callable[[], Awaitable[None]] | None) -> None:
        """Leave nothing of what the command, which was called *pid*, had begun."""
        ours = list(self.args[1:])  # (before them a script's interpreter may stand)
        orphans = partial(end_orphans, lambda args: args[-len(ours) :] == ours, after=pid)
        await _undo("what the runtime had begun goes on maybe", orphans)
        if undo is not None:
            await _undo("a container that was half made may be left", undo)
        if self._apart:
            await reap_group(pid)

    def _answer(self, status: int, *, killed: bool) -> Answer:
        return Answer(
            args=self.args,
            status=status,
            killed=killed,
            stdout=b"" if self._out is None else self._out.read(),
            stderr=b"" if self._err is None else self._err.read(),
            entries=log_entries(self._log.read(), self._log_format),
        )

    def _pass_log_on(self) -> None:
        if self._log_path is None:
            return
        try:
            if text := self._log.read():
                with open(self._log_path, "ab") as file:
                    file.write(text)
        except OSError as error:
            logger.warning("cannot write the runtime's log: %s", error)

    def close(self) -> None:
        """Give everything back.  Idempotent."""
        if self._command is not None:
            self._command.close()
        for page in self._pages:
            page.fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def _end(process: Process, patience: float) -> None:
    with anyio.move_on_after(patience):
        await process.gone()
    process.kill()
    with anyio.move_on_after(END_SECONDS):
        await process.gone()


async def _undo(otherwise: str, undo: Callable[[], Awaitable[None]]) -> None:
    try:
        with anyio.fail_after(END_SECONDS):
            await undo()
    except Exception:  # noqa: BLE001 - what is on its way is not to be hidden behind it
        logger.exception(otherwise)
