"""A log file as a sink: appended to, reopened, and never the reason why a child stops."""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from . import _sys
from ._fd import OwnedFd, duplicate
from .errors import FileAccessError, FileOpenError, NotAFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from ._filepool import Lane

__all__ = ("FileSink", "LogFile", "OnError")

OnError = Literal["drop", "block", "fail"]

NEWLINE = 0x0A
LONGEST_NAME = 255
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
        inline: Write on the loop; for file systems that cannot block (tmpfs).  With
            *on_error* ``block`` a thread writes all the same: it is the one to wait.
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
        self._lock = threading.Lock()  # around a change of the descriptor
        self._fd, status = self._open()
        self.device = status.st_dev
        """The file system that it is in."""
        device = stat.S_ISCHR(status.st_mode)
        self.pollable = device and not _sys.never_blocks(status)
        waits = on_error == "block" and not self.pollable
        self.blocking = waits or not (inline or device)

    @classmethod
    def check(cls, path: str, *, create: bool, nofollow: bool) -> None:
        """Raise what opening it would, as far as it can be known without making anything."""
        try:
            cls(path, create=False, nofollow=nofollow).abandon()
        except FileOpenError as error:
            if error.errno != errno.ENOENT or not create:
                raise
            _check_parents(path)

    def _open(self) -> tuple[OwnedFd, os.stat_result]:
        try:
            fd = OwnedFd(self._open_or_make())
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
        try:
            status = _sys.fstat(fd.fileno())
        except BaseException:
            fd.close()
            raise
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISCHR(status.st_mode)):
            fd.close()
            raise self._refusal(errno.EINVAL)
        return fd, status

    def _open_or_make(self) -> int:
        try:
            return _sys.open(self.path, self._flags, 0o644)
        except FileNotFoundError:
            if not self._flags & os.O_CREAT:
                raise
            _make_parents(self.path)
            return _sys.open(self.path, self._flags, 0o644)

    def _refusal(self, code: int) -> NotAFileError:
        return NotAFileError(
            f"{self.path!r} is neither a regular file nor a character device"
            " (a FIFO is written through fifo:// instead)",
            path=self.path,
            errno=code,
        )

    @property
    def fd(self) -> OwnedFd:
        """The descriptor that is written now; :meth:`reopen` replaces it."""
        return self._fd

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
        with self._lock:
            # It may have been closed while a thread was opening it.
            old, self._fd = (fd, self._fd) if self._fd.closed else (self._fd, fd)
        self.midline = False
        self.retry_at = 0.0
        old.close()

    def close(self) -> None:
        """One sink less; the last one closes the file."""
        self.sinks -= 1
        if self.sinks <= 0:
            self.abandon()
            if self.lane is not None:
                self.lane.close()

    def abandon(self) -> None:
        """Close a file that nobody has come to want; from any thread."""
        with self._lock:
            self._fd.close()

    def __repr__(self) -> str:
        return f"<LogFile {self.path!r} {'closed' if self._fd.closed else 'open'}>"


class FileSink:
    """One stream's way into a :class:`LogFile`.

    While the file system has no room (ENOSPC, EDQUOT, EIO, EROFS, EFBIG) the sink, by the
    file's *on_error*, takes and drops bytes (``drop``), takes nothing (``block``) or raises
    (``fail``); every other error is raised.  (A terminal that was hung up says EIO for ever:
    with ``block`` it is tried again after :meth:`reopen`.)  It tries again every second and after
    :meth:`reopen`.  A stream whose bytes were dropped goes on with its next whole line, and
    a line that was cut in the file is ended first, so nothing is glued to half a line.
    """

    def __init__(self, file: LogFile) -> None:
        self.file = file
        self.dropped = 0
        self._cut = False  # the last byte that was dropped was no newline
        self._open = True
        self._waited: OwnedFd | None = None  # the file's descriptor that _poll is a copy of
        self._poll: OwnedFd | None = None
        file.sinks += 1

    @property
    def blocking(self) -> bool:
        return self.file.blocking

    def fileno(self) -> int:
        if not self.file.pollable:
            return -1
        if self._poll is None:
            # Two streams may wait for one terminal, and epoll takes a number only once.
            self._waited = self.file.fd
            self._poll = duplicate(self._waited)
        return self._poll.fileno()

    def _forget_poll(self) -> None:
        if self._poll is not None:
            self._poll.close()
            self._poll = None

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        data = memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers))
        file = self.file
        skipped = 0
        if self._waited is not file.fd:
            self._forget_poll()
        try:
            if self._cut or file.lost is not None:
                if _sys.monotonic() < file.retry_at:
                    return self._drop(data) if file.on_error == "drop" else self._wait()
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
            return skipped or self._wait()
        except OSError as error:
            if error.errno not in _sys.NO_ROOM or file.on_error == "fail":
                raise
            self._refuse(error)
            if file.on_error == "block":
                return self._wait()
            return skipped + self._drop(data[skipped:])
        if file.lost is not None:
            lost, file.lost = file.lost, None
            if file.trouble is not None:
                file.trouble(None, lost)
        return skipped + count

    def _wait(self) -> int | None:
        """What :meth:`write` returns when nothing was taken."""
        return None if self.file.pollable else 0

    def _refuse(self, error: OSError) -> None:
        file = self.file
        file.retry_at = _sys.monotonic() + RETRY
        if file.lost is None:
            file.lost = 0
            if file.trouble is not None:
                file.trouble(error, 0)

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
            self._forget_poll()
            self.file.close()

    def __repr__(self) -> str:
        return f"<FileSink {self.file.path!r} {'open' if self._open else 'closed'}>"


def _check_parents(path: str) -> None:
    """Raise what making *path*, where nothing is yet, would meet with."""
    code = 0
    *parents, name = path.split("/")
    if not name:
        code = errno.EISDIR
    elif any(len(os.fsencode(part)) > LONGEST_NAME for part in (*parents, name)):
        code = errno.ENAMETOOLONG
    else:
        parent = os.path.dirname(path)
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        if not os.path.isdir(parent):
            code = errno.ENOTDIR
        elif not os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
            code = errno.EACCES
    if code:
        kind = FileAccessError if code == errno.EACCES else FileOpenError
        raise kind(
            f"cannot make {path!r} for appending: {os.strerror(code)}", path=path, errno=code
        )


def _make_parents(path: str) -> None:
    """The directories above *path*, each 0755 less the umask.

    ``os.makedirs`` gives its mode to the last one only.
    """
    parent = os.path.dirname(path)
    try:
        _sys.mkdir(parent, 0o755)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_parents(parent)
        with suppress(FileExistsError):
            _sys.mkdir(parent, 0o755)
