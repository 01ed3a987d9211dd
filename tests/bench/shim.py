"""The shim that is installed: a container's output through a real containerd.  No goal."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import bulk
from .party import LOOPS
from .rounds import Row
from .stage import TIMEOUT, pinned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rounds import Sample
    from .stage import Stage

COUNT = 1 << 14
SHIM = "containerd-shim-runc-v2"
TICKS = os.sysconf("SC_CLK_TCK")


def shim(stage: Stage) -> Row:
    """1 GiB out of a container, to ctr and from there to dd; beside it, our pump."""
    command = pinned(stage.other_core, ["dd", *_dd_arguments()])
    parties = {loop: partial(bulk.through_fifo, stage, loop, command) for loop in LOOPS}
    if shutil.which("containerd") and shutil.which(SHIM):
        parties["containerd"] = partial(_through_containerd, stage)
    return Row("shim", "child stdout → FIFO → reader, 1 GiB: the installed shim", parties)


def _dd_arguments() -> list[str]:
    return ["if=/dev/zero", "bs=64k", f"count={COUNT}"]


def _through_containerd(stage: Stage) -> Sample:
    root = Path(stage.path("rootfs"))
    busybox = shutil.which("busybox")
    assert busybox is not None
    (root / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, root / "bin" / "dd")
    with _containerd(stage) as address:
        name = f"bench-{os.getpid()}"
        command = ["ctr", "--address", address, "run", "--rm", "--rootfs", str(root), name]
        command += ["/bin/dd", *_dd_arguments()]
        watched = _Watched(f"{SHIM} .*-id {name}")
        begin = time.perf_counter()
        with (
            watched,
            subprocess.Popen(
                pinned(stage.other_core, command),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as ctr,
        ):
            reader = ["dd", "of=/dev/null", "bs=64k", "status=none"]
            subprocess.run(
                pinned(stage.other_core, reader), check=True, stdin=ctr.stdout, timeout=TIMEOUT
            )
        seconds = time.perf_counter() - begin
    gib = COUNT * (1 << 16) / bulk.GIB
    cpu = watched.cpu / gib
    return {"cpu s/GiB": cpu, "cpu ms/MiB": cpu * 1000 / 1024, "GiB/s": gib / seconds}


@contextmanager
def _containerd(stage: Stage) -> Iterator[str]:
    base = Path(stage.path("containerd"))
    base.mkdir(exist_ok=True)
    address = str(base / "sock")
    config = base / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{base}/root"\nstate = "{base}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{address}"\n',
        encoding="utf-8",
    )
    daemon = subprocess.Popen(
        ["containerd", "--config", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not os.path.exists(address):
            if daemon.poll() is not None:
                raise SystemExit("containerd did not start")
            time.sleep(0.05)
        yield address
    finally:
        daemon.terminate()
        daemon.wait()


class _Watched:
    """The CPU seconds of a process that comes and goes meanwhile."""

    def __init__(self, pattern: str) -> None:
        self.cpu = 0.0
        self._pattern = pattern
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        pid = ""
        while not self._over.wait(0.01):
            if not pid:
                pid = _pid_of(self._pattern)
            else:
                self.cpu = max(self.cpu, _cpu_of(pid))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()


def _pid_of(pattern: str) -> str:
    found = subprocess.run(["pgrep", "-f", pattern], check=False, stdout=subprocess.PIPE, text=True)
    return found.stdout.split()[0] if found.stdout else ""


def _cpu_of(pid: str) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS
