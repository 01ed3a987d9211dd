"""Log drivers as programs: readiness, the end, signals, options, and what is said of losses."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from support.cli import eventually, holds
from support.log_binary import PYSHIMIO_LOG, started
from support.mounts import tmpfs

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def logs(path: Path) -> list[str]:
    """The lines of a json-file."""
    return [json.loads(line)["log"] for line in path.read_text().splitlines()]


def test_from_the_first_byte_to_the_last(tmp_path: Path) -> None:
    """Ready by a byte and the end of its pipe; both streams, the tail, and exit status 0."""
    log = tmp_path / "log"
    with started(tmp_path, driver="json-file", log_path=str(log)) as binary:
        assert binary.ready() == b"\0"
        assert log.exists()
        binary.write(b"out\nta")
        binary.write(b"err\n", 2)
        binary.write(b"il")
        binary.close()
        assert binary.wait() == 0
        assert binary.said == ""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((entry["stream"], entry["log"]) for entry in entries) == [
        ("stderr", "err\n"),
        ("stdout", "out\n"),
        ("stdout", "tail"),
    ]


@pytest.mark.parametrize("driver", ["json-file", "cri", "raw"])
def test_much(tmp_path: Path, driver: str) -> None:
    """Nothing of 32 MiB is lost or out of order, and memory stays flat."""
    log = tmp_path / "log"
    text = b"".join(b"%015d\n" % number for number in range(2 * MIB))
    with started(tmp_path, driver=driver, log_path=str(log)) as binary:
        binary.ready()
        binary.write(text)
        peak = binary.peak()
        binary.close()
        assert binary.wait() == 0
    with open(log, "rb") as file:
        if driver == "raw":
            assert file.read() == text
        elif driver == "cri":
            assert b"".join(line.split(b" ", 3)[3] for line in file) == text
        else:
            middle = b'\\n","stream"'
            assert b"".join(line[8 : line.index(middle)] + b"\n" for line in file) == text
    assert peak < 20


@pytest.mark.parametrize("driver", ["json-file", "cri", "raw"])
def test_much_without_a_newline(tmp_path: Path, driver: str) -> None:
    """100 MB of one line, and memory stays flat."""
    log = tmp_path / "log"
    block = bytes(range(32, 127)) * 1000
    times = 100 * 1000 * 1000 // len(block)
    with started(tmp_path, driver=driver, log_path=str(log)) as binary:
        binary.ready()
        for _ in range(times):
            binary.write(block)
        peak = binary.peak()
        binary.close()
        assert binary.wait() == 0
    text = log.read_bytes()
    if driver == "cri":
        lines = text.splitlines()
        assert {line.split(b" ", 3)[2] for line in lines} == {b"P"}
        text = b"".join(line.split(b" ", 3)[3] for line in lines)
    elif driver == "json-file":
        text = "".join(logs(log)).encode()
    assert text == block * times
    assert peak < 20


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_options_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Containerd's shim has the pairs of an URI in a random one."""
    log = tmp_path / "log"
    given = [("driver", "json-file"), ("log-path", str(log)), ("max-size", "1m"), ("tag", "")]
    pairs = [text for number in order for text in given[number]]
    with started(tmp_path, *pairs) as binary:
        assert binary.ready() == b"\0"
        binary.write(b"line\n")
        binary.close()
        assert binary.wait() == 0
    assert logs(log) == ["line\n"]


