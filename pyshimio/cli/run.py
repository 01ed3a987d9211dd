"""``pyshimio run``: one child, from the opening of its destinations to the last byte."""

from __future__ import annotations

import math
import os
import signal
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio
import attrs

from .. import _sys
from .._command import Command
from .._stdio import Stdio, scheme_of
from ..errors import ShimIOError, StreamFailedError
from ..io._outlet import SinkOutlet
from ..io.console import ConsoleIO
from ..io.create import create_io
from ..io.fd import fd_sink
from ..io.pipe import PipeIO
from . import FAILED
from ._report import Report
from ._say import say
from ._signals import HANDLED, from_kernel, hold_back, listen
from ._terminal import OurTerminal, relay_input
from ._trouble import complain, reopen, say_bugs, say_what_goes_wrong, status_for

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .._process import Process
    from ..io._base import BaseIO
    from ..io._result import DrainResult
    from ._report import Form

__all__ = ("Drain", "Options", "supervise")

Drain: TypeAlias = Literal["eof", "exited", "keep"]

QUIET = frozenset({signal.SIGUSR2, signal.SIGWINCH})
"""Signals for the child that mean nothing to us."""
TOGETHER = 1.0
"""Seconds after the child's end in which a signal may be the one that has ended it."""
FIRST_LOOK, LAST_LOOK = 0.005, 0.1
"""Seconds between two looks whether a client of stdin has written."""


@attrs.frozen(kw_only=True)
class Options:
    """The command line; None for a stream means ours."""

    command: tuple[str, ...]
    stdin: str | None
    stdout: str | None
    stderr: str | None
    id: str
    namespace: str
    tty: bool
    drain: Drain
    report: Form | None
    uvloop: bool


def supervise(options: Options) -> int:
    """Run the command and return the exit status of ``pyshimio run``."""
    wanted = HANDLED | {signal.SIGTSTP} if options.tty else HANDLED
    numbers = hold_back(wanted)
    say_what_goes_wrong()
    return anyio.run(_Run(options, numbers).main, backend_options={"use_uvloop": options.uvloop})


