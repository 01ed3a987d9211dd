"""Logs whose files change under the reader: each line once, whatever moment that is."""

from __future__ import annotations

import gzip
import os
import shutil
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from pyshimio.logging import Batch, Copier, LogInfo, LogLine, Problem, read_log
from pyshimio.logging._cri import Cri
from pyshimio.logging._follow import Follower
from pyshimio.logging._json_file import JsonFile
from pyshimio.logging._reader import Reader
from pyshimio.logging._tape import Tape
from support.children import GUARD, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

BEGIN = 1_763_687_965_000_000_000
SECOND = 1_000_000_000


def cri(*texts: str, at: int = BEGIN, stream: str = "stdout") -> bytes:
    """Whole lines of a CRI log, all of one time."""
    driver = Cri(LogInfo("c", options={"log-path": "/x", "utc": "true"}))
    return driver.encode(Batch(stream, at, "".join(f"{text}\n" for text in texts).encode()))


def piece(tag: str, text: str, at: int = BEGIN) -> bytes:
    """A part of a line."""
    return cri(text, at=at).replace(b" F ", f" {tag} ".encode())


class Looks:
    """A log that is followed, a look at a time."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.problems: list[Problem] = []
        self.reader = Reader(str(path), problem=self.problems.append, **options)
        self.first = self._texts(self.reader.lines(keep=True))
        self.follower = Follower(self.reader)

    def _texts(self, lines: Iterable[LogLine | None]) -> list[str]:
        return [line.text.decode() for line in lines if line is not None]

    def look(self) -> list[str]:
        """What is new."""
        return self._texts(self.follower.lines())

    def close(self) -> None:
        """Close all files."""
        self.follower.close()
        self.reader.close()


@pytest.fixture
def follow() -> Iterator[Callable[..., Looks]]:
    """Starts to follow a log."""
    made: list[Looks] = []

    def start(path: Path, **options: Any) -> Looks:
        made.append(Looks(path, **options))
        return made[-1]

    yield start
    for looks in made:
        looks.close()


def read(path: Path, **options: Any) -> list[str]:
    """All lines that are there."""
    reader = Reader(str(path), **options)
    found = [line.text.decode() for line in reader.lines() if line is not None]
    reader.close()
    return found


# -- renamed -----------------------------------------------------------------------------------


def test_kubelet_renames_and_reopens(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """Between the two the directory has no file that is written, and no life comes again."""
    (tmp_path / "0.log").write_bytes(cri("a0", "a1"))
    (tmp_path / "1.log").write_bytes(cri("b0", at=BEGIN + SECOND))
    looks = follow(tmp_path)
    assert looks.first == ["a0", "a1", "b0"]
    (tmp_path / "1.log").rename(tmp_path / "1.log.20261126-101112")
    assert looks.look() == []
    assert read(tmp_path) == ["a0", "a1", "b0"]
    (tmp_path / "1.log").write_bytes(cri("b1", at=BEGIN + 2 * SECOND))
    assert looks.look() == ["b1"]
    assert looks.problems == []


def test_docker_renames_and_creates(tmp_path: Path) -> None:
    """The same in a directory of docker's."""
    (tmp_path / "abc-json.log.1").write_bytes(cri("a"))
    assert read(tmp_path) == ["a"]


def test_an_empty_file_is_rotated_and_compressed(
    tmp_path: Path, follow: Callable[..., Looks]
) -> None:
    """What was printed is not printed again."""
    log = tmp_path / "log"
    (tmp_path / "log.1.gz").write_bytes(gzip.compress(cri("old")))
    log.touch()
    looks = follow(log)
    assert looks.first == ["old"]
    (tmp_path / "log.1.gz").rename(tmp_path / "log.2.gz")
    (tmp_path / "log.1.gz").write_bytes(gzip.compress(b""))
    log.unlink()
    log.write_bytes(cri("new"))
    assert looks.look() == ["new"]


