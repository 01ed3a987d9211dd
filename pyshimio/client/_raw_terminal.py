"""The caller's own terminal, raw while somebody else's is behind it."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from .. import _sys
from .._fd import duplicate
from ..errors import IOStateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractContextManager
    from types import FrameType, TracebackType
    from typing import Self

    from .._fd import Descriptor, OwnedFd

__all__ = ("RawTerminal",)

FATAL = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class RawTerminal:
    """A terminal in raw mode while the block lasts: each key goes through as it is.

    It is as it was before on every way out: the end of the block, an exception, a
    cancellation.  SIGHUP, SIGINT, SIGQUIT and SIGTERM restore it too where nobody handles
    them, and then end the process as they would have.  (Signals can be looked after in the
    main thread alone; in another one they are left as they are.)

    Args:
        fd: The terminal; it stays the caller's.  With anything else nothing happens, and
            there is no :attr:`size`.

    Example:
        Keep a container's terminal as large as our own::

            with RawTerminal() as terminal:
                async for rows, columns in terminal.resizes():
                    console.resize(rows, columns)
    """

    def __init__(self, fd: Descriptor = 0) -> None:
        self._given = fd
        self._fd: OwnedFd | None = None
        self._mode: list[Any] | None = None
        self._handled: list[signal.Signals] = []
        self._resizes: _Resizes | None = None

    def __enter__(self) -> Self:
        if self._fd is not None:
            raise IOStateError("this terminal is raw already; make another RawTerminal")
        self._fd = duplicate(self._given)
        try:
            if _sys.isatty(self._fd.fileno()):
                self._mode = _sys.terminal_mode(self._fd.fileno())
                self._handle_signals()
                self._set_raw()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._restore()
        self._mode = None
        self._forget_signals()
        if self._resizes is not None:
            self._resizes.close()
            self._resizes = None
        if self._fd is not None:
            self._fd.close()
            self._fd = None

    def _set_raw(self) -> None:
        if self._fd is not None and self._mode is not None:
            _sys.set_terminal_mode(self._fd.fileno(), _sys.raw_mode(self._mode))

    def _restore(self) -> None:
        if self._fd is not None and self._mode is not None:
            with suppress(OSError):  # it has hung up
                _sys.set_terminal_mode(self._fd.fileno(), self._mode, from_background=True)

    def suspend(self) -> None:
        """Stop this process as ctrl-z does, with the terminal as it was before.

        Returns when the process is continued, with the terminal raw again.
        """
        self._restore()
        signal.raise_signal(signal.SIGSTOP)
        with suppress(OSError):  # it has hung up
            self._set_raw()
        # In the background it has not heard how large its terminal became.
        signal.raise_signal(signal.SIGWINCH)

    # -- signals ------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in FATAL:
            if signal.getsignal(number) is signal.SIG_DFL:
                self._handled.append(number)
                signal.signal(number, self._die)

    def _forget_signals(self) -> None:
        for number in self._handled:
            if signal.getsignal(number) == self._die:  # else somebody else's by now
                signal.signal(number, signal.SIG_DFL)
        self._handled = []

    def _die(self, number: int, _frame: FrameType | None) -> None:
        self._restore()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    # -- the size -----------------------------------------------------------------------

    @property
    def size(self) -> tuple[int, int] | None:
        """(rows, columns); None where there is no terminal, or where it has hung up."""
        if self._fd is None or self._mode is None:
            return None
        with suppress(OSError):
            return _sys.get_window_size(self._fd.fileno())
        return None

    def resizes(self) -> AsyncIterator[tuple[int, int]]:
        """The size as it is now, and then each other one (SIGWINCH).

        It ends with the block, and at once where there is no terminal.  One at a time: another
        one ends it, too.  As for any signal, the loop must run in the main thread.
        """
        if self._fd is None:
            raise IOStateError("sizes come while the terminal is raw; enter it with `with`")
        if self._resizes is not None:
            self._resizes.close()
        self._resizes = _Resizes(self)
        return self._resizes

    def __repr__(self) -> str:
        if self._fd is None:
            return "<RawTerminal not entered>"
        if self._mode is None:
            return "<RawTerminal no terminal>"
        return f"<RawTerminal raw {self.size}>"


class _Resizes:
    """Iterates over sizes; no generator, because whoever leaves the terminal's block closes it."""

    def __init__(self, terminal: RawTerminal) -> None:
        self._terminal = terminal
        self._receiver: AbstractContextManager[AsyncIterator[signal.Signals]] | None = None
        self._signals: AsyncIterator[signal.Signals] | None = None
        self._size: tuple[int, int] | None = None
        self._waiting = anyio.CancelScope()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, int]:
        try:
            while not self._closed:
                await self._change()
                size = self._terminal.size
                if size is None:
                    break
                if size != self._size:
                    self._size = size
                    return size
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopAsyncIteration

    async def _change(self) -> None:
        """Wait for a signal; the first time only see to it that none is missed from now on."""
        if self._signals is not None:
            with anyio.CancelScope() as self._waiting:
                await anext(self._signals)
            return
        await anyio.lowlevel.checkpoint()
        if self._terminal.size is not None:
            self._receiver = anyio.open_signal_receiver(signal.SIGWINCH)
            self._signals = self._receiver.__enter__()

    def close(self) -> None:
        """Leave the signal as it was.  Idempotent."""
        self._closed = True
        self._waiting.cancel()
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            receiver.__exit__(None, None, None)
