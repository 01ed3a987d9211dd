"""The other end of ``binary://``: log drivers, what they write, and how it is read back.

A driver is a :class:`Driver`; :func:`run` makes a logging binary of one, and the URI scheme
``log+NAME:`` runs it within the process that has the container.  Nothing here is loaded before it
is used, and the drivers load neither anyio nor attrs: a logger is started for each container.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._copier import Copier as Copier
    from ._delivery import Block as Block
    from ._driver import Driver as Driver
    from ._info import LogInfo as LogInfo
    from ._log_file import LogFile as LogFile
    from ._options import Options as Options
    from ._options import absolute_path as absolute_path
    from ._options import buffer_size as buffer_size
    from ._options import count as count
    from ._options import flag as flag
    from ._options import key_list as key_list
    from ._options import size as size
    from ._options import text as text
    from ._record import Batch as Batch
    from ._record import Partial as Partial
    from ._record import Record as Record
    from ._registry import driver_names as driver_names
    from ._registry import find_driver as find_driver
    from ._ring import Ring as Ring
    from ._rotation import Rotation as Rotation
    from ._runner import run as run
    from ._tee import Tee as Tee
    from .reading import LogLine as LogLine
    from .reading import LogStream as LogStream
    from .reading import Problem as Problem
    from .reading import read_log as read_log

_WHERE = {
    "Batch": "._record",
    "Block": "._delivery",
    "Copier": "._copier",
    "Driver": "._driver",
    "LogFile": "._log_file",
    "LogInfo": "._info",
    "LogLine": ".reading",
    "LogStream": ".reading",
    "Options": "._options",
    "Partial": "._record",
    "Problem": ".reading",
    "Record": "._record",
    "Ring": "._ring",
    "Rotation": "._rotation",
    "Tee": "._tee",
    "absolute_path": "._options",
    "buffer_size": "._options",
    "count": "._options",
    "driver_names": "._registry",
    "find_driver": "._registry",
    "flag": "._options",
    "key_list": "._options",
    "read_log": ".reading",
    "run": "._runner",
    "size": "._options",
    "text": "._options",
}

__all__ = (
    "Batch",
    "Block",
    "Copier",
    "Driver",
    "LogFile",
    "LogInfo",
    "LogLine",
    "LogStream",
    "Options",
    "Partial",
    "Problem",
    "Record",
    "Ring",
    "Rotation",
    "Tee",
    "absolute_path",
    "buffer_size",
    "count",
    "driver_names",
    "find_driver",
    "flag",
    "key_list",
    "read_log",
    "run",
    "size",
    "text",
)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - for whoever needs it

    value = getattr(import_module(_WHERE[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
