"""Log files: the shim's ``file://``, without its panics and its stops on a full disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from ..errors import InvalidOptionError, RelativePathError
from ._base import GRACE
from ._files import FileOutlet, SharedFile
from .pipe import Chown, PipeIO

if TYPE_CHECKING:
    from .._file import OnError

__all__ = ("FileIO",)


class FileIO(PipeIO):
    """Append what the child writes to one or two files.

    Regular files are written by threads of the file pool, so a file system that is stuck
    stops neither the loop nor other streams.  A full one stops the child only if asked to.

    Args:
        stdout, stderr: Absolute paths of regular files or character devices, made with
            their parents (0644, 0755) when missing.  The same path twice is one file with
            one descriptor.  None is ``/dev/null``.
        stdin: Whether the child gets a pipe as stdin (:attr:`stdin`) instead of /dev/null.
        on_error: While the disk is full (ENOSPC, EDQUOT, EIO, EROFS, EFBIG): ``"drop"`` up
            to a line's end, count, and try again every second; ``"block"`` the child;
            ``"fail"`` the stream.  Any other error fails the stream.
        mark: With ``drop``: write a line into the file that says how many bytes are missing.
        nofollow: Refuse a symbolic link.
        inline: Write on the loop; for file systems that cannot block (tmpfs).
        uid, gid, chown, grace, on_exit: As for :class:`PipeIO`.

    Raises:
        FileAccessError: This user may not open a file.
        NotAFileError: A path holds something else.
        FileOpenError: Any other reason.
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
        if on_error not in {"drop", "block", "fail"}:
            raise InvalidOptionError(
                f'on_error is "drop", "block" or "fail", not {on_error!r}', option="on_error"
            )
        paths = {
            stream: os.fspath(path)
            for stream, path in (("stdout", stdout), ("stderr", stderr))
            if path is not None
        }
        for path in paths.values():
            if not path.startswith("/"):
                raise RelativePathError(f"the log file's path {path!r} is not absolute", uri=path)
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
        files = {
            path: SharedFile(
                path, nofollow=nofollow, inline=inline, on_error=on_error, mark=mark
            )
            for path in paths.values()
        }
        self.bind({stream: FileOutlet(files[path]) for stream, path in paths.items()}, None)
