"""The ``pyshimio`` command as a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ("GUARD", "PYSHIMIO", "check_one_line", "end", "eventually", "holds", "run", "started")

PYSHIMIO = (sys.executable, "-m", "pyshimio")
GUARD = 20.0


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, **options}
    return subprocess.run([*PYSHIMIO, *args], text=True, timeout=GUARD, check=False, **options)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another process is about to do."""
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def holds(path: Path, text: str) -> Callable[[], bool]:
    """A condition: the file is there, with this in it."""
    return lambda: path.exists() and text in path.read_text()


def end(process: subprocess.Popen[Any]) -> None:
    """End a command that still runs, and its child, which would outlive it."""
    if process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        process.kill()
        for child in children.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def started(*args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the command; it is gone when the block is left."""
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, **options}
    with subprocess.Popen([*PYSHIMIO, *args], **options) as process:
        try:
            yield process
        finally:
            end(process)


def check_one_line(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Check that it failed with *status* and one line that holds all of *words*."""
    assert result.returncode == status, result.stderr
    assert result.stderr.startswith("pyshimio: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.endswith("\n")
    for word in words:
        assert word in result.stderr
