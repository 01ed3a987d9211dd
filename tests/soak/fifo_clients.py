"""The other side of FIFOs: clients that come, stall, go, and come again."""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    import random

    from .world import World


class Reader:
    """A client of an output FIFO.

    Args:
        faithful: It comes again until the end; else it stays away after a while.
    """

    def __init__(self, path: str, rng: random.Random, *, faithful: bool = True) -> None:
        self.got = bytearray()
        self.visits = 0
        self.over = anyio.Event()
        """Set it when no writer will come any more."""
        self._path, self._rng, self._faithful = path, rng, faithful

    async def run(self) -> None:
        """Read to the end of the stream, in a few visits or in many."""
        rng = self._rng
        while self._faithful or self.visits < 2:
            self.visits += 1
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if await self._visit(fd, rng.choice((100, 10_000, 300_000, 1 << 40))):
                    return
            finally:
                os.close(fd)
            await anyio.sleep(rng.uniform(0, 0.03))

    async def _visit(self, fd: int, budget: int) -> bool:
        """Read up to *budget* bytes; whether the end was among them."""
        rng = self._rng
        size = rng.choice((1000, 4096, 65536, 1 << 20))
        poller = select.poll()
        poller.register(fd, 0)

        def alone() -> bool:
            """Whether the writer has gone, so that what is left is for us or for nobody."""
            return any(mask & select.POLLHUP for _, mask in poller.poll(0))

        while budget > 0 or alone():
            try:
                data = os.read(fd, size)
            except BlockingIOError:
                await anyio.wait_readable(fd)
                continue
            self.got += data
            budget -= len(data)
            if not data:
                if self.over.is_set() or alone():
                    return True
                await anyio.sleep(0.002)
            elif rng.random() < 0.05:
                await anyio.sleep(rng.uniform(0, 0.05))
            else:
                await anyio.lowlevel.checkpoint()
        return False


async def type_into(world: World, path: str, data: bytes) -> None:
    """Write to a stdin FIFO in several visits."""
    rng = world.rng
    while data:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            await anyio.sleep(0.002)
            continue
        try:
            visit = rng.choice((10, 5000, 1 << 40))
            while data and visit > 0:
                try:
                    count = os.write(fd, data[: min(visit, rng.choice((1, 4096, 65536)))])
                except BlockingIOError:
                    await anyio.wait_writable(fd)
                    continue
                data = data[count:]
                visit -= count
                await anyio.lowlevel.checkpoint()
        finally:
            os.close(fd)
        await anyio.sleep(rng.uniform(0, 0.01))
