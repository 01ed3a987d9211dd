"""What ``pyshimio run --bundle`` and its like have to survive: signals, deaths, races, faults."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyshimio import _sys
from support.cli import GUARD, PYSHIMIO, check_one_line, eventually, holds, run, started
from support.place import RUNTIMES, Place, Tmux, ask, attach, behind_fifos, command, kill, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.runtime("runc", "busybox"), pytest.mark.slow]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where nobody else is; whatever is left there in the end is deleted."""
    with place_of(tmp_path, getattr(request, "param", "runc")) as place:
        yield place


# -- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb, signals", [("create", 1), ("start", 2)])
def test_a_signal_before_it_runs(place: Place, verb: str, signals: int) -> None:
    """It ends the command, and nothing is left; while it starts the first one is for it."""
    place.bundle("sleep", "1000")
    with started(*place.slow(verb, before=0.5).run()) as process:
        eventually(place.begun.exists, "the runtime")
        for number in (signal.SIGINT, signal.SIGTERM)[-signals:]:
            process.send_signal(number)
        assert process.wait(GUARD) == 128 + signal.SIGTERM
    assert place.states() == []


def test_a_signal_while_an_exec_starts(place: Place) -> None:
    """It is for the process, which gets it as soon as it runs; the container goes on."""
    place.bundle("sleep", "1000")
    with started(*place.run()) as process:
        eventually(lambda: place.states() == ["running"], "the container")
        slow = place.slow("exec", after=0.5)
        with started("exec", *slow.at, "-e", "PATH=/bin", place.id, "sleep", "1000") as executed:
            eventually((place.where / "done").exists, "the runtime")
            executed.send_signal(signal.SIGTERM)
            assert executed.wait(GUARD) == 128 + signal.SIGTERM
        assert place.states() == ["running"]
        kill(place)
        assert process.wait(GUARD) == 137


def test_a_signal_while_the_output_waits_for_a_client(place: Place) -> None:
    """It ends the waiting; the status is the container's all the same."""
    place.bundle("sh", "-c", "echo for nobody; exit 3")
    with behind_fifos(place, "--linger", "1000") as process:
        control = place.fifos / "control.sock"
        assert ask(control, {"op": "wait"}) == {"status": 3}
        process.terminate()
        _, said = process.communicate(timeout=GUARD)
        assert process.returncode == 3
    assert "interrupted" in said
    assert place.states() == []
    assert not place.fifos.exists()


def test_a_signal_while_it_is_deleted(place: Place) -> None:
    """It is too late for that: the container is cleared away, and the status is its own."""
    place.bundle("sh", "-c", "exit 3")
    slow = place.slow("delete", before=0.5)
    with started(*slow.run()) as process:
        eventually(place.begun.exists, "the deletion")
        process.terminate()
        process.send_signal(signal.SIGINT)
        assert process.wait(GUARD) == 3
    assert place.states() == []
    assert not slow.record.exists()


def test_quit_is_passed_on(place: Place) -> None:
    """SIGQUIT is for the container, as every signal is."""
    log = place.where / "log"
    place.bundle("sh", "-c", "trap 'exit 8' QUIT; echo up; while :; do sleep 0.05; done")
    with started(*place.run("--log-file", str(log))) as process:
        eventually(holds(log, "up"), "the container")
        process.send_signal(signal.SIGQUIT)
        assert process.wait(GUARD) == 8


def test_usr1_opens_the_log_anew(place: Place) -> None:
    """As a log rotation wants it; the container does not hear of it."""
    log, old = place.where / "log", place.where / "log.1"
    place.bundle("sh", "-c", "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two")
    with started(*place.run("--log-file", str(log))) as process:
        eventually(holds(log, "one"), "the first line")
        log.rename(old)
        process.send_signal(signal.SIGUSR1)
        eventually(log.exists, "the new log")
        (place.where / "rootfs" / "go").touch()
        assert process.wait(GUARD) == 0
    assert (old.read_text(), log.read_text()) == ("one\n", "two\n")


