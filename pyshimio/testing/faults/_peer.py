"""A peer that dies with its boots on: another process, and SIGKILL."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import anyio
import attrs

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("Peer", "dying_peer")

PROGRAM = """
import os, signal, socket, stat, sys
path, side, after = sys.argv[1], sys.argv[2], int(sys.argv[3])
if stat.S_ISSOCK(os.stat(path).st_mode):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    fd = peer.fileno()
else:
    fd = os.open(path, os.O_RDONLY if side == "reads" else os.O_WRONLY)
os.write(1, b"!")
while after != 0:
    if side == "reads":
        done = len(os.read(fd, after if 0 < after < 65536 else 65536))
    else:
        done = os.write(fd, bytes(after if 0 < after < 65536 else 65536))
    if not done:
        signal.pause()
    after -= done if after > 0 else 0
os.kill(os.getpid(), signal.SIGKILL)
"""
"""Arguments: a path, a side, and after how many bytes to die (-1: not by itself)."""
FOR_EVER = -1
GUARD = 20.0


@attrs.define(eq=False)
class Peer:
    """The other side of a FIFO or a socket, made by :func:`dying_peer`, which ends it."""

    _process: subprocess.Popen[bytes]
    _attached: bool = attrs.field(default=False, init=False)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def dead(self) -> bool:
        """Whether it has died."""
        return self._process.poll() is not None

    async def attached(self, timeout: float = GUARD) -> None:
        """Wait until it has opened its side.

        Raises:
            TimeoutError: It has not, for so many seconds.
            AssertionError: It could not.
        """
        assert self._process.stdout is not None
        with anyio.fail_after(timeout):
            while not self._attached:
                if select.select([self._process.stdout], [], [], 0)[0]:
                    said = os.read(self._process.stdout.fileno(), 1)
                    assert said, "the peer has ended before it has opened its side"
                    self._attached = True
                await anyio.sleep(0.002)

    def die(self) -> None:
        """Kill it now, whatever it has not read; it is gone when this returns."""
        self._process.kill()
        self._process.wait()

    async def gone(self, timeout: float = GUARD) -> None:
        """Wait until it has died.

        Raises:
            TimeoutError: It has not, for so many seconds.
        """
        with anyio.fail_after(timeout):
            while not self.dead:  # noqa: ASYNC110 - it is nobody's business but ours
                await anyio.sleep(0.002)


@contextmanager
def dying_peer(
    path: str | os.PathLike[str],
    *,
    side: Literal["reads", "writes"] = "reads",
    after: int | None = None,
) -> Generator[Peer]:
    """A process at the other end of a FIFO, or connected to a socket, that is killed by SIGKILL.

    Args:
        path: The FIFO or the socket.
        side: Of a FIFO: whether it reads (a client of an output) or writes (one of an input).
        after: Bytes that it moves before it dies; None: it moves what it can, until
            :meth:`Peer.die`.

    Yields:
        The process.  It is killed, if it lives, and reaped at the end.
    """
    count = FOR_EVER if after is None else after
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, os.fspath(path), side, str(count)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        peer = Peer(process)
        try:
            yield peer
        finally:
            peer.die()
