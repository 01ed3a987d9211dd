"""A thousand live children: what a byte costs among them, and what each one weighs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .party import LOOPS, rollup
from .rounds import Goal, Row
from .stage import answer

if TYPE_CHECKING:
    from .rounds import Sample
    from .stage import Stage

MANY, FEW = 1000, 10
MIB_EACH = 8
"""What each of many children writes; the few write as much together."""
SECONDS = "4"
"""How long a thousand children write two lines a second before they are weighed."""


def crowd(stage: Stage) -> Row:
    """The same bytes in the same blocks through many children and through few."""
    parties = {}
    goals = []
    for loop in LOOPS:
        for count in (MANY, FEW):
            mib = MIB_EACH * MANY // count
            command = stage.ours("host", "flood", loop, str(count), str(mib), stage.path("gate"))
            parties[f"{loop} {count}"] = partial(_flood, command)
        goals.append(Goal("cpu s/GiB", f"{loop} {MANY}", f"{loop} {FEW}", 1.3))
    return Row(
        "crowd",
        f"{MANY * MIB_EACH} MiB in blocks of 64 KiB to /dev/null, {MANY} children beside {FEW}",
        parties,
        tuple(goals),
    )


def memory(stage: Stage) -> Row:
    """Bytes of memory for each child with two log files, beside one conmon."""
    parties = {loop: partial(_weigh, stage, loop) for loop in LOOPS}
    goals: list[Goal] = []
    if shutil.which("conmon") and shutil.which("runc"):
        parties["conmon"] = partial(_conmon, stage)
        goals = [Goal("KiB each", loop, "conmon", 0.1) for loop in LOOPS]
    return Row(
        "memory",
        f"memory of one of {MANY} children with two log files (KiB), beside one conmon",
        parties,
        tuple(goals),
    )


def _flood(command: list[str]) -> Sample:
    found = answer(command)
    return {"cpu s/GiB": found["cpu"] / (found["bytes"] / (1 << 30)), "seconds": found["seconds"]}


def _weigh(stage: Stage, loop: str) -> Sample:
    many, few = (
        answer(stage.ours("host", "chat", loop, str(count), SECONDS, stage.path("logs")))["pss"]
        for count in (MANY, FEW)
    )
    return {"KiB each": (many - few) / (MANY - FEW), "Pss KiB": many}


def _conmon(stage: Stage) -> Sample:
    """Private dirty memory of a conmon that serves a real container."""
    bundle = Path(stage.path("bundle"))
    root = stage.path("runc")
    _make_bundle(bundle)
    name, pid_file = "bench", stage.path("pid")
    command = ["conmon", "--cid", name, "--cuuid", name, "--runtime", shutil.which("runc") or ""]
    command += ["--runtime-arg", f"--root={root}", "--bundle", str(bundle)]
    command += ["--container-pidfile", pid_file, "--log-path", f"k8s-file:{stage.path('ctr.log')}"]
    command += ["--conmon-pidfile", stage.path("conmon.pid"), "--exit-dir", stage.path("exits")]
    command += ["--socket-dir-path", stage.path("sockets")]
    for directory in ("exits", "sockets"):
        os.makedirs(stage.path(directory), exist_ok=True)
    runc = ["runc", f"--root={root}"]
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not os.path.exists(pid_file):
            if time.monotonic() > deadline:
                raise SystemExit("conmon did not create its container")
            time.sleep(0.01)
        subprocess.run([*runc, "start", name], check=True)
        time.sleep(1)  # some of the container's lines
        pid = Path(stage.path("conmon.pid")).read_text(encoding="ascii").strip()
        return {"KiB each": rollup(pid)["Private_Dirty"]}
    finally:
        subprocess.run([*runc, "delete", "--force", name], check=False, capture_output=True)
        shutil.rmtree(bundle, ignore_errors=True)
        Path(pid_file).unlink(missing_ok=True)


def _make_bundle(bundle: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None
    binaries = bundle / "rootfs" / "bin"
    binaries.mkdir(parents=True)
    (bundle / "rootfs" / "proc").mkdir()
    shutil.copy(busybox, binaries / "sh")
    subprocess.run(["runc", "spec", "--bundle", str(bundle)], check=True)
    path = bundle / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    talk = "while :; do echo line; echo line >&2; sleep 0.05; done"
    config["process"].update(terminal=False, args=["/bin/sh", "-c", talk])
    config["process"].pop("rlimits", None)
    config["linux"].pop("resources", None)
    config["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "mount")]
    config.pop("hostname", None)
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] == "/proc"]
    path.write_text(json.dumps(config), encoding="utf-8")
