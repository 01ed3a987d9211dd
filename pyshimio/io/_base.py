"""The life of an IO, the same for all of them: set, start, copy, drain, close.

What differs (where the child's ends and the sources come from) is in the subclasses.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Literal

import anyio
from anyio import CancelScope

from .. import _sys
from .._command import Command
from .._events import BytesAbandoned, EventHub, IOEvent
from .._fd import OwnedFd, duplicate
from .._fifo import FifoSource
from .._poller import Poller
from .._process import Process
from .._ring import RingSink
from .._source import PipeSource, Source
from .._stats import IOStats, StreamStats
from ..errors import (
    ExitTimeoutError,
    InvalidOptionError,
    IOStateError,
    StreamFailedError,
)
from ._outlet import FifoOutlet, Outlet, SinkOutlet, make_pump
from ._result import DrainPolicy, DrainResult, ExitSource, StreamResult

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anyio.abc import ByteReceiveStream, ByteSendStream

    from .._fifo import FifoHandle, FifoSink
    from .._pump import Pump
    from .._streams import FdReceiveStream, FdSendStream
    from ..abc import Sink

__all__ = ("BaseIO", "Tap")

STREAMS = ("stdin", "stdout", "stderr")
LINGER = 1.0
SETTLE = 0.1
SINK_TIMEOUT = 10.0
GRACE = 10.0


class BaseIO:
    """Common to all IOs.

    Args:
        grace: Seconds between SIGTERM and SIGKILL for a child that is still alive when the
            IO is closed.
        on_exit: ``"leave"`` lets such a child live on (a daemon).
    """

    def __init__(self, *, grace: float = GRACE, on_exit: Literal["kill", "leave"] = "kill") -> None:
        if on_exit not in {"kill", "leave"}:
            raise InvalidOptionError(
                f'on_exit is "kill" or "leave", not {on_exit!r}', option="on_exit"
            )
        self._grace = grace
        self._on_exit = on_exit
        self._hub = EventHub()
        self._children: dict[int, OwnedFd] = {}
        self._parents: dict[str, FdReceiveStream | FdSendStream] = {}
        self._outlets: dict[str, Outlet] = {}
        self._stdin_fifo: FifoHandle | None = None
        self._inlet: FifoSource | None = None
        self._pumps: dict[str, Pump] = {}
        self._sinks: dict[str, Sink] = {}
        self._taps: dict[str, list[Tap]] = {}
        self._finishing: dict[str, anyio.Event] = {}
        self._processes: list[Process] = []
        self._stdin_closed = False
        self._copied = False
        self._drained = False
        self._raised = False
        self._closed = False

    # -- the caller's streams -----------------------------------------------------------

    @property
    def stdin(self) -> ByteSendStream | None:
        """The way into the child's stdin, where the caller is the one to write it."""
        return self._parents.get("stdin")  # type: ignore[return-value]

    @property
    def stdout(self) -> ByteReceiveStream | None:
        """The child's stdout, where the caller is the one to read it."""
        return self._parents.get("stdout")  # type: ignore[return-value]

    @property
    def stderr(self) -> ByteReceiveStream | None:
        """The child's stderr, where the caller is the one to read it."""
        return self._parents.get("stderr")  # type: ignore[return-value]

    # -- before and at the start of the child -------------------------------------------

    def child_fds(self) -> Mapping[int, int]:
        """0, 1 and 2 to the descriptors a child is to have there; they stay this IO's.

        ``subprocess.DEVNULL`` stands for a stream that is not connected, so the values suit
        ``subprocess``, asyncio and anyio as ``stdin=``, ``stdout=`` and ``stderr=``.
        """
        self._check_open()
        return {
            number: self._children[number].fileno() if number in self._children else DEVNULL
            for number in range(3)
        }

    def set(self, command: Command) -> None:
        """Make *command* start with this stdio (go-runc's ``Set``); never waits."""
        self._check_open()
        for number, fd in self._children.items():
            if fd.closed:
                raise IOStateError("the child's ends are closed; call set() before that")
            command.set_fd(number, fd)

    def close_after_start(self) -> None:
        """Give back the child's ends, so that EOF and EPIPE can happen.

        Unlike go-runc's this closes stdin's end as well, so writing to a child that has
        gone raises instead of filling a pipe.  Idempotent, never waits.
        """
        for fd in self._children.values():
            fd.close()

    async def spawn(self, command: Command | Sequence[str]) -> Process:
        """Open every destination, start the child, and move its bytes from then on.

        The child belongs to this IO: leaving the block ends it.  When anything fails,
        everything before it is undone, last first.

        Args:
            command: A :class:`Command`, or the arguments of one.

        Raises:
            DestinationError: A destination cannot be opened.
            ProcessError: The child cannot be started.
            IOStateError: It was called before, or the IO was closed meanwhile.
        """
        command = command if isinstance(command, Command) else Command(command)
        self._check_copy()
        try:
            command.check()
            await self._open()
            self.set(command)
            process = await command.start()
        except BaseException:
            command.close()
            await self.discard()
            raise
        self._own(process)
        self.close_after_start()
        try:
            self._check_open("this IO was closed while its child was being started")
            self._start_pumps()
        except BaseException:
            await self.discard()
            raise
        return process

    def _own(self, process: Process) -> None:
        self._processes.append(process)

    # -- moving bytes -------------------------------------------------------------------

    async def copy(self) -> None:
        """Open what is not open yet and start to move bytes; returns when all of it runs.

        Raises:
            FifoTimeoutError: A client did not come.
            IOStateError: It was called before, or the IO was closed meanwhile.
        """
        self._check_copy()
        try:
            await self._open()
            self._start_pumps()
        except BaseException:
            await self.discard()
            raise

    def _check_copy(self) -> None:
        self._check_open()
        if self._copied:
            raise IOStateError("this IO is copying already; one IO serves one process")
        self._copied = True

    async def open_files(self) -> None:
        """Open what can be opened without a client, so that a missing right is said early."""
        await self._check_outlets()
        for stream, outlet in self._outlets.items():
            if not isinstance(outlet, FifoOutlet):
                self._sinks[stream] = await outlet.open(stream, self._hub)

    async def _check_outlets(self) -> None:
        """Raise what opening the sinks would, before one of them makes a file."""
        if not self._sinks:
            for outlet in self._outlets.values():
                await outlet.check()

    async def _open(self) -> None:
        """Open the sinks side by side: two clients may open their FIFOs in any order."""
        failed: list[BaseException] = []
        scopes: list[CancelScope] = []
        await self._check_outlets()

        async def open_one(stream: str, scope: CancelScope) -> None:
            with scope:
                try:
                    # Looked up now: a logger that has died meanwhile has something in its place.
                    self._sinks[stream] = await self._outlets[stream].open(stream, self._hub)
                except Exception as error:  # noqa: BLE001 - raised below, without a group around it
                    failed.append(error)
                    # Not the group's own scope: a task.cancel() that comes at the same time
                    # as its cancellation would look like a part of it.
                    for other in scopes:
                        other.cancel()

        if self._outlets:
            async with anyio.create_task_group() as group:
                for stream in self._outlets:
                    scopes.append(CancelScope())
                    group.start_soon(open_one, stream, scopes[-1])
        else:
            await anyio.lowlevel.checkpoint()
        self._check_open("this IO was closed while it waited for its destinations")
        if failed:
            raise failed[0]
        if self._stdin_fifo is not None:
            self._inlet = FifoSource(self._stdin_fifo)
            self._stdin_fifo.close()
            if self._stdin_closed:
                self._inlet.end()

    def _source(self, stream: str) -> Source:
        """The source of an output stream, taken from the caller's side."""
        return PipeSource(self._parents[stream].take())

    def _start_pumps(self) -> None:
        for stream, outlet in self._outlets.items():
            if stream not in self._pumps:
                self._start_pump(stream, self._source(stream), self._sinks[stream], outlet)

    def _start_pump(self, stream: str, source: Source, sink: Sink, outlet: Outlet) -> None:
        finished = self._finishing[stream] = anyio.Event()

        def ended() -> None:
            for tap in tuple(self._taps.get(stream, ())):
                tap.finish()
            if not self._closed:  # else everything is closed at once
                outlet.finish(finished.set)

        pump = make_pump(stream, source, sink, outlet.lane, hub=self._hub, then=ended)
        pump.taps.extend(tap.ring for tap in self._taps.get(stream, ()))
        self._pumps[stream] = pump
        pump.start()

    def close_stdin(self) -> None:
        """The child is to see the end of its input.

        A latch: called before the FIFO is open it takes effect when it is.  What clients
        have written by then is still delivered.  Idempotent, never waits.
        """
        self._stdin_closed = True
        if self._inlet is not None:
            self._inlet.end()
        elif self._stdin_fifo is None and "stdin" in self._parents:
            self._parents["stdin"].close()

    async def reopen(self) -> None:
        """Open log files anew, after a rotation or when there is room again.

        Raises:
            FileOpenError, NotAFileError: One cannot be opened, and the old one stays in use; the
                others are opened all the same.
        """
        done: set[int] = set()
        failed: list[OSError] = []
        for stream, outlet in self._outlets.items():
            pump = self._pumps.get(stream)
            if pump is None or pump.done.is_set():
                continue
            # Two streams may share one file, which is opened once.
            key = id(getattr(pump.sink, "file", pump.sink))
            if key not in done:
                done.add(key)
                try:
                    if outlet.lane is None:
                        pump.sink.reopen()
                    else:
                        await outlet.lane.call(pump.sink.reopen, lambda _: None)
                except anyio.ClosedResourceError:
                    if not pump.done.is_set():  # else the stream ended meanwhile
                        raise
                except OSError as error:
                    failed.append(error)
            pump.retry()
        if failed:
            raise failed[0]

    # -- the end ------------------------------------------------------------------------

    async def drain(
        self,
        *,
        exited: ExitSource | None = None,
        policy: DrainPolicy = "eof",
        exit_timeout: float | None = None,
        linger: float = LINGER,
        sink_timeout: float = SINK_TIMEOUT,
    ) -> DrainResult:
        """Wait for the exit and then for every byte that the process wrote.

        Everything a process wrote is in its pipe when it has exited; how much that is, the
        pipe says.  So nothing is lost to a background child that holds the pipe, and
        nothing waits for one.  Takes at most *exit_timeout* + *linger* + *sink_timeout*.

        Args:
            exited: What to wait for; the children of this IO when None.
            policy: ``eof``: after the exit go on for *linger* seconds or to the end of the
                stream, so an entrypoint's ``exec > >(tee log)`` loses nothing.  ``exited``:
                what was written before the exit and no more.  ``keep``: the same, and the
                stream stays open until the IO is closed.
            exit_timeout: Seconds to wait for the exit; None waits for ever.
            linger: Seconds, see *policy*.
            sink_timeout: Seconds that the sinks get for what is left (and that a FIFO's
                ring gets); what they have not taken then is dropped and counted.

        Raises:
            ExitTimeoutError: The process still runs; nothing was ended.
            StreamFailedError: A sink failed for good; ``result`` is what there is.
        """
        if policy not in {"eof", "exited", "keep"}:
            raise InvalidOptionError(
                f'policy is "eof", "exited" or "keep", not {policy!r}', option="policy"
            )
        await self._wait_exit(exited, exit_timeout)
        outputs = self._output_pumps()
        if (stdin := self._pumps.get("stdin")) is not None:
            stdin.end()
        if outputs and policy == "eof":
            for pump in outputs:
                pump.expect_end()
            with anyio.move_on_after(linger):
                for pump in outputs:
                    await pump.done.wait()
        for pump in outputs:
            pump.mark(stop=policy != "keep")
        rings = [pump.sink for pump in outputs if isinstance(pump.sink, RingSink)]
        finished: dict[str, bool] = {}
        with anyio.move_on_after(sink_timeout):
            for pump in outputs:
                await pump.wait_marked()
            for ring in rings:
                await ring.wait_empty()
            if policy != "keep":
                await self._deliver()
                # A logger that had the child's own pipe and died now has left it to us.
                for pump in self._output_pumps():
                    if pump not in outputs:
                        if policy == "eof":
                            with anyio.move_on_after(linger):
                                await pump.done.wait()
                        pump.mark(stop=True)
                        await pump.wait_marked()
        for pump in self._output_pumps():
            left = pump.sink.waiting if isinstance(pump.sink, RingSink) else 0
            finished[pump.stream] = pump.reached and not left
            if policy != "keep":
                pump.end()
                if isinstance(pump.sink, RingSink):
                    pump.sink.drop_waiting()
        result = await self._result(finished)
        self._drained = policy != "keep"
        self._raise_failure(result)
        await anyio.lowlevel.checkpoint()
        return result

    def _output_pumps(self) -> list[Pump]:
        return [pump for stream, pump in self._pumps.items() if stream != "stdin"]

    async def _wait_exit(self, exited: ExitSource | None, timeout: float | None) -> None:
        with anyio.move_on_after(timeout) as scope:
            if exited is None:
                for process in self._processes:
                    await _exit_of(process)
            else:
                await _exit_of(exited)
        if scope.cancelled_caught:
            raise ExitTimeoutError(
                f"the process still runs after {timeout} s; its streams go on", timeout=timeout
            )

    async def _deliver(self) -> None:
        """The last byte has left the pumps: wait for what stands behind the sinks."""

    async def _end_sinks(self) -> None:
        """End what stands behind the sinks, however long it takes."""

    async def _result(self, finished: Mapping[str, bool]) -> DrainResult:
        await self._tell_clients_from_copies()
        return DrainResult(
            stdout=self._stream_result("stdout", finished),
            stderr=self._stream_result("stderr", finished),
        )

    def _stream_result(self, stream: str, finished: Mapping[str, bool]) -> StreamResult | None:
        pump = self._pumps.get(stream)
        if pump is None:
            return None
        outlet = self._outlets[stream]
        fifo = outlet.fifo if isinstance(outlet, FifoOutlet) else None
        live = fifo is not None and not fifo.fd.closed
        unread = fifo.unread() if fifo is not None and live and fifo.speaks else 0
        attached = None if fifo is None else bool(fifo.attached())
        stats = pump.stats()
        return StreamResult(
            moved=stats.bytes_out,
            dropped=stats.dropped,
            finished=finished[stream],
            holders_left=pump.left if pump.done.is_set() else pump.source.holders(),
            unread=unread,
            abandoned=0 if attached else unread,
            attached=attached,
        )

    def _raise_failure(self, result: DrainResult | None) -> None:
        if self._raised:
            return
        for stream, pump in self._pumps.items():
            if pump.error is not None and stream != "stdin":
                self._raised = True
                raise StreamFailedError(
                    f"{stream} ended early because its sink failed: {pump.error}",
                    stream=stream,
                    result=result,
                    errno=getattr(pump.error, "errno", None) or errno.EIO,
                ) from pump.error

    @property
    def stats(self) -> IOStats:
        """What has moved up to now; None for a stream that the library does not move."""
        return IOStats(**{stream: self._stats_of(stream) for stream in STREAMS})

    def _stats_of(self, stream: str) -> StreamStats | None:
        pump = self._pumps.get(stream)
        return None if pump is None else pump.stats()

    def events(self) -> AsyncIterator[IOEvent]:
        """What goes wrong on the way (:class:`IOEvent` and its kinds), as it happens.

        Ends when the IO is closed.
        """
        return self._hub.events()

    # -- beside the log -----------------------------------------------------------------

    def attach(self, stream: str, sink: Sink, *, ring: int = 1 << 20) -> Tap:
        """Give *sink* a copy of *stream* from now on, without ever waiting for it.

        Args:
            stream: ``"stdout"`` or ``"stderr"``; it must have a destination of its own,
                which goes on to give back-pressure.
            sink: Closed by the tap; one that blocks and has a method ``open()`` has it called in
                its thread before the first write.
            ring: Bytes that may wait for it; beyond them the oldest are dropped.

        Raises:
            IOStateError: The stream has no pump (it is the caller's, or handed over).
        """
        self._check_open()
        if stream == "stdin" or stream not in self._outlets:
            raise IOStateError(
                f"{stream} is not moved by this IO, so nothing can be attached beside it"
            )
        tap = Tap(stream, sink, ring, self._hub)
        self._taps.setdefault(stream, []).append(tap)
        if (pump := self._pumps.get(stream)) is not None:
            pump.taps.append(tap.ring)
            if pump.done.is_set():
                tap.close()
        tap.detached = lambda: self._detach(tap)
        return tap

    def _detach(self, tap: Tap) -> None:
        self._taps[tap.stream].remove(tap)
        if (pump := self._pumps.get(tap.stream)) is not None:
            pump.taps.remove(tap.ring)

    # -- closing ------------------------------------------------------------------------

    def _check_open(self, message: str = "this IO is closed; make another one") -> None:
        if self._closed:
            raise IOStateError(message)

    def close(self) -> None:
        """Close every descriptor and kill the children this IO owns, without waiting.

        What was not delivered is lost.  A killed child is reaped by the loop a moment
        later.  Idempotent.
        """
        self._closed = True
        self.close_after_start()
        for process in self._processes:
            if self._on_exit == "kill":
                with suppress(PermissionError):  # it has become another user (setuid)
                    process.kill()
            process.close()
        for pump in self._pumps.values():
            pump.end()
        for taps in self._taps.values():
            for tap in taps:
                tap.close()
        for outlet in self._outlets.values():
            outlet.close()
        for stream in self._parents.values():
            stream.close()
        for stdin in (self._inlet, self._stdin_fifo):
            if stdin is not None:
                stdin.close()
        self._hub.close()

    async def discard(self) -> None:
        """Close everything and reap what was killed, without any grace."""
        self.close()
        if not self._reaped():
            with CancelScope(shield=True), anyio.move_on_after(1.0):
                await self._reap()

    async def aclose(self) -> None:
        """End the children (SIGTERM, *grace*, SIGKILL), deliver what is left, close all.

        Cancelled, it gives no grace: everything is closed and killed in milliseconds.
        Idempotent.

        Raises:
            StreamFailedError: A sink failed for good, and no drain has said so.
            PermissionError: A child has become another user's and cannot be ended.
        """
        if self._closed:
            await anyio.lowlevel.checkpoint()
            return
        failure: Exception | None = None
        try:
            if self._on_exit == "kill":
                try:
                    await self._stop_children()
                except OSError as error:
                    failure = error  # what it has written is delivered all the same
            if self._pumps and not self._drained:
                try:
                    if all(process.has_exited() for process in self._processes):
                        await self.drain()
                    else:  # a daemon that is left alone: what it has written up to now
                        await self.drain(exited=anyio.lowlevel.checkpoint(), policy="exited")
                except StreamFailedError as error:
                    failure = error  # the other stream still gets its time
            await self._wait_for_clients()
            await self._end_sinks()
            await self._tell_clients_from_copies()
            self._tell_abandoned()  # at the last moment: a client may have left until now
        finally:
            await self.discard()
        if failure is not None:
            raise failure

    async def _stop_children(self) -> None:
        failed: list[OSError] = []

        async def stop(process: Process) -> None:
            try:
                await process.stop(self._grace)
            except OSError as error:
                failed.append(error)

        running = [process for process in self._processes if not process.exited]
        if not running:
            await anyio.lowlevel.checkpoint()
            return
        async with anyio.create_task_group() as group:
            for process in running:
                group.start_soon(stop, process)
        if failed:
            raise failed[0]

    async def _wait_for_clients(self) -> None:
        """Give clients that are away, and taps that are late, a moment for what is left."""
        if taps := [tap for taps in self._taps.values() for tap in taps]:
            with anyio.move_on_after(LINGER):
                for tap in taps:
                    await tap.ring.wait_empty()
        if not (fifos := self._fifos()):
            return
        with anyio.move_on_after(LINGER):
            for stream, fifo in fifos:
                while not fifo.fd.closed and not fifo.attached() and fifo.unread():
                    with anyio.move_on_after(0.02):
                        await self._finishing[stream].wait()

    async def _tell_clients_from_copies(self) -> None:
        """Until it is known who reads our FIFOs: children that are being started seem to."""
        with anyio.move_on_after(SETTLE):
            while any(fifo.attached() is None for _, fifo in self._fifos()):  # noqa: ASYNC110
                await anyio.sleep(0.001)

    def _tell_abandoned(self) -> None:
        for stream, fifo in self._fifos():
            if fifo.speaks and not fifo.attached() and (unread := fifo.unread()):
                self._hub.emit(BytesAbandoned(stream, unread))

    def _fifos(self) -> list[tuple[str, FifoSink]]:
        return [
            (stream, outlet.fifo)
            for stream, outlet in self._outlets.items()
            if isinstance(outlet, FifoOutlet) and outlet.fifo is not None
        ]

    def _reaped(self) -> bool:
        """Whether nobody is left to be waited for."""
        return all(process.exited for process in self._processes)

    async def _reap(self) -> None:
        for process in self._processes:
            if self._on_exit == "kill":
                await _exit_of(process)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An error that is on its way already is not to be hidden behind a sink's.
        self._raised = self._raised or exc_value is not None
        await self.aclose()

    def _state(self) -> str:
        if self._closed:
            return "closed"
        if self._drained:
            return "drained"
        return "copying" if self._copied else "open"

    def __repr__(self) -> str:
        parts = [f"{stream}={self._stream_state(stream)}" for stream in STREAMS]
        return f"<{type(self).__name__} {self._state()} {' '.join(parts)}>"

    def _stream_state(self, stream: str) -> str:
        if (pump := self._pumps.get(stream)) is not None:
            return "ended" if pump.done.is_set() else "copying"
        number = STREAMS.index(stream)
        if number in self._children:
            return "started" if self._children[number].closed else "open"
        return "none"


