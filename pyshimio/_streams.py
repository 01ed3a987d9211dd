"""anyio byte streams over descriptors of our own.

They are what ``io.stdin``, ``io.stdout`` and ``io.stderr`` are while nothing copies.  A
stream that is taken over by ``copy()`` gives its descriptor to the pump and raises
:class:`~anyio.BusyResourceError` from then on.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream
from anyio.streams.file import FileStreamAttribute

from . import _sys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._fd import OwnedFd

__all__ = ("FdReceiveStream", "FdSendStream")


class _FdStream:
    """What both directions share: one task at a time, and a close that wakes it."""

    def __init__(self, fd: OwnedFd) -> None:
        self._fd = fd
        self._busy = False
        self._taken = False

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {FileStreamAttribute.fileno: self._fd.fileno}

    def _check(self) -> None:
        if self._taken:
            raise anyio.BusyResourceError("using (it is being copied)")
        if self._fd.closed:
            raise anyio.ClosedResourceError
        if self._busy:
            raise anyio.BusyResourceError("using")

    def take(self) -> OwnedFd:
        """Give the descriptor to a pump.

        Raises:
            BusyResourceError: A task is using the stream, or a pump has it already.
            ClosedResourceError: It is closed.
        """
        self._check()
        self._taken = True
        return self._fd

    def close(self) -> None:
        """Close the descriptor and wake whoever waits for it.  Idempotent, never waits."""
        if not self._fd.closed and not self._taken:
            if self._busy:
                anyio.notify_closing(self._fd.fileno())
            self._fd.close()

    async def aclose(self) -> None:
        self.close()
        await anyio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        state = "being copied" if self._taken else "closed" if self._fd.closed else "open"
        return f"<{type(self).__name__} {state}>"


class FdReceiveStream(_FdStream, ByteReceiveStream):
    """Receives from a non-blocking descriptor; the end of a terminal (EIO) is an end."""

    def _read(self, max_bytes: int) -> bytes | None:
        """What is there; None when there is nothing now; or the end is raised."""
        try:
            if data := _sys.read(self._fd.fileno(), max_bytes):
                return data
        except BlockingIOError:
            return None
        raise anyio.EndOfStream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Up to *max_bytes* bytes, at least one; :class:`~anyio.EndOfStream` at the end."""
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be a positive integer, not {max_bytes!r}")
        # The one checkpoint comes first: a cancellation behind the read would lose what was read.
        await anyio.lowlevel.checkpoint()
        self._check()
        self._busy = True
        try:
            while True:
                if (data := self._read(max_bytes)) is not None:
                    return data
                await anyio.wait_readable(self._fd.fileno())
        except OSError as error:
            if error.errno == errno.EIO and _sys.isatty(self._fd.fileno()):
                raise anyio.EndOfStream from None
            if error.errno == errno.EBADF:
                raise anyio.ClosedResourceError from None
            raise anyio.BrokenResourceError from error
        finally:
            self._busy = False


class FdSendStream(_FdStream, ByteSendStream):
    """Sends to a non-blocking descriptor."""

    def _on_sent(self, part: memoryview) -> None:
        """*part* is on its way, whatever becomes of the rest."""

    async def send(self, item: bytes) -> None:
        """Send all of *item*.

        A cancelled send stops after what the pipe has taken by then.

        Raises:
            BrokenResourceError: Nobody reads any more.
        """
        view = memoryview(item).cast("B")
        await anyio.lowlevel.checkpoint()
        self._check()
        self._busy = True
        try:
            while view:
                try:
                    count = _sys.write(self._fd.fileno(), view)
                    self._on_sent(view[:count])
                    view = view[count:]
                except BlockingIOError:
                    await anyio.wait_writable(self._fd.fileno())
        except OSError as error:
            if error.errno == errno.EBADF:
                raise anyio.ClosedResourceError from None
            raise anyio.BrokenResourceError from error
        finally:
            self._busy = False
