"""Our own terminal, while the child has one of its own behind it."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from .. import _sys
from .._fd import duplicate, own_description
from .._streams import FdReceiveStream
from ..client import RawTerminal

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..io._base import BaseIO
    from ..io._console import Console

__all__ = ("OurTerminal", "relay_input")


class OurTerminal:
    """The terminal that this process was started from, if there is one."""

    def __init__(self) -> None:
        self._fd = next(filter(os.isatty, range(3)), -1)
        self._raw: RawTerminal | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(rows, columns); None where there is no terminal."""
        if self._fd < 0:
            return None
        try:
            return _sys.get_window_size(self._fd)
        except OSError:  # hung up
            return None

    def lend_size(self, io: BaseIO | None) -> bool:
        """Make the terminal of *io* as large as this one; whether there are the two."""
        console: Console | None = getattr(io, "console", None)
        if console is None or console.closed or (size := self.size) is None:
            return False
        console.resize(*size)
        return True

    @contextlib.contextmanager
    def raw(self, *, wanted: bool) -> Generator[None, None, None]:
        """Raw mode, so that each key reaches the child, put back on every way out.

        Args:
            wanted: False, and a stdin that is no terminal, change nothing.
        """
        with contextlib.ExitStack() as stack:
            if wanted:
                with contextlib.suppress(OSError):  # there is no stdin
                    self._raw = stack.enter_context(RawTerminal(0))
            try:
                yield
            finally:
                self._raw = None

    def suspend(self) -> None:
        """Stop as Ctrl-Z has it, with the terminal as it was; returns when continued."""
        if self._raw is None:
            signal.raise_signal(signal.SIGSTOP)
        else:
            self._raw.suspend()


async def relay_input(io: BaseIO) -> None:
    """Send what comes from our stdin to the child's, or type it there; pass on its end."""
    assert io.stdin is not None
    own = _open_again()
    try:
        while True:
            try:
                data = await (_read() if own is None else own.receive())
            except (anyio.EndOfStream, OSError):  # what cannot be read has ended, too
                break
            await io.stdin.send(data)
        io.close_stdin()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # nobody is there any more
    finally:
        if own is not None:
            own.close()


def _open_again() -> FdReceiveStream | None:
    """A description of our own, because a flag of a shared one is not ours to change."""
    try:
        ours = duplicate(0)
    except OSError:
        return None
    try:
        again = own_description(ours, os.O_RDONLY)
    finally:
        ours.close()
    return None if again is None else FdReceiveStream(again)


async def _read() -> bytes:
    """Read what cannot be waited for (a file, a socket) in a thread."""
    data = await anyio.to_thread.run_sync(os.read, 0, 65536, abandon_on_cancel=True)
    if not data:
        raise anyio.EndOfStream
    return data
