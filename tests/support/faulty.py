"""The ``pyshimio`` command with a kernel that refuses one call: ``python -m support.faulty``.

Arguments: a file for what happened, the name of a call of :mod:`pyshimio._sys` (``*`` for none),
which of them, which of its faults; and the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from .cli import GUARD
from .faults import FAULTS, count_syscalls, fail_syscall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from .faults import Calls

__all__ = ("Done", "every_failure_of", "run_faulty")

TESTS = str(Path(__file__).parent.parent)


@attrs.frozen
class Done:
    """How a command ended that was refused a call."""

    what: str
    status: int
    stdout: str
    stderr: str
    calls: tuple[str, ...]
    reached: bool

    @property
    def refused(self) -> bool:
        """Whether it says so, in words."""
        return self.status != 0 and "pyshimio: " in self.stderr


def run_faulty(where: Path, name: str, k: int, number: int, *args: str, **options: Any) -> Done:
    """Run the command with one fault (*name* ``*``: with none)."""
    told = where / "told"
    told.unlink(missing_ok=True)
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, **options}
    result = subprocess.run(
        [sys.executable, "-m", "support.faulty", str(told), name, str(k), str(number), *args],
        text=True,
        check=False,
        timeout=GUARD,
        env={**os.environ, "PYTHONPATH": TESTS},
        **options,
    )
    calls, failed = json.loads(told.read_text())
    fault = "no fault" if name == "*" else f"{name} number {k}: {FAULTS[name][number]}"
    reached = failed is not None
    return Done(fault, result.returncode, result.stdout, result.stderr, tuple(calls), reached)


def every_failure_of(run: Callable[[str, int, int], Done], but: Sequence[str] = ()) -> int:
    """Have each call of *run* fail once, each time in another way; how many there were.

    Args:
        run: Gets the name, which of the calls, and which of the faults.
        but: Calls to leave out.
    """
    names = list(dict.fromkeys(run("*", 1, 0).calls))
    reached = 0
    for name in names:
        if name not in FAULTS or name in but:
            continue
        k = 1
        while run(name, k, k % len(FAULTS[name])).reached:
            reached += 1
            k += 1
    print(f"{reached} calls of the command were made to fail")
    return reached


def _main(told: str, name: str, k: str, number: str, *args: str) -> None:
    from pyshimio.cli import main  # noqa: PLC0415 - the command, once its kernel is in place

    fault: AbstractContextManager[Calls]
    if name == "*":
        fault = count_syscalls()
    else:
        chosen = FAULTS[name][int(number)]
        fault = fail_syscall(name, int(k), error=chosen.error, short=chosen.short)
    with fault as calls:
        status = main(list(args))
    Path(told).write_text(json.dumps([calls.names, calls.failed]), encoding="utf-8")
    sys.exit(status)


if __name__ == "__main__":
    _main(*sys.argv[1:])
