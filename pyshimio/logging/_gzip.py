"""gzip files with docker's note in their header: when the last record in them was."""

from __future__ import annotations

import os
import zlib

from . import _kernel

__all__ = ("compress",)

BLOCK = 1 << 18
LEVEL = 6
MODE = 0o640
MAGIC = b"\x1f\x8b\x08"
EXTRA = 4
UNKNOWN_SYSTEM = 255


def compress(source: str, target: str, last_time: str) -> None:
    """Compress *source* into *target*, a new file.

    Args:
        source: Stays as it is.
        target: What is there is overwritten.
        last_time: RFC 3339, or ``""`` for no note; a reader that looks for newer records need not
            open the file then.
    """
    reader = _kernel.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        writer = _kernel.open(target, flags, MODE)
        try:
            _write(writer, header(last_time))
            _copy(reader, writer)
        finally:
            _kernel.close(writer)
    finally:
        _kernel.close(reader)


def header(last_time: str) -> bytes:
    """Ten bytes, and the note as an extra field that is nothing but JSON, as docker writes it."""
    note = f'{{"lastTime":"{last_time}"}}'.encode() if last_time else b""
    flags = EXTRA if note else 0
    begin = MAGIC + bytes((flags, 0, 0, 0, 0, 0, UNKNOWN_SYSTEM))
    return begin + len(note).to_bytes(2, "little") + note if note else begin


def _copy(reader: int, writer: int) -> None:
    checksum = size = 0
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    while data := _kernel.read(reader, BLOCK):
        checksum = zlib.crc32(data, checksum)
        size += len(data)
        _write(writer, deflate.compress(data))
    end = checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
    _write(writer, deflate.flush() + end)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[_kernel.write(fd, view) :]
