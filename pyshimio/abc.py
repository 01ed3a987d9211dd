"""The protocols that hold the library together: :class:`IO`, :class:`StartIO`, :class:`Sink`.

Whatever satisfies one of them works wherever pyshimio takes one; nothing checks for a
concrete class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType

    from anyio.abc import ByteReceiveStream, ByteSendStream
    from typing_extensions import Buffer

    from ._command import Command
    from ._events import IOEvent
    from ._process import Process
    from ._stats import IOStats
    from .io._result import DrainPolicy, DrainResult, ExitSource

__all__ = ("IO", "Sink", "StartIO")


@runtime_checkable
class Sink(Protocol):
    """Where the bytes of one or more streams go.

    A factory ``(StdioURI, *, stream, id, namespace) -> Sink`` registered in the
    entry-point group ``pyshimio.io_schemes`` makes one for each URI of its scheme.  A factory
    with a method ``sinks(StdioURI, *, streams, id, namespace) -> Mapping[str, Sink]`` makes
    those of all streams with the same URI at once, so that they can share something.  A sink
    with a method ``open()`` has it called in a thread first, if it blocks.
    """

    @property
    def blocking(self) -> bool:
        """True: :meth:`write` may wait (a file, a driver), so a thread of the pool calls it.

        False: it never waits, and the loop calls it.  One sink gets one call at a time.
        """
        ...

    @property
    def dropped(self) -> int:
        """Bytes so far that :meth:`write` has counted as taken and thrown away."""
        ...

    def fileno(self) -> int:
        """What to wait for (writable) after :meth:`write` returned None; -1 if it never does."""
        ...

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        """Take bytes from the front of *buffers*.

        Returns:
            How many were taken; fewer than offered means that the rest is offered again,
            at once by the loop, after a second by a thread.  None: would block.

        Raises:
            OSError: The stream ends with this error, and the child gets EPIPE.
        """
        ...

    def flush(self) -> None:
        """Hand on what was taken; called once, after the last byte of a stream."""
        ...

    def reopen(self) -> None:
        """Open the same destination anew (after a rotation); nothing to do for most."""
        ...

    def close(self) -> None:
        """Give everything back.  Idempotent, never raises, never waits."""
        ...


@runtime_checkable
class StartIO(Protocol):
    """What a runtime's command can be given as stdio: any :class:`IO`, or a console socket."""

    def set(self, command: Command) -> None:
        """Make *command* start with this stdio.  Descriptor bookkeeping only, never waits."""
        ...

    def close_after_start(self) -> None:
        """Give back the child's ends, so that EOF and EPIPE can happen.  Never waits."""
        ...


@runtime_checkable
class IO(Protocol):
    """The stdio of one process: what go-runc's ``IO`` and ``StartCloser`` are, and the rest.

    The steps in their order: :meth:`set` on a command, ``await command.start()``,
    :meth:`close_after_start`, ``await`` :meth:`copy`, ``await`` :meth:`drain`, ``await``
    :meth:`aclose`; or :meth:`spawn` for the first four in one.
    """

    @property
    def stdin(self) -> ByteSendStream | None:
        """The way into the child's stdin, where the caller is the one to write it."""
        ...

    @property
    def stdout(self) -> ByteReceiveStream | None:
        """The child's stdout, where the caller is the one to read it."""
        ...

    @property
    def stderr(self) -> ByteReceiveStream | None:
        """The child's stderr, where the caller is the one to read it."""
        ...

    @property
    def stats(self) -> IOStats:
        """What has moved up to now."""
        ...

    def child_fds(self) -> Mapping[int, int]:
        """0, 1 and 2 to the descriptors a child is to have there; they stay this IO's.

        For ``subprocess``, asyncio or anyio: ``Popen(…, stdin=fds[0], stdout=fds[1],
        stderr=fds[2])``, then :meth:`close_after_start`.
        """
        ...

    def set(self, command: Command) -> None:
        """Make *command* start with this stdio.  Descriptor bookkeeping only, never waits."""
        ...

    def close_after_start(self) -> None:
        """Give back the child's ends, so that EOF and EPIPE can happen.  Never waits."""
        ...

    async def spawn(self, command: Command | Sequence[str]) -> Process:
        """Open every destination, start the child, and move its bytes from then on."""
        ...

    async def copy(self) -> None:
        """Open what is not open yet and start to move bytes; returns when all of it runs."""
        ...

    def close_stdin(self) -> None:
        """The child is to see the end of its input.  A latch: valid at any time."""
        ...

    async def drain(
        self,
        *,
        exited: ExitSource | None = None,
        policy: DrainPolicy = "eof",
        exit_timeout: float | None = None,
        linger: float = 1.0,
        sink_timeout: float = 10.0,
    ) -> DrainResult:
        """Wait for the exit and then for every byte that the process wrote."""
        ...

    def events(self) -> AsyncIterator[IOEvent]:
        """What goes wrong on the way, as it happens."""
        ...

    def close(self) -> None:
        """Close every descriptor and kill the children this IO owns, without waiting."""
        ...

    async def aclose(self) -> None:
        """End the children, deliver what is left, close everything.  Idempotent."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
