"""A container, or a process in one, with us in front of it: signals, terminal, bytes, status."""

from __future__ import annotations

import math
import signal
from contextlib import nullcontext
from typing import TYPE_CHECKING

import anyio
import attrs

from .. import _sys
from .._stdio import Stdio
from ..errors import ContainerStateError, ShimIOError, StreamFailedError
from ..io._base import LINGER, SINK_TIMEOUT
from ..io._outlet import SinkOutlet
from ..io.console import ConsoleIO
from ..io.create import create_io
from ..io.fd import FdIO, fd_sink
from . import FAILED
from ._report import Report
from ._say import say
from ._signals import HANDLED, hold_back, listen
from ._terminal import OurTerminal, relay_input
from ._trouble import Refusal, complain, reopen, say_bugs, say_what_goes_wrong, status_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from ..io._base import BaseIO
    from ..io._result import DrainPolicy, DrainResult
    from ..runc import Container, Exec
    from ._report import Form

__all__ = ("Foreground", "Options", "in_foreground")


@attrs.frozen(kw_only=True)
class Options:
    """What is asked of the foreground, whatever runs there.

    Args:
        tty: It has a terminal.
        interactive: Its stdin is ours.
        behind_fifos: Its stdio is a client's; our terminal has nothing to do with it.
        namespace: For loggers and the report.
        drain: After its exit: as for :meth:`~pyshimio.abc.IO.drain`; ``keep`` goes on until
            nobody has its output open.
        report: What to print at the end.
        uvloop: Use that loop.
    """

    tty: bool = False
    interactive: bool = False
    behind_fifos: bool = False
    namespace: str = "default"
    drain: DrainPolicy = "eof"
    report: Form | None = None
    uvloop: bool = False


def in_foreground(options: Options, live: Callable[[Foreground], Awaitable[int]]) -> int:
    """Run *live* with signals held back for it; the exit status of the command."""
    numbers = hold_back(HANDLED)
    say_what_goes_wrong()
    foreground = Foreground(options, numbers, live)
    return anyio.run(foreground.main, backend_options={"use_uvloop": options.uvloop})


