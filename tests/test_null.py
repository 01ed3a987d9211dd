"""NullIO: no stdio, but one that can be used."""

from __future__ import annotations

import os
import subprocess

import pytest

from pyshimio import NullIO, _sys
from pyshimio.errors import InvalidOptionError, IOStateError


async def test_child_can_read_and_write() -> None:
    """A child's echo succeeds on either output, and its input is at its end."""
    async with NullIO() as io:
        process = await io.spawn(["sh", "-c", "cat && echo out && echo err >&2"])
        assert await process.wait() == 0
        result = await io.drain()
        assert result.complete
        assert result.streams == ()


async def test_child_can_write_to_its_input() -> None:
    """All three are open for reading and writing, as runc exec needs it."""
    async with NullIO() as io:
        process = await io.spawn(["sh", "-c", "echo >&0 && cat <&1 && cat <&2"])
        assert await process.wait() == 0


async def test_for_others() -> None:
    """The child's ends suit subprocess, and are close-on-exec here."""
    async with NullIO() as io:
        fds = io.child_fds()
        for fd in fds.values():
            assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/null"
            assert not os.get_inheritable(fd)
        done = subprocess.run(["echo"], check=False, stdin=fds[0], stdout=fds[1], stderr=fds[2])
        assert done.returncode == 0


async def test_nothing_to_talk_to() -> None:
    """There are no streams and no figures."""
    async with NullIO() as io:
        assert (io.stdin, io.stdout, io.stderr) == (None, None, None)
        assert (io.stats.stdin, io.stats.stdout, io.stats.stderr) == (None, None, None)
        await io.copy()
        io.close_stdin()
        assert repr(io) == "<NullIO copying stdin=open stdout=open stderr=open>"
    assert repr(io) == "<NullIO closed stdin=started stdout=started stderr=started>"
    with pytest.raises(IOStateError):
        io.child_fds()


def test_without_descriptors_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second open fails the first is given back."""
    calls = iter([_sys.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)])

    def limited(*_args: object) -> int:
        for fd in calls:
            return fd
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(_sys, "open", limited)
    with pytest.raises(OSError, match="Too many"):
        NullIO()


def test_bad_option() -> None:
    """What cannot mean anything is refused before anything is opened."""
    with pytest.raises(InvalidOptionError) as caught:
        NullIO(on_exit="stay")  # type: ignore[arg-type]
    assert caught.value.option == "on_exit"
