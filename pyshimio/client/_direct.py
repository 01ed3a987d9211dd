"""A process's FIFOs as streams of the caller's (``cio.NewDirectIO``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteSendStream

from .. import _sys
from .._fifo import FifoHandle
from .._stdio import Stdio
from .._streams import FdReceiveStream, FdSendStream
from ..errors import IOStateError
from ._attach import fifo_paths

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anyio.abc import ByteReceiveStream

    from ._fifo_set import FifoSet

__all__ = ("Direct", "direct")


def direct(fifos: FifoSet | Stdio) -> Direct:
    r"""The streams of a process's FIFOs, to be read and written by the caller; enter it.

    Args:
        fifos: Whose.

    Raises:
        URIError: A path is malformed.

    Example:
        ::

            async with direct(fifos) as streams:
                await streams.stdin.send(b"hello\n")
                answer = await streams.stdout.receive()
    """
    return Direct(fifo_paths(fifos if isinstance(fifos, Stdio) else fifos.stdio))


class Direct:
    """What :func:`direct` makes; use it in ``async with``, once.

    Entering opens what is read.  stdin is opened by the first ``send``, which waits for the
    shim to read it.  Reading waits for the first writer, and ends behind the last.
    """

    def __init__(self, paths: dict[str, str]) -> None:
        self._paths = paths
        self._sender: FifoSendStream | None = None
        self._receivers: dict[str, FifoReceiveStream] = {}
        self._entered = False
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._entered or self._closed:
            raise IOStateError("a Direct is used once; call direct() for another one")
        self._entered = True
        try:
            await anyio.lowlevel.checkpoint()
            for stream, path in self._paths.items():
                self._open(stream, FifoHandle(path))
        except BaseException:
            self.close()
            raise
        return self

    def _open(self, stream: str, handle: FifoHandle) -> None:
        if stream == "stdin":
            self._sender = FifoSendStream(handle)
            return
        try:
            self._receivers[stream] = FifoReceiveStream(handle.open_reader())
        finally:
            handle.close()

    @property
    def stdin(self) -> ByteSendStream | None:
        """The way to the process; None where there is no FIFO, and before the block is entered."""
        return self._sender

    @property
    def stdout(self) -> ByteReceiveStream | None:
        """What the process writes; None as for :attr:`stdin`."""
        return self._receivers.get("stdout")

    @property
    def stderr(self) -> ByteReceiveStream | None:
        """The same; a terminal has none."""
        return self._receivers.get("stderr")

    def _streams(self) -> dict[str, FifoSendStream | FifoReceiveStream]:
        sender = {} if self._sender is None else {"stdin": self._sender}
        return {**sender, **self._receivers}

    def cancel(self) -> None:
        """Wait for nobody to open a FIFO: whoever does so gets :class:`~anyio.ClosedResourceError`.

        Streams that are connected go on.  Idempotent, never waits.
        """
        for stream in self._streams().values():
            stream.cancel()

    def close(self) -> None:
        """Close all streams; what is in the FIFOs stays there.  Idempotent, never waits."""
        self._closed = True
        for stream in self._streams().values():
            stream.close()

    async def aclose(self) -> None:
        """The same."""
        self.close()
        await anyio.lowlevel.checkpoint()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._entered else "new"
        streams = (f" {name}={stream.state}" for name, stream in self._streams().items())
        return f"<Direct {state}{''.join(streams)}>"


class FifoReceiveStream(FdReceiveStream):
    """The read end of a FIFO, from before its first writer on.

    Without a writer it reads ``b""``, but only behind the last one has it hung up.
    """

    _cancelled = False
    _woken = False

    @property
    def state(self) -> str:
        """In a word."""
        return "closed" if self._fd.closed else "open"

    def _read(self, max_bytes: int) -> bytes | None:
        # Asked first: a writer may come, write and go between two looks.
        hung_up = _sys.poll_now(self._fd.fileno()) & _sys.EPOLLHUP
        try:
            return super()._read(max_bytes)
        except anyio.EndOfStream:
            if hung_up:
                raise
            if self._cancelled:
                self._fd.close()
                raise anyio.ClosedResourceError from None
            return None

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while True:
            try:
                return await super().receive(max_bytes)
            except anyio.ClosedResourceError:
                if self._fd.closed or not self._woken:
                    raise
                self._woken = False

    def cancel(self) -> None:
        """Do not wait for the first writer."""
        self._cancelled = True
        if self._busy and not self._fd.closed:
            # It looks again whether there has been one.
            self._woken = True
            anyio.notify_closing(self._fd.fileno())


class FifoSendStream(ByteSendStream):
    """The write end of a FIFO, opened when there is something to write and somebody to read.

    Args:
        handle: Owned.
    """

    def __init__(self, handle: FifoHandle) -> None:
        self._handle = handle
        self._stream: FdSendStream | None = None
        self._opening: anyio.CancelScope | None = None
        self._closed = False

    @property
    def state(self) -> str:
        """In a word."""
        return "closed" if self._closed else "waiting" if self._stream is None else "open"

    async def send(self, item: bytes) -> None:
        """Send all of *item*; the first time as soon as the FIFO is read.

        Raises:
            BrokenResourceError: Nobody reads any more.
            DestinationError: The FIFO cannot be opened.
        """
        if self._stream is None:
            await anyio.lowlevel.checkpoint()
            if self._opening is not None:
                raise anyio.BusyResourceError("using")
            await self._open()
        if self._stream is None:
            raise anyio.ClosedResourceError
        await self._stream.send(item)

    async def _open(self) -> None:
        scope = self._opening = anyio.CancelScope()
        try:
            with scope:
                if not self._closed:
                    self._stream = FdSendStream(await self._handle.wait_writer(None))
        finally:
            self._opening = None

    def cancel(self) -> None:
        """Do not wait for the FIFO to be read."""
        if self._stream is None:
            self.close()

    def close(self) -> None:
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self._stream is not None:
            self._stream.close()
        self._handle.close()

    async def aclose(self) -> None:
        self.close()
        await anyio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        return f"<FifoSendStream {self.state}>"