class Foreground:
    """One run."""

    def __init__(
        self,
        options: Options,
        numbers: frozenset[signal.Signals],
        live: Callable[[Foreground], Awaitable[int]],
    ) -> None:
        self.terminal = OurTerminal()
        self.group: TaskGroup
        self.drained: anyio.Event
        """Set when what runs here has exited and its output is where it belongs."""
        self._options = options
        self._numbers = numbers
        self._live = live
        self._io: BaseIO | None = None
        self._what: Container | Exec | None = None
        self._result: DrainResult | None = None
        # What a signal cuts short where there is nobody to pass it on to.
        self._phase: anyio.CancelScope
        self._starting = False
        self._up: anyio.Event
        self._signal = 0
        self._queue: MemoryObjectSendStream[int]

    async def main(self) -> int:
        say_bugs()
        began = _sys.monotonic()
        status = FAILED
        self.drained, self._up = anyio.Event(), anyio.Event()
        self._queue, signals = anyio.create_memory_object_stream[int](math.inf)
        async with anyio.create_task_group() as self.group:
            self.group.start_soon(self._pass_on, signals)
            with anyio.CancelScope() as self._phase:
                listen(self._numbers, lambda info: self._on_signal(info.si_signo))
                try:
                    status = await self._live(self)
                except (ShimIOError, OSError, Refusal) as error:
                    # Caught in here: the group would wrap it.
                    say(str(error))
                    status = status_for(error)
            if self._signal and not self._up.is_set():
                status = 128 + self._signal
            self.group.cancel_scope.cancel()
        self._queue.close()
        signals.close()
        self._report(status, _sys.monotonic() - began)
        return status

    async def stdio(
        self,
        log: Stdio | None,
        *,
        owner: tuple[int, int],
        id: str,  # noqa: A002 - for loggers, which call it so
    ) -> BaseIO:
        """Its stdio: ours, or with *log* what that says; stdin where it is interactive."""
        tty, interactive = self._options.tty, self._options.interactive
        uid, gid = owner
        if not tty and log is None:
            return FdIO(1, 2, stdin=interactive, uid=uid, gid=gid, chown="try")
        made = await create_io(
            attrs.evolve(log or Stdio(), terminal=tty),
            id=id,
            namespace=self._options.namespace,
            uid=uid,
            gid=gid,
            chown="try",
            stdin_stream=interactive and not tty,
            runtime=True,
            size=None if self._options.behind_fifos else self.terminal.size,
        )
        if tty and log is None:
            assert isinstance(made, ConsoleIO)
            made.bind({"stdout": SinkOutlet(fd_sink(1))}, None)
        return made

    async def follow(
        self,
        make: Callable[[], Awaitable[Container | Exec]],
        io: BaseIO,
        *,
        beside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        linger: float = 0.0,
    ) -> int:
        """Make it, start it, and be there until its last byte has arrived; its status.

        Args:
            make: Makes it with *io*.
            io: Its stdio; closed with it.
            beside: What goes on as long as it lives.
            linger: Seconds for clients of its FIFOs to read what is left.
        """
        self._io = io
        self._what = what = await make()
        async with what, beside():
            relays = self._options.interactive
            with self.terminal.raw(wanted=relays and self._options.tty):
                self._starting = True
                await what.start()
                self._up.set()
                with anyio.CancelScope() as self._phase:
                    if relays:
                        self.group.start_soon(relay_input, io)
                    await what.gone()
                    await self._deliver(what, linger)
                self.drained.set()
        if self._phase.cancelled_caught:
            say("interrupted; what was left of the output is lost")
        complain(self._result)
        return await what.wait()

    async def _deliver(self, what: Container | Exec, linger: float) -> None:
        until = anyio.current_time() + linger
        keep = self._options.drain == "keep"
        try:
            self._result = await what.drain(
                policy="eof" if keep else self._options.drain,
                linger=math.inf if keep else LINGER,
                sink_timeout=linger if self._options.behind_fifos else SINK_TIMEOUT,
            )
        except StreamFailedError as error:
            # It has its status, which is what we are asked for.
            self._result = getattr(error, "result", None)
            say(str(error))
        self.drained.set()
        assert self._io is not None
        with anyio.CancelScope(deadline=until):
            while any(not fifo.fd.closed for _, fifo in self._io._fifos()):  # noqa: ASYNC110
                await anyio.sleep(0.02)

    # -- signals ------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        up = self._up.is_set()
        if number == signal.SIGWINCH:
            if not self._options.behind_fifos:
                self.terminal.lend_size(self._io)
        elif number == signal.SIGUSR1:
            self.group.start_soon(reopen, self._io)
        elif up and self._what is not None and self._what.state not in {"stopped", "deleted"}:
            self._queue.send_nowait(number)
        elif number == signal.SIGUSR2:
            pass  # it means nothing to us
        elif self._starting and not (up or self._signal):
            # It may run already, and the runtime has not said so yet.  A second one ends all.
            self._signal = number
            self._queue.send_nowait(number)
        else:
            self._signal = number
            self._phase.cancel()

    async def _pass_on(self, signals: MemoryObjectReceiveStream[int]) -> None:
        """One after the other, in their order."""
        async for number in signals:
            await self._up.wait()
            assert self._what is not None
            try:
                await self._what.kill(number)
            except ContainerStateError:
                pass  # it has gone meanwhile
            except (ShimIOError, OSError) as error:
                say(f"cannot pass on signal {number}: {error}")

    # -- what there is to say -----------------------------------------------------------

    def _report(self, status: int, seconds: float) -> None:
        if self._options.report is None or self._what is None or self._io is None:
            return
        Report(
            id=self._what.id,
            namespace=self._options.namespace,
            pid=self._what.pid,
            status=status,
            seconds=seconds,
            stats=self._io.stats,
            result=self._result,
        ).show(self._options.report)
