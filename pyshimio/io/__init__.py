"""The IO types, one module each; all of them are names of :mod:`pyshimio` as well."""

from __future__ import annotations

from ._base import Tap
from ._result import DrainPolicy, DrainResult, ExitSource, StreamResult
from .binary import BinaryIO
from .console import Console, ConsoleIO, ConsoleSocket
from .create import create_io
from .fd import FdIO
from .file import FileIO
from .inherit import InheritIO
from .null import NullIO
from .pipe import PipeIO

__all__ = (
    "BinaryIO",
    "Console",
    "ConsoleIO",
    "ConsoleSocket",
    "DrainPolicy",
    "DrainResult",
    "ExitSource",
    "FdIO",
    "FileIO",
    "InheritIO",
    "NullIO",
    "PipeIO",
    "StreamResult",
    "Tap",
    "create_io",
)
