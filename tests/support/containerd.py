"""A containerd of our own, and what ``ctr`` runs with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from .cli import GUARD, eventually
from .rootfs import make_rootfs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Containerd", "containerd")


@attrs.frozen
class Containerd:
    """One that runs."""

    address: str
    rootfs: Path

    def run(self, log_uri: str, script: str) -> None:
        """``ctr run`` a shell script whose output goes to a log URI, until it has ended."""
        command = ["ctr", "--address", self.address, "run", "--rm", "--log-uri", log_uri]
        command += ["--rootfs", str(self.rootfs), f"log-{os.getpid()}", "/bin/sh", "-c", script]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * GUARD, check=False
        )
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def containerd(*before: str) -> Iterator[Containerd]:
    """Start it, in a directory that is removed with all that it has left.

    Args:
        before: What stands before its command line.
    """
    with tempfile.TemporaryDirectory(prefix="containerd-") as name:
        base = Path(name)
        address = str(base / "sock")
        config = base / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{base}/root"\nstate = "{base}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{address}"\n',
            encoding="utf-8",
        )
        with subprocess.Popen(
            [*before, "containerd", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as daemon:
            try:
                eventually(lambda: os.path.exists(address), "containerd's socket")
                yield Containerd(address, make_rootfs(base / "rootfs"))
            finally:
                daemon.terminate()
                daemon.wait(GUARD)
