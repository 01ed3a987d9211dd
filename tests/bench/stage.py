"""Where parties run: a directory of their own, cores of their own, and the Go program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
GO = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
TIMEOUT = 120.0
"""Seconds after which a party counts as hung."""


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """*command* on one core."""
    return ["taskset", "-c", str(core), *command]


@attrs.frozen
class Stage:
    """One run of the bench.

    Args:
        directory: On tmpfs; for FIFOs and files.
        peer: The Go program, when there is a Go to build it with.
    """

    directory: Path
    peer: str | None
    pump_core: int
    """The core of whoever moves the bytes."""
    other_core: int
    """The core of the child and of the client."""

    @classmethod
    def set_up(cls, directory: Path) -> Stage:
        """Build the Go program and look which cores there are."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(directory, _build(directory), cores[0], cores[-1])

    def path(self, name: str) -> str:
        """A path of this run."""
        return str(self.directory / name)

    def fifo(self, name: str) -> str:
        """A new FIFO."""
        path = self.path(name)
        Path(path).unlink(missing_ok=True)
        os.mkfifo(path)
        return path

    def ours(self, module: str, *args: str, core: int | None = None) -> list[str]:
        """The command line of one of our own parties."""
        command = [sys.executable, "-m", f"bench.{module}", *args]
        return pinned(self.pump_core if core is None else core, command)

    def go(self, *args: str, core: int | None = None) -> list[str]:
        """The command line of the Go program."""
        assert self.peer is not None
        return pinned(self.pump_core if core is None else core, [self.peer, *args])


def answer(command: Sequence[str], **options: Any) -> dict[str, Any]:
    """Run a party to its end and read the line of JSON that it prints."""
    run = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, timeout=TIMEOUT, cwd=HERE.parent, **options
    )
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def _build(directory: Path) -> str | None:
    if GO is None:
        return None
    target = directory / "peer"
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOCACHE": str(directory / "gocache")}
    subprocess.run(
        [GO, "build", "-o", str(target), "."], check=True, cwd=HERE / "peer", env=environment
    )
    shutil.rmtree(directory / "gocache", ignore_errors=True)
    return str(target)
