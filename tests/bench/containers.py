"""Real containers: what keeping one costs beside the runtime's bare commands, and the shim's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

from . import shim
from .bundle import make_bundle, make_rootfs
from .keeper import rollup
from .party import LOOPS
from .rounds import Goal, Row
from .stage import TIMEOUT, answer

if TYPE_CHECKING:
    from .rounds import Sample
    from .stage import Stage

LIVES = 20
EXECS = 30
IDLE = 50
SLEEP = ["/bin/sleep", "1000"]

# A shell has no pidfd: it looks again and again whether the process is a zombie, or gone, with
# builtins alone.
SCRIPT = """
set -e
n=0
while [ $n -lt "$4" ]; do
    n=$((n + 1))
    runc --root "$1" create --bundle "$2" --pid-file "$3" "shell$n" </dev/null >"$3.log" 2>&1
    runc --root "$1" start "shell$n"
    read -r pid <"$3" || :
    while read -r _ _ state _ 2>/dev/null <"/proc/$pid/stat" && [ "$state" != Z ]; do :; done
    runc --root "$1" delete "shell$n"
done
"""


def lives(stage: Stage) -> Row:
    """Create, start, wait, delete."""
    bundle = make_bundle(stage, "true", ["/bin/true"])
    parties = {loop: partial(_times, stage, "lives", loop, bundle, LIVES) for loop in LOOPS}
    return Row(
        "lives",
        f"create + start + wait + delete of /bin/true, {LIVES} times, beside bare runc commands",
        {**parties, "runc": partial(_by_a_shell, stage, bundle)},
        tuple(Goal("ms each", loop, "runc", 1.15) for loop in LOOPS),
    )


def execs(stage: Stage) -> Row:
    """Exec, start, wait, drain, delete."""
    bundle = make_bundle(stage, "sleep", SLEEP)
    parties = {loop: partial(_times, stage, "execs", loop, bundle, EXECS) for loop in LOOPS}
    bare = partial(_times, stage, "bare", "asyncio", bundle, EXECS)
    return Row(
        "execs",
        f"exec + start + wait + drain + delete of /bin/true, {EXECS} times, beside bare runc exec",
        {**parties, "runc": bare},
        tuple(Goal("ms each", loop, "runc", 1.25) for loop in LOOPS),
    )


def idle(stage: Stage) -> Row:
    """Memory of one of many, beside one shim."""
    bundle = make_bundle(stage, "sleep", SLEEP)
    parties = {loop: partial(_weigh, stage, loop, bundle) for loop in LOOPS}
    goals: list[Goal] = []
    if shutil.which("containerd") and shutil.which(shim.SHIM):
        parties["containerd"] = partial(_weigh_shim, stage)
        goals = [Goal("KiB each", loop, "containerd", 0.1) for loop in LOOPS]
    return Row(
        "idle",
        f"Private_Dirty of the keeper of {IDLE} idle containers, each (KiB), beside one shim",
        parties,
        tuple(goals),
    )


def _times(stage: Stage, what: str, loop: str, bundle: str, times: int) -> Sample:
    found = answer(stage.ours("keeper", what, loop, bundle, str(times)))
    return {"ms each": found["seconds"] / times * 1e3, "cpu ms each": found["cpu"] / times * 1e3}


def _by_a_shell(stage: Stage, bundle: str) -> Sample:
    with tempfile.TemporaryDirectory(prefix="bench-shell-") as root:
        script = ["sh", "-c", SCRIPT, "sh", root, bundle, f"{root}/pid", str(LIVES)]
        command = ["taskset", "-c", str(stage.pump_core), *script]
        begin = time.perf_counter()
        subprocess.run(command, check=True, timeout=TIMEOUT)
        return {"ms each": (time.perf_counter() - begin) / LIVES * 1e3, "cpu ms each": 0.0}


def _weigh(stage: Stage, loop: str, bundle: str) -> Sample:
    found = answer(stage.ours("keeper", "idle", loop, bundle, str(IDLE)))
    return {"KiB each": found["private_dirty"] / IDLE, "KiB": found["private_dirty"]}


def _weigh_shim(stage: Stage) -> Sample:
    name = f"idle-{os.getpid()}"
    with shim.containerd(stage) as address:
        ctr = ["ctr", "--address", address]
        run = [*ctr, "run", "--detach", "--rootfs", str(make_rootfs(stage)), name, *SLEEP]
        subprocess.run(run, check=True, timeout=TIMEOUT, capture_output=True)
        try:
            pid = shim.pid_of(f"{shim.SHIM} .*-id {name}")
            found = rollup(pid)["Private_Dirty"]
        finally:
            kill = [*ctr, "task", "kill", "--signal", "KILL", name]
            subprocess.run(kill, check=True, capture_output=True)
            for command in (["task", "delete", name], ["container", "delete", name]):
                subprocess.run([*ctr, *command], check=False, capture_output=True)
    return {"KiB each": found, "KiB": found}
