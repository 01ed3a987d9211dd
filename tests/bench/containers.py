"""Real containers: what keeping one costs beside the runtime's bare commands, and the shim's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING

from support.containerd import containerd

from . import shim
from .bundle import make_bundle, make_rootfs
from .party import LOOPS, rollup
from .rounds import Goal, Row
from .stage import TIMEOUT, answer, pinned

if TYPE_CHECKING:
    from .rounds import Sample
    from .stage import Stage

LIVES = 20
EXECS = 30
IDLE = 50
SLEEP = ["/bin/sleep", "1000"]

# A shell has no pidfd, so it asks somebody who has one, and who is there from the beginning.
WAITER = """
import os, select, sys
for line in sys.stdin:
    pidfd = os.pidfd_open(int(line))
    select.select([pidfd], [], [])
    os.close(pidfd)
    print(flush=True)
"""
SCRIPT = """
set -e
live() {
    runc --root "$1" create --bundle "$2" --pid-file "$3" "shell$5" </dev/null >"$3.log" 2>&1
    runc --root "$1" start "shell$5"
    read -r pid <"$3" || :
    echo "$pid" >&4
    read -r _ <&5
    runc --root "$1" delete "shell$5"
}
mkfifo "$1/to" "$1/from"
"$6" -c "$7" <"$1/to" >"$1/from" &
exec 4>"$1/to" 5<"$1/from"
for n in w1 w2 w3; do live "$1" "$2" "$3" "$4" "$n"; done
date +%s.%N
n=0
while [ $n -lt "$4" ]; do
    n=$((n + 1))
    live "$1" "$2" "$3" "$4" "$n"
done
date +%s.%N
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
        arguments = [root, bundle, f"{root}/pid", str(LIVES), "", sys.executable, WAITER]
        command = pinned(stage.pump_core, ["sh", "-c", SCRIPT, "sh", *arguments])
        said = subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT).stdout
        begin, end = map(float, said.split())
        return {"ms each": (end - begin) / LIVES * 1e3, "cpu ms each": 0.0}


def _weigh(stage: Stage, loop: str, bundle: str) -> Sample:
    found = answer(stage.ours("keeper", "idle", loop, bundle, str(IDLE)))
    return {"KiB each": found["private_dirty"] / IDLE, "KiB": found["private_dirty"]}


def _weigh_shim(stage: Stage) -> Sample:
    name = f"idle-{os.getpid()}"
    with containerd(*pinned(stage.pump_core, [])) as daemon:
        ctr = ["ctr", "--address", daemon.address]
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
