"""Pipes: go-runc's ``NewPipeIO``, with the copying that the shim builds on top of it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Literal

from .. import _sys
from .._fd import OwnedFd
from .._fifo import FifoHandle
from .._poller import Poller
from .._pump import LoopPump
from .._sink import PipeSink
from .._source import PipeSource
from .._streams import FdReceiveStream, FdSendStream
from ..errors import DestinationError
from ._base import GRACE
from ._logged import LoggedIO
from ._owner import Chown, Owner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._stdio import StdioURI
    from ._outlet import Outlet

__all__ = ("PipeIO",)


class PipeIO(LoggedIO):
    """A pipe for each stream; what a shim's default IO is.

    The child gets blocking ends, this process its own non-blocking ones.  While nothing
    copies, :attr:`stdin` is a send stream and :attr:`stdout` and :attr:`stderr` are receive
    streams for the caller.

    Args:
        uid, gid: Own the pipes, so that the child can open ``/dev/stdout`` by name; -1
            leaves either as it is.
        stdin, stdout, stderr: Which streams there are; the others are ``/dev/null``.
        chown: ``"try"`` goes on when the kernel refuses (rootless).
        grace: Seconds between SIGTERM and SIGKILL for a child alive at the end.
        on_exit: ``"leave"`` lets such a child live on.

    Raises:
        ChownError: The kernel refuses; nothing is left over.

    Example:
        Capture both streams of a program::

            async with PipeIO(stdin=False) as io:
                process = await io.spawn(["ls", "/", "/missing"])
                listing = await io.stdout.receive()
    """

    def __init__(
        self,
        uid: int = -1,
        gid: int = -1,
        *,
        stdin: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        chown: Chown = "strict",
        grace: float = GRACE,
        on_exit: Literal["kill", "leave"] = "kill",
    ) -> None:
        super().__init__(grace=grace, on_exit=on_exit)
        self._owner = Owner(uid, gid, chown)
        try:
            for number, wanted in enumerate((stdin, stdout, stderr)):
                if wanted:
                    self._add_pipe(number)
        except BaseException:
            self.close()
            raise

    def _add_pipe(self, number: int) -> None:
        reader, writer = (OwnedFd(fd) for fd in _sys.pipe())
        child, parent = (reader, writer) if number == 0 else (writer, reader)
        self._children[number] = child
        stream = ("stdin", "stdout", "stderr")[number]
        kind = FdSendStream if number == 0 else FdReceiveStream
        self._parents[stream] = kind(parent)
        # Only our own end: the two ends of a pipe are two descriptions.
        _sys.set_nonblocking(parent.fileno())
        self._chown_fd(child, stream)

    def _chown_fd(self, fd: OwnedFd, stream: str) -> None:
        self._owner.give(fd, f"{stream}'s pipe")

    def bind(self, outlets: Mapping[str, Outlet], stdin: FifoHandle | OwnedFd | None) -> None:
        """Say where output goes and stdin comes from; what is bound is owned.

        For :func:`create_io` and the subclasses.
        """
        self._outlets.update(outlets)
        if isinstance(stdin, FifoHandle):
            self._stdin_fifo = stdin
        elif stdin is not None:
            self._children[0] = stdin  # a file, handed to the child as it is

    def _start_pumps(self) -> None:
        super()._start_pumps()
        if self._inlet is not None:
            sink = PipeSink(self._parents["stdin"].take())
            pump = LoopPump(
                "stdin",
                PipeSource(self._inlet.reader),
                sink,
                poller=Poller.current(),
                hub=self._hub,
                then=sink.close,
            )
            self._pumps["stdin"] = pump
            pump.start()


def open_stdin(uri: StdioURI) -> FifoHandle | OwnedFd:
    """What *uri* names: a FIFO to copy from, or a file to hand to the child.

    Raises:
        DestinationError: Nothing, or nothing that can be read.
    """
    path = uri.path
    try:
        if uri.scheme == "fifo" or _sys.is_fifo(os.stat(path).st_mode):
            return FifoHandle(path)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        fd = OwnedFd(_sys.open(path, flags))
    except DestinationError:
        raise
    except FileNotFoundError:
        return FifoHandle(path)  # says what is missing
    except OSError as error:
        raise DestinationError(
            f"cannot read stdin from {path!r}: {error.strerror}", path=path, errno=error.errno
        ) from error
    try:
        mode = _sys.fstat(fd.fileno()).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise DestinationError(  # noqa: TRY301 - it has to be closed, too
                f"cannot read stdin from {path!r}: neither a FIFO nor a file or character device",
                path=path,
                errno=errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL,
            )
        # The description is ours alone until the child has it, and the child wants it to wait.
        _sys.set_blocking(fd.fileno())
    except BaseException:
        fd.close()
        raise
    return fd
