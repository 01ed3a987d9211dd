"""A dockerd of our own: what ``docker logs`` makes of a container's log."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from .cli import GUARD, eventually
from .rootfs import make_rootfs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Dockerd", "dockerd")

NAME = "log"


@attrs.frozen
class Dockerd:
    """One that runs."""

    host: str

    def docker(self, *args: str) -> bytes:
        """What a command prints on its stdout."""
        command = ["docker", "--host", self.host, *args]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * GUARD, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def container(self, *options: str) -> Path:
        """A container that has ended, and said nothing; where its log is."""
        self.docker("run", "--net=none", "--name", NAME, *options, "bare", "/bin/true")
        (about,) = json.loads(self.docker("inspect", NAME))
        return Path(about["LogPath"])

    def logs(self, *options: str) -> bytes:
        """Its stdout."""
        return self.docker("logs", *options, NAME)


@contextlib.contextmanager
def dockerd() -> Iterator[Dockerd]:
    """Start it, in a directory that is removed with all that it has left."""
    with tempfile.TemporaryDirectory(prefix="dockerd-") as name:
        base = Path(name)
        host = f"unix://{base}/sock"
        command = ["dockerd", "--host", host, "--data-root", str(base / "data")]
        command += ["--exec-root", str(base / "exec"), "--pidfile", str(base / "pid")]
        command += ["--iptables=false", "--bridge=none", "--storage-driver", "vfs"]
        with (
            open(base / "said", "wb") as said,
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as daemon,
        ):
            try:
                eventually(lambda: os.path.exists(base / "sock"), "dockerd's socket")
                running = Dockerd(host)
                _import(running, base)
                yield running
            finally:
                daemon.terminate()
                daemon.wait(GUARD)


def _import(running: Dockerd, base: Path) -> None:
    """An image of one busybox."""
    make_rootfs(base / "rootfs")
    with tarfile.open(base / "image.tar", "w") as archive:
        archive.add(base / "rootfs", arcname=".")
    running.docker("import", str(base / "image.tar"), "bare")
