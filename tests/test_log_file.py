"""Log files of whole records: rotated, compressed, repaired, pulled away from their writer."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pyshimio.errors import LogFileError
from pyshimio.logging import LogFile, Rotation
from pyshimio.logging._gzip import compress
from pyshimio.logging._rotation import numbered
from pyshimio.testing.faults import fail_syscall
from support.mounts import tmpfs

if TYPE_CHECKING:
    from pathlib import Path


def lines(*numbers: int) -> bytes:
    """Ten bytes for each."""
    return b"".join(b"%09d\n" % number for number in numbers)


def opened(path: Path, **options: int | bool) -> LogFile:
    """A log of a hundred bytes a file."""
    rotation = Rotation(max_size=100, **options) if options else None  # type: ignore[arg-type]
    file = LogFile(str(path), rotation=rotation)
    file.open()
    return file


def contents(path: Path) -> list[bytes]:
    """What is in all files, the oldest first."""
    found: list[bytes] = []
    for name in numbered(str(path)):
        with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as file:
            found.append(file.read())
    return [*found, path.read_bytes()]


# -- rotation ----------------------------------------------------------------------------------


def test_an_old_file_that_does_not_close(tmp_path: Path) -> None:
    """The new one is used all the same, whoever has asked for it; and it is said."""
    log = tmp_path / "log"
    told: list[Exception] = []
    file = LogFile(str(log), rotation=Rotation(max_size=100, max_file=3), failed=told.append)
    file.open()
    before = os.listdir("/proc/self/fd")
    with fail_syscall("log.close", error=errno.EIO):
        file.write(lines(*range(15)))
    with fail_syscall("log.close", error=errno.EIO):
        file.reopen()
    file.write(lines(15))
    assert [str(error) for error in told] == [
        f"the old file of the log {log} may lack its end: closing it gave Input/output error"
    ] * 2
    assert (file.failures, file.rotations, file.reopened) == (2, 1, 1)
    assert os.listdir("/proc/self/fd") == before
    file.close()
    assert b"".join(contents(log)) == lines(*range(16))


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_rotation(tmp_path: Path, at_once: int) -> None:
    """Files of whole records, of which the last one fills them, however many come at once."""
    log = tmp_path / "log"
    file = opened(log, max_file=3)
    numbers = range(47)
    for first in range(0, 47, at_once):
        file.write(lines(*numbers[first : first + at_once]))
    file.close()
    assert contents(log) == [lines(*range(20, 30)), lines(*range(30, 40)), lines(*range(40, 47))]
    assert file.rotations == 4
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    assert log.stat().st_mode & 0o777 == 0o640


def test_a_record_larger_than_a_file(tmp_path: Path) -> None:
    """It is a file of its own, and whole."""
    log = tmp_path / "log"
    file = opened(log, max_file=5)
    large = b"x" * 500 + b"\n"
    file.write(lines(1) + large + lines(2))
    file.write(large)
    file.close()
    assert contents(log) == [lines(1) + large, lines(2) + large]


def test_a_single_file(tmp_path: Path) -> None:
    """A full one is removed, so whoever follows it has it to the end."""
    log = tmp_path / "log"
    file = opened(log, max_file=1)
    file.write(lines(*range(10)))
    with open(log, "rb") as reader:
        file.write(lines(10))
        assert reader.read() == lines(*range(10))
    file.close()
    assert contents(log) == [lines(10)]


def test_a_gap_is_filled(tmp_path: Path) -> None:
    """A number that is missing, after a crash, costs no file its time."""
    log = tmp_path / "log"
    file = opened(log, max_file=5)
    for number in (1, 3, 4):
        (tmp_path / f"log.{number}").write_bytes(lines(number))
    file.write(lines(*range(11)))
    file.close()
    assert contents(log) == [lines(4), lines(3), lines(1), lines(*range(10)), lines(10)]


def test_compression(tmp_path: Path) -> None:
    """All old files but none that is to be deleted, with docker's note of their last record."""
    log = tmp_path / "log"
    rotation = Rotation(max_size=100, max_file=3, compress=True, last_time=lambda: "2026-01-01")
    file = LogFile(str(log), rotation=rotation)
    file.open()
    for number in range(45):
        file.write(lines(number))
    file.close()
    assert contents(log) == [lines(*range(20, 30)), lines(*range(30, 40)), lines(*range(40, 45))]
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz", "log.2.gz"]
    header = (tmp_path / "log.1.gz").read_bytes()
    size = int.from_bytes(header[10:12], "little")
    assert json.loads(header[12 : 12 + size]) == {"lastTime": "2026-01-01"}
    assert (tmp_path / "log.1.gz").stat().st_mode & 0o777 == 0o640
    subprocess.run(["gzip", "-t", tmp_path / "log.1.gz"], check=True)


