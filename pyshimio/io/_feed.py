"""A file as input for a terminal: read by the file pool, since epoll cannot wait for a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from .. import _sys
from .._fd import OwnedFd
from .._filepool import Lane
from .._poller import Poller

if TYPE_CHECKING:
    from .._poller import Watch

__all__ = ("Feed",)

CHUNK = 1 << 14


class Feed:
    """A file's bytes on their way into a pipe.

    Args:
        file: A regular file or a memory device; owned.

    Attributes:
        reader: The pipe's read end, non-blocking; the caller's.
    """

    def __init__(self, file: OwnedFd) -> None:
        self._file = file
        self._rest = memoryview(b"")
        self._in_job = False
        self._room = False  # there was some while a thread was at work
        self._lane: Lane | None = None
        self._watch: Watch | None = None
        try:
            self.reader, self._writer = (OwnedFd(fd) for fd in _sys.pipe())
        except BaseException:
            file.close()
            raise
        try:
            for fd in (self.reader, self._writer):
                _sys.set_nonblocking(fd.fileno())
            self._lane = Lane("a terminal's input")
            self._watch = Poller.current().watch(
                self._writer.fileno(), _sys.EPOLLOUT, self._on_room
            )
        except BaseException:
            self.reader.close()
            self.close()
            raise

    def _on_room(self, _events: int) -> None:
        if self._lane is None:
            return
        if self._in_job:
            self._room = True
            return
        self._in_job, self._room = True, False
        try:
            self._lane.submit(self._job)
        except OSError:  # no thread: the input ends here
            self.close()

    def _job(self, _scratch: bytearray) -> None:
        lane = self._lane
        if lane is None:
            return
        try:
            while self._rest or self._read():
                with self._writer.lend() as fd:
                    self._rest = self._rest[_sys.write(fd, self._rest) :]
        except BlockingIOError:
            lane.post(self._pause)
        except (OSError, anyio.ClosedResourceError):
            lane.post(self.close)
        else:
            lane.post(self.close)

    def _read(self) -> bool:
        with self._file.lend() as fd:
            self._rest = memoryview(_sys.read(fd, CHUNK))
        return bool(self._rest)

    def _pause(self) -> None:
        self._in_job = False
        if self._room:
            self._on_room(0)

    def close(self) -> None:
        """No more input: what is in the pipe is still to be read.  Idempotent."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._writer.close()
        self._file.close()
        if self._lane is not None:
            self._lane.close()
            self._lane = None
