"""A terminal's master, and the streams and sinks it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from .. import _sys
from .._fd import OwnedFd, duplicate
from .._sink import DescriptorSink
from .._source import PipeSource, TerminalSource
from .._streams import FdReceiveStream, FdSendStream
from ..errors import InvalidOptionError, NotATerminalError
from ._owner import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from .._stdio import Stdio
    from ._base import BaseIO
    from ._owner import Chown

__all__ = ("Console", "TerminalSink", "TypedEnd", "check_size")

MOST = 0xFFFF
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
            _check_terminal(self._fd)
            _sys.set_nonblocking(self._fd.fileno())
            # One number for each direction: an epoll has room for one entry per number.
            self._input = duplicate(self._fd)
        except BaseException:
            self._fd.close()
            raise
        self.hangup: anyio.Event = anyio.Event()
        """Set when whoever reads (a task or a copy) finds that nobody has the slave open any
        more, for the first time."""
        self._receive = _Screen(self._fd, on_hangup=self.hangup.set)
        self._send = _Keyboard(self._input)
        self.before_close: Callable[[], None] = _nothing
        """For the IO that copies: its pumps must leave the poller before a number is reused."""

    @classmethod
    def open(
        cls, *, uid: int = -1, gid: int = -1, chown: Chown = "strict"
    ) -> tuple[Console, OwnedFd]:
        """A new terminal: the console and its slave, which the caller closes.

        Args:
            uid: Owns the slave; -1 leaves it as it is.
            gid: The same for its group.
            chown: ``"try"`` goes on when the kernel refuses.

        Raises:
            ChownError: The kernel refuses to give it to them.
            InvalidOptionError: A number is no id, or there is no such *chown*.
        """
        owner = Owner(uid, gid, chown)
        master, slave = (OwnedFd(fd) for fd in _sys.openpty())
        try:
            owner.give(slave, "the terminal")
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
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._fd.closed

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return _sys.get_window_size(self._fd.fileno())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; the foreground processes get SIGWINCH.

        Raises:
            InvalidOptionError: A number is not 0 to 65,535.
        """
        check_size(rows, columns)
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
            An IO that owns this console from now on; ``drain()`` and ``aclose()`` it.
        """
        from .create import create_io  # noqa: PLC0415 - the factory knows the consoles

        io = await create_io(attrs.evolve(stdio, terminal=True), console=self, **options)  # type: ignore[arg-type]
        await io.copy()
        return io

    # -- for the pumps ----------------------------------------------------------------------

    def source(self, *, controls: bool = False) -> TerminalSource:
        """The slave's output as a pump's source; see there for *controls*."""
        fd = self._receive.take()
        return TerminalSource(fd, on_hangup=self.hangup.set, controls=controls)

    def sink(self) -> TerminalSink:
        """The slave's input as a pump's sink."""
        return TerminalSink(self._send.take(), last=self._send.last)

    def close(self) -> None:
        """Close the master: processes on the slave get SIGHUP.  Idempotent, never waits."""
        self.before_close()
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
        if self.closed:
            return "<Console closed>"
        rows, columns = self.size
        return f"<Console open {rows}x{columns}>"


class _Screen(FdReceiveStream):
    """The slave's output for a task; its end is the terminal's hang-up."""

    def __init__(self, fd: OwnedFd, *, on_hangup: Callable[[], None]) -> None:
        super().__init__(fd)
        self._on_hangup = on_hangup

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            return await super().receive(max_bytes)
        except anyio.EndOfStream:
            self._on_hangup()
            raise


class _Keyboard(FdSendStream):
    """The slave's input for a task; knows whether a line was left unfinished."""

    last = b""

    def _on_sent(self, part: memoryview) -> None:
        self.last = bytes(part[-1:]) or self.last


class TerminalSink(DescriptorSink):
    """Input of a terminal, in bites that it takes, and with an end that it knows.

    Args:
        fd: Owned.
        last: The last byte that was typed before.
    """

    def __init__(self, fd: OwnedFd, *, last: bytes = b"") -> None:
        super().__init__(fd)
        self._last = last

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        views = (memoryview(buffer) for buffer in buffers)
        view = next((view for view in views if view), memoryview(b""))[:LINE]
        count = super().write([view])
        if count:
            self._last = bytes(view[count - 1 : count])
        return count

    def end_characters(self) -> bytes:
        """What ends the input: the end-of-input character, twice when a line is unfinished.

        The first one then only hands over the unfinished line.  A terminal that does not
        assemble lines has no such character.
        """
        midline = self._last not in {b"", *_sys.line_ends(self.fd.fileno())}
        return _sys.eof_character(self.fd.fileno()) * (2 if midline else 1)


class TypedEnd(PipeSource):
    """A pipe or FIFO that, at its end, types a terminal's end of input.

    As bytes of the stream they wait, like all others, until the terminal has room.
    """

    def __init__(self, fd: OwnedFd, sink: TerminalSink, *, lines: bool) -> None:
        super().__init__(fd, lines=lines)
        self._sink = sink
        self._typed = False

    def read(self, size: int) -> bytes | None:
        data = super().read(size)
        if data == b"" and not self._typed:
            self._typed = True
            return self._sink.end_characters()
        return data

    def emptied_by(self, got: int, size: int) -> bool:
        return not self._typed and super().emptied_by(got, size)


def _check_terminal(fd: OwnedFd) -> None:
    if not _sys.isatty(fd.fileno()):
        raise NotATerminalError("a Console needs the master of a terminal")


def check_size(rows: int, columns: int) -> None:
    """Raise for a size that no terminal can have."""
    if not (0 <= rows <= MOST and 0 <= columns <= MOST):
        raise InvalidOptionError(
            f"a terminal has 0 to {MOST} rows and columns, not {rows!r} and {columns!r}",
            option="size",
        )


def _nothing() -> None:
    pass
