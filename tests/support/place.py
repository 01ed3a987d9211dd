"""A bundle, a runtime and the ``pyshimio`` command with them; a terminal with somebody at it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from pyshimio.cli._record import Record

from .cli import GUARD, PYSHIMIO, eventually, run, started
from .rootfs import make_rootfs
from .runc import fitting

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = (
    "RUNTIMES",
    "Place",
    "Tmux",
    "ask",
    "attach",
    "behind_fifos",
    "command",
    "kill",
    "place_of",
)


RUNTIMES = pytest.mark.parametrize(
    "place", ["runc", pytest.param("crun", marks=pytest.mark.runtime("crun"))], indirect=True
)
"""For what may differ between runtimes: a fixture ``place`` reads it."""


@attrs.frozen
class Place:
    """A bundle, a runtime's state, and a directory for FIFOs."""

    where: Path
    runtime: str
    id: str

    @property
    def fifos(self) -> Path:
        """Made by the command, and removed by it."""
        return self.where / "fifos"

    @property
    def at(self) -> tuple[str, ...]:
        """Options that say which container is meant."""
        return ("--runtime", self.runtime, "--root", str(self.where / "state"))

    @property
    def record(self) -> Path:
        """What is known of it while it runs."""
        return Path(Record.of(self.runtime, str(self.where / "state"), self.id).path)

    def bundle(self, *command: str, options: tuple[str, ...] = ()) -> None:
        """Have the command make the bundle."""
        rootfs = self.where / "rootfs"
        if not rootfs.exists():
            make_rootfs(rootfs)
        env = ("-e", "PATH=/bin")
        made = run(
            *("bundle", str(self.where / "bundle"), "--rootfs", str(rootfs)),
            *(*env, *options, "--", *command),
        )
        assert (made.returncode, made.stderr) == (0, "")

    def run(self, *options: str) -> tuple[str, ...]:
        """The arguments that run it."""
        return ("run", "--bundle", str(self.where / "bundle"), *self.at, *options, self.id)

    def slow(self, verb: str, *, before: float = 0.0, after: float = 0.0) -> Place:
        """The same place with a runtime that takes its time for *verb*.

        It leaves ``begun`` behind when it begins, and ``done`` when the real one is through.
        """
        path = self.where / f"slow-{verb}"
        path.write_text(
            f'#!/bin/sh\ncase " $* " in *" {verb} "*)\n'
            f'>{self.where}/begun; sleep {before}; {self.runtime} "$@"; status=$?\n'
            f">{self.where}/done; sleep {after}; exit $status;;\nesac\n"
            f'exec {self.runtime} "$@"\n'
        )
        path.chmod(0o755)
        return attrs.evolve(self, runtime=str(path))

    @property
    def begun(self) -> Path:
        """There when :meth:`slow` has begun."""
        return self.where / "begun"

    def processes(self) -> list[int]:
        """The pids of those in the container."""
        listed = subprocess.run(
            [*self._head, "ps", "--format", "json", self.id], capture_output=True, check=True
        )
        return list(json.loads(listed.stdout))

    @property
    def _head(self) -> list[str]:
        return [self.runtime, "--root", str(self.where / "state")]

    def states(self) -> list[str]:
        """Those of the containers there are."""
        listed = subprocess.run(
            [self.runtime, "--root", str(self.where / "state"), "list", "--format", "json"],
            capture_output=True,
            check=True,
        )
        return [one["status"] for one in json.loads(listed.stdout) or ()]


@contextlib.contextmanager
def place_of(tmp_path: Path, program: str) -> Iterator[Place]:
    """The same for a runtime."""
    runtime = fitting(program, tmp_path)
    assert runtime is not None
    place = Place(tmp_path, runtime, f"cli{os.getpid()}")
    yield place
    if (tmp_path / "state" / place.id).exists():
        delete = [runtime, "--root", str(tmp_path / "state"), "delete", "--force", place.id]
        subprocess.run(delete, check=False, capture_output=True, timeout=GUARD)
    shutil.rmtree(place.record, ignore_errors=True)
    # runc leaves them where it was killed before it had written down what there is.
    for path in Path("/sys/fs/cgroup").glob(f"*/{place.id}"):
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def behind_fifos(place: Place, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The container runs, for whoever attaches."""
    with started(*place.run("--fifo-dir", str(place.fifos), *options)) as process:
        eventually((place.fifos / "control.sock").exists, "the control socket")
        yield process


def attach(place: Place, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Attach until it ends."""
    return run("attach", *options, str(place.fifos), **more)


def kill(place: Place) -> None:
    """End the container."""
    command = [place.runtime, "--root", str(place.where / "state"), "kill", place.id, "KILL"]
    subprocess.run(command, check=True)


def ask(path: Path, *requests: object) -> dict[str, Any]:
    """Questions to a control socket, one after the other, and the last one's answer."""
    answer: dict[str, Any] = {}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(GUARD)
        connection.connect(str(path))
        for request in requests:
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(connection.recv(4096))
    return answer


class Tmux:
    """A terminal with somebody at it, who is called tmux."""

    def __init__(self, where: Path) -> None:
        self._socket = str(where / "tmux")
        self.do("-f", "/dev/null", "new-session", "-d", "-x", "90", "-y", "30", "sh")

    def do(self, *args: str) -> str:
        """One of its commands; what it prints."""
        command = ["tmux", "-S", self._socket, *args]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=GUARD
        ).stdout

    def type(self, *keys: str) -> None:
        """Type text or named keys."""
        self.do("send-keys", *keys)

    def resize(self, rows: int, columns: int) -> None:
        """Make the window another size."""
        self.do("resize-window", "-x", str(columns), "-y", str(rows))

    def shows(self, text: str) -> None:
        """Wait until a line of the screen is *text*."""
        try:
            eventually(lambda: text in self.do("capture-pane", "-p").splitlines(), f"{text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error} in\n{self.do('capture-pane', '-p')}") from None

    def end(self) -> None:
        """Close it."""
        self.do("kill-server")


def command(*args: str) -> str:
    """A line for a shell that runs ours and says its status."""
    return f"clear; {shlex.join([*PYSHIMIO, *args])}; echo status $?"
