"""The caller's terminal, files or sinks behind a process's FIFOs, for as long as wanted."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import anyio

from .._events import EventHub, IOEvent
from .._fifo import FifoHandle
from .._stats import IOStats
from .._stdio import Stdio, StdioURI
from ..abc import Sink
from ..errors import InvalidOptionError, IOStateError, StreamFailedError
from ._bell import Bell
from ._detach_keys import DetachKeys
from ._input import open_input
from ._output import Outlet, Output
from ._stdin import StdinRelay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType
    from typing import Self

    from anyio.abc import AnyByteReceiveStream, TaskGroup

    from .._fd import Descriptor
    from ._fifo_set import FifoSet

__all__ = ("Attachment", "attach", "fifo_paths")

STREAMS = ("stdin", "stdout", "stderr")
SINK_TIMEOUT = 10.0
LINGER = 1.0
"""Seconds that what was taken from the caller's stdin has for its way into the FIFO."""


def attach(  # noqa: D417 - outputs share a line
    fifos: FifoSet | Stdio,
    *,
    stdin: Descriptor | AnyByteReceiveStream | None = None,
    stdout: Descriptor | Sink | None = None,
    stderr: Descriptor | Sink | None = None,
    detach_keys: bytes | None = None,
    sink_timeout: float = SINK_TIMEOUT,
) -> Attachment:
    r"""Connect the caller's side to a process's FIFOs (``cio.NewAttach``); enter what it returns.

    The FIFOs of output are opened at once and without waiting; stdin's is as soon as the
    shim reads it.  A process has one attachment at a time: two would share its output.

    Args:
        fifos: Whose.
        stdin: A descriptor or a stream of bytes, which stays the caller's, its flags included.
        stdout, stderr: Descriptors, which stay the caller's, or sinks, which are closed with
            their streams.  None leaves that FIFO alone.  A terminal has no stderr: with
            ``terminal=True`` in *fifos* that one is not used.
        detach_keys: Typed one behind the other they end the attachment (see
            :func:`parse_detach_keys`); None passes on everything.
        sink_timeout: Seconds that sinks have for what is left when the block is left.

    Raises:
        InvalidOptionError: A stream is wanted that has no FIFO, or *detach_keys* is empty.
        URIError: A path is malformed.

    Example:
        ``docker attach``, with the terminal as it was afterwards::

            with RawTerminal() as terminal:
                async with attach(fifos, stdin=0, stdout=1, detach_keys=b"\x10\x11") as attached:
                    await attached.wait()
    """
    stdio = fifos if isinstance(fifos, Stdio) else fifos.stdio
    outputs = {"stdout": stdout, "stderr": None if stdio.terminal else stderr}
    paths = fifo_paths(stdio)
    wanted = {stream for stream, what in {"stdin": stdin, **outputs}.items() if what is not None}
    for stream in sorted(wanted - paths.keys()):
        raise InvalidOptionError(
            f"{getattr(stdio, stream) or '/dev/null'} is no FIFO, so {stream} cannot be attached;"
            " pass None for it",
            option=stream,
        )
    return Attachment(
        {stream: path for stream, path in paths.items() if stream in wanted},
        stdin=stdin,
        outputs={stream: what for stream, what in outputs.items() if what is not None},
        keys=None if detach_keys is None else DetachKeys(detach_keys),
        sink_timeout=sink_timeout,
    )


def fifo_paths(stdio: Stdio) -> dict[str, str]:
    """The streams of *stdio* that may be FIFOs, and where these are."""
    uris = {
        stream: StdioURI.parse(text)
        for stream in STREAMS
        if (text := getattr(stdio, stream)) and not (stdio.terminal and stream == "stderr")
    }
    return {stream: uri.path for stream, uri in uris.items() if uri.scheme in {"", "fifo"}}


