"""Logging binaries: the shim's ``binary://``, with an end, a deadline and a successor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .._stdio import StdioURI
from ..errors import InvalidOptionError, UnknownSchemeError
from ._base import GRACE
from ._logger import GRACE as LOGGER_GRACE
from ._logger import READY_TIMEOUT, Logger, LoggerDeath, check_logger
from .pipe import PipeIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._owner import Chown

__all__ = ("BinaryIO",)

OUTPUTS = ("stdout", "stderr")


class BinaryIO(PipeIO):
    """The child's output goes to a logger process of its own; see :meth:`start`.

    Between the child and the logger this library moves the bytes, so that the logger sees
    EOF when the output has ended although a background child may hold the pipe, and so that
    a logger can be replaced.  With ``handover=True`` the child writes into the logger's
    pipe itself, as with containerd: no copy, and output goes on when this process dies;
    but then EOF comes when the last holder is gone, and there are no counters.
    """

    def __init__(self) -> None:
        raise TypeError("a BinaryIO is made by `await BinaryIO.start(uri, id=..., namespace=...)`")

    @classmethod
    async def start(  # noqa: D417 - groups of options share a line
        cls,
        uri: StdioURI | str,
        *,
        id: str,  # noqa: A002 - containerd's word
        namespace: str,
        streams: tuple[str, ...] = OUTPUTS,
        stdin: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        ready_timeout: float = READY_TIMEOUT,
        strict: bool = True,
        on_death: LoggerDeath = "epipe",
        max_restarts: int = 5,
        logger_grace: float = LOGGER_GRACE,
        handover: bool = False,
        uid: int = -1,
        gid: int = -1,
        chown: Chown = "strict",
        grace: float = GRACE,
        on_exit: Literal["kill", "leave"] = "kill",
    ) -> BinaryIO:
        """Start the logger, wait until it is ready, and make the IO around it.

        The logger gets stdout as descriptor 3, stderr as 4, readiness as 5 and nothing else
        above 2; ``/dev/null`` as 0, 1 and 2; the URI's arguments in their order; a process
        group of its own; SIGPIPE at its default.  It is always reaped.

        Args:
            uri: ``binary:///path?key=value`` or ``binary-v2:…``.
            id, namespace: Its ``CONTAINER_ID`` and ``CONTAINER_NAMESPACE``.
            streams: Which of stdout and stderr it gets; the other one ends at once.
            stdin: Whether the child gets a pipe as stdin.
            env: Names to add to the two in its environment (which they cannot replace).
            cwd: Where it runs.
            ready_timeout: Seconds until it must be ready.
            strict: A logger that exits before it said anything is an error; False is what
                containerd makes of it (ready) for ``binary``.
            on_death: When it dies before its input has ended: ``"epipe"`` ends the streams,
                as containerd does; ``"drain"`` lets the child go on and counts its output as
                dropped; ``"respawn"`` starts another one, which reads on where the first
                stopped: no byte that is still in the pipe is lost or repeated.
            max_restarts: In any minute; after that ``respawn`` becomes ``drain``.
            logger_grace: Seconds that it has to end after EOF; then it gets SIGTERM, and as
                many seconds later SIGKILL.
            handover: Give the logger's pipe to the child.
            uid, gid, chown, grace, on_exit: As for :class:`PipeIO`.

        Raises:
            MissingNamespaceError: *namespace* is empty.
            LoggerNotFoundError, LoggerIsDirectoryError, LoggerNotExecutableError: The path.
            LoggerExitedError, LoggerNotReadyError, LoggerTimeoutError: The contract.
            InvalidOptionError: An option that cannot mean anything.
            ChownError: A pipe cannot be given to *uid* and *gid*.
        """
        parsed = StdioURI.parse(uri) if isinstance(uri, str) else uri
        if parsed.scheme not in {"binary", "binary-v2"}:
            raise UnknownSchemeError(
                f"a BinaryIO takes binary: and binary-v2:, not {parsed.scheme!r}",
                uri=str(uri),
                scheme=parsed.scheme,
                known=("binary", "binary-v2"),
            )
        check_logger(parsed, id=id, namespace=namespace, env=env or {}, cwd=cwd, on_death=on_death)
        if not set(streams) <= set(OUTPUTS):
            raise InvalidOptionError(
                f'a logger gets "stdout" and "stderr", not {streams!r}', option="streams"
            )
        io = cls.__new__(cls)
        PipeIO.__init__(
            io,
            uid,
            gid,
            stdin=stdin,
            stdout="stdout" in streams and not handover,
            stderr="stderr" in streams and not handover,
            chown=chown,
            grace=grace,
            on_exit=on_exit,
        )
        try:
            logger = Logger(
                parsed,
                id=id,
                namespace=namespace,
                env=env or {},
                cwd=cwd,
                ready_timeout=ready_timeout,
                strict=strict,
                on_death=on_death,
                max_restarts=max_restarts,
                grace=logger_grace,
                streams=streams,
            )
            await io.start_logger(logger, handover=handover)
        except BaseException:
            await io.discard()
            raise
        return io

    @property
    def logger_pid(self) -> int:
        """The pid of the logger that runs now, or ran last."""
        process = self._loggers[0].process
        assert process is not None
        return process.pid
