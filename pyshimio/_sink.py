"""Sinks that never wait: pipes and everything like them, and nothing at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _sys
from ._pipesize import Growth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from ._fd import OwnedFd
    from ._pipesize import PipeBudget, Share, SharedGrowth

__all__ = ("DescriptorSink", "NullSink", "PipeSink")


class DescriptorSink:
    """A non-blocking descriptor that epoll can wait for: a terminal, a socket.

    Args:
        fd: Owned from here on; its description is this process's alone.
    """

    blocking = False
    dropped = 0

    def __init__(self, fd: OwnedFd) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd.fileno()

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        try:
            return _sys.writev(self.fd.fileno(), buffers)
        except BlockingIOError:
            return None

    def flush(self) -> None:
        pass

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        self.fd.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.fd.closed else 'open'}>"


class PipeSink(DescriptorSink):
    """The write end of a pipe or FIFO: packed by hand while nobody reads, spliced when read.

    A pipe is a ring of page-sized slots.  A write goes on in the last slot only if all of
    it fits there, and a spliced buffer is never added to.  So 64 KiB of capacity may mean
    sixteen lines, and a container behind an absent client would block after those.  While
    the reader is idle this sink fills each slot to the end; it splices (which costs a
    tenth of the CPU) only after the reader has taken something.

    Args:
        fd: As for :class:`DescriptorSink`.
        shared: The pipe's size, where other sinks of ours write into it as well.
    """

    def __init__(self, fd: OwnedFd, *, shared: SharedGrowth | None = None) -> None:
        super().__init__(fd)
        self._shared = shared
        self._written = 0
        self._consumed = 0
        self._tail = 0  # bytes in the last slot, as long as nobody has emptied the pipe

    def unread(self) -> int:
        """Bytes that nobody has read yet."""
        return _sys.unread(self.fd.fileno())

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        if len(buffers) == 1:
            return self.append(memoryview(buffers[0]))
        try:
            count = _sys.writev(self.fd.fileno(), buffers)
        except BlockingIOError:
            return None
        self._written += count
        self._tail = (self._tail + count) % _sys.PAGE
        return count

    def append(self, data: bytes | memoryview) -> int | None:
        """:meth:`write` of one buffer."""
        tail = self._tail
        if tail and tail + len(data) > _sys.PAGE:
            if self.unread():
                data = memoryview(data)[: _sys.PAGE - tail]
            else:
                tail = 0
        try:
            count = _sys.write(self.fd._fd, data)  # (-1 if closed: EBADF, nobody's)
        except BlockingIOError:
            return None
        except BrokenPipeError:
            if not self.mend():
                raise
            return self.append(data)
        self._written += count
        self._tail = (tail + count) % _sys.PAGE
        return count

    def growth(self, budget: PipeBudget) -> Growth | Share:
        """What makes the pipe larger for a while."""
        if self._shared is not None:
            return self._shared.join(self.fd, budget)
        return Growth(self.fd, budget)

    def mend(self) -> bool:
        """Nobody can read it any more; whether somebody can now."""
        return False

    def splice_ready(self) -> bool:
        """Whether the reader has taken anything since this was last asked."""
        consumed = self._written - _sys.unread(self.fd.fileno())
        hungry = consumed > self._consumed
        self._consumed = consumed
        return hungry

    def splice_from(self, source: int, count: int) -> int | None:
        """Move up to *count* bytes out of the pipe *source*; None: would block."""
        try:
            moved = _sys.splice(source, self.fd.fileno(), count)
        except BlockingIOError:
            return None
        except BrokenPipeError:
            if not self.mend():
                raise
            return self.splice_from(source, count)
        self._written += moved
        self._tail = 0
        return moved


class NullSink:
    """Takes everything and keeps nothing.

    Args:
        count: Whether what it takes counts as dropped (a stream whose sink was lost) or
            as delivered (a stream that nobody wanted).
    """

    blocking = False

    def __init__(self, *, count: bool) -> None:
        self.dropped = 0
        self._count = count

    def fileno(self) -> int:
        return -1

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        taken = sum(memoryview(buffer).nbytes for buffer in buffers)
        if self._count:
            self.dropped += taken
        return taken

    def flush(self) -> None:
        pass

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass

    def __repr__(self) -> str:
        return "<NullSink>"
