"""Terminals under the protocol that every IO has."""

from __future__ import annotations

import stat
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from .. import _sys
from .._command import Command
from .._fd import OwnedFd
from .._poller import Poller
from .._pump import LoopPump
from .._source import PipeSource, Source
from ..errors import InvalidOptionError, IOStateError
from ._base import GRACE
from ._console import Console, TerminalSink, TypedEnd, check_size
from ._console_socket import ConsoleSocket
from ._feed import Feed
from ._logged import LoggedIO
from ._owner import Owner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyio.abc import ByteReceiveStream, ByteSendStream

    from .._fifo import FifoHandle
    from .._process import Process
    from ._outlet import Outlet
    from ._owner import Chown

__all__ = ("Console", "ConsoleIO", "ConsoleSocket", "StdinEOF")

RUNTIMES = frozenset({"runc", "crun", "youki", "runsc", "pyshimio-fake-runc"})

StdinEOF = Literal["eof_char", "hangup", "ignore"]


class ConsoleIO(LoggedIO):
    """A terminal as a process's stdio.

    With an OCI runtime's command the terminal is the container's, and its master comes
    through a :class:`ConsoleSocket`; with any other one it is a new one that controls the
    child's session.  Without destinations :attr:`stdin` and :attr:`stdout` are the caller's.

    Args:
        uid, gid, chown: Own a new terminal's slave, as for :class:`PipeIO`; a runtime sees to a
            container's itself.
        runtime: Whether commands are a runtime's; None looks at the program's name
            (runc, crun, youki, runsc).
        console: A console that exists already; owned from here on.
        stdin_eof: What the end of a stdin FIFO means: ``"eof_char"`` types the terminal's
            end-of-input character, ``"hangup"`` closes the master as containerd does (the
            session gets SIGHUP), ``"ignore"`` does nothing.
        size: (rows, columns) of a new terminal.
        timeout: Seconds for the runtime to send the terminal.
        grace, on_exit: As for :class:`PipeIO`.
    """

    def __init__(
        self,
        uid: int = -1,
        gid: int = -1,
        *,
        runtime: bool | None = None,
        console: Console | None = None,
        stdin_eof: StdinEOF = "eof_char",
        size: tuple[int, int] | None = None,
        timeout: float | None = 30.0,
        chown: Chown = "strict",
        grace: float = GRACE,
        on_exit: Literal["kill", "leave"] = "kill",
    ) -> None:
        super().__init__(grace=grace, on_exit=on_exit)
        if stdin_eof not in {"eof_char", "hangup", "ignore"}:
            raise InvalidOptionError(
                f'stdin_eof is "eof_char", "hangup" or "ignore", not {stdin_eof!r}',
                option="stdin_eof",
            )
        if size is not None:
            check_size(*size)
        self._owner = Owner(uid, gid, chown)
        if runtime is False and console is None:
            self._try_owner()
        self._runtime = runtime
        self._stdin_eof = stdin_eof
        self._size = size
        self._timeout = timeout
        self._socket: ConsoleSocket | None = None
        self._slave: OwnedFd | None = None
        self._stdin_file: OwnedFd | None = None
        self._feed: Feed | None = None
        self._device: PipeSource | None = None
        self._controls = False
        self._runtime_process: Process | None = None
        self.console: Console | None = None
        """The terminal, once it is there."""
        if console is not None:
            self._adopt(console)

    def _try_owner(self) -> None:
        """Hear now, with a pipe, that the terminal could not be given to its owner later."""
        if self._owner != Owner():
            reader, writer = (OwnedFd(fd) for fd in _sys.pipe())
            try:
                self._owner.give(reader, "a terminal")
            finally:
                reader.close()
                writer.close()

    def _adopt(self, console: Console) -> None:
        self.console = console
        console.before_close = self._end_pumps

    def bind(self, outlets: Mapping[str, Outlet], stdin: FifoHandle | OwnedFd | None) -> None:
        """Say where the screen goes and typing comes from; what is bound is owned.

        For :func:`create_io`.
        """
        self._outlets.update(outlets)
        if isinstance(stdin, OwnedFd):
            self._stdin_file = stdin
        elif stdin is not None:
            self._stdin_fifo = stdin

    @property
    def stdin(self) -> ByteSendStream | None:
        """Typing, where the caller is the one to type."""
        if self.console is None or self._stdin_fifo is not None or self._stdin_file is not None:
            return None
        return self.console.stdin

    @property
    def stdout(self) -> ByteReceiveStream | None:
        """The screen, where the caller is the one to look."""
        if self.console is None or "stdout" in self._outlets:
            return None
        return self.console.stdout

    # -- before and at the start of the child -------------------------------------------

    def set(self, command: Command) -> None:
        """Give *command* a terminal, or have its runtime send the container's."""
        self._check_free()
        if self._is_runtime(command):
            self._socket = ConsoleSocket.temp()
            try:
                self._socket.set(command)
            except BaseException:
                self._socket.close()
                self._socket = None
                raise
        else:
            command.set_terminal(self._new_terminal())
            self._controls = True

    def child_fds(self) -> dict[int, int]:
        """The slave three times; the child has to make it its controlling terminal itself."""
        self._check_open()
        if self._slave is None:
            self._check_free()
            self._new_terminal()
        assert self._slave is not None
        if self._slave.closed:
            raise IOStateError("the child's end is closed; call child_fds() before that")
        return dict.fromkeys(range(3), self._slave.fileno())

    def _check_free(self) -> None:
        self._check_open()
        if self.console is not None or self._socket is not None:
            raise IOStateError("this ConsoleIO has a terminal already; one IO serves one process")

    def _is_runtime(self, command: Command) -> bool:
        if self._runtime is not None:
            return self._runtime
        return PurePath(command.args[0]).name in RUNTIMES

    def _new_terminal(self) -> OwnedFd:
        owner = self._owner
        console, self._slave = Console.open(uid=owner.uid, gid=owner.gid, chown=owner.policy)
        self._adopt(console)
        if self._size is not None:
            console.resize(*self._size)
        return self._slave

    def close_after_start(self) -> None:
        """Give back the slave, so that the terminal can hang up.  Idempotent, never waits."""
        if self._slave is not None:
            self._slave.close()

    def _own(self, process: Process) -> None:
        super()._own(process)
        self._runtime_process = process

    # -- moving bytes -------------------------------------------------------------------

    async def copy(self) -> None:
        """Receive the terminal if a runtime sends it, open the destinations, and copy.

        Raises:
            ConsoleError: The runtime sent no terminal.
            FifoTimeoutError: A client did not come.
        """
        self._check_open()
        if self.console is None and self._socket is None:
            raise IOStateError("there is no terminal yet; call set(command) first")
        try:
            await self._receive()
        except BaseException:
            await self.discard()
            raise
        await super().copy()

    async def spawn(self, command: Command | Sequence[str]) -> Process:
        """As :meth:`PipeIO.spawn`; a runtime's terminal has arrived when it returns."""
        command = command if isinstance(command, Command) else Command(command)
        if self._runtime is None and not self._is_runtime(command):
            try:
                self._try_owner()
            except BaseException:
                command.close()
                await self.discard()
                raise
        process = await super().spawn(command)
        if self._socket is not None:
            try:
                await self._receive()
                self._start_pumps()
            except BaseException:
                await self.discard()
                raise
        return process

    async def _receive(self) -> None:
        if self.console is None:
            assert self._socket is not None
            console = await self._socket.receive(self._timeout, runtime=self._runtime_process)
            self._adopt(console)
            self._socket.close()
            if self._size is not None:
                console.resize(*self._size)

    def _source(self, stream: str) -> Source:
        del stream
        assert self.console is not None
        return self.console.source(controls=self._controls)

    def _start_pumps(self) -> None:
        console = self.console
        if console is None:  # a runtime is to send it yet
            return
        super()._start_pumps()
        if self._inlet is not None:
            self._copy_typing(self._inlet.reader)
        elif self._stdin_closed:
            self._end_typing()
        elif self._stdin_file is not None:
            self._copy_file(self._stdin_file)

    def _copy_file(self, file: OwnedFd) -> None:
        status = _sys.fstat(file.fileno())
        if stat.S_ISCHR(status.st_mode) and not _sys.never_blocks(status):
            _sys.set_nonblocking(file.fileno())  # a terminal, in a description of our own
            self._device = self._copy_typing(file, lines=True)
        else:
            self._feed = Feed(file)
            self._copy_typing(self._feed.reader)

    def _copy_typing(self, reader: OwnedFd, *, lines: bool = False) -> PipeSource:
        assert self.console is not None
        try:
            sink = self.console.sink()
        except BaseException:
            reader.close()  # else it is the pump's, which ends with this IO
            raise
        typed = self._stdin_eof == "eof_char"
        source = TypedEnd(reader, sink, lines=lines) if typed else PipeSource(reader, lines=lines)
        pump = self._pumps["stdin"] = LoopPump(
            "stdin",
            source,
            sink,
            poller=Poller.current(),
            hub=self._hub,
            then=lambda: self._stdin_ended(sink),
        )
        pump.start()
        return source

    def _stdin_ended(self, sink: TerminalSink) -> None:
        sink.close()
        if self._pumps["stdin"].eof and self._stdin_eof == "hangup":
            self.hang_up()

    def _end_pumps(self) -> None:
        for pump in self._pumps.values():
            pump.end()

    def hang_up(self) -> None:
        """Close the master: the session gets SIGHUP, output that is left is lost."""
        if self.console is not None:
            self.console.close()

    def close_stdin(self) -> None:
        """See :meth:`PipeIO.close_stdin`; without a FIFO *stdin_eof* is applied at once.

        Raises:
            BusyResourceError: A task is sending to :attr:`stdin`.
        """
        super().close_stdin()
        if self._feed is not None:
            self._feed.close()
        elif self._device is not None:
            self._device.over = True  # it says no end by itself
            self._pumps["stdin"].look_again()
        elif self._inlet is None and self._stdin_fifo is None:
            self._end_typing()

    def _end_typing(self) -> None:
        """The caller, who types, is done."""
        console = self.console
        if console is None or console.closed or "stdin" in self._pumps:
            return
        if self._stdin_eof == "hangup":
            self.hang_up()
        elif self._stdin_eof == "eof_char":
            # Nothing but an end, which waits its turn when the terminal is full.
            reader, writer = (OwnedFd(fd) for fd in _sys.pipe())
            writer.close()
            try:
                _sys.set_nonblocking(reader.fileno())
            except BaseException:
                reader.close()
                raise
            self._copy_typing(reader)

    def close(self) -> None:
        """See :meth:`PipeIO.close`; the terminal hangs up."""
        super().close()
        for owned in (self._stdin_file, self._feed):
            if owned is not None:
                owned.close()
        if self._socket is not None:
            self._socket.close()
        if self.console is not None:
            self.console.close()

    def _stream_state(self, stream: str) -> str:
        if stream in self._pumps or self.console is None:
            return super()._stream_state(stream)
        return "none" if stream == "stderr" else "open"
