"""What was mounted for a container, unmounted."""

from __future__ import annotations

import re

import anyio

from .._command import Command
from ..errors import UnmountError

__all__ = ("unmount",)

PAUSE = 0.05
"""Between two tries: what a container had open is given back a moment after its end."""
ESCAPE = re.compile(r"\\([0-7]{3})")


async def unmount(path: str, timeout: float) -> None:
    """Unmount what is mounted on *path* and below it, the last first.

    It is done by a child, because the kernel may keep an unmount waiting for ever.

    Args:
        path: A directory's real path; nothing need be mounted there.
        timeout: Seconds; until then a file system that is in use is tried again.

    Raises:
        UnmountError: Something is still mounted.
    """
    with anyio.move_on_after(timeout):
        while left := _mounted(path):
            await _umount(left)
            await anyio.sleep(PAUSE if _mounted(path) else 0)
    if left := _mounted(path):
        raise UnmountError(
            f"{', '.join(left)}: still mounted after {timeout} s; somebody uses it", path=path
        )


async def _umount(paths: list[str]) -> None:
    async with await Command(["umount", "--", *paths]).start() as process:
        try:
            await process.wait()
        finally:
            process.kill()


def _mounted(path: str) -> list[str]:
    """The mount points at or below *path*, deepest and newest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [ESCAPE.sub(_unescaped, line.split(" ")[4]) for line in file]
    return [point for point in reversed(points) if point == path or point.startswith(f"{path}/")]


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))
