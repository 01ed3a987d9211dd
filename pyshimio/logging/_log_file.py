"""A log file of whole records, which is rotated between two of them and repaired when it is opened.

Records end with a newline and have no other one.  Nothing here is kept in memory only: after a
SIGKILL before any of these calls the next one that opens the file goes on where this one was.
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import LogFileError
from . import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._rotation import Rotation

__all__ = ("LogFile",)

MODE = 0o640
BLOCK = 1 << 16
COMPRESSION = 5.0
"""Seconds for a compression when the file is closed: a logger is killed 12 s after SIGTERM."""
APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
NEWLINE = b"\n"


class LogFile:
    """The file at *path*, open for appending whole records.

    Args:
        path: Its directory has to be there.
        rotation: What becomes of a full file; None lets it grow.
        nofollow: Refuse a symbolic link.
        repair: Cut off what is no whole record when the file is opened: the beginning of one that
            a process that was killed could not end, or NULs that a crashed file system has put
            there.
        failed: Told why the file could not be rotated or opened anew, and the old one stays in use;
            or that the old one was not closed well, so that it may lack its end.

    Attributes:
        repaired: Bytes that were cut off.
        rotations: How often it was rotated.
        reopened: How often it was opened anew.
        failures: How often it could not be rotated, opened anew or closed well.
    """

    def __init__(
        self,
        path: str,
        *,
        rotation: Rotation | None = None,
        nofollow: bool = False,
        repair: bool = True,
        failed: Callable[[Exception], None] = lambda _error: None,
    ) -> None:
        self.path: str = path
        self.repaired: int = 0
        self.rotations: int = 0
        self.reopened: int = 0
        self.failures: int = 0
        self._tell = failed
        self._rotation = rotation
        self._flags = APPEND | (os.O_NOFOLLOW if nofollow else 0)
        self._repairs = repair
        self._fd = -1
        self._inode = (0, 0)
        self._rest = memoryview(b"")

    # -- opening ------------------------------------------------------------------------

    def open(self) -> None:
        """Open it, make it where there is none, and repair it.

        Raises:
            LogFileError: It cannot be opened, or is no file.
        """
        if self._rotation is not None:
            try:
                self._rotation.tidy(self.path)
            except OSError as error:
                raise self._unopened(error) from error
        self._open()

    def _open(self) -> None:
        try:
            fd = _kernel.open(self.path, self._flags, MODE)
        except OSError as error:
            raise self._unopened(error) from error
        try:
            status = _kernel.fstat(fd)
            self._check(status.st_mode)
            if self._repairs and status.st_size:
                whole = _whole(fd, status.st_size)
                if whole < status.st_size:
                    _kernel.ftruncate(fd, whole)
                    self.repaired += status.st_size - whole
        except BaseException:
            _kernel.close(fd)
            raise
        old, self._fd = self._fd, fd
        self._inode = (status.st_dev, status.st_ino)
        if old >= 0:
            try:
                _kernel.close(old)
            except OSError as error:
                self._failed(self._unclosed(error))

    def _check(self, mode: int) -> None:
        if not stat.S_ISREG(mode):
            raise LogFileError(
                f"{self.path} is no regular file, and a log that is kept is one",
                path=self.path,
                errno=errno.EINVAL,
            )

    def _unopened(self, error: OSError) -> LogFileError:
        return self._failure(error, f"cannot open the log {self.path}: {error.strerror}")

    def _unclosed(self, error: OSError) -> LogFileError:
        what = f"the old file of the log {self.path} may lack its end"
        return self._failure(error, f"{what}: closing it gave {error.strerror}")

    def _failure(self, error: OSError, text: str) -> LogFileError:
        return LogFileError(text, path=self.path, errno=error.errno or errno.EIO)

    def reopen(self) -> None:
        """Open the path anew, after somebody else has renamed the file.

        What waits for room goes into the new one.

        Raises:
            LogFileError: It cannot be opened; the old one stays in use.
        """
        self._open()
        self.reopened += 1

    # -- writing ------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Bytes of records that were taken and found no room yet."""
        return len(self._rest)

    def write(self, records: bytes) -> None:
        """Append *records*, in as many files as it takes.

        Args:
            records: Whole ones, each with its newline.

        Raises:
            OSError: With ENOSPC or EDQUOT what is :attr:`waiting` then goes out with the next call
                of :meth:`flush`, or before what is written next.  With all others it is lost.
        """
        if self._rest:
            records = bytes(self._rest) + records
        self._rest = memoryview(records)
        self.flush()

    def flush(self) -> None:
        """Write what waits.  Raises as :meth:`write`."""
        try:
            self._write_out()
        except BaseException as error:
            if not isinstance(error, OSError) or error.errno not in _kernel.NO_ROOM:
                self._rest = memoryview(b"")
            raise

    def _write_out(self) -> None:
        while self._rest:
            size = self._look()
            room = len(self._rest)
            if self._rotation is not None:
                if size >= self._rotation.max_size and self._rotate():
                    size = 0
                left = self._rotation.max_size - size
                if 0 < left < room:
                    room = self._boundary(left)
            self._append(room)

    def _look(self) -> int:
        """How long the file is; if somebody has taken its name away, the new one's.

        A file that was renamed, removed or truncated is no error: log rotation does that.  If none
        can be made in its place, the old one goes on.
        """
        try:
            status = _kernel.stat(self.path)
        except OSError:
            pass
        else:
            if (status.st_dev, status.st_ino) == self._inode:
                return status.st_size
        try:
            self.reopen()
        except OSError as error:
            if self._fd < 0:
                raise
            self._failed(error)
            return 0  # it has no name by which it could be rotated, or has been
        return _kernel.fstat(self._fd).st_size

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._tell(error)

    def _boundary(self, room: int) -> int:
        """The end of the record that fills *room*: a file may be larger by a part of one."""
        return bytes(self._rest).find(NEWLINE, max(room - 1, 0)) + 1 or len(self._rest)

    def _append(self, count: int) -> None:
        end = len(self._rest) - count
        while len(self._rest) > end:
            try:
                written = _kernel.write(self._fd, self._rest[: len(self._rest) - end])
            except OSError:
                self._take_back(count - (len(self._rest) - end))
                raise
            self._rest = self._rest[written:]

    def _take_back(self, written: int) -> None:
        """There was no room for the whole of a record: leave none that is cut."""
        # (What was written before is gone from the rest, so its last newline is looked for in
        # the file.)
        if not written or not self._repairs:
            return
        size = _kernel.fstat(self._fd).st_size
        whole = _whole(self._fd, size)
        if whole < size:
            cut = _kernel.pread(self._fd, size - whole, whole)
            _kernel.ftruncate(self._fd, whole)
            self._rest = memoryview(cut + bytes(self._rest))

    def _rotate(self) -> bool:
        """Begin a new file; if that cannot be, the full one goes on until the next write."""
        assert self._rotation is not None
        try:
            self._rotation.rotate(self.path)
            self._open()
            self._rotation.settle(self.path)
        except OSError as error:
            self._failed(error)
            return False
        self.rotations += 1
        return True

    # -- the end ------------------------------------------------------------------------

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _kernel.close(fd)

    def close(self) -> None:
        """Close it, and wait a while for a file that is being compressed.

        What waits for room is lost.
        """
        try:
            self._close()
        finally:
            if self._rotation is not None:
                self._rotation.wait(COMPRESSION)

    def abandon(self) -> None:
        """Close it; a file that is being compressed will be so later, or by the next process."""
        self._close()

    @property
    def stats(self) -> dict[str, int]:
        """Counters, by name."""
        return {
            "repaired": self.repaired,
            "rotations": self.rotations,
            "reopened": self.reopened,
            "failures": self.failures,
            "waiting": self.waiting,
        }

    def __repr__(self) -> str:
        return f"<LogFile {self.path} {'closed' if self._fd < 0 else 'open'}>"


def _whole(fd: int, size: int) -> int:
    """How much of a file is whole records."""
    end = size
    while end > 0:
        start = max(0, end - BLOCK)
        block = _kernel.pread(fd, end - start, start)
        if (newline := block.rfind(NEWLINE)) >= 0:
            return start + newline + 1
        end = start
    return 0
