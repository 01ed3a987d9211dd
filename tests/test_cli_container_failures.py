"""The commands for containers, with a kernel that refuses each of their calls once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.cli import GUARD, run
from support.faulty import Done, every_failure_of, run_faulty
from support.place import Place, attach, behind_fifos, place_of

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


def _cleared(place: Place, what: str) -> None:
    """Nothing is left; where the fault was in the clearing away, rm does it."""
    if place.record.exists() or place.states():
        again = run("rm", *place.at, place.id)
        assert again.returncode == 0, f"{what}: {again.stderr}"
    assert place.states() == [], what
    assert not place.record.exists(), what
    assert not place.fifos.exists(), what


def test_run_fails(place: Place) -> None:
    """Whichever call fails: the output is whole or it is said that it is not, nothing is left."""
    place.bundle("sh", "-c", "echo out; echo err >&2")

    def once(name: str, k: int, number: int) -> Done:
        done = run_faulty(place.where, name, k, number, *place.run())
        _said(done, 0)
        whole = (done.stdout, done.stderr) == ("out\n", "err\n")
        assert whole or "pyshimio: " in done.stderr, f"{done.what}: {done}"
        _cleared(place, done.what)
        return done

    assert every_failure_of(once) >= 50


def test_attach_fails(place: Place) -> None:
    """Whichever call fails: the container goes on, and who attaches next gets the rest."""
    place.bundle("sh", "-c", "seq 2000; while [ ! -e /go ]; do sleep 0.01; done; exit 3")
    go = place.where / "rootfs" / "go"
    whole = "".join(f"{number}\n" for number in range(1, 2001))

    def once(name: str, k: int, number: int) -> Done:
        go.unlink(missing_ok=True)
        with behind_fifos(place) as process:
            go.touch()
            done = run_faulty(place.where, name, k, number, "attach", str(place.fifos))
            _said(done, 3)
            rest = ""
            if process.poll() is None and place.fifos.exists():
                rest = attach(place).stdout
            assert process.wait(GUARD) == 3, done.what
        lost = "pyshimio: " in done.stderr
        assert done.stdout + rest == whole or (lost and whole.startswith(done.stdout)), done.what
        _cleared(place, done.what)
        return done

    assert every_failure_of(once) >= 20