# -- two of them ---------------------------------------------------------------------------------


def test_two_runs_of_one_id(place: Place) -> None:
    """However close they are, one runs the container, and the other is told who does."""
    place.bundle("sh", "-c", "while [ ! -e /go ]; do sleep 0.01; done")
    go = place.where / "rootfs" / "go"
    for _ in range(3):
        go.unlink(missing_ok=True)
        with started(*place.run()) as one, started(*place.run()) as other:
            eventually(lambda: (one.poll(), other.poll()) != (None, None), "the refusal")
            loser, winner = (one, other) if one.poll() is not None else (other, one)
            assert loser.returncode == 125
            assert loser.stderr is not None
            assert f"is being run by process {winner.pid}" in loser.stderr.read()
            go.touch()
            assert winner.wait(GUARD) == 0
        assert not place.record.exists()


# -- the control socket --------------------------------------------------------------------------


def test_the_control_socket_by_hand(place: Place) -> None:
    """Whoever speaks its lines needs no command of ours: resize, end the input, hear the status."""
    script = "stty -echo; cat; stty size >/size; exit 9"
    place.bundle("sh", "-c", script, options=("--tty",))
    with behind_fifos(place, "-it") as process:
        control = place.fifos / "control.sock"
        eventually(lambda: ask(control, {"op": "about"})["state"] == "running", "the start")
        assert ask(control, {"op": "resize", "rows": 33, "columns": 101}) == {}
        # (Who has asked about it is waited for.)
        about, end, wait = ({"op": name} for name in ("about", "close_stdin", "wait"))
        assert ask(control, about, end, wait) == {"status": 9}
        assert process.wait(GUARD) == 9
    assert (place.where / "rootfs" / "size").read_text() == "33 101\n"


# -- who attaches --------------------------------------------------------------------------------