class Tap:
    """A sink beside a stream's own, made by :meth:`PipeIO.attach`."""

    def __init__(self, stream: str, sink: Sink, ring: int, hub: EventHub) -> None:
        self.stream = stream
        self._outlet = SinkOutlet(sink)
        lane = self._outlet.prepare()
        self.ring: RingSink = RingSink(
            stream,
            sink,
            capacity=ring,
            lane=lane,
            poller=Poller.current(),
            hub=hub,
            opening=self._outlet.opening,
        )
        self.detached: Callable[[], None] = _nothing

    @property
    def dropped(self) -> int:
        """Bytes that this sink has missed."""
        return self.ring.dropped

    @property
    def delivered(self) -> int:
        """Bytes that it has taken."""
        return self.ring.delivered

    def finish(self) -> None:
        """The stream has ended: close when the sink has taken what waits."""
        self.ring.flush()
        self.ring.when_empty(self.close)

    async def detach(self, timeout: float = SINK_TIMEOUT) -> None:
        """End the copy; what waits is delivered within *timeout* seconds, or dropped."""
        detached, self.detached = self.detached, _nothing
        detached()
        self.ring.flush()
        try:
            with anyio.move_on_after(timeout):
                await self.ring.wait_empty()
        finally:
            self.close()

    def close(self) -> None:
        """Drop what waits and close the sink.  Idempotent."""
        self.ring.close()
        self._outlet.close()

    def __repr__(self) -> str:
        return f"<Tap {self.stream} {'closed' if self.ring.closed else 'open'} -> {self.ring!r}>"


def _nothing() -> None:
    pass


async def _exit_of(source: ExitSource) -> None:
    """Wait until whatever *source* stands for has exited; how, does not matter here."""
    if isinstance(source, Process):
        if not source.exited:  # no checkpoint else: the caller's time may be up already
            await source.gone()  # whoever wants the status asks for it
    elif isinstance(source, Awaitable):
        await source
    else:
        # A number of our own: one descriptor has room for one waiter in a loop.  And not in the
        # loop itself: uvloop would make the caller's description non-blocking.
        pidfd = duplicate(source)
        exited = anyio.Event()
        try:
            watch = Poller.current().watch(
                pidfd.fileno(), _sys.EPOLLIN, lambda _events: exited.set()
            )
            try:
                await exited.wait()
            finally:
                watch.close()
        finally:
            pidfd.close()
