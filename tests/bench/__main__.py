"""Run the bench: ``nox -s bench -- [ROW...] [--rounds N] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from . import bulk, containers, crowd, echo, loggers, shim, spawn
from .rounds import take_turns
from .stage import GO, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from .rounds import Result, Row, Sample

ROWS: dict[str, Callable[[Stage], Row]] = {
    "fifo": bulk.fifo,
    "small": bulk.small,
    "file": bulk.file,
    "turns": bulk.turns,
    "echo": echo.echo,
    "spawn": spawn.spawn,
    "crowd": crowd.crowd,
    "memory": crowd.memory,
    "shim": shim.shim,
    "lives": containers.lives,
    "execs": containers.execs,
    "idle": containers.idle,
    "jsonlog": loggers.json_lines,
    "crilog": loggers.cri_lines,
    "logstart": loggers.starts,
    "rotation": loggers.rotation,
    "logseek": loggers.seeking,
}
ROUNDS = 9


def tell(number: int, party: str, sample: Sample) -> None:
    """Print one raw sample."""
    figures = "  ".join(f"{name} {value:.4g}" for name, value in sample.items())
    print(f"  round {number + 1}  {party:<12} {figures}", flush=True)


def report(result: Result) -> dict[str, object]:
    """Print the medians and every goal of one row, and return them for the file."""
    row = result.row
    medians = {
        party: {figure: result.median(party, figure) for figure in result.rounds[0][party]}
        for party in row.parties
    }
    for party, values in medians.items():
        print(f"  median   {party:<12} " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()))
    goals = []
    for goal in row.goals:
        outcome = result.outcome(goal)
        verdict = "holds" if goal.holds(outcome) else "MISSED"
        beside = f" / {goal.peer}" if goal.peer else ""
        print(f"  {goal.figure}, {goal.party}{beside}: {outcome:.3g} (goal {goal}) {verdict}")
        told = {"figure": goal.figure, "party": goal.party, "peer": goal.peer, "goal": str(goal)}
        goals.append({**told, "outcome": outcome, "holds": goal.holds(outcome)})
    return {"title": row.title, "medians": medians, "goals": goals, "rounds": result.rounds}


def versions() -> dict[str, str]:
    """What this was measured with."""
    found = {"python": platform.python_version(), "kernel": platform.release()}
    found.update({name: metadata.version(name) for name in ("anyio", "uvloop", "trio")})
    for program in ("runc", "conmon", "containerd", "containerd-shim-runc-v2"):
        if (path := shutil.which(program)) is not None:
            command = [path, "-v" if "shim" in program else "--version"]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            number = re.search(r"\d+\.\d+\S*", said)
            found[program] = number[0] if number else said
    if GO is not None:
        command = [GO, "version"]
        found["go"] = subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.split()[2]
    return found


def main() -> None:
    """Read the command line, run the rows, print, and write the file if one is asked for."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="write everything there, raw rounds included")
    args = parser.parse_args()
    if unknown := set(args.rows) - ROWS.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    # Runtimes are where an unprivileged PATH does not look.
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    found = versions()
    print("  ".join(f"{name} {version}" for name, version in found.items()), flush=True)
    rows: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=shm) as directory:
        stage = Stage.set_up(Path(directory))
        if stage.peer is None:
            print("no go here: the rows beside the Go loop have no ratio", file=sys.stderr)
        for name in args.rows or ROWS:
            row = ROWS[name](stage)
            print(f"\n{name}: {row.title}", flush=True)
            rows[name] = report(take_turns(row, args.rounds, tell))
    if args.json is not None:
        text = json.dumps({"versions": found, "rows": rows}, indent=1, default=dict)
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