def test_attach_without_stdin(place: Place) -> None:
    """--no-stdin passes nothing on, not even the end."""
    place.bundle("sh", "-c", "echo up; cat >/got")
    with behind_fifos(place, "-i") as process:
        with started(
            *("attach", "--no-stdin", str(place.fifos)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stdout.readline() == "up\n"
            client.stdin.write("not passed on\n")
            client.stdin.close()
            time.sleep(0.5)  # for what must not come
            assert ask(place.fifos / "control.sock", {"op": "about"})["state"] == "running"
            client.terminate()
            assert client.wait(GUARD) == 128 + signal.SIGTERM
        assert attach(place, stdin=None, input="passed on\n").returncode == 0
        assert process.wait(GUARD) == 0
    assert (place.where / "rootfs" / "got").read_text() == "passed on\n"


def test_attach_under_nohup(place: Place) -> None:
    """A hang-up that is ignored stays ignored."""
    place.bundle("sh", "-c", "echo up; while [ ! -e /go ]; do sleep 0.02; done; echo last; exit 3")
    with behind_fifos(place) as process:
        with subprocess.Popen(
            ["nohup", *PYSHIMIO, "attach", str(place.fifos)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "up\n"
            client.send_signal(signal.SIGHUP)
            (place.where / "rootfs" / "go").touch()
            rest, _ = client.communicate(timeout=GUARD)
        assert (client.returncode, rest) == (3, "last\n")
        assert process.wait(GUARD) == 3


def test_attach_whose_output_nobody_reads(place: Place) -> None:
    """A second signal ends it at once; the container goes on, and what it writes waits."""
    # (More than all the pipes on the way hold, however large they are made.)
    place.bundle("sh", "-c", "seq 1000000; while [ ! -e /go ]; do sleep 0.02; done; exit 3")
    with behind_fifos(place) as process:
        with started("attach", str(place.fifos), stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            _wait_until_full(client.stdout.fileno())
            client.terminate()
            time.sleep(0.5)  # two of a kind at once would be one
            assert client.poll() is None
            client.terminate()
            # It had ten seconds for its stdout to take what there was.
            assert client.wait(5) == 128 + signal.SIGTERM
        (place.where / "rootfs" / "go").touch()
        result = attach(place)
        assert result.returncode == 3
        assert result.stdout.endswith("\n999999\n1000000\n")
        assert process.wait(GUARD) == 3


def _wait_until_full(pipe: int) -> None:
    """Until nothing more has come for a while, although there is more."""
    before, now = -1, 0
    while now != before or not now:
        time.sleep(0.3)
        before, now = now, _sys.unread(pipe)


def test_other_keys_to_detach(place: Place, tmp_path: Path) -> None:
    """What --detach-keys says detaches, and ctrl-p ctrl-q are typed like all others."""
    script = "stty -ixon; echo go; head -c 2 | od -An -tx1; sleep 1000"
    place.bundle("sh", "-c", script, options=("--tty",))
    tmux = Tmux(tmp_path)
    try:
        with behind_fifos(place, "-it") as process:
            tmux.type(command("attach", "--detach-keys", "ctrl-a,d", str(place.fifos)), "Enter")
            tmux.shows("go")
            tmux.type("C-p", "C-q", "Enter")
            tmux.shows(" 10 11")
            tmux.type("C-a", "d")
            tmux.shows("status 0")
            kill(place)
            assert process.wait(GUARD) == 137
    finally:
        tmux.end()


# -- a supervisor that is killed -----------------------------------------------------------------


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def _args(pid: int) -> list[bytes]:
    """Its command line; none when it has gone, or is a zombie."""
    with contextlib.suppress(OSError):
        return list(filter(None, Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")))
    return []


MOMENTS: dict[str, Callable[[Place, int], object]] = {
    "record": lambda place, _: place.record.exists(),
    "fifos": lambda place, _: place.fifos.exists() and len(os.listdir(place.fifos)) > 2,
    "runtime": lambda _, pid: _children(pid),
    "directory": lambda place, _: (place.where / "state" / place.id).exists(),
    "init": lambda _, pid: [_children(child) for child in _children(pid) if _children(child)],
    "created": lambda place, _: place.states() == ["created"],
}
"""How far it has come when it is killed, seen from outside."""


@RUNTIMES
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_supervisor_is_killed_while_it_creates(place: Place, moment: str) -> None:
    """However far it has come, rm clears all of it, also what the runtime would have made."""
    place.bundle("sleep", "1000")
    control = place.fifos / "control.sock"
    for _ in range(5):  # it may be further before anybody has looked
        with started(*place.run("--fifo-dir", str(place.fifos), "-i")) as process:
            while not (reached := MOMENTS[moment](place, process.pid)) and not control.exists():
                assert process.poll() is None
            process.kill()
            process.wait(GUARD)
        _cleared(place)
        if reached:
            break


@RUNTIMES
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_runtime_goes_on_without_its_supervisor(place: Place, when: str) -> None:
    """A runtime that the dead one has begun is ended by rm, or it would make a container later."""
    place.bundle("sleep", "1000")
    slow = place.slow("create", before=1000 * (when == "before"), after=1000 * (when == "after"))
    with started(*slow.run("--fifo-dir", str(place.fifos))) as process:
        eventually({"before": place.begun, "after": place.where / "done"}[when].exists, "it")
        begun = [pid for pid in _children(process.pid) if slow.runtime.encode() in _args(pid)]
        assert begun
        process.kill()
        process.wait(GUARD)
        _cleared(slow)
        assert not any(map(_args, begun))


def _cleared(place: Place) -> None:
    """It is as if it had never been there."""
    done = run("rm", *place.at, place.id)
    # Killed before it wrote anything down, it has made nothing either.
    assert done.returncode == 0 or "nothing is known" in done.stderr, done.stderr
    assert place.states() == []
    assert not place.fifos.exists()
    assert not place.record.exists()
    where = str(place.where).encode()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    assert not [pid for pid in pids if any(where in arg for arg in _args(pid))]
    check_one_line(run("rm", *place.at, place.id), 125, "nothing is known")
