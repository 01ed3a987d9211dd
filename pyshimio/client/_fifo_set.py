"""The FIFOs between a process and its manager: made together, removed together."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from .. import _sys
from .._stdio import Stdio
from ..errors import DestinationError, FifoExistsError, InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

__all__ = ("FifoSet",)

STREAMS = ("stdin", "stdout", "stderr")


@attrs.define(eq=False)
class FifoSet:
    """One process's FIFOs by name (``cio.FIFOSet``); nothing is open.

    Make one with :meth:`create` or :meth:`load`; as a context manager it removes its files.

    Attributes:
        stdio: What the shim is told.
    """

    stdio: Stdio
    _directory: str | None = None

    @classmethod
    def create(  # noqa: D417 - the streams share a line
        cls,
        id: str,  # noqa: A002 - containerd's word
        *,
        terminal: bool = False,
        directory: str | os.PathLike[str] | None = None,
        stdin: bool = True,
        stdout: bool = True,
        stderr: bool = True,
    ) -> FifoSet:
        """Make ``<id>-stdin``, ``<id>-stdout`` and ``<id>-stderr`` (mode 0600).

        Args:
            id: Of the container or process; part of the names.
            terminal: The process has a terminal, so there is no stderr.
            directory: Where; made, with mode 0700, when it is missing.  None makes a new one in
                ``$XDG_RUNTIME_DIR`` or the directory for temporary files.
            stdin, stdout, stderr: Which streams there are.

        Raises:
            InvalidOptionError: *id* cannot be part of a file's name.
            FifoExistsError: There is such a FIFO; :meth:`load` takes those over.
            DestinationError: The directory or a FIFO cannot be made; what was made is removed.
        """
        if not id or "/" in id or "\0" in id:
            raise InvalidOptionError(f"{id!r} cannot be part of a file's name", option="id")
        wanted = {"stdin": stdin, "stdout": stdout, "stderr": stderr and not terminal}
        where = _make_directory(directory)
        paths = {
            stream: os.path.join(where, f"{id}-{stream}") if wanted[stream] else ""
            for stream in STREAMS
        }
        made: list[str] = []
        try:
            for path in filter(None, paths.values()):
                _make_fifo(path)
                made.append(path)
        except BaseException:
            _remove(made, where)
            raise
        return cls(Stdio(**paths, terminal=terminal), where)

    @classmethod
    def load(cls, stdio: Stdio) -> FifoSet:
        """Take over FIFOs that exist already, after a restart say.

        Args:
            stdio: Their paths; what has gone meanwhile, or was none, is left alone.
        """
        directories = {os.path.dirname(path) for path in _paths(stdio)}
        return cls(stdio, directories.pop() if len(directories) == 1 else None)

    def remove(self) -> None:
        """Remove the FIFOs, and their directory if it is empty then.  Idempotent.

        Nothing but FIFOs is removed (containerd once removed ``/dev``: #4019).
        """
        _remove(_paths(self.stdio), self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


def _paths(stdio: Stdio) -> list[str]:
    """Those that may be FIFOs: a path, or a ``fifo:`` URI's."""
    texts = (stdio.stdin, stdio.stdout, stdio.stderr)
    return [text for text in texts if text.startswith("/")]


def _remove(paths: Sequence[str], directory: str | None) -> None:
    for path in paths:
        with suppress(OSError):
            if _sys.is_fifo(os.lstat(path).st_mode):
                _sys.unlink(path)
    if directory is not None:
        with suppress(OSError):
            _sys.rmdir(directory)


def _make_directory(directory: str | os.PathLike[str] | None) -> str:
    try:
        if directory is None:
            where = os.environ.get("XDG_RUNTIME_DIR") or None
            return tempfile.mkdtemp(prefix="fifo-", dir=where)
        path = os.path.abspath(directory)
        _sys.makedirs(path, 0o700, exist_ok=True)
    except OSError as error:
        raise DestinationError(
            f"cannot make a directory for FIFOs: {error}",
            path=str(directory or ""),
            errno=error.errno,
        ) from error
    return path


def _make_fifo(path: str) -> None:
    try:
        _sys.mkfifo(path, 0o600)
    except FileExistsError as error:
        raise FifoExistsError(
            f"there is a file at {path!r} already; FifoSet.load() takes FIFOs over",
            path=path,
            errno=errno.EEXIST,
        ) from error
    except OSError as error:
        raise DestinationError(
            f"cannot make the FIFO {path!r}: {error.strerror}", path=path, errno=error.errno
        ) from error
