"""The ``pyshimio`` command with containers: bundles, FIFO directories, terminals in tmux."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from support.cli import GUARD, PYSHIMIO, check_one_line, eventually, holds, run, started
from support.place import RUNTIMES, Place, Tmux, ask, attach, behind_fifos, command, kill, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.runtime("runc", "busybox"), pytest.mark.slow]

STRANGER = ("setpriv", "--reuid=1000", "--clear-groups", "/usr/bin/python3", "-c")
"""Python as somebody else."""
ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    try:
        connection.sendall(b'{"op": "about"}\\n')
        said = connection.recv(100)
    except OSError:  # closed before it was asked
        said = "no"
    print("connected", said)
"""


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where nobody else is; whatever is left there in the end is deleted."""
    with place_of(tmp_path, getattr(request, "param", "runc")) as place:
        yield place


# -- in front ----------------------------------------------------------------------------------


@RUNTIMES
def test_run(place: Place) -> None:
    """Split streams, stdin where it is asked for, the status passed on, nothing left."""
    place.bundle("sh", "-c", "echo out; echo err >&2; cat; exit 5")
    result = run(*place.run("-i"), stdin=None, input="typed\n")
    assert (result.returncode, result.stdout, result.stderr) == (5, "out\ntyped\n", "err\n")
    result = run(*place.run(), stdin=None, input="not for it")
    assert (result.returncode, result.stdout) == (5, "out\n")
    assert place.states() == []
    assert not place.record.exists()


def test_death_by_signal(place: Place) -> None:
    """128+n, as a shell has it."""
    place.bundle("sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert run(*place.run()).returncode == 137


def test_logs_and_a_report(place: Place) -> None:
    """Both streams go where --log-uri says, and --json says what was moved."""
    log = place.where / "log"
    place.bundle("sh", "-c", "echo out; echo err >&2")
    result = run(*place.run("--log-uri", f"file://{log}", "--json"))
    assert result.returncode == 0
    assert sorted(log.read_text().split()) == ["err", "out"]
    report = json.loads(result.stderr)
    assert report["id"] == place.id
    assert report["status"] == 0
    assert report["complete"]
    assert report["streams"]["stdout"]["bytes_out"] == 4


def test_stdin_beside_a_log(place: Place) -> None:
    """-i passes stdin on where the output is logged, too."""
    log = place.where / "log"
    place.bundle("cat")
    assert run(*place.run("-i", "--log-file", str(log)), stdin=None, input="x").returncode == 0
    assert log.read_text() == "x"


def test_much(place: Place) -> None:
    """Megabytes arrive through a pipe of ours."""
    place.bundle("seq", "500000")
    result = run(*place.run())
    assert result.stdout == "".join(f"{number}\n" for number in range(1, 500_001))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals(place: Place, number: signal.Signals) -> None:
    """A signal is for the container, whose status says what came of it."""
    log = place.where / "log"
    script = "trap 'echo got; exit 9' TERM INT HUP; echo up; while :; do sleep 0.05; done"
    place.bundle("sh", "-c", script)
    with started(*place.run("--log-file", str(log))) as process:
        eventually(holds(log, "up"), "the container")
        process.send_signal(number)
        assert process.wait(GUARD) == 9
    assert "got" in log.read_text()
    assert place.states() == []


def test_the_user_of_the_bundle(place: Place) -> None:
    """Who is not root may open its stdout by name, which is a pipe of its own."""
    place.bundle("sh", "-c", "id -u >/dev/stdout", options=("--user", "1000"))
    assert run(*place.run()).stdout == "1000\n"


@pytest.mark.parametrize(
    "args, words",
    [
        (("run", "--bundle", "x"), ("no ID",)),
        (("run", "--bundle", "x", "a", "b"), ("only the container's ID",)),
        (("run", "--bundle", "x", "--stdout", "/y", "a"), ("--stdout", "exclude")),
        (("run", "--bundle", "x", "--id", "y", "a"), ("--id", "exclude")),
        (("run", "--bundle", "x", "--fifo-dir", "d", "--log-uri", "null:", "a"), ("--fifo-dir",)),
        (("run", "--fifo-dir", "x", "--", "true"), ("--fifo-dir needs --bundle",)),
        (("run", "--root", "x", "--", "true"), ("--root needs --bundle",)),
        (("run", "-i", "--", "true"), ("--interactive needs --bundle",)),
        (("run", "--bundle", "/missing", "a"), ("no bundle", "/missing")),
        (("bundle", "x", "--rootfs", "/missing", "--", "true"), ("/missing",)),
        (("bundle", "x", "--rootfs", "/", "--user", "me", "--", "true"), ("--user", "'me'")),
        (("bundle", "x", "--rootfs", "/", "-e", "me", "--", "true"), ("NAME=VALUE",)),
        (("bundle", "x", "--rootfs", "/"), ("program to run",)),
        (("exec", "a"), ("COMMAND",)),
        (("exec", "--root", "state", "a", "true"), ("does not exist",)),
        (("attach", "/missing"), ("nobody runs", "/missing")),
        (("attach", "--detach-keys", "ctrl-1", "/missing"), ("ctrl-1",)),
        (("rm", "--root", "state", "a"), ("nothing is known", "'a'")),
        (("rm", "a/b"), ("no name",)),
    ],
)
def test_what_is_wrong_is_said(
    args: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    """In one line, with 125."""
    check_one_line(run(*args, cwd=tmp_path), 125, *words)
    assert not (tmp_path / "x").exists()


def test_a_bundle_and_its_terminal(place: Place) -> None:
    """-t and the bundle have to agree, and a bundle is written once."""
    place.bundle("true")
    check_one_line(run(*place.run("-t")), 125, "-t needs a bundle")
    again = run("bundle", str(place.where / "bundle"), "--rootfs", "/", "--", "true")
    check_one_line(again, 125, "a bundle already")
    shutil.rmtree(place.where / "bundle")
    place.bundle("true", options=("--tty",))
    check_one_line(run(*place.run()), 125, "say -t")


@RUNTIMES
def test_a_runtime_that_fails(place: Place) -> None:
    """What it says is what we say."""
    place.bundle("no-such-program")
    check_one_line(run(*place.run()), 125, "no-such-program")
    assert place.states() == []


# -- exec ----------------------------------------------------------------------------------------


@RUNTIMES
def test_exec(place: Place) -> None:
    """Another process with our stdio, its user, its status; the container goes on."""
    place.bundle("sleep", "1000")
    with started(*place.run()) as process:
        eventually(lambda: place.states() == ["running"], "the container")
        script = "cat; id -u >&2; echo $NAME; pwd; exit 4"
        options = ("-i", "-u", "7", "-e", "NAME=value", "-e", "PATH=/bin", "--cwd", "/bin")
        result = run(
            *("exec", *place.at, *options, place.id, "sh", "-c", script), stdin=None, input="in "
        )
        assert (result.returncode, result.stdout) == (4, "in value\n/bin\n")
        assert result.stderr == "7\n"
        missing = run("exec", *place.at, place.id, "no-such-program")
        check_one_line(missing, 125, "no-such-program")
        assert place.states() == ["running"]
        process.send_signal(signal.SIGTERM)  # which init, without a handler, does not get
        killed = run("exec", *place.at, place.id, "sh", "-c", "kill -9 $$")
        assert killed.returncode == 137
        subprocess.run(
            [place.runtime, "--root", str(place.where / "state"), "kill", place.id, "KILL"],
            check=True,
        )
        assert process.wait(GUARD) == 137


# -- behind FIFOs ------------------------------------------------------------------------------


@RUNTIMES
def test_attach(place: Place) -> None:
    """What was written before comes first, stdin's end is passed on, and so is the status."""
    place.bundle("sh", "-c", "echo before; echo err >&2; cat; exit 6")
    with behind_fifos(place, "-i") as process:
        result = attach(place, stdin=None, input="typed\n")
        assert (result.returncode, result.stdout, result.stderr) == (6, "before\ntyped\n", "err\n")
        assert process.wait(GUARD) == 6
    assert not place.fifos.exists()
    assert not place.record.exists()


