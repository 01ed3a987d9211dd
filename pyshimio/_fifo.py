"""FIFOs opened without threads and without a blocking ``open``.

Each name is resolved once, to an O_PATH handle that was seen to be a FIFO; the real opens
go through that handle, so they reach the same inode even when the name is gone by then.

Our own second end keeps a FIFO alive while its client is away: an unread *reader* beside
the writer of an output (the child does not get EPIPE, and what is in the FIFO survives),
and an unused *writer* beside the reader of stdin (a client that detaches is no EOF).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import anyio

from . import _sys
from ._fd import OwnedFd
from ._sink import PipeSink
from .errors import DestinationError, FifoNotFoundError, FifoTimeoutError, NotAFifoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._poller import Poller, Timer

__all__ = ("FifoHandle", "FifoSink", "FifoSource")

PROBE_FIRST, PROBE_LAST = 0.001, 0.05


class FifoHandle:
    """A FIFO by inode, not yet open at either end.

    Args:
        path: Where it is; it must exist.

    Raises:
        FifoNotFoundError: Nothing is there.
        NotAFifoError: Something else is there.
        DestinationError: The kernel does not let us look.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = OwnedFd(_sys.open(path, os.O_PATH | os.O_CLOEXEC))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FifoNotFoundError(
                f"there is no FIFO at {path!r}; make it with os.mkfifo() first",
                path=path,
                errno=error.errno,
            ) from error
        except OSError as error:
            raise DestinationError(
                f"cannot look at {path!r}: {error.strerror}", path=path, errno=error.errno
            ) from error
        if not _sys.is_fifo(_sys.fstat(self._fd.fileno()).st_mode):
            self.close()
            raise NotAFifoError(
                f"{path!r} is not a FIFO; write file://{path} to append to a file there",
                path=path,
                errno=errno.ENOTSUP,
            )

    def open_reader(self) -> OwnedFd:
        """The read end, non-blocking; opens at once whether a writer is there or not."""
        return self._open(os.O_RDONLY)

    def open_writer(self) -> OwnedFd | None:
        """The write end, non-blocking; None while there is no reader."""
        try:
            return self._open(os.O_WRONLY)
        except DestinationError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    def _open(self, flags: int) -> OwnedFd:
        try:
            return OwnedFd(_sys.reopen(self._fd.fileno(), flags | os.O_NONBLOCK))
        except OSError as error:
            raise DestinationError(
                f"cannot open the FIFO {self.path!r}: {error.strerror}",
                path=self.path,
                errno=error.errno,
            ) from error

    async def wait_writer(self, timeout: float | None) -> OwnedFd:
        """The write end, as soon as a client has opened the FIFO for reading.

        Args:
            timeout: Seconds to wait for it; None waits for ever.

        Raises:
            FifoTimeoutError: No client came.
        """
        pause = PROBE_FIRST
        with anyio.move_on_after(timeout):
            while True:
                writer = self.open_writer()
                if writer is not None:
                    return writer
                await anyio.sleep(pause)
                pause = min(pause * 2, PROBE_LAST)
        raise FifoTimeoutError(
            f"no client opened the FIFO {self.path!r} for reading within {timeout} s",
            path=self.path,
            timeout=timeout,
            errno=errno.ETIMEDOUT,
        )

    def close(self) -> None:
        """Let go of the inode.  Idempotent."""
        self._fd.close()


class FifoSink(PipeSink):
    """Both ends of an output FIFO: ours to write, and the reader that keeps it alive.

    Args:
        path: For messages.
        writer: The end that bytes go into.
        keep: A read end of ours that is never read.
    """

    def __init__(self, path: str, writer: OwnedFd, keep: OwnedFd) -> None:
        super().__init__(writer)
        self.path = path
        self._keep = keep
        self._timer: Timer | None = None
        self._attached = False

    @classmethod
    def open_now(cls, handle: FifoHandle) -> FifoSink:
        """Open both ends although no client may be there yet."""
        keep = handle.open_reader()
        try:
            writer = handle.open_writer()
            assert writer is not None  # a reader exists: ours
        except BaseException:
            keep.close()
            raise
        return cls(handle.path, writer, keep)

    @classmethod
    async def open(cls, handle: FifoHandle, timeout: float | None) -> FifoSink:
        """Open both ends once a client is there."""
        writer = await handle.wait_writer(timeout)
        try:
            keep = handle.open_reader()
        except BaseException:
            writer.close()
            raise
        return cls(handle.path, writer, keep)

    def attached(self) -> bool:
        """Whether anybody but us has the FIFO open for reading.

        The kernel does not count readers for us, but it says EPOLLERR to a writer that has
        none.  So our own reader steps aside for a moment: the writer keeps what is in the
        FIFO, and nothing is written meanwhile, because we are the one who would.

        Once it is closed: whether anybody had it open at the end.
        """
        if self.fd.closed:
            return self._attached
        self._keep.close()
        try:
            return not _sys.poll_now(self.fd.fileno()) & _sys.EPOLLERR
        finally:
            self._keep = OwnedFd(_sys.reopen(self.fd.fileno(), os.O_RDONLY | os.O_NONBLOCK))

    def finish(self, poller: Poller, then: Callable[[], None], pause: float = PROBE_FIRST) -> None:
        """No more bytes will come: give the client its EOF as soon as it has read all.

        Until then both ends stay open, so a client that dies while it reads the rest
        leaves it for the next one.
        """
        if self.fd.closed or not self.unread():
            self._attached = self.attached()
            self.close()
            then()
            return
        self._timer = poller.later(
            pause, lambda: self.finish(poller, then, min(pause * 2, PROBE_LAST))
        )

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().close()
        self._keep.close()

    def __repr__(self) -> str:
        return f"<FifoSink {self.path!r} {'closed' if self.fd.closed else 'open'}>"


class FifoSource:
    """A stdin FIFO: the end that is read, and the writer that keeps it from ending.

    Opened reader first, then writer, both at once and without blocking: opened one after
    the other in the background, as containerd/fifo does it, a ``close_stdin()`` in between
    is lost (201 of 300 runs).
    """

    def __init__(self, handle: FifoHandle) -> None:
        self.path = handle.path
        self.reader = handle.open_reader()
        try:
            keep = handle.open_writer()
            assert keep is not None  # a reader exists: ours
        except BaseException:
            self.reader.close()
            raise
        self._keep = keep

    def end(self) -> None:
        """Drop the keep-alive writer: EOF follows when clients are gone and all is read."""
        self._keep.close()

    def close(self) -> None:
        """Close both ends.  Idempotent."""
        self._keep.close()
        self.reader.close()
