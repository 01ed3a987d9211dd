"""Log drivers of ours at the other end of ``binary://``: under a real containerd, and under us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from pyshimio import Stdio, create_io
from pyshimio.logging._rotation import numbered
from support.cli import eventually, run
from support.containerd import Containerd, containerd
from support.runc import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = "seq 3000; echo err >&2; printf '<tail>'"
OUTPUT = [f"{number}\n" for number in range(1, 3001)]
CONTAINERD = pytest.mark.runtime("containerd", "ctr", "runc", "busybox")


@pytest.fixture
def daemon() -> Iterator[Containerd]:
    """A containerd."""
    with containerd() as running:
        yield running


def logger(where: Path, *command: str) -> str:
    """A program that a shim can start, whose environment says nothing of ours."""
    command = command or ("-c", "'from pyshimio.logging._main import main; main()'")
    path = where / "logger"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {" ".join(command)} "$@"\n')
    path.chmod(0o755)
    return str(path)


def uri(program: str, **options: str) -> str:
    """As containerd's own generator writes it."""
    pairs = sorted((key.replace("_", "-"), value) for key, value in options.items())
    return f"binary://{program}?{urlencode(pairs)}"


def entries(log: Path, stream: str) -> list[str]:
    """A stream's texts in a json-file and its old files."""
    text = b"".join(Path(name).read_bytes() for name in [*numbered(str(log)), str(log)])
    found = [json.loads(line) for line in text.splitlines()]
    return [entry["log"] for entry in found if entry["stream"] == stream]


@CONTAINERD
@pytest.mark.slow
def test_json_file(daemon: Containerd, tmp_path: Path) -> None:
    """All of it, in its order, with the streams apart, in several files."""
    log = tmp_path / "log"
    options = {"log_path": str(log), "max_size": "50k", "max_file": "9"}
    daemon.run(uri(logger(tmp_path), driver="json-file", **options), SCRIPT)
    eventually(lambda: entries(log, "stdout")[-1:] == ["<tail>"], "the last record")
    assert entries(log, "stdout") == [*OUTPUT, "<tail>"]
    assert entries(log, "stderr") == ["err\n"]
    assert os.path.exists(f"{log}.1")


@CONTAINERD
@pytest.mark.slow
def test_cri(daemon: Containerd, tmp_path: Path) -> None:
    """The same for kubelet."""
    log = tmp_path / "log"
    daemon.run(uri(logger(tmp_path), driver="cri", log_path=str(log)), SCRIPT)
    eventually(lambda: log.read_bytes().endswith(b"P <tail>\n"), "the last record")
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    out = [f"{line[3]}\n" for line in lines if line[1:3] == ["stdout", "F"]]
    assert out == OUTPUT
    assert [line[3] for line in lines if line[1:3] == ["stderr", "F"]] == ["err"]


@pytest.mark.parametrize("scheme", ["binary", "binary-v2"])
@pytest.mark.parametrize("driver", ["json-file", "cri"])
async def test_a_terminal(tmp_path: Path, driver: str, scheme: str) -> None:
    """A terminal's output is one stream; its carriage returns are no part of a line in CRI.

    (containerd 1.6's ``ctr run -t`` takes no notice of ``--log-uri``, so this shim is ours.)
    """
    log = tmp_path / "log"
    where = uri(logger(tmp_path), driver=driver, log_path=str(log))
    stdio = Stdio(stdout=where.replace("binary:", f"{scheme}:"), terminal=True)
    async with await create_io(stdio, id="c", namespace="n") as io:
        await io.spawn(["sh", "-c", SCRIPT])
        assert (await io.drain()).complete
    whole = [*OUTPUT, "err\n"]
    if driver == "json-file":
        text = "".join(entries(log, "stdout"))
        assert text == "".join([*whole, "<tail>"]).replace("\n", "\r\n")
    else:
        lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
        assert [f"{line[3]}\n" for line in lines if line[2] == "F"] == whole
        assert lines[-1][1:] == ["stdout", "P", "<tail>"]


EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "loud.py"


@CONTAINERD
@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLE.exists(), reason="needs the documentation's sources")
def test_the_example(daemon: Containerd, tmp_path: Path) -> None:
    """The page's ten lines, under a real containerd."""
    log = tmp_path / "log"
    program = str(shutil.copy(EXAMPLE, tmp_path / "loud.py"))
    long = "x" * 20_000  # more than comes in one piece
    script = f"echo hello; echo {long}; echo you >&2"
    daemon.run(uri(logger(tmp_path, program), path=str(log)), script)
    lines = ["HELLO", long.upper(), "YOU"]
    eventually(lambda: sorted(log.read_text().splitlines()) == sorted(lines), "all lines")


@pytest.mark.runtime("conmon", "runc", "busybox")
@pytest.mark.slow
def test_conmons_log_is_read(tmp_path: Path) -> None:
    """Its k8s-file, lines that it cuts at its own reads included."""
    script = f"seq 500; echo {'x' * 20_000}; echo err >&2; printf tail"
    runtime = Runtime.make(tmp_path, ["sh", "-c", script])
    log = tmp_path / "ctr.log"
    for name in ("exits", "sockets"):
        (tmp_path / name).mkdir()
    runc = [runtime.program, "--root", runtime.root]
    command = ["conmon", "--cid", runtime.name, "--cuuid", runtime.name, "--runtime", runc[0]]
    command += ["--runtime-arg", f"--root={runtime.root}", "--bundle", runtime.bundle]
    command += ["--container-pidfile", runtime.pid_file, "--log-path", f"k8s-file:{log}"]
    command += ["--conmon-pidfile", str(tmp_path / "conmon.pid")]
    command += ["--exit-dir", str(tmp_path / "exits")]
    command += ["--socket-dir-path", str(tmp_path / "sockets")]
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        eventually(lambda: os.path.exists(runtime.pid_file), "the container")
        subprocess.run([*runc, "start", runtime.name], check=True)
        eventually(lambda: bool(os.listdir(tmp_path / "exits")), "its exit")
    finally:
        subprocess.run([*runc, "delete", "--force", runtime.name], check=False, capture_output=True)
    done = run("logs", str(log))
    assert done.returncode == 0
    whole = "".join(f"{number}\n" for number in range(1, 501)) + "x" * 20_000 + "\ntail"
    assert done.stdout == whole
    assert done.stderr == "err\n"
