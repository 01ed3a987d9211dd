"""The manager's side: FIFOs that are made and removed together, and where logs go."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from pyshimio import Stdio, StdioURI, create_io
from pyshimio.client import FifoSet, log_binary, log_file, log_uri
from pyshimio.errors import (
    DestinationError,
    FifoExistsError,
    InvalidOptionError,
    RelativePathError,
)
from pyshimio.testing import FakeClient
from pyshimio.testing.faults import fail_syscall

if TYPE_CHECKING:
    from pathlib import Path


def mode(path: str | Path) -> int:
    """The permissions of what is there."""
    return stat.S_IMODE(os.stat(path).st_mode)


def test_fifos_of_a_process(tmp_path: Path) -> None:
    """Three FIFOs for nobody else, in a directory for nobody else, gone with the block."""
    where = tmp_path / "run" / "c1"
    with FifoSet.create("c1", directory=where) as fifos:
        assert sorted(os.listdir(where)) == ["c1-stderr", "c1-stdin", "c1-stdout"]
        assert fifos.stdio == Stdio(
            stdin=f"{where}/c1-stdin", stdout=f"{where}/c1-stdout", stderr=f"{where}/c1-stderr"
        )
        assert mode(where) == 0o700
        for path in (fifos.stdio.stdin, fifos.stdio.stdout, fifos.stdio.stderr):
            assert stat.S_ISFIFO(os.stat(path).st_mode)
            assert mode(path) == 0o600
    assert os.listdir(tmp_path / "run") == []
    fifos.remove()


def test_a_terminal_has_no_stderr(tmp_path: Path) -> None:
    """With a terminal there are two FIFOs, and the record says so; streams can be left out."""
    with FifoSet.create("c1", terminal=True, directory=tmp_path) as fifos:
        assert sorted(os.listdir(tmp_path)) == ["c1-stdin", "c1-stdout"]
        assert (fifos.stdio.terminal, fifos.stdio.stderr) == (True, "")
    tmp_path.mkdir()
    with FifoSet.create("c2", stdin=False, stderr=False, directory=tmp_path) as fifos:
        assert fifos.stdio == Stdio(stdout=f"{tmp_path}/c2-stdout")


def test_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory there is a new one in the runtime directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with FifoSet.create("c1") as fifos:
        (directory,) = tmp_path.iterdir()
        assert mode(directory) == 0o700
        assert fifos.stdio.stdout == f"{directory}/c1-stdout"
    assert list(tmp_path.iterdir()) == []


def test_only_fifos_are_removed(tmp_path: Path) -> None:
    """A file in a FIFO's place stays, and so does a directory that is not empty."""
    fifos = FifoSet.create("c1", directory=tmp_path / "d")
    os.unlink(fifos.stdio.stdout)
    (tmp_path / "d" / "c1-stdout").write_text("precious")

    fifos.remove()

    assert [path.name for path in (tmp_path / "d").iterdir()] == ["c1-stdout"]


def test_load(tmp_path: Path) -> None:
    """FIFOs of an earlier life are taken over; what has gone is no error."""
    stdio = FifoSet.create("c1", directory=tmp_path / "d").stdio
    os.unlink(stdio.stdin)

    FifoSet.load(stdio).remove()

    assert list(tmp_path.iterdir()) == []
    FifoSet.load(stdio).remove()
    FifoSet.load(Stdio(stdout="file:///dev/null")).remove()
    FifoSet.load(Stdio(stdout="/dev/null")).remove()
    assert os.path.exists("/dev/null")


def test_names_that_are_taken(tmp_path: Path) -> None:
    """What is there already is nobody's to replace, and what was made before it is removed."""
    (tmp_path / "c1-stdout").touch()
    with pytest.raises(FifoExistsError) as caught:
        FifoSet.create("c1", directory=tmp_path)
    assert caught.value.path == f"{tmp_path}/c1-stdout"
    assert os.listdir(tmp_path) == ["c1-stdout"]


@pytest.mark.parametrize("name", ["", "a/b", "a\0b"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    """An id that is no part of a file's name is refused before anything is made."""
    with pytest.raises(InvalidOptionError):
        FifoSet.create(name, directory=tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["mkfifo", "makedirs"])
def test_a_kernel_that_refuses(tmp_path: Path, call: str) -> None:
    """It is said which path it is about, and nothing is left."""
    with fail_syscall(call, error=errno.ENOSPC), pytest.raises(DestinationError) as caught:
        FifoSet.create("c1", directory=tmp_path / "d")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


async def test_a_shim_and_its_manager(tmp_path: Path) -> None:
    """What a shim writes into a set's FIFOs the manager reads."""
    with FifoSet.create("c1", directory=tmp_path / "d", stdin=False) as fifos:
        with FakeClient(fifos.stdio.stdout) as out, FakeClient(fifos.stdio.stderr) as err:
            async with await create_io(fifos.stdio) as io:
                await io.spawn(["sh", "-c", "echo out; echo err >&2"])
                await io.drain()
                assert (await out.read_all(), await err.read_all()) == (b"out\n", b"err\n")


def test_where_logs_go() -> None:
    """The records are those that containerd's ``cio`` makes."""
    assert log_uri("binary:///l") == Stdio(stdout="binary:///l", stderr="binary:///l")
    assert log_uri(StdioURI.parse("file:///l"), terminal=True) == Stdio(
        stdout="file:///l", terminal=True
    )
    assert log_file("/var//log/./a b/../x y").stdout == "file:///var/log/x%20y"
    assert log_file("//var/log").stdout == "file:///var/log"
    arguments = {"z": "1 2", "a": "&", "": "x"}
    assert log_binary("/a b/c", arguments).stderr == "binary:///a%20b/c?=x&a=%26&z=1+2"
    assert log_binary("/l", scheme="binary-v2", terminal=True) == Stdio(
        stdout="binary-v2:///l", terminal=True
    )
    for make in (log_file, log_binary):
        with pytest.raises(RelativePathError):
            make("rel")
