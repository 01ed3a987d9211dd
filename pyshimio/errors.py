"""Every exception that pyshimio raises on its own account.

One tree: the root is :class:`ShimIOError`; each leaf is also the builtin that a caller
would catch anyway (``except FileNotFoundError`` goes on working).  The facts behind an
error are attributes of it, its text says what was wrong and what to do instead, and all
of them survive :mod:`pickle`.  Closed, broken and busy streams raise anyio's
:class:`~anyio.ClosedResourceError`, :class:`~anyio.BrokenResourceError` and
:class:`~anyio.BusyResourceError`, which are not repeated here.
"""

from __future__ import annotations

TYPE_CHECKING = False  # (a logger has no time to load typing)
if TYPE_CHECKING:
    from collections.abc import Callable

    from .io._result import DrainResult
    from .runc._records import LogEntry

__all__ = (
    "ChildReapedElsewhereError",
    "ChownError",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "CommandUsedError",
    "ConsoleDescriptorCountError",
    "ConsoleError",
    "ConsoleMessageError",
    "ConsoleMessageTooLongError",
    "ConsolePeerClosedError",
    "ConsoleRuntimeExitedError",
    "ConsoleTimeoutError",
    "ConsoleTruncatedError",
    "ContainerStateError",
    "DestinationError",
    "DriverConflictError",
    "ExitTimeoutError",
    "FifoExistsError",
    "FifoNotFoundError",
    "FifoTimeoutError",
    "FileAccessError",
    "FileOpenError",
    "IOStateError",
    "InvalidOptionError",
    "LogFileError",
    "LogOptionError",
    "LoggerDiedError",
    "LoggerError",
    "LoggerExitedError",
    "LoggerIsDirectoryError",
    "LoggerNotExecutableError",
    "LoggerNotFoundError",
    "LoggerNotReadyError",
    "LoggerTimeoutError",
    "MissingNamespaceError",
    "NotAFifoError",
    "NotAFileError",
    "NotARuntimeCommandError",
    "NotATerminalError",
    "NotSubreaperError",
    "ProcessError",
    "RelativePathError",
    "RuntimeAnswerError",
    "RuntimeFailedError",
    "SchemeConflictError",
    "ShimIOError",
    "SigchldIgnoredError",
    "SocketPathError",
    "SpawnError",
    "StreamFailedError",
    "URIAuthorityError",
    "URIError",
    "URIEscapeError",
    "URINulError",
    "URISyntaxError",
    "UnknownDriverError",
    "UnknownSchemeError",
    "UnmountError",
    "UnsupportedPlatformError",
)


