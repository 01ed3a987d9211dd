"""Stdio between a process and whoever wants it: what a container shim does, for Python.

The rooms, in the order in which they may use each other: ``errors``, ``abc`` and ``_sys``
(the kernel); ``_fd``, ``_stdio``; ``_poller``, ``_pump``, the sinks and the file pool;
``_command``, ``_process``; ``io`` (one module for each kind); ``runc`` (runtimes), ``client``
(the manager's side); ``cli``.

The names below are loaded when they are first used, so that importing one part does not
import anyio, asyncio or attrs for another.
"""

from __future__ import annotations

TYPE_CHECKING = False  # (a logger, which is started for each container, has no time for typing)
if TYPE_CHECKING:
    from ._command import Command as Command
    from ._events import BytesAbandoned as BytesAbandoned
    from ._events import BytesDropped as BytesDropped
    from ._events import IOEvent as IOEvent
    from ._events import LoggerExited as LoggerExited
    from ._events import LoggerRespawned as LoggerRespawned
    from ._events import SinkFailed as SinkFailed
    from ._events import SinkRecovered as SinkRecovered
    from ._process import Process as Process
    from ._stats import IOStats as IOStats
    from ._stats import StreamStats as StreamStats
    from ._stdio import Stdio as Stdio
    from ._stdio import StdioURI as StdioURI
    from ._stdio import scheme_of as scheme_of
    from .abc import IO as IO
    from .abc import Sink as Sink
    from .errors import ShimIOError as ShimIOError
    from .io._base import Tap as Tap
    from .io._result import DrainResult as DrainResult
    from .io._result import StreamResult as StreamResult
    from .io.binary import BinaryIO as BinaryIO
    from .io.console import Console as Console
    from .io.console import ConsoleIO as ConsoleIO
    from .io.console import ConsoleSocket as ConsoleSocket
    from .io.create import create_io as create_io
    from .io.fd import FdIO as FdIO
    from .io.file import FileIO as FileIO
    from .io.inherit import InheritIO as InheritIO
    from .io.null import NullIO as NullIO
    from .io.pipe import PipeIO as PipeIO

__version__ = "0.1.0"

_WHERE = {
    "BinaryIO": ".io.binary",
    "BytesAbandoned": "._events",
    "BytesDropped": "._events",
    "Command": "._command",
    "Console": ".io.console",
    "ConsoleIO": ".io.console",
    "ConsoleSocket": ".io.console",
    "DrainResult": ".io._result",
    "FdIO": ".io.fd",
    "FileIO": ".io.file",
    "IO": ".abc",
    "IOEvent": "._events",
    "IOStats": "._stats",
    "InheritIO": ".io.inherit",
    "LoggerExited": "._events",
    "LoggerRespawned": "._events",
    "NullIO": ".io.null",
    "PipeIO": ".io.pipe",
    "Process": "._process",
    "ShimIOError": ".errors",
    "Sink": ".abc",
    "SinkFailed": "._events",
    "SinkRecovered": "._events",
    "Stdio": "._stdio",
    "StdioURI": "._stdio",
    "StreamResult": ".io._result",
    "StreamStats": "._stats",
    "Tap": ".io._base",
    "create_io": ".io.create",
    "scheme_of": "._stdio",
}

__all__ = (
    "IO",
    "BinaryIO",
    "BytesAbandoned",
    "BytesDropped",
    "Command",
    "Console",
    "ConsoleIO",
    "ConsoleSocket",
    "DrainResult",
    "FdIO",
    "FileIO",
    "IOEvent",
    "IOStats",
    "InheritIO",
    "LoggerExited",
    "LoggerRespawned",
    "NullIO",
    "PipeIO",
    "Process",
    "ShimIOError",
    "Sink",
    "SinkFailed",
    "SinkRecovered",
    "Stdio",
    "StdioURI",
    "StreamResult",
    "StreamStats",
    "Tap",
    "create_io",
    "scheme_of",
)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - for whoever needs it

    value: object = getattr(import_module(_WHERE[name], __name__), name)
    # Tracebacks, pickles and the documentation name what people import.
    if getattr(value, "__module__", "").startswith(__name__):
        value.__module__ = __name__
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
