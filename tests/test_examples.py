"""The programs of the documentation, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pyshimio.client import FifoSet
from support.children import GUARD
from support.runc import Runtime

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
if not EXAMPLES.exists():
    pytest.skip("needs the documentation's sources", allow_module_level=True)


def start(name: str, *args: str) -> subprocess.Popen[str]:
    """One of them, as a process of its own."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *args]
    return subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_supervise(tmp_path: Path) -> None:
    """One ends well, one fails three times, one is ended; all that they said is in their logs."""
    with start("supervise.py", str(tmp_path), "1.5") as process:
        try:
            out, err = process.communicate(timeout=GUARD)
        finally:
            process.kill()
    assert process.returncode == 0, err
    # (What the clock has just written when it is cancelled is dropped, and said to be.)
    assert all(line.startswith("BytesDropped(stream='stdout'") for line in err.splitlines()), err
    assert sorted(out.splitlines()) == [
        *(f"crasher: attempt {n} ended with 3, complete: True" for n in range(3)),
        "greeter: attempt 0 ended with 0, complete: True",
    ]
    assert (tmp_path / "crasher.log").read_text() == "trying\n" * 3
    assert sorted((tmp_path / "greeter.log").read_text().split()) == ["done", "hello"]
    assert re.fullmatch(r"(tick\n)+", (tmp_path / "clock.log").read_text())


def test_attach(tmp_path: Path) -> None:
    """Three visits see all of it, once, in order."""
    with start("attach.py", str(tmp_path / "fifos")) as process:
        try:
            out, err = process.communicate(timeout=GUARD)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert out == "first\nsecond\nthird\n"
    assert not (tmp_path / "fifos").exists()


def test_an_app_its_driver_and_a_shim(tmp_path: Path) -> None:
    """Three processes: every line is in the log, numbered, with its stream, up to the last byte."""
    here = EXAMPLES / "logged"
    log, driver = tmp_path / "log", tmp_path / "driver"
    # (Its environment says nothing of where pyshimio is.)
    driver.write_text(f'#!/bin/sh\nexec {sys.executable} {here / "driver.py"} "$@"\n')
    driver.chmod(0o755)
    app = (sys.executable, str(here / "app.py"))
    with start("logged/shim.py", str(driver), str(log), *app) as shim:
        out, err = shim.communicate(timeout=GUARD)
    assert (shim.returncode, out, err) == (3, "status 3, complete: True\n", "")
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    assert [line[2] for line in lines] == [f"{number}:" for number in range(1, len(lines) + 1)]
    assert {line[0] for line in lines} == {"app"}
    said = {name: [line[3] for line in lines if line[1] == name] for name in ("stdout", "stderr")}
    ticks = [f"tick {number}" for number in range(1000)]
    assert said["stdout"] == [*ticks, "the end (no newline)"]
    assert said["stderr"] == [f"warning: {number}" for number in range(0, 1000, 100)]


def test_a_driver_that_does_not_start(tmp_path: Path) -> None:
    """Then the app is not started, and the error says what the logger did."""
    driver = tmp_path / "driver"
    driver.write_text(
        f"#!/bin/sh\nexec {sys.executable} {EXAMPLES / 'logged' / 'driver.py'}\n"
    )  # no options
    driver.chmod(0o755)
    ran = tmp_path / "ran"  # (It gets no options.)
    with start("logged/shim.py", str(driver), str(tmp_path / "log"), "touch", str(ran)) as shim:
        _, err = shim.communicate(timeout=GUARD)
    assert shim.returncode == 1
    assert "before it was ready" in err
    assert not ran.exists()


@pytest.mark.parametrize("keys, said", [("exit\n", "ended"), ("\x10\x11", "detached")])
def test_terminal(tmp_path: Path, keys: str, said: str) -> None:
    """What is typed at our terminal reaches the program's, until it ends or we leave."""
    program = shlex.join([sys.executable, str(EXAMPLES / "terminal.py"), str(tmp_path / "fifos")])
    command = ["script", "--quiet", "--flush", "--return", "--command", program, "/dev/null"]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("echo rea''dy\n")
        process.stdin.flush()
        while "ready" not in process.stdout.readline():
            pass
        process.stdin.write(keys)
        process.stdin.flush()
        assert said in process.stdout.read()
        assert process.wait(GUARD) == 0
    assert not (tmp_path / "fifos").exists()


@pytest.mark.runtime("runc", "busybox")
def test_shim(tmp_path: Path) -> None:
    """It runs a real container behind FIFOs, and tells who has exited."""
    runtime = Runtime.make(tmp_path, ["sh", "-c", "echo up; cat; exit 3"])
    with FifoSet.create("c", directory=tmp_path / "fifos") as fifos:
        stdio = fifos.stdio
        args = (runtime.root, runtime.bundle, runtime.name, stdio.stdin, stdio.stdout, stdio.stderr)
        with start("shim.py", *args) as shim, open(stdio.stdout) as out, open(stdio.stderr) as err:
            assert out.readline() == "up\n"
            assert shim.stdout is not None
            probe = json.loads(shim.stdout.readline())
            os.kill(_init(runtime), 9)
            assert (out.read(), err.read()) == ("", "")
            init = json.loads(shim.stdout.readline())
            assert shim.wait(GUARD) == 137
            assert shim.stderr is not None
            assert shim.stderr.read() == ""
    assert (probe["id"], probe["status"]) == ("probe", 0)
    assert (init["id"], init["status"]) == (runtime.name, 137)
    assert not runtime.exists()


def _init(runtime: Runtime) -> int:
    command = [runtime.program, "--root", runtime.root, "state", runtime.name]
    state = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    pid: int = state["pid"]
    return pid
