"""Bundles for the rows with containers, made of one busybox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import support.rootfs
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
    return root if root.exists() else support.rootfs.make_rootfs(root)
