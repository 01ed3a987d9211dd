"""The other side of a FIFO."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from pyshimio import _sys

from .children import GUARD

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self


def make_fifo(directory: Path, name: str = "fifo") -> str:
    """Make a FIFO and return its path."""
    path = str(directory / name)
    os.mkfifo(path)
    return path


class Shim:
    """The shim's ends of an output FIFO: the one it writes, and the one that keeps it alive."""

    def __init__(self, path: str) -> None:
        self._keep = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)

    def put(self, data: bytes) -> None:
        """Write what there is room for, which must be all of it."""
        assert os.write(self._writer, data) == len(data)

    async def write(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        with anyio.fail_after(GUARD):
            while view:
                try:
                    view = view[os.write(self._writer, view) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._writer)

    @property
    def unread(self) -> int:
        """Bytes that wait in the FIFO."""
        return _sys.unread(self._keep)

    def rest(self) -> bytes:
        """Take what waits in the FIFO."""
        return os.read(self._keep, 1 << 20) if self.unread else b""

    def end(self) -> None:
        """The process's output is over; what is in the FIFO stays while a client has it open."""
        for fd in (self._writer, self._keep):
            if fd >= 0:
                os.close(fd)
        self._writer = self._keep = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
