"""The manager's side of a container's FIFOs: clients that come, read and go as they are told."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import anyio
import attrs

from .. import _sys
from .._stdio import Stdio
from ._eventually import GUARD

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ("FakeClient", "FakeFifos", "FakeInput")

EVERYTHING = 1 << 40


@attrs.define(eq=False)
class _Side(ABC):
    """One side of a FIFO, which comes and goes.

    Args:
        path: The FIFO.
    """

    path: str
    _fd: int = attrs.field(default=-1, init=False)

    @property
    def attached(self) -> bool:
        """Whether it has the FIFO open."""
        return self._fd >= 0

    def fileno(self) -> int:
        """Its descriptor, which stays its own."""
        return self._fd

    def attach(self) -> Self:
        """Come: open the FIFO without waiting for the other side, if it is not open yet."""
        if not self.attached:
            self._fd = self._open()
        return self

    @abstractmethod
    def _open(self) -> int:
        """The FIFO, non-blocking and at once."""

    def detach(self) -> None:
        """Go away; what is not read yet stays in the FIFO as long as somebody keeps it open."""
        if self.attached:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()


@attrs.define(eq=False)
class FakeClient(_Side):
    """A reader of an output FIFO, as a container's client is one.

    Made, it is away; :meth:`attach` opens the FIFO without waiting for a writer, and leaving its
    block closes it.

    Args:
        path: The FIFO.

    Example:
        A slow client that comes late and leaves in the middle::

            with FakeClient(path) as client:
                await client.read(4096, chunk=100, pause=0.001)
    """

    def _open(self) -> int:
        return _open(self.path, os.O_RDONLY)

    async def read(
        self, count: int, *, chunk: int = 1 << 20, pause: float = 0.0, timeout: float = GUARD
    ) -> bytes:
        """Exactly *count* bytes, or fewer when the end comes first.

        Args:
            count: Bytes.
            chunk: Bytes of each read.
            pause: Seconds that it takes a rest after each read.
            timeout: Seconds for all of it.

        Raises:
            TimeoutError: It took longer.
            ValueError: It is away.
        """
        if not self.attached:
            raise ValueError("this client is away; attach() it first")
        data = bytearray()
        with anyio.fail_after(timeout):
            while len(data) < count:
                try:
                    got = os.read(self._fd, min(chunk, count - len(data)))
                except BlockingIOError:
                    await anyio.wait_readable(self._fd)
                    continue
                if got:
                    data += got
                    await anyio.sleep(pause)
                elif data or self.hung_up:
                    break
                else:
                    # A FIFO that nobody has opened for writing yet is readable at once.
                    await anyio.sleep(0.001)
        return bytes(data)

    async def read_all(
        self, *, chunk: int = 1 << 20, pause: float = 0.0, timeout: float = GUARD
    ) -> bytes:
        """Everything up to the end; it waits for a writer, if there has been none."""
        return await self.read(EVERYTHING, chunk=chunk, pause=pause, timeout=timeout)

    @property
    def hung_up(self) -> bool:
        """Whether there was a writer and there is none now."""
        return bool(_sys.poll_now(self._fd) & _sys.EPOLLHUP)

    @property
    def unread(self) -> int:
        """Bytes that wait in the FIFO."""
        return _sys.unread(self._fd)


@attrs.define(eq=False)
class FakeInput(_Side):
    """A writer of an input FIFO.

    As any writer, it can write as soon as somebody has the FIFO open for reading, and it is told
    when those are gone whom it has met: who was there when it came, or has let it write since.

    Args:
        path: The FIFO.
    """

    _met: bool = attrs.field(default=False, init=False)

    def _open(self) -> int:
        self._met = True
        try:
            return _open(self.path, os.O_WRONLY)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        self._met = False  # nobody reads yet: it takes a reader of our own to come before
        both = _open(self.path, os.O_RDWR)
        try:
            return _open(self.path, os.O_WRONLY)
        finally:
            os.close(both)

    async def send(
        self, data: bytes, *, chunk: int = 1 << 16, pause: float = 0.0, timeout: float = GUARD
    ) -> None:
        """Write all of *data*, in pieces of *chunk* bytes with a rest of *pause* seconds.

        It comes, if it is away, and waits for somebody who reads.

        Raises:
            BrokenPipeError: Those whom it has met are gone.
            TimeoutError: It took longer than *timeout* seconds.
        """
        self.attach()
        view = memoryview(data)
        with anyio.fail_after(timeout):
            while view:
                try:
                    view = view[os.write(self._fd, view[:chunk]) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._fd)
                except BrokenPipeError:
                    if self._met:
                        raise
                    await anyio.sleep(0.001)
                else:
                    self._met = True
                    await anyio.sleep(pause)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


@attrs.define(eq=False)
class FakeFifos:
    """The three FIFOs of a container, with somebody for each.

    Args:
        stdin: Who writes its input.
        stdout, stderr: Who reads its output; away until they are told to come.
        terminal: Whether it is to have one; then there is no FIFO for stderr.
    """

    stdin: FakeInput
    stdout: FakeClient
    stderr: FakeClient
    terminal: bool = False

    @classmethod
    def make(cls, directory: str | os.PathLike[str], *, terminal: bool = False) -> FakeFifos:
        """New ones in *directory*, which is made."""
        os.makedirs(directory)
        paths = [os.path.join(directory, name) for name in ("stdin", "stdout", "stderr")]
        for path in paths[: 2 if terminal else 3]:
            os.mkfifo(path)
        return cls(FakeInput(paths[0]), FakeClient(paths[1]), FakeClient(paths[2]), terminal)

    @property
    def stdio(self) -> Stdio:
        """Their paths, as a manager tells them to a shim."""
        return Stdio(
            stdin=self.stdin.path,
            stdout=self.stdout.path,
            stderr="" if self.terminal else self.stderr.path,
            terminal=self.terminal,
        )

    def attach(self) -> Self:
        """All of them come."""
        with ExitStack() as stack:
            for side in (self.stdin, self.stdout, *(() if self.terminal else (self.stderr,))):
                stack.enter_context(side)
            stack.pop_all()
        return self

    def detach(self) -> None:
        """All of them go."""
        for side in (self.stdin, self.stdout, self.stderr):
            side.detach()

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()
