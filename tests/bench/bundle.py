"""Bundles for the rows with containers, made of one busybox."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pyshimio.runc import Bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .stage import Stage


def make_bundle(stage: Stage, name: str, args: Sequence[str]) -> str:
    """A bundle that runs *args* of a busybox."""
    root = make_rootfs(stage)
    path = Path(stage.path(f"bundle-{name}"))
    if not path.exists():
        Bundle.write(path, args, rootfs=root)
    return str(path)


def make_rootfs(stage: Stage) -> Path:
    """A root directory with what the rows run."""
    root = Path(stage.path("rootfs"))
    if not root.exists():
        busybox = shutil.which("busybox")
        assert busybox is not None
        for name in ("bin", "proc", "dev", "sys"):
            (root / name).mkdir(parents=True)
        for name in ("true", "sleep", "dd", "taskset", "cat"):
            shutil.copy(busybox, root / "bin" / name)
    return root
