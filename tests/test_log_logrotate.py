"""A real logrotate, while a logger writes as fast as it can."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import pytest

from pyshimio.logging._old_files import parts_of
from support.cli import GUARD, PYSHIMIO, eventually
from support.log_binary import started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.log_binary import LogBinary

pytestmark = [pytest.mark.runtime("logrotate"), pytest.mark.slow]

TIMES = 8
KEPT = 20


def line(number: int) -> bytes:
    """Long, so that whoever reads them in Python is not much slower than the writer."""
    return b"%015d %b\n" % (number, b"x" * 2000)


class Flood:
    """Numbered lines into a logger, from a thread, until it is told to end.

    Attributes:
        count: How many there were.
    """

    def __init__(self, fd: int) -> None:
        self.count = 0
        self._fd = fd
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ends.is_set():
            numbers = range(self.count, self.count + 50)
            view = memoryview(b"".join(map(line, numbers)))
            while view:
                view = view[os.write(self._fd, view) :]
            self.count = numbers.stop

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(GUARD)


class Followed:
    """``pyshimio logs`` beside it, until the writer has ended.

    Attributes:
        numbers: What it has printed, when the block has been left.
    """

    def __init__(self, log: Path) -> None:
        command = [*PYSHIMIO, "logs", "--until-unwritten", str(log)]
        self.numbers: list[int] = []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.numbers += (int(text[:15]) for text in self._process.stdout)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(2 * GUARD)
        self._process.kill()
        status = self._process.wait(GUARD)
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        assert status == 0


def rotate(where: Path, log: Path, *directives: str) -> None:
    """One run of logrotate, which thinks that it is time."""
    text = "\n".join([f"{log} {{", f"rotate {KEPT}", "nodateext", *directives, "}"])
    eventually(log.exists, "the new file")
    config = where / "logrotate.conf"
    config.write_text(f"{text}\n")
    config.chmod(0o600)
    command = ["logrotate", "--force", "--state", str(where / "state"), str(config)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stderr


def numbers_in(log: Path, form: str, *, cut: bool = False) -> list[list[int]]:
    """The numbers in each file, the oldest first; a copy's last record may be cut."""
    found: list[list[int]] = []
    for part in parts_of(str(log)):
        with open(part.path, "rb") as file:
            data = file.read()
        if cut and part.path != str(log):
            data = data[: data.rfind(b"\n") + 1]
        assert not data or data.endswith(b"\n")
        if form == "json-file":
            lines = [text.removeprefix(b'{"log":"') for text in data.splitlines()]
            assert all(text.endswith(b'Z"}') for text in lines)
        else:
            lines = [text.split(b" ", 3)[3] for text in data.splitlines()]
        found.append([int(text[:15]) for text in lines])
    return found


@contextmanager
def flooded(tmp_path: Path, form: str) -> Iterator[tuple[Path, LogBinary, Flood, Followed]]:
    """A log that is written at full speed in the block, and followed until its writer has ended."""
    log = tmp_path / "logs" / "x.log"
    log.parent.mkdir()
    with started(tmp_path, driver=form, log_path=str(log)) as binary:
        binary.ready()
        with Followed(log) as followed:
            with Flood(binary.stdout) as flood:
                yield log, binary, flood, followed
            binary.write(line(flood.count))
            binary.close()
            assert binary.wait() == 0


@pytest.mark.parametrize("form", ["json-file", "cri"])
@pytest.mark.parametrize("signals", [True, False], ids=["reopen", "by itself"])
def test_renamed(tmp_path: Path, form: str, *, signals: bool) -> None:
    """Every record is in one of the files, once and in order, and a follower sees it so.

    Told to open its file anew by SIGUSR1, or left to find it out.
    """
    with flooded(tmp_path, form) as (log, binary, flood, followed):
        end = ["postrotate", f"kill -USR1 {binary.pid}", "endscript"] if signals else []
        for _ in range(TIMES):
            rotate(tmp_path, log, "create" if signals else "nocreate", *end)
    files = numbers_in(log, form)
    assert len(files) > TIMES // 2
    assert [number for file in files for number in file] == list(range(flood.count + 1))
    assert followed.numbers == list(range(flood.count + 1))


@pytest.mark.parametrize("form", ["json-file", "cri"])
def test_copied_and_truncated(tmp_path: Path, form: str) -> None:
    """Each file has whole records, in order and without holes of zeros, and a follower has them.

    (What is written between the copy and the truncation is lost, as logrotate's manual says; the
    follower may have seen it.)
    """
    with flooded(tmp_path, form) as (log, _, flood, followed):
        for _ in range(TIMES):
            rotate(tmp_path, log, "copytruncate")
    files = numbers_in(log, form, cut=True)
    assert len(files) == TIMES + 1
    there = [number for file in files for number in file]
    assert there == sorted(set(there))
    assert there[-1] == flood.count
    gaps = [after for before, after in itertools.pairwise(there) if after != before + 1]
    assert len(gaps) <= TIMES
    assert set(gaps) <= {file[0] for file in files if file}
    assert followed.numbers == sorted(set(followed.numbers))
    assert set(there) <= set(followed.numbers)