class _Run:
    def __init__(self, options: Options, numbers: frozenset[signal.Signals]) -> None:
        self._options = options
        self._numbers = numbers
        self._terminal = OurTerminal()
        self._io: BaseIO | None = None
        self._process: Process | None = None
        self._result: DrainResult | None = None
        # What a signal cuts short while there is no child to pass it on to.
        self._phase: anyio.CancelScope
        self._signal = 0
        self._ended_at: float | None = None
        self._spared = False
        self._keeps = False
        self._over = False
        self._group: TaskGroup

    async def main(self) -> int:
        say_bugs()
        began = _sys.monotonic()
        status = FAILED
        self._phase = anyio.CancelScope()
        async with anyio.create_task_group() as self._group:
            listen(self._numbers, self._on_signal)
            try:
                status = await self._live()
            except (ShimIOError, OSError) as error:
                # Caught in here: the group would wrap it.
                say(str(error))
                status = status_for(error)
            self._over = True
            self._group.cancel_scope.cancel()
        self._report(status, _sys.monotonic() - began)
        return status

    # -- the child's life ---------------------------------------------------------------

    async def _live(self) -> int:
        with self._phase, self._command() as command:
            io = self._io = await self._make_io()
            self._process = await io.spawn(command)
            self._process.when_exited(self._note_end)
        if self._io is None or self._process is None:
            return 128 + self._signal
        return await self._follow(self._io, self._process)

    async def _follow(self, io: BaseIO, process: Process) -> int:
        if self._phase.cancel_called:  # the child was quicker
            process.send_signal(self._signal)
        relays = self._options.tty and self._options.stdin is None
        with self._terminal.raw(wanted=relays), anyio.CancelScope() as self._phase:
            try:
                async with io:
                    if io._inlet is not None:
                        self._group.start_soon(self._end_input, io)
                    if relays:
                        assert isinstance(io, ConsoleIO)
                        self._group.start_soon(relay_input, io)
                    await process.wait()
                    self._result = await self._drain(io)
            except StreamFailedError as error:
                # The child has its status, which is what we are asked for.
                self._result = getattr(error, "result", None)
                say(str(error))
        if self._phase.cancelled_caught:
            say("interrupted; what was left of the output is lost")
        complain(self._result)
        assert process.status is not None
        return process.status

    async def _make_io(self) -> BaseIO:
        options = self._options
        named = (uri for uri in (options.stdin, options.stdout, options.stderr) if uri is not None)
        if not options.tty and all(scheme_of(uri) == "null" for uri in named):
            return PipeIO(stdin=False, stdout=False, stderr=False)
        io = await create_io(
            Stdio(
                stdin=options.stdin or "",
                stdout=options.stdout or "",
                stderr=options.stderr or "",
                terminal=options.tty,
            ),
            id=options.id,
            namespace=options.namespace,
            runtime=False,
            size=self._terminal.size,
        )
        if isinstance(io, ConsoleIO) and options.stdout is None:
            io.bind({"stdout": SinkOutlet(fd_sink(1))}, None)
        return io

    async def _end_input(self, io: BaseIO) -> None:
        """Let stdin end with its first client: nobody else can say that it is over."""
        pause = FIRST_LOOK
        while not ((stats := io.stats.stdin) and stats.bytes_in):
            await anyio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK)
        io.close_stdin()

    def _command(self) -> Command:
        options = self._options
        command = Command(options.command)
        if not options.tty:
            for number, uri in enumerate((options.stdin, options.stdout, options.stderr)):
                if uri is None:
                    command.set_fd(number, number)
        return command

    async def _drain(self, io: BaseIO) -> DrainResult:
        if self._options.drain != "keep":
            return await io.drain(policy=self._options.drain)
        outer = self._phase
        try:
            with anyio.CancelScope() as self._phase:
                self._keeps = True  # nothing is lost when this ends
                if not self._spared:
                    return await io.drain(policy="eof", linger=math.inf)
        finally:
            self._phase = outer
            self._keeps = False
        return await io.drain(policy="exited")

    # -- signals ------------------------------------------------------------------------

    def _on_signal(self, info: signal.struct_siginfo) -> None:
        number = info.si_signo
        process = self._process
        if number == signal.SIGUSR1:
            if not self._over:
                self._group.start_soon(reopen, self._io)
        elif number == signal.SIGTSTP:
            self._terminal.suspend()
            self._terminal.lend_size(self._io)
        elif process is None or process.exited or _sys.exiting(process.pid):
            if number not in QUIET and not self._ended_the_child():
                self._signal = number
                self._phase.cancel()
        elif number == signal.SIGWINCH and self._terminal.lend_size(self._io):
            pass  # the child's terminal tells it
        elif not (from_kernel(info) and self._was_told(process, number)):
            process.send_signal(number)

    def _was_told(self, process: Process, number: int) -> bool:
        """Whether the terminal that has sent us a signal has sent it to the child as well.

        It sends to its whole foreground group, and so to a child that has stayed in ours; but
        when it hangs up, to the leader of the session alone.
        """
        if number == signal.SIGHUP and os.getsid(0) == os.getpid():
            return False
        return os.getpgid(process.pid) == os.getpgrp()

    def _note_end(self) -> None:
        self._ended_at = _sys.monotonic()

    def _ended_the_child(self) -> bool:
        """Whether this is the signal that has ended the child, which we hear of a bit later.

        A Ctrl-C, or the stop of a service, comes to both; what the child has written is to be
        delivered, and its logger to be left in peace.  Only one signal is taken for it.
        """
        now = _sys.monotonic()
        if self._process is None or self._keeps or self._spared:
            return False
        self._spared = self._ended_at is None or now - self._ended_at < TOGETHER
        return self._spared

    # -- what there is to say -----------------------------------------------------------

    def _report(self, status: int, seconds: float) -> None:
        if self._options.report is None or self._process is None or self._io is None:
            return
        Report(
            id=self._options.id,
            namespace=self._options.namespace,
            pid=self._process.pid,
            status=status,
            seconds=seconds,
            stats=self._io.stats,
            result=self._result,
        ).show(self._options.report)
