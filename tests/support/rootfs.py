"""A container's root directory, made of one static busybox."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("make_rootfs",)

APPLETS = (
    *("sh", "cat", "echo", "stty", "sleep", "seq", "id", "stat", "dd", "wc", "tty", "true", "pwd"),
    *("kill", "grep", "taskset"),
)


def make_rootfs(where: Path) -> Path:
    """A root directory with a busybox in it."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    binaries = where / "bin"
    binaries.mkdir(parents=True)
    for name in ("proc", "dev", "sys"):
        (where / name).mkdir()
    shutil.copy(busybox, binaries / "busybox")
    for applet in APPLETS:
        (binaries / applet).symlink_to("busybox")
    return where
