"""Loggers for ``binary:``, written where a test wants them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pyshimio import StdioURI

if TYPE_CHECKING:
    from pathlib import Path


def python_logger(tmp_path: Path, source: str, name: str = "logger") -> Path:
    """An executable Python program; it sees its arguments from ``sys.argv[1]`` on."""
    path = tmp_path / name
    path.write_text(f"#!{sys.executable} -IS\n{source}")
    path.chmod(0o755)
    return path


def shell_logger(tmp_path: Path, source: str, name: str = "logger") -> Path:
    """An executable shell script."""
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{source}\n")
    path.chmod(0o755)
    return path


def uri_of(path: Path, *args: tuple[str, str], scheme: str = "binary") -> str:
    """The URI of the logger at *path*."""
    return StdioURI.build(scheme, path, args)
