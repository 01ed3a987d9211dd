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
from ..errors import ShimIOError
from ._trouble import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import SocketStream

    from .._stdio import Stdio
    from ..runc import Container

__all__ = ("SOCKET", "Control", "ask")

SOCKET = "control.sock"
LONGEST = 4096
"""Bytes of a request or an answer."""
LAST_WORDS = 1.0
"""Seconds for the answers to those who wait for the container's exit."""


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
        self._path = os.path.join(directory, SOCKET)
        self._container = container
        self._stdio = stdio
        self._drained = drained
        self._waiting = 0

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        """Answer in the block; those who wait have their answer when it is left."""
        listener = await anyio.create_unix_listener(self._path, mode=0o600)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, self._converse)
                yield
                with anyio.move_on_after(LAST_WORDS):
                    while self._waiting and self._drained.is_set():  # noqa: ASYNC110
                        await anyio.sleep(0.01)
                group.cancel_scope.cancel()
        finally:
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _converse(self, connection: SocketStream) -> None:
        async with connection:
            uid = _sys.peer_uid(connection.extra(SocketAttribute.raw_socket))  # noqa: S610 - anyio's
            if uid not in {0, os.geteuid()}:
                return
            requests = BufferedByteReceiveStream(connection)
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    try:
                        line = await requests.receive_until(b"\n", LONGEST)
                    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound):
                        return
                    await connection.send(json.dumps(await self._answer(line)).encode() + b"\n")

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return await self._do(request["op"], request)
        except (ShimIOError, ValueError, KeyError, TypeError) as error:
            return {"error": str(error)}

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
            self._waiting += 1
            try:
                await self._drained.wait()
                return {"status": container.status}
            finally:
                self._waiting -= 1
        else:
            raise ValueError(f"no such operation: {operation!r}")
        return {}


async def ask(directory: str, operation: str, **facts: object) -> dict[str, Any]:
    """Ask the one who runs the container of *directory*, and return the answer.

    Raises:
        Refusal: Nobody is there, or it says no.
    """
    try:
        async with await anyio.connect_unix(os.path.join(directory, SOCKET)) as connection:
            await connection.send(json.dumps({"op": operation, **facts}).encode() + b"\n")
            line = await BufferedByteReceiveStream(connection).receive_until(b"\n", LONGEST)
    except OSError as error:
        raise Refusal(f"nobody runs a container at {directory}: {error.strerror}") from error
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError) as error:
        raise Refusal(f"whoever ran the container at {directory} has gone") from error
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise Refusal(str(answer["error"]))
    return answer