class ShimIOError(Exception):
    """The root of the tree; catch it to catch whatever pyshimio itself found wrong.

    Args:
        message: What was wrong and what to do instead.
        facts: Become attributes of the error (``path``, ``uri``, ``errno``, …).
    """

    def __init__(self, message: str, /, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self._facts = facts
        for name, value in facts.items():
            # Not into __dict__: an OSError keeps its errno elsewhere.
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(
        self,
    ) -> tuple[Callable[..., ShimIOError], tuple[object, ...], dict[str, object]]:
        return _rebuild, (type(self), self.message, self._facts), self.__dict__


def _rebuild(kind: type[ShimIOError], message: str, facts: dict[str, object]) -> ShimIOError:
    return kind(message, **facts)


# -- what a caller wrote ------------------------------------------------------------


class InvalidOptionError(ShimIOError, ValueError):
    """An option has a value that cannot mean anything; ``option`` names it."""

    option: str


class URIError(ShimIOError, ValueError):
    """A stdio URI cannot be used; ``uri`` is the text as it was given."""

    uri: str


class UnknownSchemeError(URIError):
    """Nobody serves this scheme; ``scheme`` is what was asked, ``known`` what there is."""

    scheme: str
    known: tuple[str, ...]


class SchemeConflictError(URIError):
    """Two installed packages register the same scheme, so neither is chosen."""

    scheme: str


class URIEscapeError(URIError):
    """A ``%`` is not followed by two hexadecimal digits."""


class URINulError(URIError):
    """A NUL byte stands in a path or an argument, where no kernel interface takes one."""


class URISyntaxError(URIError):
    """The text has a part that stdio URIs do not have (a fragment, a port, white space)."""


class URIAuthorityError(URIError):
    """``file://var/log/x``: two slashes make ``var`` a host name; three were meant."""


class RelativePathError(URIError):
    """The path does not start at ``/``."""


class LogOptionError(InvalidOptionError):
    """A log driver has no such option, needs one, or cannot make sense of one."""


class UnknownDriverError(LogOptionError):
    """There is no log driver of this name."""


class DriverConflictError(LogOptionError):
    """Two installed packages have a log driver of this name, so neither is chosen."""


class MissingNamespaceError(ShimIOError, ValueError):
    """A logger needs a containerd namespace (it becomes ``CONTAINER_NAMESPACE``)."""


class IOStateError(ShimIOError, RuntimeError):
    """A step was taken out of order (copied twice, set after close, …)."""


class UnsupportedPlatformError(ShimIOError, NotImplementedError):
    """pyshimio works with Linux descriptors (pidfd, splice, FIFOs) and nothing else."""


# -- destinations -------------------------------------------------------------------


class DestinationError(ShimIOError, OSError):
    """A destination cannot be opened or written; ``path`` and ``errno`` say which and why."""

    path: str


class FifoNotFoundError(DestinationError, FileNotFoundError):
    """There is nothing at the FIFO's path."""


class FifoExistsError(DestinationError, FileExistsError):
    """There is something at the path where a FIFO was to be made."""


class NotAFifoError(DestinationError):
    """The path of a FIFO holds something else."""


class FifoTimeoutError(DestinationError, TimeoutError):
    """No client opened the FIFO within ``timeout`` seconds."""

    timeout: float


class FileOpenError(DestinationError):
    """A log file cannot be opened (no such directory, a full disk, a symlink loop)."""


class LogFileError(DestinationError):
    """A log cannot be opened, is no regular file, or cannot be read."""


class FileAccessError(FileOpenError, PermissionError):
    """A log file may not be opened or made by this user."""


class NotAFileError(DestinationError):
    """A log file's path holds something that is no regular file or character device."""


class ChownError(ShimIOError, PermissionError):
    """A descriptor cannot be given to ``uid``/``gid``; ``chown="try"`` goes on without."""

    uid: int
    gid: int


class StreamFailedError(ShimIOError, OSError):
    """A stream ended because its sink failed; ``stream`` names it, ``__cause__`` is why.

    ``result`` is what a drain found all the same.
    """

    stream: str
    result: DrainResult | None


# -- loggers ------------------------------------------------------------------------


class LoggerError(ShimIOError):
    """A ``binary:`` logger could not be started or did not keep the contract."""

    path: str


class LoggerNotFoundError(LoggerError, FileNotFoundError):
    """There is no file at the logger's path."""


class LoggerNotExecutableError(LoggerError, PermissionError):
    """The logger's file may not be executed."""


class LoggerIsDirectoryError(LoggerError, IsADirectoryError):
    """The logger's path is a directory."""


class LoggerExitedError(LoggerError, ChildProcessError):
    """The logger ended before it said that it was ready; ``status`` is its exit status."""

    status: int


class LoggerNotReadyError(LoggerError, RuntimeError):
    """The logger closed descriptor 5 without a byte, which ``binary-v2`` forbids."""


class LoggerTimeoutError(LoggerError, TimeoutError):
    """The logger said nothing within ``timeout`` seconds; it was killed and reaped."""

    timeout: float


class LoggerDiedError(LoggerError, BrokenPipeError):
    """The logger died under a stream; ``status`` is its exit status."""

    status: int


# -- consoles -----------------------------------------------------------------------


class ConsoleError(ShimIOError, OSError):
    """A terminal could not be received or used."""


class ConsoleTimeoutError(ConsoleError, TimeoutError):
    """The runtime sent no terminal within ``timeout`` seconds."""

    timeout: float


class ConsolePeerClosedError(ConsoleError, ConnectionError):
    """The peer went away without sending anything."""


class ConsoleMessageError(ConsoleError, ValueError):
    """The peer's message carried no descriptor."""


class ConsoleDescriptorCountError(ConsoleError, ValueError):
    """The peer sent ``count`` descriptors where exactly one was due; all were closed."""

    count: int


class ConsoleMessageTooLongError(ConsoleError, ValueError):
    """The peer's message had 4,096 bytes or more, where it is the terminal's name."""


class ConsoleTruncatedError(ConsoleError):
    """The kernel cut the peer's control message (MSG_CTRUNC), so descriptors were lost."""


class NotATerminalError(ConsoleError):
    """What arrived is a descriptor, but no terminal."""


class ConsoleRuntimeExitedError(ConsoleError, ChildProcessError):
    """The runtime exited with ``status`` and had not sent a terminal."""

    status: int


class SocketPathError(ConsoleError):
    """A unix socket cannot be made at ``path`` (too long, taken, not writable)."""

    path: str


class NotARuntimeCommandError(ShimIOError, ValueError):
    """A console socket was set on a command that has no create, run, exec or restore."""

    args_: tuple[str, ...]


# -- children -----------------------------------------------------------------------


class RuntimeFailedError(ShimIOError, ChildProcessError):
    """An OCI runtime's command ended with ``status``.

    ``stderr`` is what it wrote there, and ``entries`` its own log of this command.
    """

    args_: tuple[str, ...]
    status: int
    stderr: str
    entries: tuple[LogEntry, ...]


class RuntimeAnswerError(ShimIOError, ValueError):
    """An OCI runtime answered with something else than was asked for; ``answer`` is that."""

    args_: tuple[str, ...]
    answer: bytes


class ContainerStateError(ShimIOError, RuntimeError):
    """A container or a process in one cannot do ``operation`` in the ``state`` that it is in."""

    id: str
    state: str
    operation: str


class UnmountError(ShimIOError, OSError):
    """What is mounted below ``path`` could not be unmounted in time."""

    path: str


class ProcessError(ShimIOError):
    """A child process could not be started or followed."""


class SigchldIgnoredError(ProcessError, RuntimeError):
    """SIGCHLD is ignored here, so the kernel would throw every exit status away."""


class ChildReapedElsewhereError(ProcessError, ChildProcessError):
    """Something else in this process waited for our child; its status is lost."""

    pid: int


class NotSubreaperError(ProcessError, ChildProcessError):
    """The process ``pid`` is no child of ours, so its exit status is not to be had."""

    pid: int


class CommandNotFoundError(ProcessError, FileNotFoundError):
    """The program does not exist (a shell would exit with 127)."""

    program: str


class CommandNotExecutableError(ProcessError, PermissionError):
    """The program exists and cannot be executed (a shell would exit with 126)."""

    program: str


class SpawnError(ProcessError, OSError):
    """The kernel refused to start the child for a reason other than the program's file."""

    program: str


class CommandUsedError(ProcessError, RuntimeError):
    """A Command starts once, as an ``exec.Cmd`` does; make another one."""


class ExitTimeoutError(ProcessError, TimeoutError):
    """The process did not exit within ``timeout`` seconds."""

    timeout: float
