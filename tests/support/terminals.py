"""Terminals and their peers, for the tests of consoles."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pyshimio import Console

GUARD = 20.0
"""Seconds after which a test that hangs fails."""

RUNTIME = f"""#!{sys.executable} -IS
# What an OCI runtime does about a terminal, and nothing else.
import os, pty, socket, sys
path = sys.argv[sys.argv.index("--console-socket") + 1]
master, slave = pty.openpty()
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect(path)
    socket.send_fds(peer, [b"/dev/ptmx"], [master])
"""


def make_script(path: Path, text: str) -> str:
    """An executable file, and its path."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def connect(path: str) -> socket.socket:
    """A peer of a console socket, connected and still silent."""
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.connect(path)
    except BaseException:
        peer.close()
        raise
    return peer


def send(path: str, payload: bytes, fds: Sequence[int] = ()) -> None:
    """Connect, send one message with descriptors, and go away."""
    with connect(path) as peer:
        if fds:
            socket.send_fds(peer, [payload], fds)
        elif payload:
            peer.sendall(payload)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no descriptor tells, at most :data:`GUARD` seconds."""
    with anyio.fail_after(GUARD):
        while not condition():
            await anyio.sleep(0.005)


async def read_until(console: Console, wanted: bytes) -> bytes:
    """What the terminal shows up to and with *wanted*."""
    seen = b""
    with anyio.fail_after(GUARD):
        while wanted not in seen:
            seen += await console.stdout.receive()
    return seen


async def read_all(console: Console) -> bytes:
    """What the terminal shows until it hangs up."""
    seen = b""
    with anyio.fail_after(GUARD):
        try:
            while True:
                seen += await console.stdout.receive()
        except anyio.EndOfStream:
            return seen


def pipe_fds(count: int) -> list[int]:
    """So many descriptors of one pipe's read end; the caller closes them."""
    reader, writer = os.pipe()
    os.close(writer)
    return [reader, *(os.dup(reader) for _ in range(count - 1))]
