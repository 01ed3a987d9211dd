"""``events``: the one command that goes on, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import attrs

from .._command import Command
from ..errors import IOStateError, RuntimeFailedError
from ..io.pipe import PipeIO
from ._call import Page
from ._records import RuntimeEvent, decode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from .._process import Process

__all__ = ("RuntimeEvents",)

LONGEST = 1 << 20
"""Bytes of a line; a runtime that writes more has gone wrong."""


@attrs.define(eq=False)
class RuntimeEvents:
    """The events of one container, as they come (made by :meth:`Runc.events`).

    It ends when the container does.  A line that cannot be read is an error and the end:
    go-runc repeats that error for ever.

    Raises:
        RuntimeAnswerError: The runtime wrote something else.
        RuntimeFailedError: It ended with another status than 0.
    """

    _args: tuple[str, ...]
    _env: Mapping[str, str] | None
    _io: PipeIO | None = attrs.field(default=None, init=False)
    _process: Process | None = attrs.field(default=None, init=False)
    _errors: Page | None = attrs.field(default=None, init=False)
    _rest: bytes = attrs.field(default=b"", init=False)
    _over: bool = attrs.field(default=False, init=False)

    async def __aenter__(self) -> Self:
        if self._io is not None or self._over:
            raise IOStateError("events are iterated over once; ask for them again")
        self._io = PipeIO(stdin=False, stderr=False, grace=0)
        self._errors = Page()
        try:
            command = Command(self._args, env=self._env, stderr=self._errors.fd)
            self._process = await self._io.spawn(command)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        try:
            if self._io is not None:
                await self._io.aclose()
        finally:
            if self._errors is not None:
                self._errors.fd.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RuntimeEvent:
        if self._io is None:
            raise IOStateError("the runtime is not asked yet; write `async with ... as events:`")
        if self._over:
            raise StopAsyncIteration
        line = await self._line(self._io)
        if line is None:
            self._over = True
            await self._check()
            raise StopAsyncIteration
        try:
            return decode(self._args, line, RuntimeEvent.of)
        except BaseException:
            self._over = True
            raise

    async def _line(self, io: PipeIO) -> bytes | None:
        assert io.stdout is not None
        while b"\n" not in self._rest and len(self._rest) < LONGEST:
            try:
                self._rest += await io.stdout.receive()
            except anyio.EndOfStream:
                line, self._rest = self._rest, b""
                return line or None
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    async def _check(self) -> None:
        assert self._process is not None
        assert self._errors is not None
        if status := await self._process.wait():
            stderr = self._errors.read().decode(errors="replace")
            raise RuntimeFailedError(
                f"{' '.join(self._args)!r} ended with status {status}: {stderr.strip()}",
                args_=self._args,
                status=status,
                stderr=stderr,
                entries=(),
            )
