"""A terminal's master, and the streams and sinks it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from .. import _sys
from .._fd import OwnedFd, duplicate
from .._sink import DescriptorSink
from .._source import TerminalSource
from .._streams import FdReceiveStream, FdSendStream
from ..errors import NotATerminalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Buffer, Self

    from ._base import BaseIO
    from .._stdio import Stdio

__all__ = ("Console", "TerminalSink")

LINE = 4095
"""What a terminal that assembles lines takes without a newline."""


class Console:
    """The master of a terminal whose slave is somebody's stdio.

    Args:
        fd: Owned from here on; it becomes non-blocking, so nobody else may be reading it.

    Raises:
        NotATerminalError: It is none.
    """

    def __init__(self, fd: OwnedFd | int) -> None:
        self._fd = fd if isinstance(fd, OwnedFd) else OwnedFd(fd)
        try:
            if not _sys.isatty(self._fd.fileno()):
                raise NotATerminalError("a Console needs the master of a terminal")
            _sys.set_nonblocking(self._fd.fileno())
            # One number for each direction: an epoll has room for one entry per number.
            self._input = duplicate(self._fd)
        except BaseException:
            self._fd.close()
            raise
        self.hangup = anyio.Event()
        """Set when nobody has the slave open any more (for the first time)."""
        self._receive = FdReceiveStream(self._fd)
        self._send = FdSendStream(self._input)

    @classmethod
    def open(cls, *, uid: int = -1, gid: int = -1) -> tuple[Console, OwnedFd]:
        """A new terminal: the console and its slave, which the caller closes.

        Args:
            uid, gid: Own the slave.
        """
        master, slave = (OwnedFd(fd) for fd in _sys.openpty())
        try:
            if (uid, gid) != (-1, -1):
                _sys.fchown(slave.fileno(), uid, gid)
            return cls(master), slave
        except BaseException:
            master.close()
            slave.close()
            raise

    def fileno(self) -> int:
        """The master; it stays this object's."""
        return self._fd.fileno()

    @property
    def stdout(self) -> FdReceiveStream:
        """What the slave's side writes, until a copy takes it."""
        return self._receive

    @property
    def stdin(self) -> FdSendStream:
        """What the slave's side reads, until a copy takes it."""
        return self._send

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return _sys.get_window_size(self._fd.fileno())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; the foreground processes get SIGWINCH."""
        _sys.set_window_size(self._fd.fileno(), rows, columns)

    def set_raw(self) -> None:
        """Raw mode as containerd has it (``cfmakeraw``, but output is still processed)."""
        _sys.set_raw(self._fd.fileno())

    async def copy(self, stdio: Stdio, **options: object) -> BaseIO:
        """Copy to and from the destinations of *stdio*.

        Args:
            stdio: ``stdin`` and ``stdout``; a terminal has no stderr.
            options: As for :func:`create_io`.

        Returns:
            An IO that owns this console from now on: ``drain()`` and ``aclose()`` it.
        """
        from .create import create_io  # noqa: PLC0415 - the factory knows the consoles

        io = await create_io(attrs.evolve(stdio, terminal=True), console=self, **options)  # type: ignore[arg-type]
        await io.copy()
        return io

    # -- for the pumps ----------------------------------------------------------------------

    def source(self) -> TerminalSource:
        """The slave's output as a pump's source."""
        return TerminalSource(self._receive.take(), on_hangup=self.hangup.set)

    def sink(self) -> TerminalSink:
        """The slave's input as a pump's sink."""
        return TerminalSink(self._send.take())

    def close(self) -> None:
        """Close the master: processes on the slave get SIGHUP.  Idempotent, never waits."""
        for stream, fd in ((self._receive, self._fd), (self._send, self._input)):
            stream.close()
            fd.close()

    async def aclose(self) -> None:
        """The same."""
        self.close()
        await anyio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._fd.closed:
            return "<Console closed>"
        rows, columns = self.size
        return f"<Console open {rows}x{columns}>"


class TerminalSink(DescriptorSink):
    """Input of a terminal, in bites that it takes, and with an end that it knows."""

    def __init__(self, fd: OwnedFd) -> None:
        super().__init__(fd)
        self._midline = False

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        view = memoryview(buffers[0])[:LINE]
        count = super().write([view])
        if count:
            self._midline = view[count - 1] not in b"\r\n"
        return count

    def send_eof(self) -> None:
        """Type the end-of-input character: a second time when a line is unfinished.

        The first one then only hands over the unfinished line.  A terminal that does not
        assemble lines has no such character, and nothing is sent.
        """
        character = _sys.eof_character(self.fd.fileno())
        if character:
            super().write([character * (2 if self._midline else 1)])