class Attachment:
    """What :func:`attach` makes; use it in ``async with``, once."""

    def __init__(
        self,
        paths: Mapping[str, str],
        *,
        stdin: Descriptor | AnyByteReceiveStream | None,
        outputs: Mapping[str, Descriptor | Sink],
        keys: DetachKeys | None,
        sink_timeout: float,
    ) -> None:
        self._stdin_ended = anyio.Event()
        self._paths = paths
        self._source = stdin
        self._destinations = outputs
        self._keys = keys
        self._sink_timeout = sink_timeout
        self._hub = EventHub()
        self._bell = Bell()
        self._outputs: list[Output] = []
        self._stdin: StdinRelay | None = None
        self._group: TaskGroup
        self._entered = False
        self._cancelled = False
        self._detached = False
        self._closed = False
        self._cut = False  # closed before the outputs had ended
        self._told: set[str] = set()  # the streams whose failures were raised

    async def __aenter__(self) -> Self:
        if self._entered or self._closed:
            raise IOStateError("an Attachment is used once; call attach() for another one")
        self._entered = True
        try:
            await anyio.lowlevel.checkpoint()
            self._open()
            self._group = anyio.create_task_group()
            await self._group.__aenter__()  # which does not wait
        except BaseException:
            self.close()
            raise
        if self._stdin is not None:
            self._group.start_soon(self._stdin.give)
            self._group.start_soon(self._stdin.take)
        if self._cancelled:
            self.cancel()
        return self

    def _open(self) -> None:
        """Open everything but stdin's FIFO, what can be refused first."""
        handles: dict[str, FifoHandle] = {}
        try:
            outlets: dict[int, Outlet] = {}  # two streams may share a sink
            for stream, destination in self._destinations.items():
                outlet = outlets.get(id(destination))
                if outlet is None or not isinstance(destination, Sink):
                    outlet = outlets[id(destination)] = Outlet(destination)
                self._outputs.append(Output(stream, outlet))
            for stream, path in self._paths.items():
                handles[stream] = FifoHandle(path)
            _check_apart(handles)
            if self._source is not None:
                source = open_input(self._source)
                self._stdin = StdinRelay(
                    handles.pop("stdin"),
                    source,
                    keys=self._keys,
                    on_detach=self._detach,
                    on_end=self._stdin_ended.set,
                    on_change=self._bell.ring,
                )
            for output in self._outputs:
                output.open(handles[output.stream], self._hub, self._bell.ring)
        finally:
            for handle in handles.values():
                handle.close()

    # -- until the end ------------------------------------------------------------------

    @property
    def stdin_ended(self) -> anyio.Event:
        """Set when all that the source of stdin had is in the FIFO, and the FIFO is closed.

        That is no end of input for the process, for which another client may come: the shim
        has to be told (``CloseIO``).
        """
        return self._stdin_ended

    @property
    def detached(self) -> bool:
        """Whether the detach keys were typed."""
        return self._detached

    async def wait(self) -> None:
        """Wait until every output has ended and has reached its sink.

        An output ends when the shim closes it, when the attachment is cancelled, and when
        the detach keys are typed.

        Raises:
            StreamFailedError: A sink takes nothing any more, or stdin's source or FIFO could
                not be read or opened; each failure is raised once.  The other streams go on,
                and can be waited for.
            ClosedResourceError: The attachment was closed before.
        """
        if not self._entered:
            raise IOStateError("nothing is attached yet; enter it with async with")
        await anyio.lowlevel.checkpoint()
        await self._bell.wait_for(lambda: self._closed or self._settled() or bool(self._news()))
        self._raise_failure()
        if self._cut:
            raise anyio.ClosedResourceError

    def cancel(self) -> None:
        """Begin to end: take no more of stdin, and wait for nobody to open a FIFO.

        What is in the FIFOs of output is still delivered, and :meth:`wait` returns when
        that is done; what comes behind it is for the next client.  Idempotent, never waits.
        """
        self._cancelled = True
        for output in self._outputs:
            output.cancel()
        if self._stdin is not None:
            self._stdin.cancel()

    def _detach(self) -> None:
        self._detached = True
        self.cancel()

    def close(self) -> None:
        """End at once: what was not delivered stays in the FIFOs.

        What was read and not yet taken by a sink is lost, and counted.  Idempotent, never
        waits.
        """
        if self._closed:
            return
        self._closed = True
        self._cut = not self._settled()
        for output in self._outputs:
            output.close()
        for destination in self._destinations.values():
            if isinstance(destination, Sink):  # which may not have got so far as an output
                destination.close()
        if self._stdin is not None:
            self._stdin.close()
        self._hub.close()
        self._bell.ring()

    async def aclose(self) -> None:
        """:meth:`cancel`, give the sinks their time, and :meth:`close`.

        Cancelled, it closes at once.  Idempotent.

        Raises:
            StreamFailedError: As of :meth:`wait`, if that has not raised it.
        """
        if self._closed:
            await anyio.lowlevel.checkpoint()
            return
        self.cancel()
        try:
            await anyio.lowlevel.checkpoint()
            with anyio.move_on_after(self._sink_timeout):
                await self._bell.wait_for(self._settled)
            with anyio.move_on_after(LINGER):
                await self._bell.wait_for(lambda: self._stdin is None or self._stdin.done)
        finally:
            self.close()
        self._raise_failure()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_value is not None:  # which is not to be hidden behind a sink's
            self._told.update(STREAMS)
        try:
            if exc_type is not None and not issubclass(exc_type, Exception):
                self.close()  # a cancellation: there is no time to deliver anything
            await self.aclose()
        finally:
            # The group is not told of the error, which it would wrap.
            await self._group.__aexit__(None, None, None)

    def _settled(self) -> bool:
        return all(output.ended for output in self._outputs)

    def _news(self) -> dict[str, BaseException]:
        """Failures that nobody has been told of."""
        found = {output.stream: output.error for output in self._outputs}
        found["stdin"] = None if self._stdin is None else self._stdin.error
        return {
            stream: error
            for stream, error in found.items()
            if error is not None and stream not in self._told
        }

    def _raise_failure(self) -> None:
        for stream, error in self._news().items():
            self._told.add(stream)
            raise StreamFailedError(
                f"{stream} ended early: {error}",
                stream=stream,
                result=None,
                errno=getattr(error, "errno", None) or errno.EIO,
            ) from error

    # -- what there is to see -----------------------------------------------------------

    @property
    def stats(self) -> IOStats:
        """What has moved up to now; None for a stream that is not attached."""
        moved = {
            output.stream: output.pump.stats()
            for output in self._outputs
            if output.pump is not None
        }
        if self._stdin is not None:
            moved["stdin"] = self._stdin.counters.snapshot()
        return IOStats(**moved)

    def events(self) -> AsyncIterator[IOEvent]:
        """What goes wrong on the way, as it happens; ends when the attachment is closed."""
        return self._hub.events()

    def __repr__(self) -> str:
        states = {output.stream: output.state for output in self._outputs}
        if self._stdin is not None:
            states["stdin"] = self._stdin.state
        streams = " ".join(f"{name}={states.get(name, 'none')}" for name in STREAMS)
        return f"<Attachment {self._state()} {streams}>"

    def _state(self) -> str:
        if self._closed:
            return "closed"
        if self._detached:
            return "detached"
        if self._cancelled:
            return "cancelled"
        return "attached" if self._entered else "new"


def _check_apart(handles: Mapping[str, FifoHandle]) -> None:
    # Two readers of one FIFO would get parts of it each.
    if {"stdout", "stderr"} <= handles.keys() and (
        handles["stdout"].inode == handles["stderr"].inode
    ):
        raise InvalidOptionError(
            "stdout and stderr are one FIFO; pass stdout alone, and both come there",
            option="stderr",
        )
