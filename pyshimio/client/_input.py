"""What the caller has for a stdin FIFO: a terminal, a pipe, a file, or a stream.

What is the caller's stays as it is.  O_NONBLOCK belongs to the open file description, which
a terminal shares with the caller's shell, so a terminal and a pipe are opened anew.  What
cannot be, or has no readiness, is read by a thread.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio import CancelScope
from anyio.abc import ByteReceiveStream, ObjectReceiveStream

from .. import _sys
from .._fd import duplicate, own_description
from .._filepool import Lane
from .._poller import Poller
from .._streams import FdReceiveStream
from ..errors import InvalidOptionError

if TYPE_CHECKING:
    from anyio.abc import AnyByteReceiveStream

    from .._fd import Descriptor, OwnedFd
    from .._poller import Watch

__all__ = ("Input", "open_input")

READABLE = frozenset({os.O_RDONLY, os.O_RDWR})


class Input(Protocol):
    """Bytes; a cancelled :meth:`receive` has taken none."""

    async def receive(self, max_bytes: int) -> bytes:
        """Up to so many, at least one; :class:`~anyio.EndOfStream` at the end."""
        ...

    def close(self) -> None:
        """Give back what was opened for it, and wake whoever waits.  Idempotent."""
        ...


def open_input(source: Descriptor | AnyByteReceiveStream) -> Input:
    """What *source* has to say.

    Args:
        source: Stays the caller's.

    Raises:
        InvalidOptionError: It is a descriptor that is not open for reading.
    """
    if isinstance(source, (ByteReceiveStream, ObjectReceiveStream)):
        return _Borrowed(source)
    own = duplicate(source)
    try:
        if _sys.status_flags(own.fileno()) & (os.O_ACCMODE | os.O_PATH) not in READABLE:
            raise InvalidOptionError(  # noqa: TRY301 - it has to be closed, too
                "stdin must be open for reading, and this descriptor is not", option="stdin"
            )
        again = own_description(own, os.O_RDONLY)
        if again is None:
            return _ByThread(own)
    except BaseException:
        own.close()
        raise
    own.close()
    return FdReceiveStream(again)


class _Borrowed:
    """A stream of the caller's."""

    def __init__(self, stream: AnyByteReceiveStream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int) -> bytes:
        if isinstance(self._stream, ByteReceiveStream):
            return await self._stream.receive(max_bytes)
        return await self._stream.receive()

    def close(self) -> None:
        """It stays open."""


class _ByThread:
    """A descriptor that may block: a thread of the file pool reads it when there is something.

    Args:
        fd: Owned.
    """

    def __init__(self, fd: OwnedFd) -> None:
        self._fd = fd
        self._ready = anyio.Event()
        self._lane: Lane | None = None
        self._watch: Watch | None = None
        try:
            self._lane = Lane("an attachment's stdin")
            # Not by the loop: uvloop makes what it waits for non-blocking.
            self._watch = Poller.current().watch(
                fd.fileno(), _sys.EPOLLIN, lambda _: self._ready.set(), once=True
            )
        except PermissionError:  # a file is always ready, as far as epoll knows
            self._ready.set()
        except BaseException:
            self.close()
            raise

    async def receive(self, max_bytes: int) -> bytes:
        while True:
            await self._ready.wait()
            if self._lane is None:
                raise anyio.ClosedResourceError
            data: bytes | None = None
            # Shielded: what a thread has read would be lost.
            with CancelScope(shield=True):
                data = await self._lane.call(lambda: self._read(max_bytes), lambda _: None)
            if self._watch is not None:
                self._ready = anyio.Event()
                self._watch.arm()
            if data:
                return data
            if data is not None:
                raise anyio.EndOfStream

    def _read(self, size: int) -> bytes | None:
        """In a thread; None when somebody else was quicker, and waiting is not allowed."""
        with self._fd.lend() as fd:
            try:
                return _sys.read(fd, size)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.EIO and _sys.isatty(fd):  # it has hung up
                    return b""
                raise

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._fd.close()
        if self._lane is not None:
            self._lane.close()
            self._lane = None
        self._ready.set()
