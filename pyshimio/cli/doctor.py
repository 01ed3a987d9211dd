"""``pyshimio doctor``: whether this machine has what the library needs, and for how many."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from importlib import import_module, metadata
from importlib.util import find_spec

import anyio
import attrs
import click

from .. import __version__
from ..errors import ShimIOError
from ._capacity import check_spawn, measure
from ._finding import Finding, failure, reason
from ._probes import PROBES

__all__ = ("examine",)

# Program and the option that prints its version.
RUNTIMES = (
    ("runc", "--version"),
    ("crun", "--version"),
    ("containerd-shim-runc-v2", "-v"),
    ("ctr", "--version"),
    ("conmon", "--version"),
)
ELSEWHERE = "/usr/local/sbin:/usr/sbin:/sbin"
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
GUARD = 10.0


def examine(*, as_json: bool) -> int:
    """Try everything, print what was found, and return the exit status."""
    found = [_python(), *(probe() for probe in PROBES)]
    found += _children({one.name: one for one in found})
    found += [_uvloop(), *(_runtime(*runtime) for runtime in RUNTIMES)]
    failed = [one.name for one in found if one.verdict == "fail"]
    if as_json:
        report = {
            "version": __version__,
            "ok": not failed,
            "findings": [attrs.asdict(one) for one in found],
        }
        click.echo(json.dumps(report))
    else:
        for one in found:
            click.echo(f"{click.style(f'{one.verdict:<4}', COLOURS[one.verdict])}  {one.as_line()}")
        warned = sum(one.verdict == "warn" for one in found)
        click.echo(_conclusion(failed, warned))
    return 1 if failed else 0


def _conclusion(failed: list[str], warned: int) -> str:
    warnings = f"; {warned} warning{'s' if warned != 1 else ''}" if warned else ""
    if failed:
        return f"pyshimio cannot be trusted here: {', '.join(failed)}{warnings}"
    return f"pyshimio has what it needs{warnings}"


def _children(found: dict[str, Finding]) -> list[Finding]:
    """What needs an event loop and children."""
    name = "children"
    if found["pidfd"].verdict == "fail":
        # Nothing would tell when they have exited.
        detail, advice = "not tried without pidfds", found["pidfd"].advice
        return [Finding(name=name, verdict="fail", detail=detail, advice=advice)]

    async def examine() -> list[Finding]:
        left = found["pipe budget"].facts.get("left_pages")
        return [*await check_spawn(), *await measure(left)]

    try:
        return anyio.run(examine)
    except (ShimIOError, OSError) as error:
        return [failure(name, error, "the event loop does not work; see what fails above")]


def _python() -> Finding:
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("anyio", "attrs"))
    detail = f"{platform.python_implementation()} {platform.python_version()}, {packages}"
    return Finding(name="python", verdict="ok", detail=f"pyshimio {__version__}, {detail}")


def _uvloop() -> Finding:
    name = "uvloop"
    if find_spec(name) is None:
        advice = "pip install 'pyshimio[uvloop]' for a faster loop"
        return Finding(name=name, verdict="warn", detail="not installed", advice=advice)
    try:
        import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever a broken build of it may raise
        return Finding(name=name, verdict="warn", detail=reason(error), advice="reinstall it")
    return Finding(name=name, verdict="ok", detail=metadata.version(name))


def _runtime(name: str, option: str) -> Finding:
    """Where a program of the container world is, and which one it is."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{ELSEWHERE}")
    if path is None:
        advice = "install it if you want to use it; the library does not need it"
        return Finding(name=name, verdict="warn", detail="not found", advice=advice)
    advice = f"see what {path} {option} says"
    try:
        done = subprocess.run(  # noqa: S603
            [path, option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GUARD,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return attrs.evolve(failure(name, error, advice), verdict="warn")
    output = (done.stdout + done.stderr).decode(errors="replace")
    version = re.search(r"\d+\.\d+\S*", output)
    facts = {"path": path, "version": version.group() if version else None}
    if done.returncode or version is None:
        detail = f"{path} exits with {done.returncode} and does not say its version"
        return Finding(name=name, verdict="warn", detail=detail, advice=advice, facts=facts)
    return Finding(name=name, verdict="ok", detail=f"{version.group()} at {path}", facts=facts)
