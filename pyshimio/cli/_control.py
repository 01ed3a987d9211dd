"""The socket beside a container's FIFOs: what bytes in a FIFO cannot say.

A request is a line of JSON with ``op``, and so is its answer: ``about`` (who the container is
and where its FIFOs are), ``resize`` (``rows``, ``columns``), ``close_stdin``, and ``wait``, whose
answer has ``status`` and comes when the container has exited and its output is in the FIFOs.  An
answer with ``error`` says why not.  The socket is for its owner and root alone, by its mode (0600)
and by who connects (SO_PEERCRED).
"""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from .. import _sys
from ._say import say
from ._trouble import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import SocketListener, SocketStream, TaskGroup

    from .._stdio import Stdio
    from ..runc import Container

__all__ = ("SOCKET", "UNFINISHED", "Control", "Line", "ask", "connected")

SOCKET = "control.sock"
UNFINISHED = ".new"
LONGEST_PATH = 107
"""Bytes of a socket's name."""
LONGEST = 4096
"""Bytes of a request or an answer."""
MOST = 64
"""Connections at a time."""
LAST_WORDS = 1.0
"""Seconds for the answers to those who wait for the container's exit."""
AGAIN = 0.1


class Control:
    """The container's side.

    Args:
        directory: The FIFOs'.
        container: What is asked about.
        stdio: Its FIFOs.
        drained: Set when it has exited and all of its output is in them.
    """

    def __init__(
        self, directory: str, container: Container, stdio: Stdio, drained: anyio.Event
    ) -> None:
        self._path = socket_path(directory)
        self._container = container
        self._stdio = stdio
        self._drained = drained
        self._guests = 0  # who have asked about it, and are to hear how it ended
        self._connections = 0

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        """Answer in the block; those who wait have their answer when it is left."""
        # Under another name until it has its mode.
        listener = await anyio.create_unix_listener(f"{self._path}{UNFINISHED}", mode=0o600)
        os.rename(f"{self._path}{UNFINISHED}", self._path)
        group = anyio.create_task_group()
        await group.__aenter__()
        try:
            group.start_soon(self._serve, listener, group)
            yield
            with anyio.move_on_after(LAST_WORDS):
                while self._guests and self._drained.is_set():  # noqa: ASYNC110
                    await anyio.sleep(0.01)
        finally:
            group.cancel_scope.cancel()
            # The group is not told of an error of the body, which it would wrap.
            await group.__aexit__(None, None, None)
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _serve(self, listener: SocketListener, group: TaskGroup) -> None:
        async with listener:
            while True:
                try:
                    await listener.serve(self._converse, group)
                except OSError as error:  # no descriptor left, say
                    say(f"nobody can connect now: {error}")
                    await anyio.sleep(AGAIN)

    async def _converse(self, connection: SocketStream) -> None:
        guest = False
        self._connections += 1
        try:
            async with connection:
                if _stranger(connection) is not None or self._connections > MOST:
                    return
                requests = BufferedByteReceiveStream(connection)
                while True:
                    line = await requests.receive_until(b"\n", LONGEST)
                    answer = await self._answer(line)
                    if "id" in answer and not guest:
                        guest = True
                        self._guests += 1
                    await connection.send(json.dumps(answer).encode() + b"\n")
                    if "status" in answer:
                        return
        except (
            *(anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound),
            *(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError),
        ):
            pass  # whoever it was has gone
        finally:
            self._connections -= 1
            self._guests -= guest

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return await self._do(request["op"], request)
        except Exception as error:  # noqa: BLE001 - whatever is asked, the container goes on
            return {"error": str(error) or repr(error)}

    async def _do(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        container = self._container
        if operation == "about":
            return {
                "id": container.id,
                "state": container.state,
                "terminal": self._stdio.terminal,
                "stdin": self._stdio.stdin,
                "stdout": self._stdio.stdout,
                "stderr": self._stdio.stderr,
            }
        if operation == "resize":
            container.resize(int(request["rows"]), int(request["columns"]))
        elif operation == "close_stdin":
            container.close_stdin()
        elif operation == "wait":
            await self._drained.wait()
            return {"status": container.status}
        else:
            raise ValueError(f"no such operation: {operation!r}")
        return {}


def socket_path(directory: str) -> str:
    """Where the socket of a directory is.

    Raises:
        Refusal: The kernel takes no name that is so long.
    """
    path = os.path.join(directory, SOCKET)
    if len(os.fsencode(path + UNFINISHED)) > LONGEST_PATH:
        raise Refusal(f"{directory} is too long a name for a directory with a socket in it")
    return path


def _stranger(connection: SocketStream) -> int | None:
    """The uid at the other end, if that is neither ours nor root's."""
    uid = _sys.peer_uid(connection.extra(SocketAttribute.raw_socket))  # noqa: S610 - anyio's
    return None if uid in {0, os.geteuid()} else uid


class Line:
    """A connection to whoever runs the container; one question after the other."""

    def __init__(self, directory: str, connection: SocketStream) -> None:
        self._directory = directory
        self._connection = connection
        self._answers = BufferedByteReceiveStream(connection)

    async def ask(self, operation: str, **facts: object) -> dict[str, Any]:
        """Ask, and return the answer.

        Raises:
            Refusal: It says no, or has gone.
        """
        try:
            await self._connection.send(json.dumps({"op": operation, **facts}).encode() + b"\n")
            line = await self._answers.receive_until(b"\n", LONGEST)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError) as error:
            raise Refusal(f"whoever ran the container at {self._directory} has gone") from error
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Refusal(str(answer["error"]))
        return answer


@asynccontextmanager
async def connected(directory: str) -> AsyncGenerator[Line]:
    """A line to the one who runs the container of *directory*.

    Raises:
        Refusal: Nobody is there, or somebody else than us or root.
    """
    try:
        connection = await anyio.connect_unix(socket_path(directory))
    except OSError as error:
        why = error.strerror or str(error)
        raise Refusal(f"nobody runs a container at {directory}: {why}") from error
    async with connection:
        if (uid := _stranger(connection)) is not None:
            raise Refusal(f"somebody else, with uid {uid}, runs what is at {directory}")
        yield Line(directory, connection)


async def ask(directory: str, operation: str, **facts: object) -> dict[str, Any]:
    """One question, as :meth:`Line.ask` has it."""
    async with connected(directory) as line:
        return await line.ask(operation, **facts)
