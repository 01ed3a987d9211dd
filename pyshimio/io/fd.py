"""Descriptors that exist already as destinations."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Literal, TypeAlias

from .. import _sys
from .._fd import Descriptor, OwnedFd, duplicate, own_description
from .._pipesize import SharedGrowth
from .._sink import DescriptorSink, PipeSink
from ..errors import InvalidOptionError
from ._base import GRACE
from ._outlet import SinkOutlet
from .pipe import PipeIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from ..abc import Sink
    from ._owner import Chown

__all__ = ("FdIO", "fd_sink")

Pipes: TypeAlias = "defaultdict[tuple[int, int], SharedGrowth]"

WRITABLE = frozenset({os.O_WRONLY, os.O_RDWR})
PATIENCE = 1.0
"""Seconds that a thread waits for a descriptor that somebody else made non-blocking."""


class FdIO(PipeIO):
    """Copy what the child writes to descriptors or file objects of the caller.

    Their descriptions are shared with whoever has them too, so none of their flags is
    changed.  A pipe, a FIFO and a terminal are opened anew for a description of our own; a
    regular file, a socket, and whatever cannot be opened again, is written by a thread.

    Args:
        stdout, stderr: Duplicated here; the caller's stay the caller's.  None is /dev/null.
        stdin: Whether the child gets a pipe as stdin (:attr:`~PipeIO.stdin`) instead of /dev/null.
        uid, gid, chown, grace, on_exit: As for :class:`PipeIO`.

    Example:
        Copy a child's output to our own stdout and count it::

            async with FdIO(stdout=sys.stdout) as io:
                await (await io.spawn(["ls"])).wait()
                await io.drain()
                print(io.stats.stdout.bytes_out)
    """

    def __init__(
        self,
        stdout: Descriptor | None = None,
        stderr: Descriptor | None = None,
        *,
        stdin: bool = False,
        uid: int = -1,
        gid: int = -1,
        chown: Chown = "strict",
        grace: float = GRACE,
        on_exit: Literal["kill", "leave"] = "kill",
    ) -> None:
        super().__init__(
            uid,
            gid,
            stdin=stdin,
            stdout=stdout is not None,
            stderr=stderr is not None,
            chown=chown,
            grace=grace,
            on_exit=on_exit,
        )
        try:
            pipes: Pipes = defaultdict(SharedGrowth)
            for stream, fd in (("stdout", stdout), ("stderr", stderr)):
                if fd is not None:
                    self.bind({stream: SinkOutlet(fd_sink(fd, pipes))}, None)
        except BaseException:
            self.close()
            raise


def fd_sink(fd: Descriptor, pipes: Pipes | None = None) -> Sink:
    """A sink for a duplicate of *fd* that never changes a flag of its description.

    Args:
        fd: Open for writing; stays the caller's.
        pipes: For several that may write into one pipe: its size is the same for all of them.
    """
    own = duplicate(fd)
    try:
        _check_writable(own)
        again = own_description(own, os.O_WRONLY)
        if again is None:
            return BlockingSink(own)
    except BaseException:
        own.close()
        raise
    own.close()
    try:
        if _sys.isatty(again.fileno()):
            return DescriptorSink(again)
        status = _sys.fstat(again.fileno())
        shared = None if pipes is None else pipes[status.st_dev, status.st_ino]
        return PipeSink(again, shared=shared)
    except BaseException:
        again.close()
        raise


def _check_writable(fd: OwnedFd) -> None:
    # A pipe's read end could be opened again for writing, and feed the pipe's own reader.
    if _sys.status_flags(fd.fileno()) & (os.O_ACCMODE | os.O_PATH) not in WRITABLE:
        raise InvalidOptionError(
            "a destination must be open for writing, and this descriptor is not", option="fd"
        )


class BlockingSink:
    """A descriptor that may block, and so is written by a thread.

    Args:
        fd: Owned.
    """

    blocking = True
    dropped = 0

    def __init__(self, fd: OwnedFd) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return -1

    def write(self, buffers: Sequence[Buffer]) -> int:
        with self._fd.lend() as fd:
            try:
                return _sys.writev(fd, buffers)
            except BlockingIOError:  # somebody else made the description non-blocking
                _sys.wait_writable(fd, PATIENCE)
            try:
                return _sys.writev(fd, buffers)
            except BlockingIOError:
                return 0

    def flush(self) -> None:
        pass

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        self._fd.close()

    def __repr__(self) -> str:
        return f"<BlockingSink {'closed' if self._fd.closed else 'open'}>"
