"""The commands for containers, with a kernel that refuses each of their calls once."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.cli import GUARD, eventually, run, started
from support.faulty import Done, every_failure_of, faulty, finished, run_faulty
from support.place import Place, attach, behind_fifos, kill, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.runtime("runc", "busybox"),
    pytest.mark.thorough,
    pytest.mark.timeout(400),
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where nobody else is; whatever is left there in the end is deleted."""
    with place_of(tmp_path, "runc") as place:
        yield place


def _said(done: Done, *statuses: int) -> None:
    """It was told what is wrong, in words of ours and not in a traceback."""
    assert "Traceback" not in done.stderr, f"{done.what}: {done.stderr}"
    assert "internal error" not in done.stderr, f"{done.what}: {done.stderr}"
    assert done.status in statuses or done.refused, f"{done.what}: {done}"


CREATE_AND_START = 2
"""Commands of the runtime before a container is cleared away."""


def _cleared(place: Place, done: Done) -> None:
    """Nothing is left; where the fault was in the clearing away, rm does it."""
    if place.record.exists() or place.states():
        assert done.begun >= CREATE_AND_START, f"{done.what} leaves something: {done}"
        again = run("rm", *place.at, place.id)
        assert again.returncode == 0, f"{done.what}: {again.stderr}"
    assert place.states() == [], done.what
    assert not place.record.exists(), done.what
    if done.call in {"unlink", "rmdir"}:  # the fault itself leaves it there
        shutil.rmtree(place.fifos, ignore_errors=True)
    assert not place.fifos.exists(), done.what


MOST = {"in front": 4, "behind fifos": 2}
"""Of each call; what takes seconds is not repeated for all of them."""


@pytest.mark.parametrize("way", MOST)
def test_run_fails(place: Place, way: str) -> None:
    """Whichever call fails: the output is whole or it is said that it is not, nothing is left."""
    options: tuple[str, ...] = ()
    if way == "in front":
        place.bundle("sh", "-c", "echo out; echo err >&2")
    else:
        place.bundle("true")
        options = ("--fifo-dir", str(place.fifos), "-i")

    def once(name: str, k: int, number: int) -> Done:
        done = run_faulty(place.where, name, k, number, *place.run(*options))
        _said(done, 0)
        if way == "in front":
            whole = (done.stdout, done.stderr) == ("out\n", "err\n")
            assert whole or "pyshimio: " in done.stderr, f"{done.what}: {done}"
        _cleared(place, done)
        return done

    assert every_failure_of(once, most=MOST[way]) >= 30


def test_exec_fails(place: Place) -> None:
    """The same for a process beside init; the container goes on, with nobody else in it."""
    place.bundle("sleep", "1000")
    with started(*place.run()) as process:
        eventually(lambda: place.states() == ["running"], "the container")

        def once(name: str, k: int, number: int) -> Done:
            command = ("exec", *place.at, "-e", "PATH=/bin", place.id, "echo", "out")
            done = run_faulty(place.where, name, k, number, *command)
            _said(done, 0)
            assert done.stdout == "out\n" or "pyshimio: " in done.stderr, f"{done.what}: {done}"
            assert place.states() == ["running"], done.what
            assert len(place.processes()) == 1, done.what
            return done

        # (One who takes a process from us takes the container's init, too.)
        assert every_failure_of(once, but=["pidfd_open"], most=3) >= 25
        kill(place)
        assert process.wait(GUARD) == 137


MOVING = frozenset({"read", "write", "writev", "readv", "splice"})
"""Calls that fail with bytes in hand."""


def test_attach_fails(place: Place) -> None:
    """Whichever call fails: the container goes on, and who attaches next gets the rest."""
    place.bundle("sh", "-c", "seq 2000; while [ ! -e /go ]; do sleep 0.01; done; exit 3")
    go = place.where / "rootfs" / "go"
    whole = "".join(f"{number}\n" for number in range(1, 2001))

    def once(name: str, k: int, number: int) -> Done:
        go.unlink(missing_ok=True)
        with behind_fifos(place) as process:
            command = (str(place.where), name, k, number, "attach", str(place.fifos))
            with faulty(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
                assert client.stdout is not None
                assert client.stderr is not None
                # It may be refused and end, or have what there is; then the container ends.
                out = client.stdout.readline()
                go.touch()
                out += client.stdout.read()
                err = client.stderr.read()
                status = client.wait(GUARD)
            done = finished(place.where, name, k, number, status, out, err)
            _said(done, 3)
            rest = attach(place).stdout if place.fifos.exists() else ""
            assert process.wait(GUARD) == 3, done.what
        if done.call in MOVING:
            assert whole.startswith(done.stdout), done.what
            assert whole.endswith(rest), done.what
        else:
            assert done.stdout + rest == whole, f"{done.what}: {done} {rest!r}"
        _cleared(place, done)
        return done

    assert every_failure_of(once, most=2) >= 12