@pytest.mark.parametrize(
    "args, words",
    [
        ((), ("driver", "cri, json-file, none, raw")),
        (("driver", "no-such"), ("no-such", "json-file")),
        (("driver", "raw"), ("log-path",)),
        (("driver", "raw", "log-path", "x"), ("log-path", "absolute")),
        (("driver", "raw", "log-path", "/x", "size", "1"), ("size", "log-path")),
        (("driver", "json-file", "log-path", "/x", "max-size", "0"), ("max-size",)),
        (("driver", "json-file", "log-path", "/x", "max-size", "10x"), ("max-size", "10x")),
        (
            ("driver", "json-file", "log-path", "/x", "max-size", "1m", "compress", "true"),
            ("compress", "max-file"),
        ),
        (("driver", "none", "driver", "raw"), ("driver", "twice")),
        (("driver",), ("driver", "no")),
        (("driver", "none", "mode", "maybe"), ("mode", "non-blocking")),
        (("driver", "none", "max-buffer-size", "1m"), ("max-buffer-size", "mode")),
        (("driver", "none", "mode", "non-blocking", "drop", "some"), ("drop", "oldest")),
        (("driver", "none", "tee.driver", "no-such"), ("no-such",)),
        (("driver", "none", "container.nme", "x"), ("container.nme", "image-name", "label.NAME")),
        (("driver", "none", "mode", "non-blocking", "tee.driver", "none"), ("mode", "tee.driver")),
        (("driver", "raw", "log-path", "/no/such/directory/x"), ("/no/such", "No such file")),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, args: tuple[str, ...], words: list[str]) -> None:
    """Not ready, status 1, one line that names it."""
    with started(tmp_path, *args) as binary:
        assert binary.ready() == b""
        assert binary.wait() == 1
        assert binary.said.count("\n") == 1
        for word in words:
            assert word in binary.said
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


def test_what_the_shim_does_not_tell(tmp_path: Path) -> None:
    """Whoever writes the URI can: a tag, labels and environment come from there."""
    log = tmp_path / "log"
    told = [
        *("container.name", "web", "container.image-name", "nginx"),
        *("container.label.app", "shop", "container.label.other", "no"),
        *("container.env.ZONE", "a=b"),
    ]
    options = {"labels": "app", "env_regex": "^Z", "tag": "{{.Name}}/{{.ImageName}}/{{.FullID}}"}
    with started(tmp_path, *told, driver="json-file", log_path=str(log), **options) as binary:
        assert binary.ready() == b"\0"
        binary.write(b"line\n")
        binary.close()
        assert binary.wait() == 0
    assert json.loads(log.read_text())["attrs"] == {
        "ZONE": "a=b",
        "app": "shop",
        "tag": "web/nginx/c1",
    }


@pytest.mark.parametrize("where", ["make", "open"])
def test_a_driver_that_raises_anything(tmp_path: Path, where: str) -> None:
    """One line, and it is not ready."""
    program = tmp_path / "broken.py"
    method = "__init__(self, info)" if where == "make" else "open(self)"
    program.write_text(
        "from pyshimio.logging import Driver, run\n"
        "class Broken(Driver):\n"
        f"    def {method}:\n"
        "        raise ValueError('what is this')\n"
        "run(Broken)\n"
    )
    with started(tmp_path, command=(sys.executable, str(program))) as binary:
        assert binary.ready() == b""
        assert binary.wait() == 1
        assert binary.said.count("\n") == 1
        assert "ValueError('what is this')" in binary.said


def test_a_second_driver_that_fails(tmp_path: Path) -> None:
    """What goes wrong with it is said at once, and counted in the end."""
    log = tmp_path / "log"
    with started(
        tmp_path,
        *("tee.driver", "raw", "tee.log-path", "/dev/full"),
        driver="raw",
        log_path=str(log),
    ) as binary:
        assert binary.ready() == b""
        assert "/dev/full" in binary.said
    gone = tmp_path / "gone"
    gone.mkdir()
    with started(
        tmp_path,
        *("tee.driver", "raw", "tee.log-path", f"{gone}/log"),
        driver="raw",
        log_path=str(log),
    ) as binary:
        assert binary.ready() == b"\0"
        (gone / "log").unlink()
        gone.rmdir()
        binary.write(b"line\n")
        eventually(holds(binary.said_in, "cannot open the log"), "what goes wrong")
        binary.close()
        assert binary.wait() == 0  # the file that has no name has it
        assert "leg1.failures 1" in binary.said
    assert log.read_bytes() == b"line\n"


def test_by_hand() -> None:
    """Who starts it without descriptors is told what it is for."""
    done = subprocess.run(
        [*PYSHIMIO_LOG, "driver", "none"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "binary://" in done.stderr


def test_sigterm_is_no_end(tmp_path: Path) -> None:
    """It goes on reading until the streams end, and what comes after the signal is there."""
    log = tmp_path / "log"
    with started(tmp_path, driver="json-file", log_path=str(log)) as binary:
        binary.ready()
        binary.write(b"before\n")
        binary.kill(signal.SIGTERM)
        eventually(holds(log, "before"), "the first line")
        binary.write(b"after\n")
        binary.close()
        assert binary.wait() == 0
    assert logs(log) == ["before\n", "after\n"]


@pytest.mark.slow
def test_ten_seconds_after_sigterm(tmp_path: Path) -> None:
    """The time is up while the container writes: all that was read is there, the rest counted."""
    log = tmp_path / "log"
    with started(tmp_path, driver="raw", log_path=str(log)) as binary:
        binary.ready()
        begun = time.monotonic()
        binary.kill(signal.SIGTERM)
        written = 0
        while time.monotonic() - begun < 9.9:
            binary.write(b"x" * 100)
            written += 100
            time.sleep(0.1)
        assert binary.wait() == 1
        assert 9.9 < time.monotonic() - begun < 12
        told = re.search(r"(\d+) bytes of stdout were not read 10 s after SIGTERM", binary.said)
    assert told is not None
    assert log.read_bytes() == b"x" * (written - int(told[1]))


def test_sigusr1_opens_files_anew(tmp_path: Path) -> None:
    """For whoever rotates them."""
    log, old = tmp_path / "log", tmp_path / "old"
    with started(tmp_path, driver="cri", log_path=str(log)) as binary:
        binary.ready()
        binary.write(b"one\n")
        eventually(holds(log, "one"), "the first line")
        log.rename(old)
        binary.kill(signal.SIGUSR1)
        eventually(log.exists, "the new file")
        binary.write(b"two\n")
        binary.close()
        assert binary.wait() == 0
    assert old.read_text().endswith("F one\n")
    assert log.read_text().endswith("F two\n")


@pytest.mark.root
def test_a_full_disk_stops_the_container(tmp_path: Path) -> None:
    """As long as it is full, and then every record is there."""
    with tmpfs(tmp_path / "disk", "64k") as disk:
        log, ballast = disk / "log", disk / "ballast"
        ballast.write_bytes(b"x" * 40_000)
        with started(tmp_path, driver="raw", log_path=str(log)) as binary:
            binary.ready()
            binary.write(b"x" * 9 + b"\n")
            fcntl.fcntl(binary.stdout, fcntl.F_SETPIPE_SZ, 4096)
            written = 10
            os.set_blocking(binary.stdout, False)
            until = time.monotonic() + 2
            while time.monotonic() < until:  # no more than the disk and the pipe hold
                try:
                    written += os.write(binary.stdout, (b"y" * 9 + b"\n") * 100)
                except BlockingIOError:
                    time.sleep(0.01)
            assert written < 120_000
            ballast.write_bytes(b"")
            binary.close()
            assert binary.wait() == 0
            assert "No space" in binary.said
        assert log.stat().st_size == written


def test_a_ring_never_stops_the_container(tmp_path: Path) -> None:
    """Beyond its size records are dropped, and the log says how many."""
    fifo, log = tmp_path / "go", tmp_path / "log"
    os.mkfifo(fifo)
    program = tmp_path / "slow.py"
    program.write_text(SLOW)
    command = (sys.executable, str(program))
    with started(tmp_path, command=command, go=str(fifo), log_path=str(log)) as binary:
        binary.ready()
        text = b"".join(b"%09d\n" % number for number in range(100_000))
        binary.write(text)  # a hundred times what fits
        fifo.open("wb").close()
        binary.close()
        assert binary.wait() == 0
        said = binary.said
    lines = log.read_bytes().splitlines()
    numbers = [int(line) for line in lines if line.isdigit()]
    markers = [line for line in lines if not line.isdigit()]
    dropped = sum(int(line.split()[2]) for line in markers)
    assert numbers == sorted(numbers)
    assert numbers[-1] == 99_999
    assert dropped + len(numbers) == 100_000
    assert dropped > 50_000
    assert f"{dropped} records were dropped" in said


SLOW = textwrap.dedent("""
    from pyshimio.logging import Driver, Options, Ring, absolute_path, run

    class Slow(Driver):
        options = Options("slow", {"go": absolute_path, "log-path": absolute_path})

        def open(self):
            self.file = open(self.values["log-path"], "ab", buffering=0)
            self.went = False

        def write(self, batch):
            if not self.went:
                open(self.values["go"], "rb").close()
                self.went = True
            self.file.write(batch.data)

    run(Slow, deliver=lambda driver, over: Ring(driver, size=10_000, over=over))
""")


@pytest.mark.root
@pytest.mark.parametrize("drop", ["oldest", "newest"])
def test_options_of_a_ring(tmp_path: Path, drop: str) -> None:
    """Which end of what waits is dropped; the container never notices."""
    with tmpfs(tmp_path / "disk", "256k") as disk:
        log, ballast = disk / "log", disk / "ballast"
        options = {"mode": "non-blocking", "max_buffer_size": "10k", "drop": drop}
        with started(tmp_path, driver="raw", log_path=str(log), **options) as binary:
            binary.ready()
            with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 1000)
            for number in range(300):  # each in a read of its own, or nearly so
                binary.write(b"%09d\n" % number * 50)
                time.sleep(0.001)
            eventually(holds(binary.said_in, "No space"), "the full disk")
            ballast.unlink()
            binary.close()
            assert binary.wait() == 0
        lines = log.read_bytes().splitlines()
        numbers = [int(line) for line in lines if line.isdigit()]
        told = [int(line.split()[2]) for line in lines if not line.isdigit()]
        assert told
        assert len(numbers) + sum(told) == 300 * 50
        assert numbers == sorted(numbers)
        assert (numbers[-1] == 299) == (drop == "oldest")


def test_a_tee(tmp_path: Path) -> None:
    """A second driver gets the same."""
    log, other = tmp_path / "log", tmp_path / "other"
    options = {"tee.driver": "raw", "tee.log-path": str(other)}
    with started(tmp_path, driver="json-file", log_path=str(log), **options) as binary:
        binary.ready()
        binary.write(b"a\nb\ntail")
        binary.close()
        assert binary.wait() == 0
    assert logs(log) == ["a\n", "b\n", "tail"]
    assert other.read_bytes() == b"a\nb\ntail"


FAILING = textwrap.dedent("""
    from pyshimio.logging import Driver, run

    class Failing(Driver):
        def write(self, batch):
            raise ValueError("no")

    run(Failing)
""")


def test_a_driver_that_fails_does_not_end_the_container(tmp_path: Path) -> None:
    """Its records are counted, and the rest is read."""
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    with started(tmp_path, command=(sys.executable, str(program))) as binary:
        binary.ready()
        binary.write(b"line\n" * 100_000)
        binary.close()
        assert binary.wait() == 1
        assert "100000 records were refused; no" in binary.said


def test_descriptors_are_its_own(tmp_path: Path) -> None:
    """3, 4 and 5 close on exec, and what the shim has let through is closed."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    with started(tmp_path, driver="none") as binary:
        binary.ready()
        os.close(writer)
        try:
            assert os.read(reader, 1) == b""  # nobody else has it
            for fd in (3, 4):
                with open(f"/proc/{binary.pid}/fdinfo/{fd}") as file:
                    (flags,) = [line.split()[1] for line in file if line.startswith("flags")]
                assert int(flags, 8) & os.O_CLOEXEC
                assert not int(flags, 8) & os.O_NONBLOCK
        finally:
            os.close(reader)
        binary.close()
        assert binary.wait() == 0


def test_it_loads_little() -> None:
    """Neither attrs nor asyncio nor anyio, nor what takes as long as all the rest."""
    heavy = ("asyncio", "anyio", "attr", "attrs", "click", "typing", "re", "enum", "contextlib")
    code = (
        "import sys; before = set(sys.modules)\n"
        "from pyshimio.logging import _main, _json_file, _cri\n"
        f"print(*({set(heavy)!r} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"", done.stdout