@RUNTIMES
def test_detach_and_attach_again(place: Place) -> None:
    """What is written while nobody is there waits; nothing is lost, and nothing comes twice."""
    script = "seq 500000; while [ ! -e /go ]; do sleep 0.02; done"
    place.bundle("sh", "-c", f"{script}; echo last; exit 3")
    with behind_fifos(place) as process:
        pieces: list[bytes] = []
        for _ in range(3):
            client = subprocess.Popen(
                [*PYSHIMIO, "attach", str(place.fifos)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            with client:
                assert client.stdout is not None
                pieces.append(client.stdout.read(5000))
                client.terminate()
                pieces.append(client.stdout.read())
            assert client.returncode == 128 + signal.SIGTERM
        (place.where / "rootfs" / "go").touch()
        result = attach(place)
        pieces.append(result.stdout.encode())
        assert result.returncode == 3
        assert process.wait(GUARD) == 3
    lines = b"".join(pieces).decode().split()
    assert lines == [*(str(number) for number in range(1, 500_001)), "last"]


def test_one_client_at_a_time(place: Place) -> None:
    """Two would get parts of the output each; when the first has gone, even killed, it is free."""
    place.bundle("sh", "-c", "while :; do echo up; sleep 0.05; done")
    with behind_fifos(place) as process:
        with started("attach", str(place.fifos), stdout=subprocess.PIPE) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "up\n"
            check_one_line(attach(place), 125, "somebody is attached")
            first.kill()
            first.wait(GUARD)
        with started("attach", str(place.fifos), stdout=subprocess.PIPE) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "up\n"
            kill(place)
            assert second.wait(GUARD) == 137
        assert process.wait(GUARD) == 137


def test_nobody_reads_what_is_left(place: Place) -> None:
    """It waits as long as --linger says, and then says what it abandons."""
    place.bundle("echo", "for nobody")
    result = run(*place.run("--fifo-dir", str(place.fifos), "--linger", "0.1"))
    assert result.returncode == 0
    assert "BytesAbandoned (count 11)" in result.stderr
    assert not place.fifos.exists()


def test_the_control_socket_is_for_its_owner(place: Place) -> None:
    """By its mode, and by who connects even where the mode lets others in."""
    place.bundle("sleep", "1000")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where anybody may go
        fifos = Path(name) / "fifos"
        path = fifos / "control.sock"
        with started(*place.run("--fifo-dir", str(fifos))):
            eventually(path.exists, "the control socket")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(fifos.stat().st_mode) == 0o700
            eventually(lambda: ask(path, {"op": "about"})["state"] == "running", "the start")
            assert "no such operation" in ask(path, {"op": "format"})["error"]
            assert "no terminal" in ask(path, {"op": "resize", "rows": 1, "columns": 1})["error"]
            for wrong in (["no request"], {"op": "resize", "rows": float("inf"), "columns": 1}):
                assert "error" in ask(path, wrong)
            for part in (Path(name), fifos, path):
                part.chmod(0o777)
            asked = subprocess.run(
                [*STRANGER, ASK, path], capture_output=True, text=True, check=True, timeout=GUARD
            )
            assert asked.stdout in {"connected b''\n", "connected no\n"}, asked
            kill(place)


@RUNTIMES
def test_a_killed_supervisor(place: Place) -> None:
    """Its container and its FIFOs are in the way until rm has cleared them, by the id alone."""
    place.bundle("sh", "-c", "echo up; exec sleep 1000")
    with behind_fifos(place, "-i") as process:
        check_one_line(run("rm", *place.at, place.id), 125, "is being run by", str(process.pid))
        check_one_line(run(*place.run()), 125, "is being run by")
        with started("attach", str(place.fifos), stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "up\n"
            process.kill()
            process.wait(GUARD)
            assert client.wait(GUARD) == 125
            assert client.stderr is not None
            assert "has gone" in client.stderr.read()
    assert place.states() == ["running"]
    check_one_line(run(*place.run()), 125, "pyshimio rm")

    assert run("rm", *place.at, place.id).returncode == 0

    assert place.states() == []
    assert not place.fifos.exists()
    assert not place.record.exists()
    check_one_line(run("rm", *place.at, place.id), 125, "nothing is known")


def test_rm_without_a_bundle(place: Place) -> None:
    """A container whose bundle is gone can be cleared all the same."""
    place.bundle("sleep", "1000")
    with started(*place.run()) as process:
        eventually(lambda: place.states() == ["running"], "the container")
        process.kill()
        process.wait(GUARD)
    shutil.rmtree(place.where / "bundle")
    assert run("rm", *place.at, place.id).returncode == 0
    assert place.states() == []


@RUNTIMES
def test_rm_of_what_is_gone(place: Place) -> None:
    """Where the container is gone already what was beside it is cleared."""
    place.bundle("sleep", "1000")
    with behind_fifos(place) as process:
        eventually(lambda: place.states() == ["running"], "the container")
        process.kill()
        process.wait(GUARD)
    delete = [place.runtime, "--root", str(place.where / "state"), "delete", "-f", place.id]
    subprocess.run(delete, check=True)
    assert run("rm", *place.at, place.id).returncode == 0
    assert not place.fifos.exists()
    assert not place.record.exists()


def test_rm_of_somebody_elses(place: Place) -> None:
    """A living container that we have not made is left alone, but with --force."""
    place.bundle("sleep", "1000")
    made = [place.runtime, "--root", str(place.where / "state"), "run", "--detach"]
    made += ["--bundle", str(place.where / "bundle"), place.id]
    nowhere = subprocess.DEVNULL
    subprocess.run(made, check=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    check_one_line(run("rm", *place.at, place.id), 125, "--force")
    result = run("exec", *place.at, "-e", "PATH=/bin", place.id, "sh", "-c", "exit 3")
    assert result.returncode == 3
    assert place.states() == ["running"]
    assert run("rm", *place.at, "--force", place.id).returncode == 0
    assert place.states() == []


def test_two_containers_in_one_directory(place: Place) -> None:
    """The second is refused, and the first stays as it was."""
    place.bundle("sh", "-c", "read line; exit 3")
    with behind_fifos(place, "-i") as process:
        other = attrs.evolve(place, id=f"{place.id}-other")
        refused = run(*other.run("--fifo-dir", str(place.fifos)))
        check_one_line(refused, 125, "another container's FIFOs")
        assert attach(place).returncode == 3
        assert process.wait(GUARD) == 3


def test_a_directory_that_others_get_into(place: Place) -> None:
    """It is refused, and so is one whose name is too long for a socket."""
    place.bundle("true")
    place.fifos.mkdir(mode=0o755)
    for name in (str(place.fifos), f"{place.where}/{'x' * 90}"):
        check_one_line(run(*place.run("--fifo-dir", name)), 125, name)
    assert place.states() == []


def test_outputs_that_end_before_the_container(place: Place) -> None:
    """Its input goes on, to the end."""
    place.bundle("sh", "-c", "exec >&- 2>&-; cat >/got; exit 4")
    with behind_fifos(place, "-i") as process:
        with started("attach", str(place.fifos), stdin=subprocess.PIPE) as client:
            assert client.stdin is not None
            client.stdin.write("one\n")
            client.stdin.flush()
            got = place.where / "rootfs" / "got"
            eventually(holds(got, "one"), "the first line")
            client.stdin.write("two\n")
            client.stdin.close()
            assert client.wait(GUARD) == 4
        assert process.wait(GUARD) == 4
    assert got.read_text() == "one\ntwo\n"


# -- in a terminal -----------------------------------------------------------------------------


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    """A window with a shell in it."""
    tmux = Tmux(tmp_path)
    yield tmux
    tmux.end()


@RUNTIMES
def test_a_terminal(place: Place, tmux: Tmux) -> None:
    """An interactive shell in the container, as large as the window, before and after a resize."""
    place.bundle("sh", options=("--tty",))
    tmux.type(command(*place.run("-t")), "Enter")
    tmux.type("stty size", "Enter")
    tmux.shows("30 90")
    tmux.resize(20, 70)
    eventually(lambda: _size_of(place) == (20, 70), "the new size")
    tmux.type("stty size", "Enter")
    tmux.shows("20 70")
    tmux.type("exit 7", "Enter")
    tmux.shows("status 7")
    tmux.type("stty -a | grep -o ' icanon'", "Enter")
    tmux.shows(" icanon")
    assert place.states() == []


def _size_of(place: Place) -> tuple[int, ...]:
    done = run(
        "exec", *place.at, "-e", "PATH=/bin", place.id, "sh", "-c", "stty size </dev/console"
    )
    return tuple(map(int, done.stdout.split()))


@RUNTIMES
def test_attach_in_a_terminal(place: Place, tmux: Tmux) -> None:
    """Attach, resize, detach, resize, attach again: the size is right, and the status too."""
    place.bundle("sh", options=("--tty",))
    with behind_fifos(place, "-it") as process:
        tmux.type(command("attach", str(place.fifos)), "Enter")
        tmux.type("stty size", "Enter")
        tmux.shows("30 90")
        tmux.resize(24, 60)
        eventually(lambda: _size_of(place) == (24, 60), "the new size")
        tmux.type("stty size", "Enter")
        tmux.shows("24 60")
        tmux.type("C-p", "C-q")
        tmux.shows("status 0")
        tmux.resize(18, 50)
        tmux.type(command("attach", str(place.fifos)), "Enter")
        eventually(lambda: _size_of(place) == (18, 50), "the size of the second attachment")
        tmux.type("stty size", "Enter")
        tmux.shows("18 50")
        tmux.type("exit 6", "Enter")
        tmux.shows("status 6")
        assert process.wait(GUARD) == 6
    assert not place.fifos.exists()


@RUNTIMES
def test_exec_in_a_terminal(place: Place, tmux: Tmux) -> None:
    """A process has a terminal of ours where its container has none."""
    place.bundle("sleep", "1000")
    with started(*place.run()) as process:
        eventually(lambda: place.states() == ["running"], "the container")
        args = ("exec", *place.at, "-t", "-e", "PATH=/bin", place.id, "sh")
        tmux.type(command(*args), "Enter")
        tmux.type("stty size; tty", "Enter")
        tmux.shows("30 90")
        tmux.shows("/dev/pts/0")
        tmux.type("exit 3", "Enter")
        tmux.shows("status 3")
        kill(place)
        assert process.wait(GUARD) == 137
