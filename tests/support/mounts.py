"""File systems that fill up or stop, mounted for one test."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def tmpfs(where: Path, size: str = "64k") -> Iterator[Path]:
    """A file system in memory that has room for *size*; needs root."""
    where.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(where))
    try:
        yield where
    finally:
        _run("umount", str(where))


@contextlib.contextmanager
def ext4(where: Path) -> Iterator[Path]:
    """A small ext4 in a loop device; needs root."""
    image = where.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(8 << 20)
    _run("mkfs.ext4", "-q", "-F", str(image))
    where.mkdir()
    _run("mount", "-o", "loop", str(image), str(where))
    try:
        yield where
    finally:
        _run("umount", str(where))


@contextlib.contextmanager
def frozen(where: Path, most: float = 30.0) -> Iterator[None]:
    """Every write to the file system at *where* waits until this is over.

    It is over after *most* seconds in any case: a loop that is stuck in a write (which no
    signal ends) would never come back here.
    """
    thaw = threading.Timer(most, _run, ("fsfreeze", "-u", str(where)))
    thaw.start()
    try:
        _run("fsfreeze", "-f", str(where))
        yield
    finally:
        thaw.cancel()
        thaw.join()
        # Refused where the time was over: it is thawed already.
        subprocess.run(
            ["fsfreeze", "-u", str(where)], check=False, stderr=subprocess.DEVNULL, timeout=30
        )


def _run(*args: str) -> None:
    subprocess.run(args, check=True, timeout=30)