def test_ours_is_gone(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """Then what is behind the one before it is new, and no more."""
    log = tmp_path / "log"
    (tmp_path / "log.1").write_bytes(cri("old"))
    log.write_bytes(cri("ours"))
    looks = follow(log)
    (tmp_path / "log.1").rename(tmp_path / "log.2")
    (tmp_path / "log.1").write_bytes(cri("between"))
    log.unlink()
    log.write_bytes(cri("new"))
    assert looks.look() == ["between", "new"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("step", [-300, 0, 1])
def test_clocks_say_nothing_of_the_order(
    tmp_path: Path, follow: Callable[..., Looks], step: int, *, compressed: bool
) -> None:
    """Two rotations between two looks, with a clock that was set back, or stands."""
    log = tmp_path / "log"
    log.write_bytes(cri("one"))
    looks = follow(log)
    log.rename(tmp_path / "log.2")
    (tmp_path / "log.1").write_bytes(cri("two", at=BEGIN + step * SECOND))
    log.write_bytes(cri("three", at=BEGIN + 2 * step * SECOND))
    if compressed:
        for name in ("log.1", "log.2"):
            path = tmp_path / name
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    assert looks.look() == ["two", "three"]


def test_pieces_of_one_line_in_three_files(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """All of them have the same time and begin with the same bytes."""
    encode = JsonFile(LogInfo("c", options={"log-path": "/x"})).encode
    copier = Copier("stdout")
    one, two, three = [encode(batch) for batch in copier.feed(b"x" * 3 * 16384, BEGIN)]
    assert one == two == three
    end = b"".join(encode(batch) for batch in copier.feed(b"!\n", BEGIN + 1))
    log = tmp_path / "log"
    log.write_bytes(one)
    looks = follow(log)
    log.rename(tmp_path / "log.2")
    (tmp_path / "log.1").write_bytes(two)
    log.write_bytes(three + end)
    assert looks.look() == ["x" * 3 * 16384 + "!"]


def test_followed_for_years(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """Neither descriptors nor memory of old files are left, and their bytes are counted."""
    log = tmp_path / "log"
    log.write_bytes(cri("0"))
    looks = follow(log)
    for number in range(1, 60):
        log.replace(tmp_path / "log.1")
        log.write_bytes(cri(str(number)))
        before = looks.reader.bytes_read
        assert looks.look() == [str(number)]
        assert looks.reader.bytes_read > before
    assert len(looks.reader._tapes) < 10
    assert sum(not tape.closed for tape in looks.reader._tapes) == 1


def test_a_writer_that_is_slow_to_leave(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """A life is not left as long as it is written and the next one has said nothing."""
    (tmp_path / "0.log").write_bytes(cri("a"))
    looks = follow(tmp_path)
    with open(tmp_path / "0.log", "ab", buffering=0) as writer:
        (tmp_path / "1.log").touch()
        assert looks.look() == []
        writer.write(cri("late"))
        assert looks.look() == ["late"]
    (tmp_path / "1.log").write_bytes(cri("b"))
    assert looks.look() == ["b"]


@pytest.mark.parametrize("what", ["fifo", "link"])
def test_what_cannot_be_opened_is_said_once(
    tmp_path: Path, follow: Callable[..., Looks], what: str
) -> None:
    """And is read when it can be; a link is not followed where that was asked."""
    log = tmp_path / "log"
    log.write_bytes(cri("one"))
    looks = follow(log, nofollow=True)
    log.rename(tmp_path / "log.1")
    if what == "fifo":
        os.mkfifo(log)
    else:
        (tmp_path / "secret").write_bytes(cri("secret"))
        log.symlink_to("secret")
    for _ in range(3):
        assert looks.look() == []
    log.unlink()
    assert len(looks.problems) == 1
    log.write_bytes(cri("two"))
    assert looks.look() == ["two"]


def test_begun_while_it_is_being_rotated(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """The writer has not heard of the new file yet: the old one is the one to follow."""
    log = tmp_path / "log"
    with open(log, "ab", buffering=0) as writer:
        writer.write(cri("a"))
        log.rename(tmp_path / "log.1")
        log.touch()
        looks = follow(log)
        assert looks.first == ["a"]
        writer.write(cri("late"))
        assert looks.look() == ["late"]
    log.write_bytes(cri("b"))
    assert looks.look() == ["b"]


def test_an_inode_that_is_used_again(tmp_path: Path) -> None:
    """A new file is not taken for one that is gone."""
    one = Tape(str(_file(tmp_path / "one", cri("one", "more"))))
    two = Tape(str(_file(tmp_path / "two", cri("two"))))
    mine = one.identity()
    assert mine.is_of(one)
    again = attrs.evolve(mine, inode=two.inode)
    assert not again.is_of(two)
    one.close()
    two.close()


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_torn_end_is_said(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """Of a file that is left, as when it is read without following."""
    log = tmp_path / "log"
    log.write_bytes(cri("a") + b"half of a rec")
    looks = follow(log)
    log.rename(tmp_path / "log.1")
    log.write_bytes(cri("b"))
    assert looks.look() == ["b"]
    assert ["13 bytes at the end" in problem.reason for problem in looks.problems] == [True]


def test_what_is_being_written_is_not_torn(tmp_path: Path) -> None:
    """It is read up to where it was, and the rest is no damage."""
    log = tmp_path / "log"
    log.write_bytes(cri("x" * 100) * 1000)
    reader = Reader(str(log))
    lines = reader.lines()
    next(lines)
    append(log, cri("y" * 100) * 1000)
    problems: list[Problem] = []
    reader._problem = problems.append
    rest = [line.text for line in lines if line is not None]
    assert rest == [b"x" * 100] * 999
    assert problems == []
    reader.close()


# -- copied and truncated ----------------------------------------------------------------------


def copy_and_truncate(log: Path, suffix: str = ".1") -> None:
    """As logrotate does it."""
    for number in (3, 2, 1):
        old = log.with_name(f"{log.name}.{number}")
        if old.exists():
            old.rename(log.with_name(f"{log.name}.{number + 1}"))
    shutil.copy(log, f"{log}{suffix}")
    os.truncate(log, 0)


def append(log: Path, data: bytes) -> None:
    """More."""
    with open(log, "ab") as file:
        file.write(data)


@pytest.mark.parametrize("keep", [False, True])
def test_truncated_while_old_files_are_read(tmp_path: Path, *, keep: bool) -> None:
    """Nothing of the file was read yet, and all of it comes from the copy."""
    log = tmp_path / "log"
    (tmp_path / "log.1").write_bytes(cri("old"))
    log.write_bytes(cri("a0", "a1"))
    reader = Reader(str(log))
    lines = reader.lines(keep=keep)
    assert next(lines).text == b"old"  # type: ignore[union-attr]
    copy_and_truncate(log)
    append(log, cri("b0"))
    rest = [line.text for line in lines if line is not None]
    # (Read to where the file ended when it was begun, or on and on.)
    assert rest[:2] == [b"a0", b"a1"]
    assert rest[2:] in ([b"b0"], [])
    reader.close()


@pytest.mark.parametrize("options", [{}, {"tail": 0}, {"tail": 1}])
def test_truncated_twice_between_two_looks(
    tmp_path: Path, follow: Callable[..., Looks], options: dict[str, int]
) -> None:
    """All copies since are read, also when nothing was printed yet."""
    log = tmp_path / "log"
    log.write_bytes(cri("a0"))
    looks = follow(log, **options)
    append(log, cri("a1"))
    copy_and_truncate(log)
    append(log, cri("mid"))
    copy_and_truncate(log)
    append(log, cri("end"))
    assert looks.look() == ["a1", "mid", "end"]
    assert looks.problems == []


def test_truncated_and_then_renamed(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """Its own file is no copy of it."""
    log = tmp_path / "log"
    log.write_bytes(cri("a0"))
    looks = follow(log)
    append(log, cri("a1"))
    copy_and_truncate(log)
    append(log, cri("b"))
    (tmp_path / "log.1").rename(tmp_path / "log.2")
    log.rename(tmp_path / "log.1")
    log.write_bytes(cri("c"))
    assert looks.look() == ["a1", "b", "c"]


def test_truncated_behind_our_back(
    tmp_path: Path, follow: Callable[..., Looks], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment after it was looked at, and grown beyond our place by the next look."""
    log = tmp_path / "log"
    log.write_bytes(cri("a0"))
    looks = follow(log)
    append(log, cri("a1"))
    real = Tape.has
    done: list[bool] = []

    def has(tape: Tape, mark: Any) -> bool:
        found = real(tape, mark)
        if not done:
            done.append(True)
            copy_and_truncate(log)
        return found

    monkeypatch.setattr(Tape, "has", has)
    assert looks.look() == ["a1"]
    append(log, cri(*"bcdefgh"))
    assert looks.look() == [*"bcdefgh"]


def test_truncated_in_the_middle_of_a_record(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """What is in the copy goes on where our half of it ends."""
    log = tmp_path / "log"
    whole = cri("a0", "a1")
    log.write_bytes(whole[:-7])
    looks = follow(log)
    assert looks.first == ["a0"]
    append(log, whole[-7:])
    copy_and_truncate(log)
    append(log, cri("b"))
    assert looks.look() == ["a1", "b"]


def test_truncated_without_a_copy(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """What is lost is said."""
    log = tmp_path / "log"
    log.write_bytes(cri("a0"))
    looks = follow(log)
    append(log, cri("a1"))
    os.truncate(log, 0)
    append(log, cri("b"))
    assert looks.look() == ["b"]
    assert "truncated" in looks.problems[0].reason


# -- where to begin ----------------------------------------------------------------------------


def test_since_and_a_line_that_goes_on_for_long(tmp_path: Path) -> None:
    """Its pieces are of the time when it began, and hide nothing of what came meanwhile."""
    encode = JsonFile(LogInfo("c", options={"log-path": "/x"})).encode
    copier = Copier("stderr")
    now = BEGIN + 1000 * SECOND
    log = tmp_path / "log"
    data = b"".join(encode(batch) for batch in copier.feed(b"x" * 20_000, BEGIN))
    for text in (b"old\n", b"recent\n", b"recent2\n"):
        at = BEGIN if text == b"old\n" else now
        data += encode(Batch("stdout", at, text))
        data += b"".join(encode(batch) for batch in copier.feed(b"x" * 20_000, at))
    log.write_bytes(data)
    assert read(log, window=_since(now)) == ["recent", "recent2"]
    assert read(log, window=_since(now), tail=5) == ["recent", "recent2"]


def _since(moment: int, until: int | None = None) -> Any:
    from pyshimio.logging._lines import Window  # noqa: PLC0415

    return Window(since=moment, until=until)


@pytest.mark.parametrize("compress", [False, True])
def test_a_line_that_a_rotation_has_cut(tmp_path: Path, *, compress: bool) -> None:
    """The last lines, and those since a time, are whole ones."""
    log = tmp_path / "log"
    old = cri("before", at=BEGIN) + piece("P", "first half ", BEGIN + 5 * SECOND)
    if not compress:
        (tmp_path / "log.1").write_bytes(old)
        (tmp_path / "log.2.gz").write_bytes(gzip.compress(cri("older")))
    else:
        (tmp_path / "log.1.gz").write_bytes(gzip.compress(old))
    half = piece("P", "second ", BEGIN + 10 * SECOND) + piece("F", "half", BEGIN + 30 * SECOND)
    log.write_bytes(half + cri("after", at=BEGIN + 31 * SECOND))
    if not compress:
        assert read(log, tail=2) == ["first half second half", "after"]
        assert read(log, window=_since(BEGIN + 20 * SECOND)) == ["after"]
    assert read(log, tail=3)[-3:] == ["before", "first half second half", "after"]
    assert read(log, window=_since(BEGIN + 4 * SECOND)) == ["first half second half", "after"]


def test_a_long_line_is_one_of_the_last(tmp_path: Path) -> None:
    """As long as it is not longer than what is kept of any."""
    log = tmp_path / "log"
    encode = Cri(LogInfo("c", options={"log-path": "/x"})).encode
    copier = Copier("stdout", peeks=True)
    batches = [*copier.feed(b"x" * 3_200_000 + b"\n", BEGIN)]
    log.write_bytes(cri("before") + b"".join(map(encode, batches)))
    assert read(log, tail=1) == ["x" * 3_200_000]


def test_links(tmp_path: Path, follow: Callable[..., Looks]) -> None:
    """Old files are beside what a link leads to, and a link's link."""
    pods, docker = tmp_path / "pods", tmp_path / "docker"
    pods.mkdir()
    docker.mkdir()
    (docker / "abc-json.log.1").write_bytes(cri("old"))
    (docker / "abc-json.log").write_bytes(cri("new"))
    (pods / "0.log").symlink_to(docker / "abc-json.log")
    link = tmp_path / "link.log"
    link.symlink_to("pods/0.log")
    for path in (link, pods / "0.log", pods):
        assert read(path) == ["old", "new"]
    looks = follow(link)
    for number, text in enumerate(("three", "four"), 1):
        for name in ("abc-json.log.2", "abc-json.log.1", "abc-json.log"):
            stem, _, old = name.partition(".log")
            if (docker / name).exists():
                (docker / name).rename(docker / f"{stem}.log.{int(old[1:] or 0) + 1}")
        (docker / "abc-json.log").write_bytes(cri(text, at=BEGIN + number))
    assert looks.look() == ["three", "four"]


def test_dates_with_a_dot(tmp_path: Path) -> None:
    """A number with the digits of a day is one (logrotate's ``dateformat .%Y%m%d``)."""
    log = tmp_path / "log"
    (tmp_path / "log.20261124").write_bytes(cri("a"))
    (tmp_path / "log.20261125.gz").write_bytes(gzip.compress(cri("b")))
    log.write_bytes(cri("c"))
    assert read(log) == ["a", "b", "c"]


def test_old_files_stay_closed(tmp_path: Path) -> None:
    """If a newer one begins before the time that is asked for, or later than the last."""
    log = tmp_path / "log"
    (tmp_path / "log.1.gz").write_bytes(gzip.compress(os.urandom(1 << 20)))
    lines = [cri(str(n), at=BEGIN + n * SECOND) for n in range(50_000)]
    log.write_bytes(b"".join(lines))
    for options in (
        {"window": _since(BEGIN + 49_990 * SECOND)},
        {"window": _since(BEGIN + 10 * SECOND, BEGIN + 19 * SECOND), "tail": 10},
    ):
        reader = Reader(str(log), **options)
        found = [line for line in reader.lines() if line is not None]
        reader.close()
        assert len(found) == 10
        assert reader.bytes_read < 20 << 16


# -- bad input ---------------------------------------------------------------------------------


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    """It is one more line that is no record."""
    log = tmp_path / "log"
    good = b'{"log":"x\\n","stream":"stdout","time":"2025-11-21T01:19:25Z"}\n'
    log.write_bytes(good + b"[" * 100_000 + b"\n" + good)
    problems: list[Problem] = []
    assert read(log, problem=problems.append) == ["x", "x"]
    assert len(problems) == 1


@pytest.mark.parametrize("compressed", [False, True])
def test_garbage_without_a_newline(tmp_path: Path, *, compressed: bool) -> None:
    """It is reported, and not kept; what follows is read."""
    name = "log.1.gz" if compressed else "log.1"
    garbage = cri("a") + b"x" * (40 << 20) + b"\n" + cri("b")
    (tmp_path / name).write_bytes(gzip.compress(garbage, 1) if compressed else garbage)
    (tmp_path / "log").write_bytes(cri("c"))
    problems: list[Problem] = []
    assert read(tmp_path / "log", problem=problems.append) == ["a", "b", "c"]
    assert ["too long" in problem.reason for problem in problems] == [True]


# -- the end -----------------------------------------------------------------------------------


async def test_the_end_of_a_time(tmp_path: Path) -> None:
    """What is followed until a time ends when that has passed, also if nothing comes."""
    log = tmp_path / "log"
    log.write_bytes(cri("a"))
    with anyio.fail_after(GUARD):
        async with read_log(str(log), follow=True, until=BEGIN + SECOND) as stream:
            assert [line.text async for line in stream] == [b"a"]


async def test_no_end_within_a_rotation(tmp_path: Path) -> None:
    """The path is missing for a moment, and nobody has the old file open: that is no end."""
    log = tmp_path / "log"
    log.write_bytes(cri("a"))
    found: list[bytes] = []
    ended = anyio.Event()

    async def follow() -> None:
        async with read_log(str(log), follow=True, until_unwritten=True) as stream:
            async for line in stream:
                found.append(line.text)
        ended.set()

    with open(log, "ab", buffering=0), anyio.fail_after(GUARD):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await until(lambda: found == [b"a"])
            log.rename(tmp_path / "log.1")
            with anyio.move_on_after(0.5):  # several looks
                await ended.wait()
            assert not ended.is_set()
            log.write_bytes(cri("b"))
    assert found == [b"a", b"b"]
