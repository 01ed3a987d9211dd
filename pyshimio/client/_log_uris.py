"""Records that send a process's output to a log, as ``cio`` builds them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .._stdio import Stdio, StdioURI

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("log_binary", "log_file", "log_uri")


def log_uri(uri: str | StdioURI, *, terminal: bool = False) -> Stdio:
    """Both outputs to *uri* (``cio.LogURI`` and ``cio.TerminalLogURI``).

    Args:
        uri: Any stdio URI.
        terminal: The process has a terminal, which has one output.
    """
    text = str(uri)
    return Stdio(stdout=text, stderr="" if terminal else text, terminal=terminal)


def log_file(path: str | os.PathLike[str], *, terminal: bool = False) -> Stdio:
    """Both outputs to a file (``cio.LogFile``).

    Args:
        path: Absolute; cleaned of ``.``, ``..`` and repeated slashes, as containerd does.
        terminal: See :func:`log_uri`.

    Raises:
        RelativePathError: It is not absolute.
    """
    return log_uri(StdioURI.build("file", _clean(path)), terminal=terminal)


def log_binary(
    path: str | os.PathLike[str],
    args: Mapping[str, str] | None = None,
    *,
    scheme: str = "binary",
    terminal: bool = False,
) -> Stdio:
    """Both outputs to a logger (``cio.BinaryIO`` and ``cio.TerminalBinaryIO``).

    Args:
        path: The program; absolute, and cleaned as for :func:`log_file`.
        args: Its arguments, which are sorted by name, as containerd does;
            :meth:`~pyshimio.StdioURI.build` keeps an order, and repeated names.
        scheme: ``"binary"`` or ``"binary-v2"``.
        terminal: See :func:`log_uri`.

    Raises:
        RelativePathError: The path is not absolute.

    Example:
        >>> from pyshimio.client import log_binary
        >>> log_binary("/a b/c", {"z": "1 2", "a": "&"}).stdout
        'binary:///a%20b/c?a=%26&z=1+2'
    """
    arguments = sorted((args or {}).items())
    return log_uri(StdioURI.build(scheme, _clean(path), arguments), terminal=terminal)


def _clean(path: str | os.PathLike[str]) -> str:
    cleaned = os.path.normpath(path)
    # POSIX has two leading slashes mean something else, and Linux does not.
    return cleaned[1:] if cleaned.startswith("//") else cleaned
