"""What is known of a container that is being run, for whoever has to clear it away.

A directory for each container in ``/run/pyshimio`` (``$XDG_RUNTIME_DIR/pyshimio`` for who is not
root), under a name that the runtime, its root directory and the container's id make.  Who runs
the container holds a lock there, which ends with that process however it ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from ._lock import locked
from ._trouble import Refusal

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .._fd import OwnedFd

__all__ = ("Record", "check_private")

LOOKS, PAUSE = 50, 0.01
"""For a record that is being written; the second in seconds."""


@attrs.define(eq=False)
class Record:
    """One container's, held by whoever made it with :meth:`take`.

    Args:
        path: The directory.
        id: The container's.
        remedy: The command that clears it.
    """

    path: str
    id: str
    remedy: str
    _lock: OwnedFd | None = None

    @classmethod
    def of(cls, program: str, root: str | None, id: str) -> Record:  # noqa: A002 - the runtime's word
        """Where it is, whether or not there is one.

        Raises:
            Refusal: No container is called so.
        """
        if not id or "/" in id or id in {".", ".."}:
            raise Refusal(f"{id!r} is no name for a container")
        name = os.path.basename(program)
        # Two names of one directory are one root, and none is the runtime's own.
        where = os.path.realpath(root or f"/run/{name}")
        key = hashlib.sha256(f"{name}\0{where}".encode()).hexdigest()[:16]
        remedy = ["pyshimio", "rm", "--runtime", program, *(["--root", root] if root else []), id]
        return cls(os.path.join(_base(), f"{key}-{id}"), id, shlex.join(remedy))

    def take(self, **facts: object) -> None:
        """Make it, say who we are, and hold it.

        Raises:
            Refusal: Somebody runs this container, or was killed while it ran.
        """
        self._hold()
        if self.exists():
            self.close()
            raise Refusal(
                f"whoever ran {self.id} was killed, and what is left of it is in the way;"
                f" `{self.remedy}` clears it"
            )
        new = f"{self._file}.new"
        with open(new, "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), **facts}, file)
        os.replace(new, self._file)

    def take_over(self) -> dict[str, object]:
        """Hold what somebody left behind who was killed; what it says, if anything is left.

        Raises:
            Refusal: That one lives.
        """
        self._hold()
        return self._facts()

    def exists(self) -> bool:
        """Whether something is left, or in use."""
        return os.path.exists(self._file)

    @property
    def _file(self) -> str:
        return os.path.join(self.path, "record.json")

    def _facts(self) -> dict[str, object]:
        try:
            with open(self._file, encoding="utf-8") as file:
                facts: dict[str, object] = json.load(file)
        except (OSError, ValueError):  # killed before it was written
            return {}
        return facts

    def _hold(self) -> None:
        base = os.path.dirname(self.path)
        with suppress(FileExistsError):
            os.mkdir(base, 0o700)
        check_private(base)
        while True:
            with suppress(FileNotFoundError):
                with suppress(FileExistsError):
                    os.mkdir(self.path, 0o700)
                path = os.path.join(self.path, "lock")
                self._lock = locked(path, os.O_RDWR | os.O_CREAT)
                if self._lock is None:
                    raise Refusal(f"{self.id} is being run by process {self._holder()}; end that")
                if os.fstat(self._lock.fileno()).st_ino == os.stat(path).st_ino:
                    return
            # Whoever had it has removed it meanwhile.
            self.close()

    def _holder(self) -> object:
        """The pid of whoever holds it, who may be about to write that down."""
        for _ in range(LOOKS):
            if (pid := self._facts().get("pid")) is not None:
                return pid
            time.sleep(PAUSE)
        return "?"

    def remove(self) -> None:
        """It is cleared away."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Hold it no more.  Idempotent."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def check_private(directory: str) -> None:
    """Raise for a directory that somebody else made, or into which somebody else gets.

    Raises:
        Refusal: It is one.
    """
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise Refusal(f"{directory} is no directory")
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise Refusal(
            f"{directory} is not for us alone; it has to be ours, with mode 0700, or to be missing"
        )


def _base() -> str:
    if os.geteuid() == 0:
        return "/run/pyshimio"  # whatever the session says: who clears may be in another one
    where = os.environ.get("XDG_RUNTIME_DIR")
    return f"{where}/pyshimio" if where else f"/tmp/pyshimio-{os.geteuid()}"  # noqa: S108
