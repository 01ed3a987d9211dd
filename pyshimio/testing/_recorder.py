"""A sink that keeps what it is given, and is as slow or as broken as it is told to be."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

__all__ = ("Recorder",)


@attrs.define(eq=False)
class Recorder:
    r"""A :class:`~pyshimio.Sink` for tests: beside a stream (``io.attach``), or made by a scheme.

    Args:
        blocking: Whether a thread calls it.
        takes: Bytes that it takes of each write at most.
        fails_after: Bytes after which it refuses more with *error*.
        error: An errno.

    Attributes:
        data: What it has taken.
        writes: How many bytes it has taken of each write.
        flushes: How often it was told that a stream has ended.
        reopens: How often it was told to open anew.
        closed: Whether it was given back.

    Example:
        ::

            recorder = Recorder(takes=10)
            async with FileIO(log) as io:
                io.attach("stdout", recorder)
                await io.spawn(["echo", "hello"])
                await io.drain()
            assert recorder.data == b"hello\n"
    """

    blocking: bool = False
    takes: int | None = attrs.field(default=None, kw_only=True)
    fails_after: int | None = attrs.field(default=None, kw_only=True)
    error: int = attrs.field(default=errno.EIO, kw_only=True)
    data: bytearray = attrs.field(factory=bytearray, init=False)
    writes: list[int] = attrs.field(factory=list[int], init=False)
    flushes: int = attrs.field(default=0, init=False)
    reopens: int = attrs.field(default=0, init=False)
    closed: bool = attrs.field(default=False, init=False)
    _paused: bool = attrs.field(default=False, init=False)
    _pipe: tuple[int, int] | None = attrs.field(default=None, init=False)

    @property
    def dropped(self) -> int:
        """It throws nothing away."""
        return 0

    def fileno(self) -> int:
        """Writable when it is not paused."""
        return -1 if self.blocking or self.closed else self._ends()[1]

    def pause(self) -> None:
        """Take nothing from now on: a write would block.

        Raises:
            ValueError: It is a blocking one, which would have to wait in a thread.
        """
        if self.blocking:
            raise ValueError("a blocking recorder cannot be paused; let it take less (takes=)")
        self._paused = True
        with suppress(BlockingIOError):  # what waits for us to be writable is to wait
            while True:
                os.write(self._ends()[1], bytes(4096))

    def resume(self) -> None:
        """Take again."""
        self._paused = False
        if self._pipe is None:
            return
        with suppress(BlockingIOError):
            while True:
                os.read(self._ends()[0], 65536)

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        """Take what there is, or as much as it was told."""
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._paused:
            return None
        offered = b"".join(bytes(buffer) for buffer in buffers)
        if self.fails_after is not None:
            left = self.fails_after - len(self.data)
            if offered and left <= 0:
                raise OSError(self.error, os.strerror(self.error))
            offered = offered[:left]
        taken = offered if self.takes is None else offered[: self.takes]
        self.data += taken
        self.writes.append(len(taken))
        return len(taken)

    def flush(self) -> None:
        """A stream has ended."""
        self.flushes += 1

    def reopen(self) -> None:
        """Open anew."""
        self.reopens += 1

    def close(self) -> None:
        """Give its descriptors back; what it has kept stays.  Idempotent."""
        self.closed = True
        if self._pipe is not None:
            for fd in self._pipe:
                os.close(fd)
            self._pipe = None

    def _ends(self) -> tuple[int, int]:
        if self._pipe is None:
            self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        return self._pipe
