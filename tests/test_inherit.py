"""InheritIO: our own stdio for the child, left as it is."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pyshimio import InheritIO, _sys
from support.children import content, memory_file

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def stdio(*fds: int | None) -> Generator[None]:
    """Have *fds* as our own 0, 1 and 2 (None: closed) for a while."""
    saved = [_sys.dup(number, 50) for number in range(3)]
    try:
        for number, fd in enumerate(fds):
            if fd is None:
                os.close(number)
            else:
                os.dup2(fd, number)
        yield
    finally:
        for number, fd in enumerate(saved):
            os.dup2(fd, number)
            os.close(fd)


@contextmanager
def pipe() -> Generator[tuple[int, int]]:
    """A pipe: (read end, write end)."""
    ends = _sys.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


async def test_child_uses_ours() -> None:
    """The child reads our stdin and writes our stdout and stderr."""
    with pipe() as (reader, writer), memory_file() as out, memory_file() as err:
        os.write(writer, b"hello\n")
        with stdio(reader, out, err):
            io = InheritIO()
            async with io:
                process = await io.spawn(["sh", "-c", "head -n1; echo err >&2"])
                assert await process.wait() == 0
                assert (await io.drain()).complete
        assert (content(out), content(err)) == (b"hello\n", b"err\n")


@pytest.mark.parametrize("blocking", [True, False])
async def test_flags_stay(blocking: bool) -> None:
    """No flag of the shared descriptions is ever changed, whatever it was."""
    with pipe() as (reader, writer), pipe() as (other, sink):
        ends = (reader, sink, sink)
        for end in ends:
            os.set_blocking(end, blocking)
        flags = [fcntl.fcntl(end, fcntl.F_GETFL) for end in ends]
        with stdio(*ends):
            async with InheritIO() as io:
                process = await io.spawn(["sh", "-c", "echo out; echo err >&2"])
                assert [fcntl.fcntl(end, fcntl.F_GETFL) for end in ends] == flags
                await process.wait()
        assert [fcntl.fcntl(end, fcntl.F_GETFL) for end in ends] == flags
        assert os.read(other, 100) == b"out\nerr\n"
        assert writer


@pytest.mark.parametrize("closed", [0, 1, 2])
async def test_closed_here(closed: int) -> None:
    """A descriptor that is closed here is /dev/null in the child, and no other is affected."""
    with memory_file() as out:
        fds: list[int | None] = [out, out, out]
        fds[closed] = None
        with stdio(*fds):
            async with InheritIO() as io:
                script = "cat <&0 >/dev/null; echo out; echo err >&2"
                process = await io.spawn(["sh", "-c", script])
                status = await process.wait()
        assert status == 0
        wanted = {0: b"out\nerr\n", 1: b"err\n", 2: b"out\n"}[closed]
        assert content(out).endswith(wanted)


async def test_ours_stay_open() -> None:
    """Closing the IO closes duplicates, not our own stdio."""
    async with InheritIO() as io:
        assert (io.stdin, io.stdout, io.stderr) == (None, None, None)
        assert not set(io.child_fds().values()) & {0, 1, 2}
        assert repr(io) == "<InheritIO open stdin=open stdout=open stderr=open>"
    for number in range(3):
        os.fstat(number)


def test_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error but that of a closed descriptor is one, and nothing is left over."""

    def refused(_fd: int, _lowest: int = 3) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(_sys, "dup", refused)
    with pytest.raises(OSError, match="Too many"):
        InheritIO()
