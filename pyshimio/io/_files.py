"""Log files as destinations: opened in a thread, once for both streams that share one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from .._events import SinkFailed, SinkRecovered
from .._file import FileSink, LogFile, OnError
from .._filepool import Lane
from ..errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._events import EventHub
    from ..abc import Sink

__all__ = ("FileOutlet", "SharedFile", "check_on_error")


class SharedFile:
    """A log file that is opened by the first of its streams.

    Args:
        path: Absolute.
        create, nofollow, inline, on_error, mark: As for :class:`LogFile`.
    """

    def __init__(
        self,
        path: str,
        *,
        create: bool = True,
        nofollow: bool = False,
        inline: bool = False,
        on_error: OnError = "drop",
        mark: bool = False,
    ) -> None:
        self.path = path
        self._options = {
            "create": create,
            "nofollow": nofollow,
            "inline": inline,
            "on_error": on_error,
            "mark": mark,
        }
        self._file: LogFile | None = None
        self._lane: Lane | None = None  # of a file that was checked and is to be opened
        self._lock = anyio.Lock()

    async def check(self) -> None:
        """Raise what opening it would, and make nothing; once for all of its streams."""
        async with self._lock:
            if self._file is None and self._lane is None:
                lane = Lane(f"log file {self.path!r}")
                try:
                    await lane.call(self._check_now, lambda _: None)
                except BaseException:
                    lane.close()
                    raise
                self._lane = lane  # the thread that has looked opens it, too

    def _check_now(self) -> None:
        LogFile.check(
            self.path,
            create=bool(self._options["create"]),
            nofollow=bool(self._options["nofollow"]),
        )

    async def sink(self, stream: str, hub: EventHub) -> FileSink:
        """One more stream's sink."""
        async with self._lock:
            if self._file is None:
                self._file = await self._open(stream, hub)
            return FileSink(self._file)

    async def _open(self, stream: str, hub: EventHub) -> LogFile:
        lane, self._lane = self._lane or Lane(f"log file {self.path!r}"), None
        try:
            # A file system that is frozen or a server that is away stops even an open.
            file = await lane.call(self._open_now, LogFile.abandon)
        except BaseException:
            lane.close()
            raise

        def say(error: OSError | None, lost: int) -> None:
            if error is not None:
                hub.emit(SinkFailed(stream, error, final=False))
            else:
                hub.emit(SinkRecovered(stream, lost))

        if file.blocking:
            file.lane = lane
            lane.device = file.device
            file.trouble = lambda error, lost: lane.post(lambda: say(error, lost))
        else:
            lane.close()
            file.trouble = say
        return file

    def _open_now(self) -> LogFile:
        return LogFile(self.path, **self._options)  # type: ignore[arg-type]

    def close(self) -> None:
        """It is not to be opened after all.  Idempotent."""
        if self._lane is not None:
            self._lane.close()
            self._lane = None


class FileOutlet:
    """One stream's way into a file.

    Args:
        shared: The file; two streams may have the same.
    """

    def __init__(self, shared: SharedFile) -> None:
        self._shared = shared
        self._sink: FileSink | None = None
        self.lane: Lane | None = None

    async def check(self) -> None:
        await self._shared.check()

    async def open(self, stream: str, hub: EventHub) -> Sink:
        if self._sink is None:
            self._sink = await self._shared.sink(stream, hub)
            self.lane = self._sink.file.lane
        return self._sink

    def finish(self, then: Callable[[], None]) -> None:
        self.close()
        then()

    def close(self) -> None:
        self._shared.close()
        if self._sink is not None:
            self._sink.close()


def check_on_error(on_error: str) -> None:
    """Raise for a policy that does not exist, before anything is made."""
    if on_error not in {"drop", "block", "fail"}:
        raise InvalidOptionError(
            f'on_error is "drop", "block" or "fail", not {on_error!r}', option="on_error"
        )
