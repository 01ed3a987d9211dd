"""What is known of a container that is being run, for whoever has to clear it away.

A directory for each container in ``$XDG_RUNTIME_DIR/pyshimio`` (``/run/pyshimio``), under a
name that the runtime's root directory and the container's id make.  Who runs the container
holds a lock there, which ends with that process however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from ._trouble import Refusal

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ("Record",)


@attrs.define(eq=False)
class Record:
    """One container's, held by whoever made it with :meth:`take`.

    Args:
        path: The directory.
    """

    path: str
    _lock: int = -1

    @classmethod
    def of(cls, program: str, root: str | None, id: str) -> Record:  # noqa: A002 - the runtime's word
        """Where it is, whether or not there is one.

        Raises:
            Refusal: No container is called so.
        """
        if not id or "/" in id or id in {".", ".."}:
            raise Refusal(f"{id!r} is no name for a container")
        where = f"{os.path.basename(program)}\0{os.path.abspath(root) if root else ''}"
        key = hashlib.sha256(where.encode()).hexdigest()[:16]
        return cls(os.path.join(_base(), key, id))

    def take(self, **facts: object) -> None:
        """Make it, say who we are, and hold it.

        Raises:
            Refusal: Somebody runs this container, or was killed while it ran.
        """
        if not self._hold():
            raise Refusal(f"{os.path.basename(self.path)} is being run by process {self._pid()}")
        if self.exists():
            self.close()
            raise Refusal(
                f"whoever ran {os.path.basename(self.path)} was killed, and what is left of it is"
                " in the way; `pyshimio rm` clears it"
            )
        with open(self._file, "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), **facts}, file)

    def take_over(self) -> dict[str, object]:
        """Hold what somebody left behind who was killed; what it says.

        Raises:
            Refusal: That one lives.
        """
        if not os.path.isdir(self.path):
            return {}
        if not self._hold():
            raise Refusal(
                f"{os.path.basename(self.path)} is being run by process {self._pid()}; end that"
            )
        return self._facts()

    def make_directory(self, name: str) -> str:
        """One in it; its path."""
        path = os.path.join(self.path, name)
        os.mkdir(path, 0o700)
        return path

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

    def _pid(self) -> object:
        return self._facts().get("pid", "?")

    def _hold(self) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        path = os.path.join(self.path, "lock")
        while True:
            for directory in (_base(), os.path.dirname(self.path), self.path):
                with suppress(FileExistsError):
                    os.mkdir(directory, 0o700)
            _check_owner(_base())
            self._lock = os.open(path, flags, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(self._lock).st_ino == os.stat(path).st_ino:
                    return True
            except BlockingIOError:
                self.close()
                return False
            except FileNotFoundError:
                pass
            # Whoever had it has removed it meanwhile.
            self.close()

    def remove(self) -> None:
        """It is cleared away."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # others of this runtime are left
            os.rmdir(os.path.dirname(self.path))
        self.close()

    def close(self) -> None:
        """Hold it no more.  Idempotent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _check_owner(base: str) -> None:
    """In a directory for everybody, somebody else may have made it for us."""
    if os.stat(base).st_uid != os.geteuid():
        raise Refusal(f"{base} is somebody else's; set XDG_RUNTIME_DIR to a directory of yours")


def _base() -> str:
    where = os.environ.get("XDG_RUNTIME_DIR")
    if not where:
        return "/run/pyshimio" if os.geteuid() == 0 else f"/tmp/pyshimio-{os.geteuid()}"  # noqa: S108
    return os.path.join(where, "pyshimio")
