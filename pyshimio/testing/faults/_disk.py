"""A disk that is full, without a disk."""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from ... import _sys
from ...logging import _kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from typing_extensions import Buffer

__all__ = ("Disk", "full_disk")


@attrs.define(eq=False)
class Disk:
    """What has room left for so much, made by :func:`full_disk`.

    Args:
        room: Bytes that can still be written.
        refused: Writes that found no room.
    """

    _directory: str
    room: int
    refused: int = 0
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def make_room(self, count: int = 1 << 40) -> None:
        """Somebody has deleted something: *count* bytes more."""
        with self._lock:
            self.room += count

    def take(self, fd: int, wanted: int) -> int:
        """How many of *wanted* bytes may be written to *fd*.

        Raises:
            OSError: None of them: ENOSPC.
        """
        if not wanted or not self._holds(fd):
            return wanted
        with self._lock:
            taken = min(wanted, self.room)
            self.room -= taken
            if taken:
                return taken
            self.refused += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _holds(self, fd: int) -> bool:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        return os.readlink(f"/proc/self/fd/{fd}").startswith(f"{self._directory}/")


@contextmanager
def full_disk(directory: str | os.PathLike[str], *, room: int = 0) -> Generator[Disk]:
    """Let what this process writes below *directory* through pyshimio find no room: ENOSPC.

    A write that is larger than what is left comes back short, as a file system does it.  What is
    deleted or cut gives nothing back: :meth:`Disk.make_room` does.  Nothing is mounted, so no
    root is needed; and nothing is affected that another process writes (a logger), or that this one
    writes by itself (``open()``).

    Args:
        directory: Where the disk is full.
        room: Bytes that there is room for.

    Example:
        ::

            with full_disk(tmp_path, room=4096) as disk:
                async with FileIO(tmp_path / "log", on_error="block") as io:
                    await io.spawn(["yes"])
                    ...
                    disk.make_room()
    """
    disk = Disk(os.path.realpath(directory), room)
    write, writev, splice, log = _sys.write, _sys.writev, _sys.splice, _kernel.write

    def limited(function: Callable[[int, Any], int]) -> Callable[[int, Buffer], int]:
        def call(fd: int, data: Buffer) -> int:
            view = memoryview(data).cast("B")
            return function(fd, view[: disk.take(fd, len(view))])

        return call

    def limited_writev(fd: int, buffers: Sequence[Buffer]) -> int:
        views = [memoryview(buffer).cast("B") for buffer in buffers[: _sys.IOV_MAX]]
        left = disk.take(fd, sum(map(len, views)))
        fitting: list[memoryview] = []
        for view in views:
            fitting.append(view[:left])
            left -= len(fitting[-1])
        return writev(fd, fitting)

    def limited_splice(source: int, target: int, count: int) -> int:
        return splice(source, target, disk.take(target, count))

    changed: dict[tuple[Any, str], tuple[object, object]] = {
        (_sys, "write"): (write, limited(write)),
        (_sys, "writev"): (writev, limited_writev),
        (_sys, "splice"): (splice, limited_splice),
        (_kernel, "write"): (log, limited(log)),
    }
    for (module, name), (_, function) in changed.items():
        setattr(module, name, function)
    try:
        yield disk
    finally:
        for (module, name), (function, _) in changed.items():
            setattr(module, name, function)
