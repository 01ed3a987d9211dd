"""Somebody else's project, with its own environment and our wheel, tests its supervisor."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def call(*args: str | Path, **options: object) -> str:
    """Its output; when it fails, that is what the test says."""
    done = subprocess.run(  # type: ignore[call-overload]
        args,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stdout
    output: str = done.stdout
    return output


def interpreter(unprivileged: tuple[str, ...]) -> str:
    """A Python that an ordinary user may run, which the one of a root's home is not."""
    for program in (getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3"):
        # (setpriv itself still finds what is in a root's home; the ones that it starts do not.)
        check = (
            "import ensurepip, os, sys;"
            "sys.exit(sys.version_info < (3, 11) or not os.access(sys.executable, os.X_OK))"
        )
        command = [*unprivileged, program, "-c", check]
        if subprocess.run(command, check=False, capture_output=True, cwd="/").returncode == 0:
            return program
    pytest.skip("needs a Python that nobody may run")


def wheel(where: Path, python: str) -> Path:
    """The one that nox has built, or a new one."""
    if (built := os.environ.get("PYSHIMIO_WHEEL")) is not None:
        return Path(built)
    if not (ROOT / "pyshimio").is_dir():
        pytest.skip("needs the sources, or PYSHIMIO_WHEEL")
    call(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", where, ROOT)
    (path,) = where.glob("*.whl")
    return path


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_project_of_somebody_else() -> None:
    """Its own pyproject, its own environment, no checkout, and no root: a dozen tests pass."""
    unprivileged = NOBODY if os.geteuid() == 0 else ()
    base = interpreter(unprivileged)
    with tempfile.TemporaryDirectory() as made:
        where = Path(made)
        where.chmod(0o755)
        project = where / "project"
        shutil.copytree(TESTS / "outside", project, ignore=shutil.ignore_patterns("__pycache__"))
        call(base, "-m", "venv", where / "venv")
        python = str(where / "venv" / "bin" / "python")
        built = wheel(where, python)
        call(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            f"pyshimio[testing] @ {built.as_uri()}",
            "trio",
        )
        scratch = where / "scratch"
        scratch.mkdir(mode=0o777)
        scratch.chmod(0o777)
        output = call(
            *unprivileged,
            *(python, "-B", "-m", "pytest", "-q", f"--basetemp={scratch}/tmp"),
            cwd=project,
            env={"PATH": os.environ["PATH"], "HOME": str(scratch), "LANG": "C.UTF-8"},
        )
    print(output)
    found = re.search(r"^(\d+) passed in", output, re.MULTILINE)
    assert found is not None, output
    functions = re.findall(r"def test_", (TESTS / "outside" / "test_supervisor.py").read_text())
    assert int(found[1]) >= len(functions) >= 12
