"""Containers on disk: what there are, what they run, and how far they have come."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ("Failure", "Store", "Stored", "locked", "started", "stat_fields", "write_whole")


class Failure(Exception):  # noqa: N818 - what runc calls an error, in its words
    """What the runtime ends with status 1 for."""


class Stored:
    """One container.

    Args:
        directory: Its own, under the root.
        about: What is kept of it: ``id``, ``bundle``, ``rootfs``, ``created``, ``annotations``,
            and of its processes (``init``, ``execs``) the pid and when it began.
    """

    def __init__(self, directory: str, about: dict[str, Any]) -> None:
        self.directory = directory
        self.about = about

    @property
    def fifo(self) -> str:
        """Where init waits for ``start``."""
        return os.path.join(self.directory, "exec.fifo")

    @property
    def pid(self) -> int:
        """Of its init; 0 when that has ended."""
        pid, begun = self.about["init"]
        return pid if begun is not None and started(pid) == begun else 0

    @property
    def status(self) -> str:
        """As runc says it."""
        if not self.pid:
            return "stopped"
        if self.about.get("paused"):
            return "paused"
        return "created" if os.path.exists(self.fifo) else "running"

    def pids(self) -> list[int]:
        """Its processes: init, execs, and all that are in their sessions."""
        own = [self.about["init"], *self.about["execs"]]
        sessions = {pid for pid, begun in own if begun is not None and started(pid) == begun}
        # (Those whose leader has gone, too, as long as nobody else has its number.)
        sessions |= {pid for pid, _ in own if started(pid) is None}
        return sorted(pid for pid, session in _sessions() if session in sessions)

    @contextlib.contextmanager
    def changing(self) -> Generator[dict[str, Any]]:
        """What is kept of it, as it is now, to be changed by us alone; written at the end."""
        path = os.path.join(self.directory, "state.json")
        with locked(os.path.join(self.directory, "lock")):
            with open(path, encoding="utf-8") as file:
                self.about = json.load(file)
            yield self.about
            self.save()

    def save(self) -> None:
        """Write it, so that whoever reads gets the old or the new."""
        write_whole(os.path.join(self.directory, "state.json"), self.about)

    def remove(self) -> None:
        """Forget it; somebody else may have done so."""
        shutil.rmtree(self.directory, ignore_errors=True)


class Store:
    """All containers under one root."""

    def __init__(self, root: str) -> None:
        self.root = root

    def make(self, name: str, about: dict[str, Any]) -> Stored:
        """A new one.

        Raises:
            Failure: There is one that is called so, or that is no name.
        """
        directory = self._directory(name)
        os.makedirs(self.root, mode=0o711, exist_ok=True)
        try:
            os.mkdir(directory, 0o711)
        except FileExistsError as error:
            raise Failure("container with given ID already exists") from error
        return Stored(directory, {"id": name, "execs": [], **about})

    def find(self, name: str) -> Stored:
        """One that there is.

        Raises:
            Failure: There is none.
        """
        directory = self._directory(name)
        try:
            with open(os.path.join(directory, "state.json"), encoding="utf-8") as file:
                return Stored(directory, json.load(file))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Failure("container does not exist") from error

    def forget(self, name: str) -> None:
        """What a command that was killed has left of one, before it was one."""
        shutil.rmtree(self._directory(name), ignore_errors=True)

    def _directory(self, name: str) -> str:
        if name in {"", ".", ".."} or not all(sign.isalnum() or sign in "_+-." for sign in name):
            raise Failure("invalid container ID format")
        return os.path.join(self.root, name)

    def all(self) -> Iterator[Stored]:
        """Every one, by name."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.root)):
                with contextlib.suppress(Failure):
                    yield self.find(name)


@contextlib.contextmanager
def locked(path: str) -> Generator[None]:
    """Be the only one, of all processes."""
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_whole(path: str, value: object) -> None:
    """JSON, so that whoever reads gets the old or the new."""
    new = f"{path}.{os.getpid()}"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(new, path)


def started(pid: int) -> int | None:
    """When a process began, in ticks since boot; None when it has ended."""
    fields = stat_fields(pid)
    return None if fields is None or fields[0] in {"Z", "X"} else int(fields[19])


def _sessions() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        fields = stat_fields(int(name)) if name.isdecimal() else None
        if fields is not None and fields[0] not in {"Z", "X"}:
            yield int(name), int(fields[3])


def stat_fields(pid: int) -> list[str] | None:
    """What ``/proc/PID/stat`` says, from the state on."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
