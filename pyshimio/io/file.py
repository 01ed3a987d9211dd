"""Log files: the shim's ``file://``, without its panics and its stops on a full disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from .._stdio import StdioURI
from ._base import GRACE
from ._files import FileOutlet, SharedFile, check_on_error
from .pipe import PipeIO

if TYPE_CHECKING:
    from .._file import OnError
    from ._owner import Chown

__all__ = ("FileIO",)


class FileIO(PipeIO):
    """Append what the child writes to one or two files.

    Regular files are written by threads of the file pool, so a file system that is stuck
    stops neither the loop nor other streams.  A full one stops the child only if asked to.

    Args:
        stdout, stderr: Absolute paths of regular files or character devices, made with
            their parents (0644, 0755) when missing.  The same path twice is one file with
            one descriptor.  None is ``/dev/null``.
        stdin: Whether the child gets a pipe as stdin (:attr:`~PipeIO.stdin`) instead of /dev/null.
        on_error: While the disk is full (ENOSPC, EDQUOT, EIO, EROFS, EFBIG): ``"drop"`` up
            to a line's end, count, and try again every second; ``"block"`` the child;
            ``"fail"`` the stream.  Any other error fails the stream.
        mark: With ``drop``: write a line into the file that says how many bytes are missing.
        nofollow: Refuse a symbolic link.
        inline: Write on the loop; for file systems that cannot block (tmpfs).
        uid, gid, chown, grace, on_exit: As for :class:`PipeIO`.

    The files are opened by :meth:`~PipeIO.spawn` or :meth:`~PipeIO.copy` (and by
    :func:`create_io`), which raise :class:`~pyshimio.errors.FileAccessError` when this user may
    not, :class:`~pyshimio.errors.NotAFileError` when a path holds something else, and
    :class:`~pyshimio.errors.FileOpenError` for any other reason.

    Raises:
        RelativePathError: A path does not start at ``/``.
        URINulError: A path holds a NUL.
        InvalidOptionError: There is no such *on_error*.
    """

    def __init__(
        self,
        stdout: str | os.PathLike[str] | None,
        stderr: str | os.PathLike[str] | None = None,
        *,
        stdin: bool = False,
        on_error: OnError = "drop",
        mark: bool = False,
        nofollow: bool = False,
        inline: bool = False,
        uid: int = -1,
        gid: int = -1,
        chown: Chown = "strict",
        grace: float = GRACE,
        on_exit: Literal["kill", "leave"] = "kill",
    ) -> None:
        check_on_error(on_error)
        paths = {
            stream: StdioURI("file", path).path
            for stream, path in (("stdout", stdout), ("stderr", stderr))
            if path is not None
        }
        super().__init__(
            uid,
            gid,
            stdin=stdin,
            stdout="stdout" in paths,
            stderr="stderr" in paths,
            chown=chown,
            grace=grace,
            on_exit=on_exit,
        )
        files: dict[str, SharedFile] = {}
        for path in paths.values():
            files.setdefault(
                os.path.realpath(path),
                SharedFile(path, nofollow=nofollow, inline=inline, on_error=on_error, mark=mark),
            )
        outlets = {stream: FileOutlet(files[os.path.realpath(p)]) for stream, p in paths.items()}
        self.bind(outlets, None)
