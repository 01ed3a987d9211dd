"""Lines on stderr."""

from __future__ import annotations

import contextlib
import os

__all__ = ("ensure_stdio", "say", "write_stderr")


def say(text: str) -> None:
    """Say *text* in one line, whatever it holds."""
    write_stderr(f"pyshimio: {' '.join(text.split())}\n")


def write_stderr(text: str) -> None:
    """Write to descriptor 2; nobody there to read it is no error."""
    # A terminal may be in raw mode, where a line feed alone does not return.
    if os.isatty(2):
        text = text.replace("\n", "\r\n")
    data = text.encode(errors="backslashreplace")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(2, data) :]


def ensure_stdio() -> None:
    """Put /dev/null where 0, 1 or 2 is closed, before a log file becomes our stderr."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest number that is free
