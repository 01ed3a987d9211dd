"""One factory for every IO that a URI can name."""

from __future__ import annotations

import os
import stat
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from .._fifo import FifoHandle, KeepAlive
from .._sink import NullSink
from .._stdio import BUILTIN_SCHEMES, Stdio, StdioURI, scheme_of
from ..errors import InvalidOptionError, SchemeConflictError, UnknownSchemeError
from ._base import GRACE
from ._files import FileOutlet, SharedFile, check_on_error
from ._logger import GRACE as LOGGER_GRACE
from ._logger import READY_TIMEOUT, Logger, LoggerDeath, check_logger, check_on_death
from ._outlet import FifoOutlet, Outlet, SinkOutlet
from .binary import BinaryIO
from .console import Console, ConsoleIO, StdinEOF
from .file import FileIO
from .null import NullIO
from .pipe import PipeIO, open_stdin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._fd import OwnedFd
    from .._file import OnError
    from ..abc import Sink
    from ._base import BaseIO
    from ._owner import Chown

__all__ = ("create_io",)

GROUP = "pyshimio.io_schemes"
DRIVERS = "log+"
CLIENT_TIMEOUT = 30.0
LOGGERS = frozenset({"binary", "binary-v2"})


async def create_io(  # noqa: D417 - groups of options share a line
    stdio: Stdio | StdioURI | str | os.PathLike[str],
    *,
    id: str = "",  # noqa: A002 - containerd's word
    namespace: str = "",
    uid: int = -1,
    gid: int = -1,
    chown: Chown = "strict",
    client_timeout: float | None = CLIENT_TIMEOUT,
    ring: int | None = None,
    stdin_stream: bool = False,
    on_error: OnError = "drop",
    mark: bool = False,
    nofollow: bool = False,
    inline: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    ready_timeout: float = READY_TIMEOUT,
    strict: bool = True,
    on_death: LoggerDeath = "epipe",
    max_restarts: int = 5,
    logger_grace: float = LOGGER_GRACE,
    handover: bool = False,
    runtime: bool | None = None,
    console: Console | None = None,
    stdin_eof: StdinEOF = "eof_char",
    size: tuple[int, int] | None = None,
    console_timeout: float | None = 30.0,
    grace: float = GRACE,
    on_exit: Literal["kill", "leave"] = "kill",
) -> BaseIO:
    """Make the IO that *stdio* describes (the shim's ``createIO``).

    Everything is checked before anything is made, and a failure leaves nothing behind.
    Pipes are made, files opened and loggers started here; FIFOs are looked at here and
    opened by ``copy()`` or ``spawn()``.

    Each stream has a destination of its own: ``""`` and ``null:`` are /dev/null, a path or
    ``fifo:`` is a FIFO (a path may also be an existing file or device), ``file:`` a log
    file, ``binary:`` and ``binary-v2:`` a logger; two streams with the same file or the
    same logger share it.  Other schemes come from the entry points ``pyshimio.io_schemes``.
    stdin takes a path, ``fifo:`` and ``file:``.

    Args:
        stdio: A record, or one URI or path for stdout and stderr both.
        id, namespace: For loggers and for other packages' schemes.
        uid, gid, chown, grace, on_exit: As for :class:`PipeIO`.
        client_timeout: Seconds to wait for a FIFO's first client; None waits for ever.
        ring: None blocks the child while a FIFO is full and its client away.  A number of
            bytes lets it go on: the newest that many are kept, and no client is waited for.
        stdin_stream: Whether the caller is the one to write stdin, which then has no source in
            *stdio*: :attr:`~PipeIO.stdin` is a stream.  A terminal without a source has it anyway.
        on_error, mark, nofollow, inline: As for :class:`FileIO`.
        env, cwd, ready_timeout, strict, on_death, max_restarts, logger_grace, handover: As for
            :meth:`BinaryIO.start`.
        runtime, console, stdin_eof, size, console_timeout: As for :class:`ConsoleIO`, which
            ``Stdio(terminal=True)`` asks for.

    Returns:
        An IO; use it in ``async with`` or call ``aclose()``.

    Raises:
        URIError: A URI is malformed, or nobody serves its scheme.
        DestinationError: A FIFO or file is missing, is something else, or may not be used.
        LoggerError: A logger cannot be started or does not become ready.
        MissingNamespaceError: A logger without a namespace.
        ChownError: A pipe cannot be given to *uid* and *gid*.
    """
    if not isinstance(stdio, Stdio):
        text = str(stdio) if isinstance(stdio, StdioURI) else stdio
        stdio = Stdio(stdout=text, stderr=text)
    outputs = {
        stream: uri
        for stream, text in (("stdout", stdio.stdout), ("stderr", stdio.stderr))
        if not (stdio.terminal and stream == "stderr")
        if (uri := _parse(text)) is not None
    }
    stdin = _parse(stdio.stdin, known=("fifo", "file", "null"))
    check_on_error(on_error)
    check_on_death(on_death)
    for option, number in (("ring", ring), ("client_timeout", client_timeout)):
        if number is not None and not number >= 0:
            raise InvalidOptionError(f"{option} is 0 or more, not {number!r}", option=option)
    if stdin_stream and stdin is not None:
        raise InvalidOptionError(
            f"stdin comes from {stdio.stdin}, so it cannot be written here; leave out either",
            option="stdin_stream",
        )
    loggers: dict[StdioURI, tuple[str, ...]] = {}
    for stream, uri in outputs.items():
        if uri.scheme in LOGGERS:
            loggers[uri] = (*loggers.get(uri, ()), stream)
    for uri in loggers:
        check_logger(uri, id=id, namespace=namespace, env=env or {}, cwd=cwd, on_death=on_death)
    if not (outputs or stdin or stdin_stream or stdio.terminal):
        return NullIO(grace=grace, on_exit=on_exit)
    routes = _Routes(client_timeout=client_timeout, ring=ring, id=id, namespace=namespace)
    io: PipeIO | ConsoleIO | None = None
    try:
        files = {"nofollow": nofollow, "inline": inline, "on_error": on_error, "mark": mark}
        for stream, uri in outputs.items():
            if uri not in loggers:
                sharing = [other for other, same in outputs.items() if same == uri]
                routes.add(stream, uri, sharing, **files)
        if stdio.terminal and not outputs:
            # A screen that nobody looks at must not stop who writes on it.
            routes.outlets["stdout"] = SinkOutlet(NullSink(count=False))
        source = None if stdin is None else open_stdin(stdin)
        routes.stdin = source
        if stdio.terminal:
            io = ConsoleIO(
                uid,
                gid,
                runtime=runtime,
                console=console,
                stdin_eof=stdin_eof,
                size=size,
                timeout=console_timeout,
                chown=chown,
                grace=grace,
                on_exit=on_exit,
            )
        else:
            kind = _kind(outputs)
            piped = kind.__new__(kind)
            PipeIO.__init__(
                piped,
                uid,
                gid,
                stdin=stdin_stream or isinstance(source, FifoHandle),
                stdout="stdout" in outputs and not (handover and outputs["stdout"] in loggers),
                stderr="stderr" in outputs and not (handover and outputs["stderr"] in loggers),
                chown=chown,
                grace=grace,
                on_exit=on_exit,
            )
            io = piped
        io.bind(routes.outlets, source)
        await io.open_files()
        for uri, streams in loggers.items():
            logger = Logger(
                uri,
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
            await io.start_logger(logger, handover=handover and not stdio.terminal)
    except BaseException:
        routes.close()
        if io is not None:
            await io.discard()
        raise
    return io


def _parse(text: str, *, known: tuple[str, ...] | None = None) -> StdioURI | None:
    """A stream's URI; None for /dev/null."""
    scheme = scheme_of(text)
    if known is not None and scheme and scheme not in known:
        raise UnknownSchemeError(
            f"stdin comes from a path, fifo: or file:, not from {scheme}:",
            uri=text,
            scheme=scheme,
            known=known,
        )
    if scheme and scheme not in BUILTIN_SCHEMES:
        _factory(scheme, text)
    uri = StdioURI.parse(text)
    return None if uri.scheme == "null" else uri


def _kind(outputs: Mapping[str, StdioURI]) -> type[PipeIO]:
    """The most telling class for these destinations."""
    schemes = {uri.scheme for uri in outputs.values()}
    if schemes == {"file"}:
        return FileIO
    return BinaryIO if schemes and schemes <= LOGGERS else PipeIO


class _Routes:
    """Outlets while they are being made."""

    def __init__(
        self,
        *,
        client_timeout: float | None,
        ring: int | None,
        id: str,  # noqa: A002 - containerd's word
        namespace: str,
    ) -> None:
        self.outlets: dict[str, Outlet] = {}
        self.stdin: FifoHandle | OwnedFd | None = None
        self._fifo = {"timeout": client_timeout, "ring": ring}
        self._names = {"id": id, "namespace": namespace}
        self._files: dict[str, SharedFile] = {}
        self._sinks: dict[StdioURI, Mapping[str, Sink]] = {}
        self._keeps: dict[tuple[int, int], KeepAlive] = {}

    def add(self, stream: str, uri: StdioURI, sharing: list[str], **options: object) -> None:
        """The outlet of one stream; *sharing* are all streams with that URI."""
        if uri.scheme == "file" or (uri.scheme == "" and _is_file(uri.path)):
            # Two names of one file are one file, which is not there yet maybe.
            file = os.path.realpath(uri.path)
            if file not in self._files:
                self._files[file] = SharedFile(
                    uri.path,
                    create=uri.scheme == "file",
                    **options,  # type: ignore[arg-type]
                )
            self.outlets[stream] = FileOutlet(self._files[file])
        elif uri.scheme in {"", "fifo"}:
            handle = FifoHandle(uri.path)
            keep = self._keeps.setdefault(handle.inode, KeepAlive())
            self.outlets[stream] = FifoOutlet(handle, keep, **self._fifo)  # type: ignore[arg-type]
        else:
            self.outlets[stream] = SinkOutlet(self._sink(stream, uri, sharing))

    def _sink(self, stream: str, uri: StdioURI, sharing: list[str]) -> Sink:
        """One that another package makes, or a log driver."""
        factory = _factory(uri.scheme, str(uri))
        if not hasattr(factory, "sinks"):
            sink: Sink = factory(uri, stream=stream, **self._names)
            return sink
        if uri not in self._sinks:
            self._sinks[uri] = factory.sinks(uri, streams=sharing, **self._names)
        return self._sinks[uri][stream]

    def close(self) -> None:
        """Give back what was made."""
        for outlet in self.outlets.values():
            outlet.close()
        if self.stdin is not None:
            self.stdin.close()


def _is_file(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISCHR(mode)


def _factory(scheme: str, uri: str) -> Any:
    """What makes the sinks of a scheme that somebody has registered."""
    found = metadata.entry_points(group=GROUP)
    # (A log driver of any package has a scheme by its name.)
    named = DRIVERS if scheme.startswith(DRIVERS) else scheme
    matching = [entry for entry in found if entry.name == named]
    if len(matching) > 1:
        raise SchemeConflictError(
            f"the scheme {scheme}: is registered {len(matching)} times"
            f" ({', '.join(entry.value for entry in matching)}); uninstall all but one",
            uri=uri,
            scheme=scheme,
        )
    if not matching:
        known = (*BUILTIN_SCHEMES, *sorted(entry.name for entry in found))
        raise UnknownSchemeError(
            f"unknown STDIO scheme {scheme} in {uri!r}; known are {', '.join(known)}",
            uri=uri,
            scheme=scheme,
            known=known,
        )
    return matching[0].load()
