"""``pyshimio logs``: a container's output, printed from the files that keep it."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.cli import GUARD, PYSHIMIO, check_one_line, run, started

if TYPE_CHECKING:
    from pathlib import Path


def entry(text: str, second: int, stream: str = "stdout", **attrs: str) -> str:
    """A line of a json-file."""
    more = {"attrs": attrs} if attrs else {}
    time = f"2026-11-26T10:00:{second:02}.5Z"
    return json.dumps({"log": f"{text}\n", "stream": stream, **more, "time": time}) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Twenty lines in two files, every fifth one of stderr."""
    lines = [
        entry(f"line {n}", n, "stderr" if n % 5 == 4 else "stdout", app="web", b="x")
        for n in range(20)
    ]
    (tmp_path / "log.1.gz").write_bytes(gzip.compress("".join(lines[:10]).encode()))
    (tmp_path / "log").write_text("".join(lines[10:]))
    return tmp_path / "log"


def test_all_of_it(log: Path) -> None:
    """Each stream where it belongs, the old file first."""
    done = run("logs", str(log))
    assert done.returncode == 0
    assert done.stdout.split("\n") == [*(f"line {n}" for n in range(20) if n % 5 != 4), ""]
    assert done.stderr.split("\n") == [*(f"line {n}" for n in range(20) if n % 5 == 4), ""]


@pytest.mark.parametrize(
    "options, numbers",
    [
        (("--tail", "3"), [17, 18, 19]),
        (("-n", "0"), []),
        (("--stream", "stderr"), [4, 9, 14, 19]),
        (("--since", "2026-11-26T10:00:17.5Z"), [17, 18, 19]),
        (("--since", "2026-11-26T10:00:17.500000001Z"), [18, 19]),
        (("--since", "2026-11-26T11:00:18+01:00"), [18, 19]),
        (("--since", "2026-11-26T10:00:18"), [18, 19]),
        (("--until", "2026-11-26T10:00:01.5Z"), [0, 1]),
        (("--since", "1795687200", "--until", "1795687202.5"), [0, 1, 2]),
        (("--until", "36500d"), []),
        (("--since", "36500d"), list(range(20))),
    ],
)
def test_parts_of_it(log: Path, options: tuple[str, ...], numbers: list[int]) -> None:
    """As docker logs has it, to the nanosecond."""
    done = run("logs", "--json", *options, str(log))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line)["log"] for line in done.stdout.splitlines()]
    assert found == [f"line {n}" for n in numbers]


def test_forms(log: Path) -> None:
    """With times, with attributes, as JSON."""
    done = run("logs", "-n1", "-t", "--details", "--stream", "stdout", str(log))
    assert done.stdout == "2026-11-26T10:00:18.5Z app=web,b=x line 18\n"
    done = run("logs", "-n1", "--json", str(log))
    assert json.loads(done.stdout) == {
        "time": "2026-11-26T10:00:19.5Z",
        "stream": "stderr",
        "log": "line 19",
        "complete": True,
        "attrs": {"app": "web", "b": "x"},
    }


@pytest.mark.parametrize(
    "args, words",
    [
        (("/no/such",), ("no log", "/no/such")),
        (("--since", "yesterday", "/x"), ("--since", "yesterday", "1h30m")),
        (("--tail", "-1", "/x"), ("--tail",)),
        ((), ("PATH",)),
    ],
)
def test_what_is_wrong_is_said(args: tuple[str, ...], words: tuple[str, ...]) -> None:
    """In one line, with 125."""
    check_one_line(run("logs", *args), 125, *words)


def test_damage_is_reported(log: Path) -> None:
    """And the rest is printed."""
    with open(log, "a") as file:
        file.write("torn\n" + entry("last", 30))
    done = run("logs", "-n1", str(log))
    assert done.returncode == 0
    assert done.stdout == "last\n"
    with open(log, "a") as file:
        file.write("half")
    done = run("logs", str(log))
    assert done.stdout.endswith("line 18\nlast\n")
    assert "no record: b'torn'" in done.stderr
    assert "4 bytes at the end" in done.stderr


def test_what_is_no_character(log: Path) -> None:
    """An attribute that is half of one is printed as JSON has it, in any locale."""
    log.write_text(entry("line ä", 1, app="\ud800"))
    (log.parent / "log.1.gz").unlink()
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("logs", "--details", str(log), env=environment, encoding="utf-8")
    assert done.stdout == "app=\\ud800 line ä\n"
    done = run("logs", "--json", str(log), env=environment, encoding="utf-8")
    assert json.loads(done.stdout)["attrs"] == {"app": "\ud800"}


def test_an_end_without_a_newline(tmp_path: Path) -> None:
    """It is not glued to what the next life says."""
    time = "2026-11-26T10:00:00Z stdout"
    (tmp_path / "0.log").write_text(f"{time} F one\n{time} P tail\n")
    (tmp_path / "1.log").write_text(f"{time} F two\n{time} P end\n")
    assert run("logs", str(tmp_path)).stdout == "one\ntail\ntwo\nend"


def test_until_nobody_writes(log: Path) -> None:
    """It follows, and ends with the writer."""
    with open(log, "a") as file:
        with started("logs", "--until-unwritten", "-n1", str(log), stdout=subprocess.PIPE) as tail:
            assert tail.stderr is not None
            assert tail.stdout is not None
            assert tail.stderr.readline() == "line 19\n"
            file.write(entry("new", 40))
            file.flush()
            assert tail.stdout.readline() == "new\n"
            file.close()
            assert tail.wait(GUARD) == 0


def test_follow(log: Path) -> None:
    """Across a rotation, until Ctrl-C."""
    with started("logs", "-f", "-n1", str(log), stdout=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == "line 19\n"
        os.rename(log, f"{log}.1")
        log.write_text(entry("new", 40))
        assert process.stdout.readline() == "new\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(GUARD) == 130


def test_a_reader_that_has_enough(log: Path) -> None:
    """``| head`` is no error."""
    log.with_name("log.1.gz").unlink()
    log.write_text("".join(entry("x" * 1000, 1) for _ in range(1000)))
    command = f"{' '.join(PYSHIMIO)} logs {log} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == f"{'x' * 1000}\n0\n"
    assert done.stderr == ""


def test_colours_on_a_terminal(log: Path) -> None:
    """Plain elsewhere."""
    command = f"{' '.join(PYSHIMIO)} logs -t -n 2 {log}"
    done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, check=True)
    assert b"\x1b[2m2026-11-26T10:00:18.5Z" in done.stdout
    assert b"\x1b[31m" in done.stdout
    assert "\x1b" not in run("logs", "-t", str(log)).stdout
