"""A logging binary with its three descriptors, as a shim starts one."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

from .cli import GUARD

if TYPE_CHECKING:
    import resource
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Self

__all__ = ("PYSHIMIO_LOG", "LogBinary", "started")

PYSHIMIO_LOG = (sys.executable, "-c", "from pyshimio.logging._main import main; main()")
"""The console script, wherever it is installed."""


class LogBinary:
    """One that runs.

    Attributes:
        stdout, stderr: The container's ends of its pipes.
        usage: What it has used, when it has been waited for.
    """

    def __init__(self, command: Sequence[str], args: Sequence[str], said: Path) -> None:
        out, err, ready = os.pipe(), os.pipe(), os.pipe()
        theirs = (out[0], err[0], ready[1])
        self.said_in = said
        self.stdout, self.stderr, self._ready = out[1], err[1], ready[0]
        actions: list[tuple[object, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(said), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            # Out of the way of 3, 4 and 5 first.
            *(
                (os.POSIX_SPAWN_DUP2, fd, 100 + n)
                for n, fd in enumerate((out[0], err[0], ready[1]))
            ),
            *((os.POSIX_SPAWN_DUP2, 100 + n, 3 + n) for n in range(3)),
            *((os.POSIX_SPAWN_CLOSE, 100 + n) for n in range(3)),
        ]
        env = {"CONTAINER_ID": "c1", "CONTAINER_NAMESPACE": "n"}
        program = shutil.which(command[0])
        assert program is not None
        self.pid = os.posix_spawn(program, [*command, *args], env, file_actions=actions)
        for fd in theirs:
            os.close(fd)
        self.usage: resource.struct_rusage | None = None
        self._status: int | None = None

    def ready(self) -> bytes:
        """What it says of being ready: a byte, and whether the pipe was closed then."""
        said = b""
        while True:
            assert select.select([self._ready], [], [], GUARD)[0], "never ready"
            data = os.read(self._ready, 10)
            if not data:
                return said
            said += data

    def write(self, data: bytes, stream: int = 1) -> None:
        """Write as the container does."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.stdout if stream == 1 else self.stderr, view) :]

    def close(self) -> None:
        """The container's output has ended."""
        for name in ("stdout", "stderr"):
            if (fd := getattr(self, name)) >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def kill(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def peak(self) -> float:
        """The largest resident size that it had, in MiB."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            (line,) = [line for line in file if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024

    def wait(self) -> int:
        """Its exit status."""
        until = time.monotonic() + GUARD
        while self._status is None:
            pid, status, self.usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
            else:
                assert time.monotonic() < until, "it does not end"
                time.sleep(0.002)
        return self._status

    @property
    def said(self) -> str:
        """What is on its stderr."""
        return self.said_in.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        os.close(self._ready)
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                self.kill(signal.SIGKILL)
            self.wait()


@contextlib.contextmanager
def started(
    where: Path, *args: str, command: Sequence[str] = PYSHIMIO_LOG, **options: str
) -> Iterator[LogBinary]:
    """``pyshimio-log`` with these options (``_`` for ``-``), and what is in *args* before them."""
    pairs = [text for key, value in options.items() for text in (key.replace("_", "-"), value)]
    with LogBinary(command, [*args, *pairs], where / "said") as binary:
        yield binary
