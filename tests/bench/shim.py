"""The shim that is installed: a container's output through a real containerd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from support.containerd import containerd

from .bundle import make_bundle, make_rootfs
from .party import LOOPS, cpu_of
from .rounds import Goal, Row
from .stage import HERE, TIMEOUT, pinned

if TYPE_CHECKING:
    from typing import IO

    from .rounds import Sample
    from .stage import Stage

COUNT = 1 << 14
READER = """
dd bs=64k count=1 iflag=fullblock of=/dev/null status=none
date +%s.%N
dd bs=64k of=/dev/null status=none
date +%s.%N
"""
"""How long a container takes to begin is not what is measured."""
SHIM = "containerd-shim-runc-v2"


def shim(stage: Stage) -> Row:
    """1 GiB out of a container: through a keeper of ours, and through ctr."""
    bundle = make_bundle(stage, "dd", _dd(stage))
    parties = {loop: partial(_through_keeper, stage, loop, bundle) for loop in LOOPS}
    goals: list[Goal] = []
    if shutil.which("containerd") and shutil.which(SHIM):
        parties["containerd"] = partial(_through_containerd, stage)
        for loop in LOOPS:
            goals.append(Goal("cpu s/GiB", loop, "containerd", 0.2))
            goals.append(Goal("GiB/s", loop, "containerd", 3.0, at_least=True))
    return Row(
        "shim",
        "container's stdout → FIFO → reader, 1 GiB: beside the installed shim",
        parties,
        tuple(goals),
    )


def _dd(stage: Stage) -> list[str]:
    # What is in a container inherits the core of whoever moves its bytes.
    dd = ["/bin/dd", "if=/dev/zero", "bs=64k", f"count={COUNT}"]
    return ["/bin/taskset", f"{1 << stage.other_core:x}", *dd]


def _through_keeper(stage: Stage, loop: str, bundle: str) -> Sample:
    fifo = stage.fifo("stdout")
    keeper = stage.ours("keeper", "flood", loop, bundle, fifo)
    with subprocess.Popen(keeper, stdout=subprocess.PIPE, cwd=HERE.parent) as ours:
        with open(fifo, "rb") as output:
            seconds = _read(stage, output)
        said, _ = ours.communicate(timeout=TIMEOUT)
    return _sample(json.loads(said)["cpu"], seconds)


def _read(stage: Stage, output: IO[bytes]) -> float:
    """Read to the end; the seconds from the first block on."""
    reader = pinned(stage.other_core, ["sh", "-c", READER])
    done = subprocess.run(reader, check=True, stdin=output, capture_output=True, timeout=TIMEOUT)
    begin, end = map(float, done.stdout.split())
    return end - begin


def _sample(cpu: float, seconds: float) -> Sample:
    gib = COUNT * (1 << 16) / (1 << 30)
    return {"cpu s/GiB": cpu / gib, "GiB/s": gib / seconds}


def _through_containerd(stage: Stage) -> Sample:
    root = make_rootfs(stage)
    with containerd(*pinned(stage.pump_core, [])) as daemon:  # and so the shim
        name = f"bench-{os.getpid()}"
        command = ["ctr", "--address", daemon.address, "run", "--rm", "--rootfs", str(root), name]
        command += _dd(stage)
        watched = _Watched(f"{SHIM} .*-id {name}")
        with (
            watched,
            subprocess.Popen(
                pinned(stage.other_core, command),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as ctr,
        ):
            assert ctr.stdout is not None
            seconds = _read(stage, ctr.stdout)
    return _sample(watched.cpu, seconds)


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
            # The one that is found first may be the shim's parent, which ends at once.
            if not os.path.exists(f"/proc/{pid or 'none'}"):
                pid = pid_of(self._pattern)
                continue
            with suppress(OSError):
                self.cpu = max(self.cpu, cpu_of(int(pid)))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()


def pid_of(pattern: str) -> str:
    """The process whose command line matches; an empty text for none."""
    found = subprocess.run(["pgrep", "-f", pattern], check=False, stdout=subprocess.PIPE, text=True)
    return found.stdout.split()[0] if found.stdout else ""