def test_compression_that_fails_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there as it was, and nothing half made beside it; the next one is tried again."""
    log = tmp_path / "log"
    told: list[Exception] = []
    rename = os.rename

    def fail(old: str, new: str) -> None:
        if new.endswith(".1.gz") and not told:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(old, new)

    monkeypatch.setattr("pyshimio.logging._kernel.rename", fail)
    rotation = Rotation(max_size=100, max_file=3, compress=True, failed=told.append)
    file = LogFile(str(log), rotation=rotation)
    file.open()
    file.write(lines(*range(15)))
    rotation.wait()
    assert contents(log) == [lines(*range(10)), lines(*range(10, 15))]
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    file.write(lines(*range(15, 25)))
    file.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz", "log.2"]
    assert [getattr(error, "errno", None) for error in told] == [errno.EIO]


def test_no_thread_for_compressing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays as it is, and nothing else is wrong."""
    log = tmp_path / "log"
    told: list[Exception] = []

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    rotation = Rotation(max_size=100, max_file=9, compress=True, failed=told.append)
    file = LogFile(str(log), rotation=rotation)
    file.open()
    for number in range(35):
        file.write(lines(number))
    file.close()
    assert b"".join(contents(log)) == lines(*range(35))
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2", "log.3"]
    assert len(told) == 3


def test_a_file_that_goes_is_not_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two files the old one is removed by the next rotation, which does not wait for that."""
    log = tmp_path / "log"
    read, reads, go = os.read, threading.Event(), threading.Event()

    def slow(fd: int, count: int) -> bytes:
        reads.set()
        assert go.wait(10)
        return read(fd, count)

    monkeypatch.setattr("pyshimio.logging._kernel.read", slow)
    made: list[str] = []
    rename = os.rename

    def noted(old: str, new: str) -> None:
        made.append(new)
        rename(old, new)

    monkeypatch.setattr("pyshimio.logging._kernel.rename", noted)
    rotation = Rotation(max_size=100, max_file=2, compress=True)
    file = LogFile(str(log), rotation=rotation)
    file.open()
    file.write(lines(*range(15)))
    assert reads.wait(10)
    thread = threading.Thread(target=file.write, args=(lines(*range(15, 25)),))
    thread.start()
    while not rotation._given_up:
        time.sleep(0.001)
    go.set()
    thread.join(10)
    file.close()
    assert contents(log) == [lines(*range(10, 20)), lines(*range(20, 25))]
    assert made.count(f"{log}.1.gz") == 1  # the second one's


def test_somebody_else_compresses(tmp_path: Path) -> None:
    """Its copy is not touched while it is at work, and does not take the name of another file."""
    log = tmp_path / "log"
    (tmp_path / "log.1").write_bytes(lines(1))
    copy = tmp_path / "log.1.gz.0a.tmp"
    with open(copy, "wb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        file = opened(log, max_file=5, compress=True)
        file.close()
        assert copy.exists()
    opened(log, max_file=5, compress=True).close()
    assert not copy.exists()
    (tmp_path / "log.1.gz").unlink()

    # Its copy has its name by now, and its original is about to go: one of the two stays.
    (tmp_path / "log.1").write_bytes(lines(1))
    (tmp_path / "log.1.gz").write_bytes(gzip.compress(lines(1)))
    with open(tmp_path / "log.1.gz", "rb") as held, open(tmp_path / "log.1", "rb") as original:
        fcntl.flock(held, fcntl.LOCK_EX)
        fcntl.flock(original, fcntl.LOCK_EX)
        file = opened(log, max_file=5, compress=True)
        file.write(lines(*range(11)))
        file.write(lines(11))  # not rotated, as long as somebody is at work on the newest old file
        assert file.failures == 2
        file.close()
        assert (tmp_path / "log.1.gz").exists()
        assert (tmp_path / "log.1").exists()

    def rotate_meanwhile() -> bool:
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").write_bytes(lines(3))
        return False

    (tmp_path / "a").write_bytes(lines(2))
    compress(str(tmp_path / "a"), str(tmp_path / "t"), "", given_up=rotate_meanwhile)
    assert (tmp_path / "a").read_bytes() == lines(3)
    assert (tmp_path / "b").read_bytes() == lines(2)
    assert not (tmp_path / "a.gz").exists()


# -- what others do to it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["renamed", "removed", "truncated", "renamed and made", "directory renamed"]
)
def test_pulled_away(tmp_path: Path, what: str) -> None:
    """Nothing is lost but what somebody has thrown away, and the path always has the newest."""
    directory = tmp_path / "logs"
    directory.mkdir()
    log, old = directory / "log", directory / "old"
    file = opened(log)
    file.write(lines(1))
    if what == "removed":
        log.unlink()
    elif what == "truncated":
        os.truncate(log, 0)
    elif what == "directory renamed":
        old = tmp_path / "gone" / "log"
        directory.rename(tmp_path / "gone")
        directory.mkdir()
    else:
        log.rename(old)
        if what == "renamed and made":
            log.touch()
    file.write(lines(2))
    file.close()
    assert log.read_bytes() == lines(2)
    assert not old.exists() or old.read_bytes() == lines(1)
    assert file.reopened == (what != "truncated")


@pytest.mark.parametrize("what", ["directory gone", "another kind", "no new file"])
def test_no_file_can_be_made(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one goes on, counted, until there is one."""
    directory = tmp_path / "logs"
    directory.mkdir()
    log, old = directory / "log", tmp_path / "old"
    told: list[Exception] = []
    file = LogFile(str(log), failed=told.append)
    file.open()
    file.write(lines(1))
    log.rename(old)
    if what == "directory gone":
        directory.rmdir()
    elif what == "another kind":
        log.mkdir()
    else:
        monkeypatch.setattr("pyshimio.logging._kernel.open", _no_descriptors)
    file.write(lines(2))
    file.write(lines(3))
    assert file.failures == 2
    assert all(isinstance(error, LogFileError) for error in told)
    if what == "directory gone":
        directory.mkdir()
    elif what == "another kind":
        log.rmdir()
    else:
        monkeypatch.undo()
    file.write(lines(4))
    file.close()
    assert old.read_bytes() == lines(1, 2, 3)
    assert log.read_bytes() == lines(4)


