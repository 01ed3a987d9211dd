"""The ``pyshimio`` command with a kernel that refuses one call: ``python -m support.faulty``.

Arguments: a file for what happened, the name of a call of :mod:`pyshimio._sys` (``*`` for none),
which of them, which of its faults; and the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from pyshimio.testing.faults import FAULTS, count_syscalls, fail_syscall

from .cli import GUARD, end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pyshimio.testing.faults import Calls

__all__ = ("Done", "every_failure_of", "faulty", "finished", "run_faulty")

TESTS = str(Path(__file__).parent.parent)


@attrs.frozen
class Done:
    """How a command ended that was refused a call."""

    call: str
    what: str
    status: int
    stdout: str
    stderr: str
    calls: tuple[str, ...]
    reached: bool
    begun: int
    """Programs that it had started before the call that failed."""

    @property
    def refused(self) -> bool:
        """Whether it says so, in words."""
        return self.status != 0 and "pyshimio: " in self.stderr


@contextmanager
def faulty(
    where: str, name: str, k: int, number: int, *args: str, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start the command with one fault (*name* ``*``: with none)."""
    told = Path(where) / "told"
    told.unlink(missing_ok=True)
    options = {"stdin": subprocess.DEVNULL, "text": True, **options}
    command = [sys.executable, "-m", "support.faulty", str(told), name, str(k), str(number), *args]
    env = {**os.environ, "PYTHONPATH": TESTS}
    with subprocess.Popen(command, env=env, **options) as process:
        try:
            yield process
        finally:
            end(process)


def finished(  # noqa: PLR0917
    where: Path, name: str, k: int, number: int, status: int, stdout: str, stderr: str
) -> Done:
    """What there is to know of one that has ended."""
    calls, failed = json.loads((where / "told").read_text())
    fault = "no fault" if name == "*" else f"{name} number {k}: {FAULTS[name][number]}"
    reached = failed is not None
    places = [place for place, call in enumerate(calls) if call == name]
    begun = calls[: places[k - 1]].count("posix_spawn") if reached else 0
    return Done(name, fault, status, stdout, stderr, tuple(calls), reached, begun)


def run_faulty(where: Path, name: str, k: int, number: int, *args: str) -> Done:
    """Run the command with one fault to its end."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with faulty(str(where), name, k, number, *args, **pipes) as process:
        stdout, stderr = process.communicate(timeout=GUARD)
    return finished(where, name, k, number, process.returncode, stdout, stderr)


def every_failure_of(
    run: Callable[[str, int, int], Done], *, but: Sequence[str] = (), most: int = 1000
) -> int:
    """Have each call of *run* fail once, each time in another way; how many there were.

    Args:
        run: Gets the name, which of the calls, and which of the faults.
        but: Calls to leave out.
        most: So many of each call at most, for a command that takes long.
    """
    names = list(dict.fromkeys(run("*", 1, 0).calls))
    reached = 0
    for name in names:
        if name not in FAULTS or name in but:
            continue
        k = 1
        while k <= most and run(name, k, k % len(FAULTS[name])).reached:
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
