"""Logs read back: json-file and CRI, with their old files, up to now or on and on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

from .._filepool import Lane
from ..errors import InvalidOptionError
from . import _kernel
from ._follow import Follower
from ._lines import LogLine, Window
from ._reader import Problem, Reader, log_problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
    from types import TracebackType
    from typing import Literal, Self

T = TypeVar("T")

__all__ = ("LogLine", "LogStream", "Problem", "read_log")

SOME, MUCH, TURN = 500, 1 << 20, 0.05
"""Lines, their bytes, and the seconds that a thread reads before the loop gets them."""
QUIET = 2
"""Looks: between two of them a rotation that is under way is seen."""
PAUSE = 0.1
"""Seconds between two looks at a file that is followed."""


def read_log(  # noqa: D417 - two arguments share a line
    path: str,
    *,
    follow: bool = False,
    until_unwritten: bool = False,
    tail: int | None = None,
    since: int | None = None,
    until: int | None = None,
    stream: Literal["stdout", "stderr"] | None = None,
    nofollow: bool = False,
    problem: Callable[[Problem], None] = log_problem,
) -> LogStream:
    """The lines of a container's log, as an async iterator; use it in ``async with``.

    json-file and CRI are told apart by themselves.  Rotated files are read in their order, gzipped
    ones, too; the pieces of a long line are joined.  A file that was written while it was read is
    read up to where it was then.

    Args:
        path: The file that is written, or a directory: docker's of a container or kubelet's, whose
            restarts follow each other.
        follow: Go on when the end is reached; across renaming, copytruncate and a file that is made
            again, with every line once.
        until_unwritten: With *follow*, end when nobody has the file open for writing.
        tail: The last so many lines alone (of those that the other options leave), and what
            follows.
        since, until: Nanoseconds since 1970, both included.  What is older is skipped by halving,
            not by reading.
        stream: One of them alone.
        nofollow: Refuse a symbolic link.
        problem: Told of each part that is damaged, which is left out; by default it is logged.

    Raises:
        LogFileError: There is no log, or it is in no format that is known; when it is first asked
            for a line.
        InvalidOptionError: *tail* is less than 0.

    Example:
        ::

            async with read_log("/var/log/pods/n_p_u/c/0.log", tail=10, follow=True) as log:
                async for line in log:
                    print(line.stream, line.text)
    """
    if tail is not None and tail < 0:
        raise InvalidOptionError(f"tail is 0 or more lines, not {tail!r}", option="tail")
    window = Window(since=since, until=until, stream=stream)
    reader = Reader(path, tail=tail, window=window, nofollow=nofollow, problem=problem)
    return LogStream(
        reader, follow=follow, until_unwritten=until_unwritten, problem=problem, path=path
    )


class LogStream:
    """See :func:`read_log`.

    Attributes:
        skipped: Lines that were damaged, up to now.
        bytes_read: From all files, up to now.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        follow: bool,
        until_unwritten: bool,
        problem: Callable[[Problem], None],
        path: str,
    ) -> None:
        self._reader = reader
        self._follow = follow
        self._until_unwritten = until_unwritten
        self._problem = problem
        self._path = path
        self._lane: Lane | None = None
        self._follower: Follower | None = None
        self._lines = self._all()

    @property
    def skipped(self) -> int:
        """Lines that were damaged, up to now."""
        return self._reader.skipped

    @property
    def bytes_read(self) -> int:
        """From all files, up to now."""
        return self._reader.bytes_read

    def __aiter__(self) -> AsyncIterator[LogLine]:
        return self

    async def __anext__(self) -> LogLine:
        return await anext(self._lines)

    async def _all(self) -> AsyncGenerator[LogLine]:
        self._lane = lane = Lane(f"log {self._path}", long=True)
        reader = self._reader
        there = reader.lines(keep=self._follow)
        ended = False
        while not ended:
            lines, ended = await _in_thread(lane, lambda: _some(there))
            for line in lines:
                yield line
        if not self._follow:
            return
        follower = self._follower = await _in_thread(lane, lambda: Follower(reader))
        quiet = 0  # looks in a row at which nothing came, and nobody could write any more
        while not reader.over and quiet < QUIET:
            # Asked first: what was written by then is read below.
            unwritten = self._until_unwritten and await _in_thread(lane, follower.unwritten)
            late = self._is_late()
            came = ended = False
            new = follower.lines()
            while not ended:
                lines, ended = await _in_thread(lane, lambda: _some(new))  # noqa: B023
                came = came or bool(lines)
                for line in lines:
                    yield line
            quiet = quiet + 1 if unwritten and not came else 0
            if not came:
                if late:
                    break
                await anyio.sleep(PAUSE)
        if not reader.over:
            follower.end()
        for line in reader.rest():
            yield line

    def _is_late(self) -> bool:
        """Whether nothing that is written now is wanted."""
        latest = self._reader.window.latest
        return latest is not None and _kernel.clock() > latest

    async def aclose(self) -> None:
        """Close the files.  Idempotent; a task that waits for a line gets ClosedResourceError."""
        if self._lane is not None:
            self._lane.close()
        if not self._lines.ag_running:  # type: ignore[attr-defined]
            await self._lines.aclose()
        if self._follower is not None:
            self._follower.close()
        self._reader.close()
        await anyio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _in_thread(lane: Lane, function: Callable[[], T]) -> T:
    return await lane.call(function, lambda _: None)


def _some(lines: Iterator[LogLine | None]) -> tuple[list[LogLine], bool]:
    """The next lines, not many and not for long; and whether those were all."""
    found: list[LogLine] = []
    size = 0
    until = _kernel.monotonic() + TURN
    for line in lines:
        if line is not None:
            found.append(line)
            size += len(line.text)
        if len(found) >= SOME or size >= MUCH or _kernel.monotonic() > until:
            return found, False
    return found, True
