"""A log file as a sink: appended to, reopened, and never the reason why a child stops."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Literal

from . import _sys
from ._fd import OwnedFd
from .errors import FileAccessError, FileOpenError, NotAFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from ._filepool import Lane

__all__ = ("FileSink", "LogFile", "OnError")

OnError = Literal["drop", "block", "fail"]

NEWLINE = 0x0A
RETRY = 1.0
"""Seconds between two attempts at a file that has no room."""


class LogFile:
    """One open file that the sinks of one or two streams share.

    It closes with the last of its sinks (containerd closed it with the first one, and lost
    the tail of the other stream: containerd #3118).

    Args:
        path: Absolute; missing parents are made (0755).
        create: Make the file (0644, less the umask) when it is missing.
        nofollow: A symbolic link at *path* is an error.
        inline: Write on the loop; for file systems that cannot block (tmpfs).
        on_error: What to do while the file system has no room, see :class:`FileSink`.
        mark: Write a line that says how many bytes were dropped.

    Raises:
        FileAccessError: This user may not.
        NotAFileError: There is a FIFO, a socket, a directory or a block device.
        FileOpenError: Anything else the kernel has against it.
    """

    def __init__(
        self,
        path: str,
        *,
        create: bool = True,
        nofollow: bool = False,
        inline: bool = False,
        on_error: OnError = "drop",
        mark: bool = False,
    ) -> None:
        self.path = path
        self.on_error = on_error
        self.mark = mark
        self.sinks = 0
        self.lane: Lane | None = None
        self.trouble: Callable[[OSError | None, int], None] | None = None
        """Called from the writing thread: an error when the file begins to refuse, then
        None and the bytes lost when it takes bytes again."""
        self.lost: int | None = None  # bytes dropped while it refuses; None: it does not
        self.retry_at = 0.0
        self.midline = False  # the last byte that reached the file was no newline
        self._flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        if create:
            self._flags |= os.O_CREAT
        if nofollow:
            self._flags |= os.O_NOFOLLOW
        self._fd, status = self._open()
        device = stat.S_ISCHR(status.st_mode)
        self.pollable = device and not _sys.never_blocks(status)
        self.blocking = not (inline or device)

    def _open(self) -> tuple[OwnedFd, os.stat_result]:
        try:
            if self._flags & os.O_CREAT:
                _sys.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
            fd = OwnedFd(_sys.open(self.path, self._flags, 0o644))
        except OSError as error:
            if error.errno in {errno.ENXIO, errno.EISDIR}:  # a FIFO without a reader, a socket
                raise self._refusal(error.errno) from error
            denied = isinstance(error, PermissionError)
            kind = FileAccessError if denied else FileOpenError
            raise kind(
                f"cannot open {self.path!r} for appending: {error.strerror}",
                path=self.path,
                errno=error.errno,
            ) from error
        status = _sys.fstat(fd.fileno())
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISCHR(status.st_mode)):
            fd.close()
            raise self._refusal(errno.EINVAL)
        return fd, status

    def _refusal(self, code: int) -> NotAFileError:
        return NotAFileError(
            f"{self.path!r} is neither a regular file nor a character device"
            " (a FIFO is written through fifo:// instead)",
            path=self.path,
            errno=code,
        )

    def fileno(self) -> int:
        """What to wait for; -1 unless the file is a terminal or the like."""
        return self._fd.fileno() if self.pollable else -1

    def append(self, data: Buffer) -> int:
        """One write(2) at the end of the file."""
        with self._fd.lend() as fd:
            count = _sys.write(fd, data)
        if count:
            self.midline = memoryview(data)[count - 1] != NEWLINE
        return count

    def recover(self) -> None:
        """The file may have room again: begin on a line of its own, with the mark if asked."""
        if self.lost and self.midline:
            self.append(b"\n")
        if self.lost and self.mark:
            self.append(b"[pyshimio: %d bytes dropped]\n" % self.lost)

    def reopen(self) -> None:
        """Open *path* again and let go of the file that had the name before.

        Raises:
            FileOpenError: As when it was first opened; the old file stays in use then.
        """
        fd, _ = self._open()
        old, self._fd = self._fd, fd
        self.midline = False
        self.retry_at = 0.0
        old.close()

    def close(self) -> None:
        """One sink less; the last one closes the file."""
        self.sinks -= 1
        if self.sinks <= 0:
            self._fd.close()
            if self.lane is not None:
                self.lane.close()

    def abandon(self) -> None:
        """Close a file that nobody has come to want."""
        self._fd.close()

    def __repr__(self) -> str:
        return f"<LogFile {self.path!r} {'closed' if self._fd.closed else 'open'}>"


class FileSink:
    """One stream's way into a :class:`LogFile`.

    While the file system has no room (ENOSPC, EDQUOT, EIO, EROFS, EFBIG) the sink, by the
    file's *on_error*, takes and drops bytes (``drop``), takes nothing (``block``) or raises
    (``fail``); every other error is raised.  It tries again every second and after
    :meth:`reopen`.  A stream whose bytes were dropped goes on with its next whole line, and
    a line that was cut in the file is ended first, so nothing is glued to half a line.
    """

    def __init__(self, file: LogFile) -> None:
        self.file = file
        self.dropped = 0
        self._cut = False  # the last byte that was dropped was no newline
        self._open = True
        file.sinks += 1

    @property
    def blocking(self) -> bool:
        return self.file.blocking

    def fileno(self) -> int:
        return self.file.fileno()

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        data = memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers))
        file = self.file
        skipped = 0
        try:
            if self._cut or file.lost is not None:
                if _sys.monotonic() < file.retry_at:
                    return self._drop(data) if file.on_error == "drop" else 0
                if self._cut:
                    # The rest of the line whose beginning is gone goes as well.
                    skipped = bytes(data).find(b"\n") + 1 or len(data)
                    self._drop(data[:skipped])
                    if skipped == len(data):
                        return skipped
                if file.lost is not None:
                    file.recover()
            count = file.append(data[skipped:])
        except BlockingIOError:
            return skipped or (None if file.pollable else 0)
        except OSError as error:
            if error.errno not in _sys.NO_ROOM or file.on_error == "fail":
                raise
            return skipped + self._refuse(error, data[skipped:])
        if file.lost is not None:
            lost, file.lost = file.lost, None
            if file.trouble is not None:
                file.trouble(None, lost)
        return skipped + count

    def _refuse(self, error: OSError, data: memoryview) -> int:
        file = self.file
        file.retry_at = _sys.monotonic() + RETRY
        if file.lost is None:
            file.lost = 0
            if file.trouble is not None:
                file.trouble(error, 0)
        return self._drop(data) if file.on_error == "drop" else 0

    def _drop(self, data: memoryview) -> int:
        count = len(data)
        self.dropped += count
        self.file.lost = (self.file.lost or 0) + count
        self._cut = data[-1] != NEWLINE
        return count

    def flush(self) -> None:
        pass

    def reopen(self) -> None:
        self.file.reopen()

    def close(self) -> None:
        if self._open:
            self._open = False
            self.file.close()

    def __repr__(self) -> str:
        return f"<FileSink {self.file.path!r} {'open' if self._open else 'closed'}>"
