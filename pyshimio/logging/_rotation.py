"""Numbered old files beside a log: ``.1`` is the newest, as docker has them.

A file is renamed and a new one made, so whoever follows the old one goes on reading it.  Between
any two of the calls here the process may be killed: then a number is missing, and the next
rotation moves no more files than are needed to fill the gap, so none is lost before its time.
"""

from __future__ import annotations

import errno
import os

from . import _kernel
from ._gzip import compress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

__all__ = ("Rotation", "numbered")

GZ = ".gz"
DATE = 8
"""Digits that are no number of a file, but a day."""
NEW = ".tmp"
"""What the name of a copy ends with that is not whole yet; who makes it has it locked."""


class Rotation:
    """When a file is full, and what becomes of it.

    Args:
        max_size: Bytes from which on a file is full; the record that fills it is the last.
        max_file: How many files there are, with the one that is written.
        compress: Have the old ones compressed, one behind, in a thread.
        last_time: Says when the last record of the full file was, in docker's words, for the
            header of the compressed one.
        failed: Told what went wrong with compressing; the file stays as it is then.

    A file that is about to be removed is not compressed to the end.
    """

    def __init__(
        self,
        *,
        max_size: int,
        max_file: int = 1,
        compress: bool = False,
        last_time: Callable[[], str] | None = None,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        self.max_size = max_size
        self._most = max_file - 1
        self._compress = compress
        self._last_time = last_time
        self._failed = failed
        self._thread: threading.Thread | None = None
        self._given_up = False

    def tidy(self, path: str) -> None:
        """Put away what a process left that was killed while it rotated or compressed."""
        directory, base = os.path.split(path)
        try:
            names = _kernel.listdir(directory or ".")
        except FileNotFoundError:
            return  # which is said when the file is opened
        for name in names:
            whole = os.path.join(directory, name)
            number, _, kind = name.removeprefix(f"{base}.").partition(".")
            if not name.startswith(f"{base}.") or not number.isdecimal():
                continue  # somebody else's
            # (While the original is there, the copy is not needed.)
            begun = kind.startswith("gz.") and kind.endswith(NEW)
            twice = kind == "gz" and _exists(whole.removesuffix(GZ))
            if (begun or twice) and not _is_held(whole):
                _remove(whole)
        if _exists(f"{path}.1"):
            self.settle(path)

    def rotate(self, path: str) -> None:
        """Put *path* out of the way; the caller makes the next one, and then calls :meth:`settle`.

        Raises:
            OSError: It cannot be, or another process is compressing the newest old file.
        """
        self._given_up = self._most == 1  # what is being compressed is the file that goes
        self.wait()
        self._given_up = False
        if self._compress and _is_held(f"{path}.1"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), f"{path}.1")
        if not self._most:
            _remove(path)
            return
        number = 1
        while number < self._most and _numbers(path, number):
            number += 1
        for suffix in ("", GZ):  # the last one, where no number is free
            _remove(f"{path}.{number}{suffix}")
        for older in range(number, 1, -1):
            for suffix in ("", GZ):
                _move(f"{path}.{older - 1}{suffix}", f"{path}.{older}{suffix}")
        _move(path, f"{path}.1")

    def settle(self, path: str) -> None:
        """Nobody writes into the newest old file any more."""
        if self._compress and self._most:
            self._begin(f"{path}.1")

    def _begin(self, path: str) -> None:
        import threading  # noqa: PLC0415 - few loggers need it

        last_time = "" if self._last_time is None else self._last_time()
        thread = threading.Thread(
            target=self._run, args=(path, last_time), name="pyshimio compress", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # there may be no more threads
            self._report(error)
        else:
            self._thread = thread

    def _run(self, path: str, last_time: str) -> None:
        new = f"{path}{GZ}.{os.urandom(4).hex()}{NEW}"
        try:
            compress(path, new, last_time, given_up=lambda: self._given_up)
        except OSError as error:
            self._report(error)
        try:
            _remove(new)  # what was not finished
        except OSError:
            pass  # the next process sees to it

    def _report(self, error: Exception) -> None:
        if self._failed is not None:
            self._failed(error)

    def wait(self, seconds: float | None = None) -> None:
        """Until the file that is being compressed has been; at most so many seconds.

        One that takes longer is compressed by the next process.
        """
        if self._thread is not None:
            self._thread.join(seconds)
            self._thread = None


def numbered(path: str) -> list[str]:
    """The old files of a log, the oldest first.  Of a file and its compressed copy, the file."""
    directory, base = os.path.split(path)
    found: dict[int, str] = {}
    for name in sorted(_kernel.listdir(directory or ".")):
        number = name.removeprefix(f"{base}.").removesuffix(GZ)
        is_number = number.isascii() and number.isdigit() and len(number) < DATE
        if name.startswith(f"{base}.") and is_number:
            # (Sorted: the plain one comes first.)
            found.setdefault(int(number), os.path.join(directory, name))
    return [found[number] for number in sorted(found, reverse=True)]


def _numbers(path: str, number: int) -> bool:
    """Whether there is a file with that number, compressed or not."""
    return any(_exists(f"{path}.{number}{suffix}") for suffix in ("", GZ))


def _is_held(path: str) -> bool:
    """Whether somebody is at work on it, or on a copy of it."""
    try:
        fd = _kernel.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _kernel.lock(fd)
    finally:
        _kernel.close(fd)


def _exists(path: str) -> bool:
    try:
        _kernel.stat(path)
    except FileNotFoundError:
        return False
    return True


def _move(old: str, new: str) -> None:
    try:
        _kernel.rename(old, new)
    except FileNotFoundError:
        pass


def _remove(path: str) -> None:
    try:
        _kernel.unlink(path)
    except FileNotFoundError:
        pass
