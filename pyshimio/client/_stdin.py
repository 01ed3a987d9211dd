"""The caller's input on its way into a stdin FIFO.

Two tasks: one takes from the caller, one opens the FIFO and gives to it.  Unless there are
detach keys to look for, no more is taken than the FIFO is sure to have room for: so nothing
is in hand when the attachment is cancelled, and the next one goes on with the next byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio import CancelScope

from .. import _sys
from .._stats import Counters
from ._bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._fd import OwnedFd
    from .._fifo import FifoHandle
    from ._detach_keys import DetachKeys
    from ._input import Input

__all__ = ("StdinRelay",)

AHEAD = 1 << 16
"""How much may be in hand, so that detach keys are seen behind what nobody reads."""


class StdinRelay:
    """Run :meth:`take` and :meth:`give` as two tasks.

    Args:
        handle: The FIFO; owned.
        source: Owned.
        keys: What to look for; None passes on everything.
        on_detach: Called when the keys were typed.
        on_end: Called when all of the source is in the FIFO, which is closed then.
        on_change: Called when :attr:`error` or :attr:`done` has changed.

    Attributes:
        counters: What has moved.
        error: Why the source was not read to its end, or the FIFO not opened.
        done: Nothing more will be given.
    """

    def __init__(
        self,
        handle: FifoHandle,
        source: Input,
        *,
        keys: DetachKeys | None,
        on_detach: Callable[[], None],
        on_end: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self.counters = Counters()
        self.error: Exception | None = None
        self.done: bool = False
        self._handle = handle
        self._source = source
        self._keys = keys
        self._on_detach = on_detach
        self._on_end = on_end
        self._on_change = on_change
        self._pending = b""
        self._fifo: _Fifo | None = None
        self._whole = False  # the source has been read to its end
        self._taken = False  # nothing more is taken from it
        self._gone = False  # the FIFO takes nothing any more
        self._taking = CancelScope()
        self._giving = CancelScope()
        self._bell = Bell()

    @property
    def state(self) -> str:
        """In a word."""
        if self.done:
            return "ended"
        return "waiting" if self._fifo is None else "copying"

    def cancel(self) -> None:
        """Take no more, and wait for no reader; what was taken is still given."""
        self._taking.cancel()
        if self._fifo is None:
            self._giving.cancel()

    def close(self) -> None:
        """End at once.  Idempotent."""
        self._taking.cancel()
        self._giving.cancel()
        self._source.close()
        self._end()

    def _fail(self, error: Exception) -> None:
        if not self.done:  # else it was closed under a task that used it
            self.error = error
            self._on_change()

    # -- from the caller ----------------------------------------------------------------

    async def take(self) -> None:
        """Read the source to its end, to the detach keys, or until it is cancelled."""
        try:
            with self._taking:
                await self._read()
        except anyio.EndOfStream:
            self._whole = True
        except Exception as error:  # noqa: BLE001 - whatever a caller's stream raises
            self._fail(error)
        finally:
            self._source.close()
            self._push(b"" if self._keys is None else self._keys.rest())
            self._taken = True
            self._bell.ring()

    async def _read(self) -> None:
        while size := await self._room():
            data = await self._source.receive(size)
            self.counters.bytes_in += len(data)
            if self._keys is None:
                self._push(data)
                continue
            data, complete = self._keys.feed(data)
            self._push(data)
            if complete:
                self._on_detach()
                break

    async def _room(self) -> int:
        """How much may be taken, as soon as it is something; 0 when it will be nothing."""
        if self._keys is not None:
            await self._bell.wait_for(lambda: len(self._pending) < AHEAD)
            return AHEAD - len(self._pending)
        await self._bell.wait_for(
            lambda: self._gone or (self._fifo is not None and not self._pending)
        )
        while self._fifo is not None and not self._gone:
            room = self._fifo.room()
            if room is None:
                break
            if room:
                return room
            await self._wait(self._fifo)
        return 0

    # -- to the FIFO --------------------------------------------------------------------

    async def give(self) -> None:
        """Open the FIFO, write what is taken until no more is, and close it."""
        try:
            with self._giving:
                await self._write()
                whole = self._whole and not self._gone
                self._end()
                if whole:
                    self._on_end()
        except Exception as error:  # noqa: BLE001 - raised where the attachment is waited for
            self._fail(error)
        finally:
            self._end()

    async def _write(self) -> None:
        fifo = self._fifo = _Fifo(await self._handle.wait_writer(None))
        self._handle.close()
        self._push(b"")
        self._bell.ring()
        while self._pending or not (self._taken or self._gone):
            if self._pending:
                await self._wait(fifo)
                self._push(b"")
                self._bell.ring()
            else:
                await self._bell.wait_for(lambda: bool(self._pending) or self._taken or self._gone)

    def _push(self, data: bytes) -> None:
        """Give *data*, and what waits before it, as far as the FIFO takes it now."""
        self._pending += data
        if self._fifo is not None and self._pending and not self._gone:
            try:
                count = self._fifo.write(self._pending)
            except BrokenPipeError:  # its reader has gone, which is no failure of ours
                self._gone = True
            except OSError as error:
                self._gone = True
                self._fail(error)
            else:
                self.counters.writes += 1
                self.counters.path = "copy"
                self.counters.bytes_out += count
                self._pending = self._pending[count:]
        if self._gone:
            self.counters.dropped += len(self._pending)
            self._pending = b""

    async def _wait(self, fifo: _Fifo) -> None:
        began = _sys.monotonic()
        try:
            await fifo.wait()
        finally:
            self.counters.blocked += _sys.monotonic() - began

    def _end(self) -> None:
        """The FIFO is closed, and what waits for it dropped.  Idempotent."""
        self._gone = self.done = True
        self._handle.close()
        if self._fifo is not None:
            self._fifo.close()
        self._push(b"")
        self._bell.ring()
        self._on_change()


class _Fifo:
    """The write end."""

    def __init__(self, fd: OwnedFd) -> None:
        self._fd = fd
        self._waiting = False

    def room(self) -> int | None:
        """Bytes that it is sure to take now; None when nobody reads it any more."""
        fd = self._fd.fileno()
        events = _sys.poll_now(fd, _sys.EPOLLOUT)
        if events & _sys.EPOLLERR:
            return None
        if not _sys.unread(fd):
            return _sys.pipe_size(fd)
        # One slot of its ring is free, which is a page; another may be half full.
        return _sys.PAGE if events & _sys.EPOLLOUT else 0

    def write(self, data: bytes) -> int:
        """Write as much as there is room for; how much that was."""
        try:
            return _sys.write(self._fd.fileno(), data)
        except BlockingIOError:
            return 0

    async def wait(self) -> None:
        """Until there is room, or nobody reads it any more."""
        self._waiting = True
        try:
            await anyio.wait_writable(self._fd.fileno())
        finally:
            self._waiting = False

    def close(self) -> None:
        if not self._fd.closed:
            if self._waiting:
                anyio.notify_closing(self._fd.fileno())
            self._fd.close()
