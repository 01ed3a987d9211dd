"""What it costs every run of pytest that pyshimio is installed: ``python -m support.price``."""

from __future__ import annotations

import statistics
import subprocess
import sys

__all__ = ("milliseconds", "python")

ROUNDS = 9
TIMED = """
import sys, time
{before}
begin = time.perf_counter()
import {module}
print((time.perf_counter() - begin) * 1000)
"""


def python(code: str) -> str:
    """What it prints, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True
    ).stdout


def milliseconds(module: str, *, before: str = "") -> float:
    """The median of what an import takes, each time in a new process, behind *before*."""
    code = TIMED.format(module=module, before=before)
    return statistics.median(float(python(code)) for _ in range(ROUNDS))


if __name__ == "__main__":
    plugin = milliseconds("pyshimio.testing.plugin", before="import pytest")
    whole = milliseconds("pytest")
    print(f"import of the pytest plugin: {plugin:.2f} ms, of pytest itself: {whole:.0f} ms")
