"""gzip files with docker's note in their header: when the last record in them was."""

from __future__ import annotations

import os
import zlib

from . import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("compress",)

BLOCK = 1 << 20
LEVEL = 6
MODE = 0o640
MAGIC = b"\x1f\x8b\x08"
EXTRA = 4
UNKNOWN_SYSTEM = 255


def compress(
    source: str, target: str, last_time: str, *, given_up: Callable[[], bool] = lambda: False
) -> None:
    """Have a compressed copy take the place of *source*, with ``.gz`` behind its name.

    Args:
        source: Removed in the end, if it still is the file that was read; locked meanwhile, and
            nothing is done if it is by somebody else.
        target: What the copy is called until it is whole; not there yet, locked meanwhile.
        last_time: RFC 3339, or ``""`` for no note; a reader that looks for newer records need not
            open the file then.
        given_up: Asked now and then; the source stays as it is when it says so, and the caller
            removes what there is of the copy.
    """
    reader = _kernel.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not _kernel.lock(reader):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        writer = _kernel.open(target, flags, MODE)
        try:
            _kernel.lock(writer)
            _write(writer, header(last_time))
            # (Somebody else may have rotated meanwhile: then the name is another file's.)
            if _copy(reader, writer, given_up) and _is_at(reader, source):
                _kernel.rename(target, f"{source}.gz")
                _kernel.unlink(source)
        finally:
            _kernel.close(writer)
    finally:
        _kernel.close(reader)


def _is_at(fd: int, path: str) -> bool:
    try:
        ours, its = _kernel.fstat(fd), _kernel.stat(path)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (its.st_dev, its.st_ino)


def header(last_time: str) -> bytes:
    """Ten bytes, and the note as an extra field that is nothing but JSON, as docker writes it."""
    note = f'{{"lastTime":"{last_time}"}}'.encode() if last_time else b""
    flags = EXTRA if note else 0
    begin = MAGIC + bytes((flags, 0, 0, 0, 0, 0, UNKNOWN_SYSTEM))
    return begin + len(note).to_bytes(2, "little") + note if note else begin


def _copy(reader: int, writer: int, given_up: Callable[[], bool]) -> bool:
    """All of it; whether nobody gave up meanwhile."""
    checksum = size = 0
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    while data := _kernel.read(reader, BLOCK):
        if given_up():
            return False
        checksum = zlib.crc32(data, checksum)
        size += len(data)
        _write(writer, deflate.compress(data))
    end = checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
    _write(writer, deflate.flush() + end)
    return True


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[_kernel.write(fd, view) :]
