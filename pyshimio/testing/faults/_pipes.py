"""Pipes that are full, and pipes that hold next to nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs

from ... import _sys

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ("Clog", "clogged", "tiny_pipe")

LARGEST = 1 << 20
"""Bytes; pyshimio does not make a pipe larger, so one of this size that is full stays full."""
STUFFING = b"\x1a"
CHUNK = STUFFING * 65536


@attrs.define(eq=False)
class Clog:
    """A pipe that is full, made by :func:`clogged`, which closes it.

    Args:
        stuffed: Bytes of stuffing that are in it.
    """

    _reader: int
    _writer: int
    _filler: int
    stuffed: int

    def fileno(self) -> int:
        """The end that is written, for ``stdout=`` of a command or for an FdIO; it stays ours."""
        return self._writer

    def unclog(self) -> None:
        """Take the stuffing out; whoever waits to write can go on, and what was written stays."""
        written = self.take()
        while written:
            written = written[os.write(self._filler, written) :]

    def take(self) -> bytes:
        """Take out all, and give back what is not stuffing: what has been written."""
        taken = bytearray()
        with suppress(BlockingIOError):
            while chunk := os.read(self._reader, LARGEST):
                taken += chunk
        # (Somebody may have read of it.)
        written = taken.lstrip(STUFFING) if self.stuffed else taken
        self.stuffed = 0
        return bytes(written)


@contextmanager
def clogged(path: str | os.PathLike[str] | None = None) -> Generator[Clog]:
    """A pipe that is full, and that nobody reads before it is unclogged.

    Args:
        path: Of a FIFO that is to be full, instead of a pipe of our own; it has to be empty.
            Somebody has it open for reading then: us.

    Yields:
        The pipe.  What nobody has read of the stuffing is taken out at the end.

    Raises:
        ValueError: There is something in the FIFO, which the stuffing would hide.

    Example:
        ::

            with clogged(fifo) as clog:
                async with await create_io(Stdio(stdout=fifo)) as io:
                    await io.spawn(["echo", "late"])
                    result = await io.drain(sink_timeout=0.1)
                assert not result.complete
    """
    if path is None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
    else:
        # (A FIFO that is opened for both never waits for the other side.)
        reader = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        writer = os.dup(reader)
    try:
        if path is None:
            os.set_blocking(reader, False)
        with suppress(PermissionError):  # beyond the user's budget: then nobody can grow it either
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, LARGEST)
        if _sys.unread(reader):
            raise ValueError(f"{path} is not empty; read it before it is to be clogged")
        # A description of our own to fill it with: the other one's flags are not ours to change.
        filler = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            for chunk in (CHUNK, CHUNK[:1]):
                with suppress(BlockingIOError):
                    while True:
                        os.write(filler, chunk)
            clog = Clog(reader, writer, filler, _sys.unread(reader))
            try:
                yield clog
            finally:
                clog.unclog()
        finally:
            os.close(filler)
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def tiny_pipe(size: int = _sys.PAGE) -> Generator[None]:
    """Let each pipe and FIFO that pyshimio opens hold *size* bytes, and grow no more.

    This is what happens to a user who has more pipes than ``pipe-user-pages-soft`` allows.

    Args:
        size: Bytes; the kernel rounds up to a page.
    """
    makers: dict[str, Callable[..., Any]] = {
        name: getattr(_sys, name) for name in ("pipe", "open", "reopen")
    }
    grow = _sys.set_pipe_size

    def shrink(fd: int) -> None:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            with suppress(OSError):  # opened as a path alone, or with more in it
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)

    def small(name: str) -> Callable[..., Any]:
        def make(*args: Any, **options: Any) -> Any:
            made = makers[name](*args, **options)
            shrink(made[0] if name == "pipe" else made)
            return made

        return make

    def refuse(fd: int, size: int) -> int:  # noqa: ARG001 - as the one that it stands for
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    for name in makers:
        setattr(_sys, name, small(name))
    _sys.set_pipe_size = refuse
    try:
        yield
    finally:
        for name, function in makers.items():
            setattr(_sys, name, function)
        _sys.set_pipe_size = grow
