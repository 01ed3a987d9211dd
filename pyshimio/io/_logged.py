"""What an IO has to do for the loggers behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .. import _sys
from .._events import SinkFailed
from .._poller import Poller
from .._pump import LoopPump
from .._sink import NullSink, PipeSink
from .._source import PipeSource
from ._base import BaseIO
from ._outlet import SinkOutlet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._fd import OwnedFd
    from ..errors import LoggerDiedError
    from ._logger import Logger
    from ._result import DrainResult

__all__ = ("LoggedIO",)

OUTPUTS = ("stdout", "stderr")


class _LoggerOutlet(SinkOutlet):
    """The pipe into a logger, which is asked at the end what it has not read."""

    def __init__(self, logger: Logger, stream: str, sink: PipeSink) -> None:
        super().__init__(sink)
        self._logger = logger
        self._stream = stream

    def finish(self, then: Callable[[], None]) -> None:
        self._logger.see_the_rest(self._stream)
        super().finish(then)


class LoggedIO(BaseIO):
    """A :class:`BaseIO` some of whose streams may go to loggers."""

    _loggers: tuple[Logger, ...] = ()

    def _chown_fd(self, fd: OwnedFd, stream: str) -> None:
        """Give a pipe to the user that the child will be."""

    async def start_logger(self, logger: Logger, *, handover: bool = False) -> None:
        """Take *logger* over, connect its streams, and start it."""
        self._loggers = (*self._loggers, logger)
        logger.lost = lambda error: self._on_lost(logger, error)
        logger.hub = self._hub
        logger.handover = handover
        for stream in logger.streams:
            writer = logger.writers[stream]
            if handover:
                self._chown_fd(writer, stream)
                self._children[OUTPUTS.index(stream) + 1] = writer
            else:
                _sys.set_nonblocking(writer.fileno())
                self._outlets[stream] = _LoggerOutlet(logger, stream, PipeSink(writer))
        await logger.start()

    def _on_lost(self, logger: Logger, error: LoggerDiedError) -> None:
        """Nobody will read this logger's pipes any more."""
        for stream in logger.streams:
            pump = self._pumps.get(stream)
            if pump is not None:
                # What stands in the pipe counted as delivered until now.
                lost = logger.unread(stream)
                pump.counters.bytes_out -= lost
                pump.counters.dropped += lost
                if logger.on_death != "epipe":
                    pump.discard()
                elif not pump.done.is_set() and not pump.exhausted():
                    pump.fail(error)
            elif logger.on_death == "epipe":
                pass  # whoever writes hears it from the kernel
            elif (outlet := self._outlets.get(stream)) is not None:
                # It died before there was anything to copy.
                outlet.close()
                instead = self._outlets[stream] = SinkOutlet(NullSink(count=True))
                self._sinks[stream] = instead.sink
            else:
                self._discard_pipe(stream, logger)

    def _discard_pipe(self, stream: str, logger: Logger) -> None:
        """A child has the pipe itself: read on in the logger's place."""
        try:
            source = PipeSource(logger.reopen_reader(stream))
        except OSError as error:  # no descriptor left; the pipe closes, and the child gets EPIPE
            self._hub.emit(SinkFailed(stream, error, final=True))
            return
        outlet = SinkOutlet(NullSink(count=True))
        pump = LoopPump(
            stream,
            source,
            outlet.sink,
            poller=Poller.current(),
            hub=self._hub,
            then=outlet.close,
        )
        try:
            pump.start()
        except OSError as error:
            pump.end()
            self._hub.emit(SinkFailed(stream, error, final=True))
            return
        self._outlets[stream] = outlet
        self._pumps[stream] = pump

    async def _deliver(self) -> None:
        for logger in self._loggers:
            logger.end_of_output()
        for logger in self._loggers:
            await logger.wait()

    async def _end_sinks(self) -> None:
        for logger in self._loggers:
            await logger.stop()

    async def _result(self, finished: Mapping[str, bool]) -> DrainResult:
        result = await super()._result(finished)
        if not self._loggers:
            return result
        statuses = [logger.status for logger in self._loggers]
        return attrs.evolve(
            result,
            logger_ended=all(logger.ended for logger in self._loggers),
            logger_status=next((status for status in statuses if status), statuses[0]),
            logger_stopped=any(logger.stopped for logger in self._loggers),
        )

    def _reaped(self) -> bool:
        return not self._loggers and super()._reaped()

    async def _reap(self) -> None:
        await super()._reap()
        for logger in self._loggers:
            await logger.wait()

    def close(self) -> None:
        super().close()
        for logger in self._loggers:
            logger.close()