def _no_descriptors(*_: object) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("what", ["in the way", "no new file"])
def test_a_rotation_that_fails(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The full file goes on, and no record is lost; the next write tries again."""
    log = tmp_path / "log"
    file = opened(log, max_file=2)
    if what == "in the way":
        (tmp_path / "log.1").mkdir()
    else:
        file.write(lines(0))
        monkeypatch.setattr("pyshimio.logging._kernel.open", _no_descriptors)
    first = 1 if what == "no new file" else 0
    for number in range(first, 25):
        file.write(lines(number))
    assert file.failures > 10
    if what == "in the way":
        (tmp_path / "log.1").rmdir()
    else:
        monkeypatch.undo()
    file.write(lines(25))
    file.close()
    assert contents(log) == [lines(*range(25)), lines(25)]


def test_reopen(tmp_path: Path) -> None:
    """What is written afterwards is in the new file; where there is none it stays as it was."""
    log, old = tmp_path / "log", tmp_path / "old"
    file = opened(log)
    file.write(lines(1))
    log.rename(old)
    file.reopen()
    assert log.exists()
    log.unlink()
    log.mkdir()
    with pytest.raises(LogFileError):
        file.reopen()
    log.rmdir()
    file.write(lines(2))
    file.close()
    assert (old.read_bytes(), log.read_bytes()) == (lines(1), lines(2))


@pytest.mark.parametrize("tail", [b"half of a rec", b"\0" * 70_000, b"half\0\0", b"x" * 200_000])
@pytest.mark.parametrize("before", [b"", lines(1, 2)])
def test_a_torn_record_is_cut_off(tmp_path: Path, before: bytes, tail: bytes) -> None:
    """When the file is opened: what a killed process or a crashed file system left at the end."""
    log = tmp_path / "log"
    log.write_bytes(before + tail)
    file = opened(log)
    file.write(lines(3))
    file.close()
    assert log.read_bytes() == before + lines(3)
    assert file.repaired == len(tail)


@pytest.mark.root
@pytest.mark.parametrize("rotates", [False, True])
def test_a_full_disk(tmp_path: Path, rotates: bool) -> None:
    """No record is cut and none is lost: what found no room waits, and is next."""
    with tmpfs(tmp_path / "disk", "64k") as disk:
        log, ballast = disk / "log", disk / "ballast"
        rotation = Rotation(max_size=20_000, max_file=9) if rotates else None
        file = LogFile(str(log), rotation=rotation)
        file.open()
        ballast.write_bytes(b"x" * 30_000)
        number = 0
        with pytest.raises(OSError, match="No space") as caught:
            while True:
                number += 100
                file.write(lines(*range(number - 100, number)))
        assert caught.value.errno == errno.ENOSPC
        assert file.waiting
        assert b"".join(contents(log)) + bytes(file._rest) == lines(*range(number))
        with pytest.raises(OSError, match="No space"):
            file.flush()
        ballast.unlink()
        file.flush()
        file.write(lines(number))
        file.close()
        assert b"".join(contents(log)) == lines(*range(number + 1))


@pytest.mark.parametrize(
    "kind, word", [("directory", "directory"), ("fifo", "regular"), ("link", "symbolic")]
)
def test_what_is_no_log(tmp_path: Path, kind: str, word: str) -> None:
    """A directory, a FIFO, a link that is not to be followed: said, and nothing waits."""
    log = tmp_path / "log"
    if kind == "directory":
        log.mkdir()
    elif kind == "fifo":
        os.mkfifo(log)
    else:
        log.symlink_to(tmp_path / "elsewhere")
    file = LogFile(str(log), nofollow=True)
    with pytest.raises(LogFileError) as caught:
        file.open()
    assert word in str(caught.value).lower()
    assert caught.value.path == str(log)
    file.close()


# -- SIGKILL -----------------------------------------------------------------------------------

KILLED = r"""
import os, signal, sys
from pyshimio.logging import LogFile, Rotation, _kernel

base, compress, most = sys.argv[1], sys.argv[2] == "compress", int(sys.argv[3])
torn = sys.argv[4] == "torn"
CALLS = ("open", "close", "write", "rename", "unlink", "stat", "fstat", "pread", "read",
         "ftruncate", "listdir")

def write(directory, numbers, kill_before):
    calls = 0
    def counted(real):
        def call(*args):
            nonlocal calls
            calls += 1
            if calls == kill_before:
                if torn and real is os.write:
                    real(args[0], args[1][: len(args[1]) * 2 // 3])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)
        return call
    for name in CALLS:
        setattr(_kernel, name, counted(getattr(_kernel, name)))
    rotation = Rotation(max_size=60, max_file=most, compress=compress)
    log = LogFile(f"{directory}/log", rotation=rotation)
    said = os.open(f"{directory}/said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log.open()
    for first in numbers:
        log.write(b"".join(b"%09d\n" % number for number in range(first, first + 3)))
        os.write(said, b"%d\n" % (first + 2))
    log.close()

def child(*args):
    pid = os.fork()
    if not pid:
        try:
            write(*args)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

for k in range(1, 10_000):
    directory = f"{base}/{k}"
    os.mkdir(directory)
    ended = child(directory, range(0, 45, 3), k)
    assert child(directory, range(100, 106, 3), 0) == 0, k
    print(k, ended)
    if ended == 0:
        break
"""


@pytest.mark.slow
@pytest.mark.parametrize("most", [3, 50])
@pytest.mark.parametrize("compress", ["compress", "plain"])
@pytest.mark.parametrize("how", ["before", "torn"])
def test_killed_before_each_call(tmp_path: Path, compress: str, most: int, how: str) -> None:
    """What was acknowledged is there once, whole, in its order, and as long as it is kept.

    Also when two thirds of what a call writes are on the disk by then.
    """
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, compress, str(most), how],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = [line.split() for line in done.stdout.splitlines()]
    assert len(ends) > 50
    assert {status for _, status in ends[:-1]} == {"-9"}
    for name, _ in ends:
        _check(tmp_path / name, most)


def _check(directory: Path, most: int) -> None:
    files = contents(directory / "log")
    assert len(files) <= most
    found = [int(line) for file in files for line in file.splitlines()]
    assert b"".join(files) == lines(*found), directory
    said = [int(line) for line in (directory / "said").read_text().split()]
    acknowledged = [number for last in said for number in range(last - 2, last + 1)]
    # Beside those there may be some of the three that were being written.
    begun = max([number for number in acknowledged if number < 100], default=-1)
    known = [n for n in found if n in set(acknowledged)]
    assert {*found} - {*known} <= {begun + 1, begun + 2, begun + 3}, directory
    assert found == sorted(set(found)), directory
    kept = acknowledged[acknowledged.index(known[0]) :]
    assert known == kept, directory
    if most == 50 or len(files) < most:
        assert known == acknowledged, directory
    leftovers = {path.name for path in directory.iterdir()} - {"log", "said"}
    assert all(name.removesuffix(".gz")[-1].isdigit() for name in leftovers), leftovers
