"""One logger process: started, watched, restarted, ended, always reaped.

The contract (containerd ``core/runtime/v2/logging``): descriptor 3 is stdout, 4 is stderr,
5 is closed or written to when the logger is ready; the environment is two variables.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import anyio
from anyio import CancelScope

from .. import _spawn, _sys
from .._command import check_env
from .._events import EventHub, LoggerExited, LoggerRespawned
from .._fd import OwnedFd
from .._poller import Poller
from .._process import Process, refuse_ignored_sigchld
from ..errors import (
    ChildReapedElsewhereError,
    CommandNotExecutableError,
    CommandNotFoundError,
    InvalidOptionError,
    LoggerDiedError,
    LoggerError,
    LoggerExitedError,
    LoggerIsDirectoryError,
    LoggerNotExecutableError,
    LoggerNotFoundError,
    LoggerNotReadyError,
    LoggerTimeoutError,
    MissingNamespaceError,
    SpawnError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._poller import Timer, Watch
    from .._stdio import StdioURI

__all__ = ("GRACE", "READY_TIMEOUT", "Logger", "LoggerDeath", "check_logger")

LoggerDeath = Literal["epipe", "drain", "respawn"]

READY_TIMEOUT = 30.0
GRACE = 10.0
RESTART_WINDOW = 60.0
BACKOFF = 0.05
OUTPUTS = ("stdout", "stderr")


class Logger:
    """A logger and the pipes into it.

    Args:
        uri: Its path and arguments.
        id, namespace: Become ``CONTAINER_ID`` and ``CONTAINER_NAMESPACE``.
        env: More names for its environment.
        cwd: Its working directory.
        ready_timeout: Seconds it has to become ready.
        strict: See :class:`BinaryIO`.
        on_death: What to do when it dies early.
        max_restarts: In a minute, with ``respawn``.
        grace: Seconds from EOF to SIGTERM, and from there to SIGKILL.
        streams: Which of stdout and stderr it gets; the other one ends at once.

    Attributes:
        hub: Where its death is reported.
        lost: Called when nobody will read the pipes any more, with the error.
    """

    def __init__(
        self,
        uri: StdioURI,
        *,
        id: str,  # noqa: A002 - containerd's word
        namespace: str,
        env: Mapping[str, str],
        cwd: str,
        ready_timeout: float,
        strict: bool,
        on_death: LoggerDeath,
        max_restarts: int,
        grace: float,
        streams: tuple[str, ...],
    ) -> None:
        self.path: str = uri.path
        self.process: Process | None = None
        self.writers: dict[str, OwnedFd] = {}
        self.handover: bool = False  # children write into its pipes themselves
        self.stopped: bool = False  # it had to be told to end by a signal
        self._argv = uri.argv
        self._need_byte = uri.scheme == "binary-v2"
        self._env = {**env, "CONTAINER_ID": id, "CONTAINER_NAMESPACE": namespace}
        self._cwd = cwd
        self._ready_timeout = ready_timeout
        self._strict = strict
        self.on_death = on_death
        self.streams = streams
        self.hub: EventHub = EventHub()
        self.lost: Callable[[LoggerDiedError], None] = _ignore
        self._max_restarts = max_restarts
        self._grace = grace
        self._readers: dict[str, OwnedFd] = {}
        self._start: _Start | None = None
        self._ended = anyio.Event()
        self._eof_at: float | None = None
        self._restarts: deque[float] = deque()
        self._backoff: Timer | None = None
        self._closed = False
        try:
            for stream in OUTPUTS:
                reader, writer = (OwnedFd(fd) for fd in _sys.pipe())
                self._readers[stream] = reader
                self.writers[stream] = writer
                if stream not in streams:
                    writer.close()
        except BaseException:
            self.close()
            raise

    @property
    def ended(self) -> bool:
        """Whether it has ended for good."""
        return self._ended.is_set()

    @property
    def status(self) -> int | None:
        """Exit status of a logger that has ended and will not be restarted."""
        if self.process is None or not self._ended.is_set():
            return None
        return self.process.status

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            LoggerError: It was not; it is killed and reaped.
        """
        refuse_ignored_sigchld()
        answered = anyio.Event()
        try:
            start = self._launch(lambda _: answered.set())
            await answered.wait()
        except BaseException:
            await self.abort()
            raise
        if start.error is not None:
            await self.abort()
            raise start.error
        if self.on_death == "epipe":
            # With a read end of ours left, a dead logger would look like a slow one.
            self._close_readers()

    def unread(self, stream: str) -> int:
        """Bytes in the pipe of *stream* that no logger has read."""
        for end in (self._readers[stream], self.writers[stream]):
            if not end.closed:
                return _sys.unread(end.fileno())
        return 0

    def see_the_rest(self, stream: str) -> None:
        """The last byte is in the pipe of *stream*: see how many the logger leaves there.

        From here on a read end of ours makes no difference to anybody who writes.
        """
        writer = self.writers[stream]
        if self._readers[stream].closed and not (self._closed or writer.closed):
            with suppress(OSError):  # no descriptor left: what it has not read passes for read
                flags = os.O_RDONLY | os.O_NONBLOCK
                self._readers[stream] = OwnedFd(_sys.reopen(writer.fileno(), flags))

    def reopen_reader(self, stream: str) -> OwnedFd:
        """A non-blocking read end of our own, to read on where the logger stopped."""
        reader = self._readers[stream].fileno()
        return OwnedFd(_sys.reopen(reader, os.O_RDONLY | os.O_NONBLOCK))

    # -- one process ----------------------------------------------------------------------

    def _launch(self, then: Callable[[_Start], None]) -> _Start:
        wait_reader, wait_writer = (OwnedFd(fd) for fd in _sys.pipe())
        try:
            plan = _spawn.Plan(
                args=self._argv,
                env=self._env,
                cwd=self._cwd,
                process_group=0,
                fds={
                    3: self._readers["stdout"].fileno(),
                    4: self._readers["stderr"].fileno(),
                    5: wait_writer.fileno(),
                },
            )
            try:
                pid = _spawn.spawn_now(plan)
            except (CommandNotFoundError, CommandNotExecutableError, SpawnError) as error:
                raise LoggerError(
                    f"cannot start the logger {self.path!r}: {error}",
                    path=self.path,
                    errno=error.errno,
                ) from error
            try:
                process = Process(pid, self._argv)
            except ChildReapedElsewhereError:
                raise  # the pid may be anybody's by now
            except BaseException:
                _sys.kill_and_reap(pid)
                raise
            self.process = process
            self._start = None
            process.when_exited(lambda: self._on_exit(process))
            start = self._start = _Start(
                self,
                process,
                wait_reader,
                timeout=self._ready_timeout,
                need_byte=self._need_byte,
                strict=self._strict,
                then=then,
            )
        except BaseException:
            wait_reader.close()
            raise
        finally:
            wait_writer.close()
        return start

    def _on_exit(self, process: Process) -> None:
        process.close()
        if self._start is not None:
            self._start.exited()
        if self._closed:
            self._ended.set()
            return
        status = process.status if process.status is not None else -1
        early = not self._input_ended() or any(self.unread(stream) for stream in OUTPUTS)
        if early and self._start is not None and self._start.finished_first:
            self.hub.emit(LoggerExited("stdout", process.pid, status))
            if self.on_death == "respawn" and self._may_restart() and self._await_respawn():
                return
            self._give_up(status)
        self._ended.set()

    def _input_ended(self) -> bool:
        """Whether it has seen EOF, so that its exit is what was due.

        The streams may have ended before anybody drains: a logger can be quicker.  Where
        children write by themselves they have not ended as long as one of them can.
        """
        if self._eof_at is not None and (self.stopped or not self.handover):
            return True
        return all(writer.closed for writer in self.writers.values()) and all(
            reader.closed or _sys.poll_now(reader.fileno()) & _sys.EPOLLHUP
            for reader in self._readers.values()
        )

    def _may_restart(self) -> bool:
        now = _sys.monotonic()
        while self._restarts and now - self._restarts[0] > RESTART_WINDOW:
            self._restarts.popleft()
        if len(self._restarts) >= self._max_restarts:
            return False
        self._restarts.append(now)
        return True

    def _await_respawn(self) -> bool:
        """Start a successor in a moment; False: there is no descriptor left to wait with."""
        delay = BACKOFF * 2 ** (len(self._restarts) - 1) if len(self._restarts) > 1 else 0
        try:
            self._backoff = Poller.current().later(delay, self._respawn)
        except OSError:
            return False
        return True

    def _respawn(self) -> None:
        self._backoff = None
        try:
            self._launch(self._respawned)
        except Exception:  # noqa: BLE001 - a program that was deleted meanwhile, no descriptors
            self._give_up(-1)
            if self.process is None or self.process.exited:
                self._ended.set()
            else:  # it was started, but cannot be heard
                self.process.kill()

    def _stop_respawn(self) -> None:
        """No successor after all, if one was to come."""
        if self._backoff is not None:
            self._backoff.cancel()
            self._backoff = None
            self._ended.set()

    def _respawned(self, start: _Start) -> None:
        if start.error is None:
            self.hub.emit(LoggerRespawned("stdout", start.process.pid, len(self._restarts)))
        elif start.process.status is None:
            start.finished_first = True
            start.process.kill()
        else:
            start.finished_first = True  # its exit is handled as any other death

    def _give_up(self, status: int) -> None:
        self.lost(
            LoggerDiedError(
                f"the logger {self.path!r} died with status {status}",
                path=self.path,
                status=status,
                errno=errno.EPIPE,
            )
        )
        self._close_readers()

    # -- its end ----------------------------------------------------------------------------

    def end_of_output(self) -> None:
        """No more bytes come: close the write ends, so that the logger sees EOF."""
        if self._eof_at is None:
            self._eof_at = _sys.monotonic()
        for writer in self.writers.values():
            writer.close()

    async def wait(self) -> None:
        """Until it has ended for good, or was never started."""
        if self.process is not None:
            await self._ended.wait()

    async def stop(self) -> None:
        """EOF, up to *grace* seconds, SIGTERM, as many, SIGKILL; then it is reaped.

        Each wait ends at the exit.  Cancelled, it is SIGKILL at once.
        """
        self.end_of_output()
        if self.process is None:
            return
        assert self._eof_at is not None
        try:
            with anyio.move_on_after(max(0.0, self._eof_at + self._grace - _sys.monotonic())):
                await self._ended.wait()
            if not self._ended.is_set():
                self.stopped = True
                await self._signal_and_wait()
        finally:
            if not self._ended.is_set():
                await self.abort()

    async def _signal_and_wait(self) -> None:
        if self._backoff is not None:
            status = self.process.status if self.process is not None else None
            self._give_up(-1 if status is None else status)
        self.on_death = "epipe"  # whatever happens now, it is not started again
        self._stop_respawn()
        if self._ended.is_set():
            return
        if self.process is not None:
            self.process.terminate()
        with anyio.move_on_after(self._grace):
            await self._ended.wait()

    async def abort(self) -> None:
        """SIGKILL, and reap in milliseconds."""
        self.close()
        if self.process is not None:
            with CancelScope(shield=True), anyio.move_on_after(1.0):
                await self._ended.wait()

    def _close_readers(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def close(self) -> None:
        """Close every descriptor and kill it, without waiting.  Idempotent."""
        self._closed = True
        self._stop_respawn()
        for writer in self.writers.values():
            writer.close()
        self._close_readers()
        if self.process is not None:
            with suppress(PermissionError):  # it has become another user (setuid)
                self.process.kill()
            self.process.close()
        if self._start is not None:
            self._start.close()

    def __repr__(self) -> str:
        return f"<Logger {self.path!r} {self.process!r}>"


class _Start:
    """The wait for readiness of one process: a byte, EOF, its exit, or the deadline."""

    def __init__(
        self,
        logger: Logger,
        process: Process,
        wait: OwnedFd,
        *,
        timeout: float,
        need_byte: bool,
        strict: bool,
        then: Callable[[_Start], None],
    ) -> None:
        self.process = process
        self.error: LoggerError | None = None
        self.finished_first = False  # the wait was over when the process ended
        self._logger = logger
        self._wait = wait
        self._timeout = timeout
        self._need_byte = need_byte
        self._strict = strict
        self._then: Callable[[_Start], None] | None = then
        _sys.set_nonblocking(wait.fileno())
        poller = Poller.current()
        self._watch: Watch = poller.listen(wait.fileno(), self._on_wait)
        try:
            self._timer = poller.later(timeout, self._on_timeout)
        except BaseException:
            self._watch.close()
            raise

    def _on_wait(self, _events: int) -> None:
        if self._then is None:
            return
        try:
            byte = _sys.read(self._wait.fileno(), 1)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(
                LoggerError(
                    f"cannot hear whether the logger {self._logger.path!r} is ready:"
                    f" {error.strerror}",
                    path=self._logger.path,
                    errno=error.errno,
                )
            )
            return
        if byte:
            self._finish(None)
            return
        # A process that exits closes its descriptors a moment before its pidfd says so.
        if self._strict and (self.process.status is not None or _sys.exiting(self.process.pid)):
            self._watch.close()  # exited() comes next
        elif self._need_byte:
            self._finish(
                LoggerNotReadyError(
                    f"the logger {self._logger.path!r} did not call ready (binary-v2 wants a"
                    " byte on descriptor 5; it may have crashed or exited prematurely)",
                    path=self._logger.path,
                )
            )
        else:
            self._finish(None)

    def exited(self) -> None:
        """The process has ended."""
        if self._then is None:
            self.finished_first = True
            return
        with suppress(OSError):
            if _sys.read(self._wait.fileno(), 1) or not (self._strict or self._need_byte):
                self.finished_first = True
                self._finish(None)
                return
        status = self.process.status if self.process.status is not None else -1
        self._finish(
            LoggerExitedError(
                f"the logger {self._logger.path!r} exited with status {status} before it was"
                " ready; run it by hand with descriptors 3, 4 and 5 open to see why",
                path=self._logger.path,
                status=status,
            )
        )

    def _on_timeout(self) -> None:
        self._finish(
            LoggerTimeoutError(
                f"the logger {self._logger.path!r} was not ready within {self._timeout} s;"
                " it has to write a byte to descriptor 5 or close it",
                path=self._logger.path,
                timeout=self._timeout,
                errno=errno.ETIMEDOUT,
            )
        )

    def _finish(self, error: LoggerError | None) -> None:
        then, self._then = self._then, None
        self.error = error
        self.close()
        if then is not None:
            then(self)

    def close(self) -> None:
        """Stop waiting.  Idempotent."""
        self._then = None
        self._timer.cancel()
        self._watch.close()
        self._wait.close()


def _ignore(_error: LoggerDiedError) -> None:
    pass


def check_logger(
    uri: StdioURI,
    *,
    id: str,  # noqa: A002 - containerd's word
    namespace: str,
    env: Mapping[str, str],
    cwd: str,
    on_death: str,
) -> None:
    """Raise for everything that can be known about a logger before anything is made."""
    if not namespace:
        raise MissingNamespaceError(
            "namespace is required for a logger (it becomes CONTAINER_NAMESPACE);"
            ' containerd\'s own is "default"'
        )
    check_on_death(on_death)
    for option, text in (("id", id), ("namespace", namespace)):
        if "\0" in text:
            raise InvalidOptionError(
                f"{option} holds a NUL byte, as no environment can; remove it", option=option
            )
    check_env(env)
    if not os.path.isdir(cwd):
        raise InvalidOptionError(f"the logger's cwd {cwd!r} is no directory", option="cwd")
    _check_program(uri.path)


def check_on_death(on_death: str) -> None:
    """Raise for a policy that does not exist."""
    if on_death not in {"epipe", "drain", "respawn"}:
        raise InvalidOptionError(
            f'on_death is "epipe", "drain" or "respawn", not {on_death!r}', option="on_death"
        )


def _check_program(path: str) -> None:
    """Raise the right error for a logger that cannot be executed."""
    if not os.path.exists(path):
        raise LoggerNotFoundError(f"there is no logger at {path!r}", path=path, errno=errno.ENOENT)
    if os.path.isdir(path):
        raise LoggerIsDirectoryError(
            f"the logger's path {path!r} is a directory", path=path, errno=errno.EISDIR
        )
    if not os.path.isfile(path):
        raise LoggerNotExecutableError(
            f"the logger {path!r} is no program (a FIFO, a socket or a device)",
            path=path,
            errno=errno.EACCES,
        )
    if not os.access(path, os.X_OK):
        raise LoggerNotExecutableError(
            f"the logger {path!r} is not executable; chmod +x it", path=path, errno=errno.EACCES
        )
