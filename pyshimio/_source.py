"""Where a stream's bytes come from: a pipe (or FIFO), or the master of a terminal."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from . import _sys

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._fd import OwnedFd

__all__ = ("PipeSource", "Source", "TerminalSource")


class Source:
    """A non-blocking descriptor to read from; owned.

    Args:
        fd: Its description is this process's alone.
    """

    spliceable = False

    def __init__(self, fd: OwnedFd) -> None:
        self.fd = fd
        self.hung_up: bool = False

    def hang_up(self) -> None:
        """The last writer has gone (a terminal's may come back)."""
        self.hung_up = True

    def read(self, size: int) -> bytes | None:
        """Up to *size* bytes; ``b""`` at the end; None when there is nothing now."""
        try:
            return _sys.read(self.fd.fileno(), size)
        except BlockingIOError:
            return None

    def readinto(self, buffer: memoryview) -> int | None:
        """The same into *buffer*, from any thread; the count, 0 at the end, None for nothing."""
        with self.fd.lend() as fd:
            try:
                return _sys.readv(fd, [buffer])
            except BlockingIOError:
                return None

    def wait(self, timeout: float) -> bool:
        """Whether there are bytes, or an end, within *timeout* seconds; from a thread."""
        with self.fd.lend() as fd:
            return _sys.wait_readable(fd, timeout)

    def emptied_by(self, got: int, size: int) -> bool:
        """Whether reading *got* of *size* bytes shows that nothing is left for now."""
        raise NotImplementedError

    def waiting(self) -> int | None:
        """Bytes that can be read now; None where the kernel does not know."""
        raise NotImplementedError

    def expect_end(self) -> bool:
        """The process has exited; whether that makes an end of what was none before."""
        return False

    def holders(self) -> bool:
        """Whether anybody can still write into it."""
        return not _sys.poll_now(self.fd.fileno()) & _sys.EPOLLHUP

    def close(self) -> None:
        """Close it; writers get EPIPE from here on.  Idempotent."""
        self.fd.close()


class PipeSource(Source):
    """The read end of a pipe or FIFO; or a terminal, whose other side types.

    Args:
        fd: Its description is this process's alone.
        lines: It is a terminal: it has no size to change, and each read gets one line, although
            more may wait.

    Attributes:
        over: What is there is the last, although somebody could still write.
    """

    over: bool = False

    def __init__(self, fd: OwnedFd, *, lines: bool = False) -> None:
        super().__init__(fd)
        self.spliceable = not lines
        self._lines = lines

    def read(self, size: int) -> bytes | None:
        data = super().read(size)
        return b"" if data is None and self.over else data

    def emptied_by(self, got: int, size: int) -> bool:
        # pipe_read() goes on from buffer to buffer until it has what was asked for or the pipe
        # is empty; a signal ends its sleep only, and we never sleep.  (Splices may stop
        # earlier, so they ask again.)  Every write after a read that came back short makes an
        # edge of its own, but the last writer's goodbye may have made its edge already.
        return got < size and not self.hung_up and not self._lines

    def waiting(self) -> int:
        return _sys.unread(self.fd.fileno())


class TerminalSource(Source):
    """The master of a terminal.

    It answers EIO while nobody has the slave open, which is no end: a slave may be opened
    again (systemd, ``exec``).  FIONREAD lags on a master, and a short read proves nothing.

    When the leader of the session that it controls exits, every descriptor of the slave is
    dead, but as long as somebody holds one the master hears nothing of it.

    Args:
        fd: The master; owned.
        on_hangup: Called when nobody has the slave open any more.
        controls: The terminal controls the session of the process that is waited for, even
            if that has ended already.
    """

    def __init__(
        self, fd: OwnedFd, *, on_hangup: Callable[[], None], controls: bool = False
    ) -> None:
        super().__init__(fd)
        self._on_hangup = on_hangup
        self._controls = controls or _sys.has_session(fd.fileno())
        self._none: bytes | None = None  # what stands for "nothing now"
        self._hung: bytes | None = None  # and for "nobody has the slave open"

    def hang_up(self) -> None:
        super().hang_up()
        self._on_hangup()

    def read(self, size: int) -> bytes | None:
        try:
            data = super().read(size)
        except OSError as error:
            if error.errno == errno.EIO:
                return self._hung
            raise
        return self._none if data is None else data

    def readinto(self, buffer: memoryview) -> int | None:
        try:
            count = super().readinto(buffer)
        except OSError as error:
            if error.errno == errno.EIO:
                return None if self._hung is None else 0
            raise
        return 0 if count is None and self._none is not None else count

    def expect_end(self) -> bool:
        self._hung = b""
        if self._controls and not _sys.has_session(self.fd.fileno()):
            self._none = b""
        return True

    def emptied_by(self, got: int, size: int) -> bool:
        del got, size
        return False

    def waiting(self) -> None:
        return None
