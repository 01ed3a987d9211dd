"""A child process, followed by its pidfd and reaped by us alone.

With somebody else's ``waitpid(-1)`` in the process asyncio reports 255, uvloop hangs and
trio reports 0.  A pidfd becomes readable at the exit whoever waits, and a ``waitid`` on it
that finds nothing says so, so the theft is a typed error instead of a wrong number.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio import CancelScope

from . import _sys
from ._children import Children
from ._fd import OwnedFd
from ._poller import Poller
from .errors import ChildReapedElsewhereError, ExitTimeoutError, SigchldIgnoredError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ._poller import Watch
    from .errors import ProcessError

__all__ = ("Process",)

KILL_SECONDS = 1.0


class Process:
    """A running or exited child; made by :meth:`Command.start` and ``io.spawn``.

    An async context manager that closes the pidfd and never kills; any number of tasks
    may :meth:`wait`, and a cancelled wait can be repeated.

    Args:
        pid: A child of this process that nobody has waited for.
        args: For messages.
    """

    def __init__(self, pid: int, args: tuple[str, ...] = ()) -> None:
        self.pid = pid
        self.args = args
        self._parent = _sys.getpid()
        self._status: int | None = None
        self._raw: os.waitid_result | None = None
        self._lost: str | None = None
        self._exited = anyio.Event()
        self._callbacks: list[Callable[[], None]] = []
        try:
            self._fd = OwnedFd(_sys.pidfd_open(pid))
        except ProcessLookupError:
            raise ChildReapedElsewhereError(self._theft(), pid=pid) from None
        self._watch: Watch | None = None
        self._children = Children.current()
        try:
            self._poller = Poller.current()
            self._watch = self._poller.listen(self._fd.fileno(), self._on_exit)
        except BaseException:
            self._fd.close()
            raise
        self._children.follow(pid)

    @property
    def pidfd(self) -> int:
        """The pidfd; it stays this object's and is closed by :meth:`aclose`."""
        return self._fd.fileno()

    def fileno(self) -> int:
        """The same, for whoever takes anything with a descriptor."""
        return self._fd.fileno()

    @property
    def status(self) -> int | None:
        """The exit status, 128+n after a death by signal n; None while it runs."""
        return self._status

    @property
    def exited(self) -> bool:
        """Whether it has exited, even if its status was lost."""
        return self._exited.is_set()

    def has_exited(self) -> bool:
        """The same, asked of the kernel: the loop may not have been told yet."""
        return self.exited or bool(_sys.poll_now(self._fd.fileno(), _sys.EPOLLIN))

    @property
    def raw_status(self) -> os.waitid_result | None:
        """What ``waitid`` said, with the uid and the kind of the end; None while it runs."""
        return self._raw

    async def wait(self, timeout: float | None = None) -> int:
        """The exit status, 128+n after a death by signal n.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            ExitTimeoutError: It still runs.
            ChildReapedElsewhereError: Another part of this program waited for it.
        """
        if timeout is None:
            await self._exited.wait()
        else:
            with anyio.move_on_after(timeout):
                await self._exited.wait()
        if not self._exited.is_set():
            raise ExitTimeoutError(
                f"process {self.pid} still runs after {timeout} s", timeout=timeout
            )
        if self._lost is not None:
            raise self._loss(self._lost)
        assert self._status is not None
        return self._status

    def _loss(self, why: str) -> ProcessError:
        return ChildReapedElsewhereError(why, pid=self.pid)

    async def gone(self) -> None:
        """Wait until it has exited, whether or not its status can be had."""
        await self._exited.wait()

    def when_exited(self, callback: Callable[[], None]) -> None:
        """Call *callback* on the loop once the process has been reaped."""
        if self._exited.is_set():
            callback()
        else:
            self._callbacks.append(callback)

    def send_signal(self, number: int) -> None:
        """Send a signal to this process and no other, even if its pid was reused.

        Only its parent does: a copy of this object in a forked process sends nothing, so that
        one that unwinds, or closes its copy of an IO, does not end what it did not start.
        """
        ours = _sys.getpid() == self._parent
        if ours and not self._fd.closed and not self._exited.is_set():
            with suppress(ProcessLookupError):
                _sys.pidfd_send_signal(self._fd.fileno(), number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """SIGTERM, after *grace* seconds SIGKILL, and reap.

        Cancelled, it gives no grace: SIGKILL at once, and the reaping takes milliseconds.
        """
        try:
            self.terminate()
            with anyio.move_on_after(grace):
                await self._exited.wait()
        finally:
            self.kill()
            with CancelScope(shield=True), anyio.move_on_after(KILL_SECONDS):
                await self._exited.wait()

    def _on_exit(self, _events: int) -> None:
        try:
            result = _sys.waitid(self._fd.fileno())
            if result is None:
                return
            self._raw = result
            died = result.si_code != os.CLD_EXITED
            self._status = result.si_status + 128 if died else result.si_status
        except ChildProcessError:
            self._lost = self._theft()
        self._unwatch()
        self._children.forget(self.pid)
        self._exited.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _theft(self) -> str:
        if _sys.sigchld_ignored():
            return (
                f"SIGCHLD was ignored while process {self.pid} ran, so the kernel threw its exit"
                " status away"
            )
        return (
            f"something else in this program waited for process {self.pid}, so its exit status"
            " is lost; do not call waitpid(-1) while pyshimio has children"
        )

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def close(self) -> None:
        """Close the pidfd once the process is reaped; a live one is reaped when it exits.

        Where the loop has ended nobody is there to reap it, and it is closed at once.  Never
        waits and never kills.  Idempotent.
        """
        if self._poller.over():
            self._unwatch()
            self._children.forget(self.pid)
            self._fd.close()
        else:
            self.when_exited(self._fd.close)

    async def aclose(self) -> None:
        """The same."""
        self.close()
        await anyio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._lost is not None:
            state = "reaped elsewhere"
        elif self._status is None:
            state = "running"
        elif self._status > 128 and self._raw is not None and self._raw.si_status != self._status:
            state = f"killed by signal {self._status - 128}"
        else:
            state = f"exited with status {self._status}"
        return f"<Process {self.pid} {' '.join(self.args[:3])!r} {state}>"


def refuse_ignored_sigchld() -> None:
    """Raise while the kernel would throw the status of our children away."""
    if _sys.sigchld_ignored():
        raise SigchldIgnoredError(
            "SIGCHLD is ignored in this process, so no exit status can be had;"
            " call signal.signal(signal.SIGCHLD, signal.SIG_DFL) before starting children"
        )
