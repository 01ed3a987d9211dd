"""The socket over which a runtime sends the master of a container's terminal."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import anyio

from .. import _sys
from .._fd import OwnedFd
from .._poller import Poller
from ..errors import (
    ConsoleDescriptorCountError,
    ConsoleMessageError,
    ConsoleMessageTooLongError,
    ConsolePeerClosedError,
    ConsoleRuntimeExitedError,
    ConsoleTimeoutError,
    ConsoleTruncatedError,
    IOStateError,
    NotARuntimeCommandError,
    NotATerminalError,
    SocketPathError,
)
from ._console import Console

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from .._command import Command
    from .._poller import Watch
    from .._process import Process

T = TypeVar("T")

__all__ = ("ConsoleSocket", "add_flag")

MESSAGE = 4096
LONGEST = 107
TIMEOUT = 30.0
VERBS = frozenset({"create", "run", "exec", "restore"})
# Global flags of runc, crun and youki whose value is a word of its own; Go's take one dash too.
VALUED = frozenset(
    {"root", "r", "log", "l", "log-format", "log-level", "criu", "rootless", "cgroup-manager"}
)


class ConsoleSocket:
    """Listens where a runtime connects to send a terminal (go-runc's ``Socket``).

    Only a peer whose user is ours or root is heard; others are closed and the wait goes on.
    Exactly one descriptor is taken, close-on-exec from its first moment.

    Args:
        path: Where to listen; at most 107 bytes, nothing may be there.  It is removed when
            the socket closes.

    Raises:
        SocketPathError: It cannot be made there.

    Example:
        ::

            async with ConsoleSocket.temp() as console_socket:
                command = Command(["runc", "create", "--bundle", bundle, "c1"])
                console_socket.set(command)
                async with await command.start() as runtime:
                    console = await console_socket.receive(runtime=runtime)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: str = os.path.abspath(os.fspath(path))
        self._directory: str | None = None
        self._pid = _sys.getpid()
        self._closed = False
        self._receiving = False
        self._changed = anyio.Event()
        self._watch: Watch | None = None
        self._peer: socket.socket | None = None
        self._listener = self._listen()

    def _listen(self) -> socket.socket:
        if "\0" in self.path:
            raise SocketPathError(
                f"the path {self.path!r} contains a NUL byte", path=self.path, errno=errno.EINVAL
            )
        if len(os.fsencode(self.path)) > LONGEST:
            raise SocketPathError(
                f"a unix socket's path has at most {LONGEST} bytes and {self.path!r} has more;"
                " use ConsoleSocket.temp()",
                path=self.path,
                errno=errno.ENAMETOOLONG,
            )
        try:
            return _sys.listen_unix(self.path)
        except OSError as error:
            raise SocketPathError(
                f"cannot listen at {self.path!r}: {error.strerror}",
                path=self.path,
                errno=error.errno,
            ) from error

    @classmethod
    def temp(cls) -> ConsoleSocket:
        """A socket in a new directory of mode 0700, both removed by :meth:`close`.

        The directory is made in ``$XDG_RUNTIME_DIR``, else in the directory for temporary
        files, else (when that makes the path too long) in ``/tmp``.
        """
        directory = _short_directory()
        try:
            made = cls(os.path.join(directory, "pty.sock"))
        except BaseException:
            _sys.rmdir(directory)
            raise
        made._directory = directory
        if "XDG_RUNTIME_DIR" in os.environ:
            # Cleaners of runtime directories leave alone what has the sticky bit.
            with suppress(OSError):
                _sys.chmod(made.path, 0o1700)
        return made

    def set(self, command: Command) -> None:
        """Put ``--console-socket PATH`` behind the command's create, run, exec or restore.

        Raises:
            NotARuntimeCommandError: It has none of them.
        """
        self._check_open()
        add_flag(command, "--console-socket", self.path)

    def close_after_start(self) -> None:
        """Nothing to give back yet; here because every IO has it."""

    async def receive(
        self, timeout: float | None = TIMEOUT, *, runtime: Process | None = None
    ) -> Console:
        """The terminal that the runtime sends.

        Args:
            timeout: Seconds to wait for it; None waits for ever.
            runtime: When it exits and has sent nothing, the wait is over at once.

        Returns:
            The console; the caller closes it.  A terminal that a cancelled call has not
            returned comes from the next one.

        Raises:
            ConsoleTimeoutError: Nothing came in time.
            ConsoleRuntimeExitedError: *runtime* has exited.
            ConsolePeerClosedError, ConsoleMessageError, ConsoleMessageTooLongError,
            ConsoleDescriptorCountError, ConsoleTruncatedError, NotATerminalError: What came
                is no terminal; every descriptor that came with it is closed.
            BusyResourceError: Another task is receiving.
            IOStateError: The socket is closed, or was while this waited.
        """
        self._check_open()
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True
        try:
            with anyio.move_on_after(timeout):
                return await self._receive(runtime)
        finally:
            self._receiving = False
        self._drop_peer()
        raise ConsoleTimeoutError(
            f"no terminal arrived at {self.path!r} within {timeout} s",
            timeout=timeout,
            errno=errno.ETIMEDOUT,
        )

    async def _receive(self, runtime: Process | None) -> Console:
        while self._peer is None:
            connection = await self._ready(self._listener, _sys.accept, runtime)
            try:
                if _sys.peer_uid(connection) in {0, os.geteuid()}:
                    self._peer = connection
            finally:
                if self._peer is None:
                    connection.close()
            # Strangers may come as fast as they can be turned away; others have a turn between.
            await anyio.lowlevel.checkpoint()
        try:
            message = await self._ready(self._peer, _read, runtime)
        except Exception:
            self._drop_peer()
            raise
        # Not when this is cancelled: a runtime connects once, and the next call hears it.
        self._drop_peer()
        return _console_of(message)

    def _drop_peer(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    async def _ready(
        self, sock: socket.socket, call: Callable[[socket.socket], T], runtime: Process | None
    ) -> T:
        """What *call* returns as soon as it need not wait, unless *runtime* exits before."""
        while True:
            # Asked first: what a runtime sent before it exited is there when it has.
            exited = runtime is not None and runtime.exited
            try:
                return call(sock)
            except BlockingIOError:
                pass
            if runtime is not None and exited:
                raise ConsoleRuntimeExitedError(
                    f"the runtime exited with status {runtime.status} and sent no terminal;"
                    " see its stderr or its --log file",
                    status=runtime.status,
                )
            await self._wait(sock, runtime)
            self._check_open()

    async def _wait(self, sock: socket.socket, runtime: Process | None) -> None:
        """Until *sock* is readable, *runtime* exits, or this socket is closed."""
        changed = self._changed = anyio.Event()
        if runtime is not None:
            runtime.when_exited(changed.set)
        self._watch = Poller.current().listen(sock.fileno(), lambda _: changed.set())
        try:
            await changed.wait()
        finally:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._changed.set()

    def _check_open(self) -> None:
        if self._closed:
            raise IOStateError("this console socket is closed; make another one")

    def close(self) -> None:
        """Stop listening; remove the socket, and the directory if :meth:`temp` made it.

        Idempotent, never raises.
        """
        if self._closed:
            return
        self._closed = True
        self._stop_waiting()
        self._listener.close()
        self._drop_peer()
        if _sys.getpid() != self._pid:
            return  # a copy in a forked process: the path is still its parent's
        with suppress(OSError):
            _sys.unlink(self.path)
        if self._directory is not None:
            with suppress(OSError):
                _sys.rmdir(self._directory)

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
        return f"<ConsoleSocket {self.path!r} {'closed' if self._closed else 'listening'}>"


def _read(connection: socket.socket) -> tuple[bytes, list[int], bool]:
    return _sys.recv_fds(connection, MESSAGE)


def _console_of(message: tuple[bytes, list[int], bool]) -> Console:
    data, numbers, cut = message
    fds = [OwnedFd(number) for number in numbers]
    try:
        _check_message(data, fds, cut=cut)
        return Console(fds.pop())
    finally:
        for fd in fds:
            fd.close()


def _check_message(data: bytes, fds: list[OwnedFd], *, cut: bool) -> None:
    # The payload is the terminal's name, and nobody may rely on it: crun sends a space.
    if cut and len(fds) < _sys.MOST_FDS:
        # There was room for the number, but the kernel had none to give.
        raise ConsoleTruncatedError(
            "the peer's terminal was lost: this process may open no more descriptors"
            " (RLIMIT_NOFILE, see `ulimit -n`)",
            errno=errno.EMFILE,
        )
    if cut:
        raise ConsoleTruncatedError(
            "the peer sent more descriptors than fit (MSG_CTRUNC)", errno=errno.EMSGSIZE
        )
    if not data and not fds:
        raise ConsolePeerClosedError(
            "the peer closed the console socket without sending a terminal",
            errno=errno.ECONNRESET,
        )
    if len(data) >= MESSAGE:
        raise ConsoleMessageTooLongError(
            f"the peer's message has {MESSAGE} bytes or more", errno=errno.EMSGSIZE
        )
    if not fds:
        raise ConsoleMessageError(
            f"the peer sent {data[:32]!r} and no descriptor", errno=errno.EBADMSG
        )
    if len(fds) != 1:
        raise ConsoleDescriptorCountError(
            f"the peer sent {len(fds)} descriptors where one terminal was due",
            count=len(fds),
            errno=errno.EBADMSG,
        )
    if not _sys.isatty(fds[0].fileno()):
        raise NotATerminalError(
            "the peer sent a descriptor that is no terminal", errno=errno.ENOTTY
        )


def add_flag(command: Command, flag: str, value: str) -> None:
    """Insert a flag of an OCI runtime's subcommand, behind the subcommand.

    Raises:
        NotARuntimeCommandError: There is no create, run, exec or restore.
    """
    words = iter(enumerate(command.args[1:], 1))
    for index, word in words:
        if word.startswith("-"):
            if word.lstrip("-") in VALUED:
                next(words, None)
        else:
            if word in VERBS:
                command.args[index + 1 : index + 1] = [flag, value]
                return
            break
    raise NotARuntimeCommandError(
        f"{' '.join(command.args)!r} is no runtime's create, run, exec or restore, so it"
        f" takes no {flag}",
        args_=tuple(command.args),
    )


def _short_directory() -> str:
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
        if not parent:
            continue
        with suppress(OSError):
            directory = tempfile.mkdtemp(prefix="pty", dir=os.path.abspath(parent))
            if len(os.fsencode(directory)) + len("/pty.sock") <= LONGEST:
                return directory
            _sys.rmdir(directory)
    raise SocketPathError(
        "no directory for a console socket: neither $XDG_RUNTIME_DIR nor a directory for"
        " temporary files can be written",
        path="",
        errno=errno.EACCES,
    )
