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
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from . import _sys
from ._fd import OwnedFd
from ._pipesize import SharedGrowth
from ._sink import PipeSink
from .errors import DestinationError, FifoNotFoundError, FifoTimeoutError, NotAFifoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._poller import Poller, Timer

__all__ = ("FifoHandle", "FifoSink", "FifoSource", "KeepAlive")

PROBE_FIRST, PROBE_LAST = 0.001, 0.05
MARKS = 1 << 61
"""Where the bytes begin that a keep-alive signs, see :func:`~pyshimio._sys.mark`."""
LOOKS = 100
"""How often it is asked, 1 ms apart, who reads a FIFO, before a copy of our reader is that."""


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
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        path = self.path
        try:
            status = _sys.fstat(self._fd.fileno())
        except OSError as error:
            raise DestinationError(
                f"cannot look at {path!r}: {error.strerror}", path=path, errno=error.errno
            ) from error
        self.inode: tuple[int, int] = (status.st_dev, status.st_ino)
        """What tells two FIFOs apart, whatever they are called."""
        if not _sys.is_fifo(status.st_mode):
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


class KeepAlive:
    """The reader of ours that keeps an output FIFO alive; never read.

    Two streams that go to one FIFO share it.  With one each, they would take each other's
    for a client.
    """

    def __init__(self) -> None:
        self.growth: SharedGrowth = SharedGrowth()
        self._reader: OwnedFd | None = None
        self._sinks: list[FifoSink] = []
        # Another IO's keep-alive is not a copy of this one: with it, nothing is abandoned yet.
        self._sign = MARKS + random.getrandbits(60)

    def join(self, sink: FifoSink, handle: FifoHandle) -> None:
        """Keep the FIFO alive for one more sink."""
        if not self._sinks:
            self._hold(handle.open_reader())
        self._sinks.append(sink)

    def _hold(self, reader: OwnedFd) -> None:
        self._reader = reader
        with suppress(OSError):  # a file system without locks: copies look like clients there
            _sys.mark(reader.fileno(), self._sign)

    def leave(self, sink: FifoSink) -> None:
        """One sink less; with the last one the reader is closed.  Idempotent."""
        if sink in self._sinks:
            self._sinks.remove(sink)
            if not self._sinks and self._reader is not None:
                self._reader.close()

    def speaks_for(self, sink: FifoSink) -> bool:
        """Whether *sink* is the one to report what the FIFO holds for all of them."""
        return self._sinks[:1] == [sink]

    def step_aside(self, writer: OwnedFd) -> bool | None:
        """Whether anybody else has the FIFO open for reading, asked through *writer*.

        The kernel does not count readers for us, but it says EPOLLERR to a writer that has
        none.  So our own reader closes for a moment: the writer keeps what is in the FIFO,
        and nothing is written meanwhile, because we are the one who would.

        Returns:
            None when that cannot be told now: a child that is just being started has copies of
            all our descriptors until its exec has closed them, which is after it has let us go
            on (25 ms after it with a thousand descriptors).
        """
        if self._reader is not None:
            self._reader.close()
        try:
            if self._unread_by_all(writer):
                return False
            if self._copied(writer):
                return None
            # The last copy may have gone between the two looks.
            return not self._unread_by_all(writer)
        finally:
            # Somebody may have taken the number, the last one.  Then the writer alone keeps
            # what is there, and mend() is called when a reader is missed.
            self.mend(writer)

    def _unread_by_all(self, writer: OwnedFd) -> bool:
        return bool(_sys.poll_now(writer.fileno()) & _sys.EPOLLERR)

    def _copied(self, writer: OwnedFd) -> bool:
        """Whether somebody has a copy of a reader of ours."""
        try:
            return _sys.marked(writer.fileno(), self._sign)
        except OSError:
            return False  # a file system without locks, see _hold()

    def mend(self, writer: OwnedFd) -> bool:
        """Open the reader again if it could not be when we stepped aside; whether it was."""
        if not self._sinks or self._reader is None or not self._reader.closed:
            return False
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK
            self._hold(OwnedFd(_sys.reopen(writer.fileno(), flags)))
        except OSError:
            return False
        return True


class FifoSink(PipeSink):
    """Both ends of an output FIFO: ours to write, and the reader that keeps it alive.

    Args:
        handle: Open for reading somewhere, or *keep* is; stays the caller's.
        writer: The end that bytes go into; owned.
        keep: Shared by the streams that go to the same FIFO.
    """

    def __init__(self, handle: FifoHandle, writer: OwnedFd, keep: KeepAlive) -> None:
        super().__init__(writer, shared=keep.growth)
        self.path = handle.path
        self._keep = keep
        self._timer: Timer | None = None
        self._attached = False
        try:
            keep.join(self, handle)
        except BaseException:
            writer.close()
            raise

    @classmethod
    def open_now(cls, handle: FifoHandle, keep: KeepAlive) -> FifoSink:
        """Open both ends although no client may be there yet."""
        reader = handle.open_reader()  # a writer needs one, until the keep-alive is there
        try:
            writer = handle.open_writer()
            assert writer is not None
            return cls(handle, writer, keep)
        finally:
            reader.close()

    @classmethod
    async def open(cls, handle: FifoHandle, keep: KeepAlive, timeout: float | None) -> FifoSink:
        """Open both ends once a client is there."""
        return cls(handle, await handle.wait_writer(timeout), keep)

    def mend(self) -> bool:
        return self._keep.mend(self.fd)

    @property
    def speaks(self) -> bool:
        """Whether this sink reports what is in the FIFO, for the others that share it."""
        return self._keep.speaks_for(self)

    def attached(self) -> bool | None:
        """Whether anybody but us has the FIFO open for reading; None: not to be told right now.

        Once it is closed: whether anybody had it open at the end.
        """
        return self._attached if self.fd.closed else self._keep.step_aside(self.fd)

    def finish(
        self,
        poller: Poller,
        then: Callable[[], None],
        pause: float = PROBE_FIRST,
        looks: int = LOOKS,
    ) -> None:
        """No more bytes will come: give the client its EOF as soon as it has read all.

        Until then both ends stay open, so a client that dies while it reads the rest
        leaves it for the next one.
        """

        def again(pause: float, next_pause: float, looks: int) -> None:
            self._timer = poller.later(pause, lambda: self.finish(poller, then, next_pause, looks))

        if not self.fd.closed and self.unread():
            again(pause, min(pause * 2, PROBE_LAST), LOOKS)
            return
        attached = self.attached()
        if attached is None and looks:
            again(PROBE_FIRST, pause, looks - 1)
            return
        self._attached = bool(attached)
        self.close()
        then()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().close()
        self._keep.leave(self)

    def __repr__(self) -> str:
        return f"<FifoSink {self.path!r} {'closed' if self.fd.closed else 'open'}>"


class FifoSource:
    """A stdin FIFO: the end that is read, and the writer that keeps it from ending.

    Opened reader first, then writer, both at once and without blocking: opened one after
    the other in the background, as containerd/fifo does it, a ``close_stdin()`` in between
    is lost (201 of 300 runs).
    """

    def __init__(self, handle: FifoHandle) -> None:
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
