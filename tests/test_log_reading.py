"""Logs read back: formats, old files, tails and times, damage, and following through anything."""

from __future__ import annotations

import errno
import gzip
import math
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyshimio.errors import InvalidOptionError, LogFileError
from pyshimio.logging import Batch, Copier, LogFile, LogInfo, LogLine, Problem, Rotation, read_log
from pyshimio.logging._cri import Cri
from pyshimio.logging._json_file import JsonFile
from pyshimio.logging._lines import Window
from pyshimio.logging._parse import detect, nanoseconds
from pyshimio.logging._reader import Reader
from pyshimio.logging._tape import BLOCK, Tape
from pyshimio.logging._times import rfc3339
from support.children import GUARD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

BEGIN = 1_763_687_965_000_000_000
SECOND = 1_000_000_000
FORMATS = pytest.mark.parametrize("form", ["json-file", "cri"])


def encoder(form: str) -> Callable[[Batch], bytes]:
    """How a driver writes a batch."""
    if form == "cri":
        return Cri(LogInfo("c", options={"log-path": "/x", "utc": "true"})).encode
    return JsonFile(LogInfo("c", options={"log-path": "/x"})).encode


def written(form: str, *records: tuple[str, str, int]) -> bytes:
    """A file of whole lines: stream, text, time."""
    encode = encoder(form)
    return b"".join(
        encode(Batch(stream, time, f"{text}\n".encode())) for stream, text, time in records
    )


def numbered(form: str, numbers: Iterable[int], stream: str = "stdout") -> bytes:
    """A line for each number, a second apart."""
    return written(form, *((stream, f"{n}", BEGIN + n * SECOND) for n in numbers))


async def read(path: Path, **options: Any) -> list[LogLine]:
    """All lines that are there."""
    with anyio.fail_after(GUARD):
        async with read_log(str(path), **options) as log:
            return [line async for line in log]


async def texts(path: Path, **options: Any) -> list[str]:
    """What they say."""
    return [line.text.decode() for line in await read(path, **options)]


def strings(numbers: Iterable[int]) -> list[str]:
    """Numbers as they stand in the logs."""
    return [str(number) for number in numbers]


# -- formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, form, piece",
    [
        (
            b'{"log":"\\u003cb\\u003e\\n","stream":"stdout","attrs":{"a":"b"},"time":"%b"}'
            % b"2025-11-21T01:19:25.5Z",
            "json-file",
            (b"<b>", "stdout", BEGIN + SECOND // 2, True, {"a": "b"}),
        ),
        (
            b'{"log":"nerdctl","stream":"stderr","time":"2025-11-21T01:19:25Z"}',
            "json-file",
            (b"nerdctl", "stderr", BEGIN, False, {}),
        ),
        (
            b"2025-11-21T01:19:25.000000001Z stdout F a  b",
            "cri",
            (b"a  b", "stdout", BEGIN + 1, True, {}),
        ),
        (
            b"2025-11-21T02:19:25.500000000+01:00 stderr P:x \xff",
            "cri",
            (b"\xff", "stderr", BEGIN + SECOND // 2, False, {}),
        ),
        (b"2025-11-21T01:19:25Z stdout F ", "cri", (b"", "stdout", BEGIN, True, {})),
    ],
)
def test_formats(line: bytes, form: str, piece: tuple[Any, ...]) -> None:
    """docker's, nerdctl's, containerd's and conmon's."""
    found = detect(line)
    assert found is not None
    assert found.name == form
    one = found.parse(line)
    assert (one.text, one.stream, one.time, one.ended, dict(one.attributes)) == piece


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"text", b"{}", b"[1]", b'{"log":1,"time":"2025-11-21T01:19:25Z"}', b'{"time":"x"}'),
        *(b"2025-11-21T01:19:25Z stdin F x", b"2025-11-21T01:19:25Z stdout X x"),
        *(b"2025-13-21T01:19:25Z stdout F x", b"2025-11-21 stdout F x", b"\xff stdout F x"),
        *(b"2025-11-21T01:19:25 stdout F x", b"2025-11-21T01:19:25+1:00 stdout F x"),
    ],
)
def test_what_is_no_format(line: bytes) -> None:
    """Nobody's."""
    assert detect(line) is None


@given(st.integers(0, 2**62))
def test_times_are_read_back(moment: int) -> None:
    """To the nanosecond."""
    assert nanoseconds(rfc3339(moment)) == moment


@given(st.lists(st.binary(max_size=60)), st.integers(1, 30))
def test_what_was_written_is_read(lines: list[bytes], cap: int) -> None:
    """Each line of CRI comes back as the bytes that it was, however it was cut."""
    encode = encoder("cri")
    lines = [line.replace(b"\n", b"").rstrip(b"\r") for line in lines]
    copier = Copier("stdout", cap=cap, peeks=True)
    data = b"".join(line + b"\n" for line in lines)
    batches = [*copier.feed(data, BEGIN), *copier.finish(BEGIN)]
    reader = Reader("/x")
    found: list[LogLine] = []
    for line in b"".join(map(encode, batches)).split(b"\n")[:-1]:
        for piece in reader.pieces("/x", 0, line):
            if (one := reader.joiner.add(piece)) is not None:
                found.append(one)
    assert [line.text for line in found] == lines


# -- files -------------------------------------------------------------------------------------


@FORMATS
async def test_old_files_in_their_order(tmp_path: Path, form: str) -> None:
    """Docker's numbers, gzipped ones too, then the file itself."""
    log = tmp_path / "log"
    (tmp_path / "log.3.gz").write_bytes(gzip.compress(numbered(form, range(10))))
    (tmp_path / "log.2.gz").write_bytes(gzip.compress(numbered(form, range(10, 20))))
    (tmp_path / "log.1").write_bytes(numbered(form, range(20, 30)))
    (tmp_path / "log.1.gz").write_bytes(b"half of it")  # by whoever was killed
    (tmp_path / "log.old").write_bytes(b"none of ours")
    log.write_bytes(numbered(form, range(30, 40)))
    assert await texts(log) == strings(range(40))


async def test_kubelets_files(tmp_path: Path) -> None:
    """Times behind the name, and restarts one after the other."""
    (tmp_path / "0.log.20261126-101112.gz").write_bytes(gzip.compress(numbered("cri", range(5))))
    (tmp_path / "0.log.20261126-111112").write_bytes(numbered("cri", range(5, 10)))
    (tmp_path / "0.log").write_bytes(numbered("cri", range(10, 15)))
    (tmp_path / "10.log").write_bytes(numbered("cri", range(15, 20)))
    (tmp_path / "9.log").write_bytes(b"")
    assert await texts(tmp_path) == strings(range(20))
    assert await texts(tmp_path / "0.log") == strings(range(15))
    assert await texts(tmp_path, tail=7) == strings(range(13, 20))


async def test_logrotates_dates(tmp_path: Path) -> None:
    """``dateext``, with and without a time, compressed or not."""
    log = tmp_path / "x.log"
    log.write_bytes(numbered("cri", [4]))
    names = ("x.log-20261124.gz", "x.log-20261125-1764028800.gz", "x.log-20261126")
    for number, name in enumerate(names):
        data = numbered("cri", [number + 1])
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    for name in ("x.log-2026", "x.log-backup", "x.log-20261126.bak", "y.log-20261126"):
        (tmp_path / name).write_bytes(numbered("cri", [9]))
    assert await texts(log) == strings(range(1, 5))


async def test_lives_of_a_container(tmp_path: Path) -> None:
    """What one has left of a line is not joined to what the next one begins with."""
    (tmp_path / "0.log").write_bytes(numbered("cri", [0]) + b"2025-11-21T01:19:25Z stdout P tail\n")
    (tmp_path / "1.log").write_bytes(numbered("cri", [1]))
    found = await read(tmp_path)
    assert [(line.text, line.complete) for line in found] == [
        (b"0", True),
        (b"tail", False),
        (b"1", True),
    ]
    assert await texts(tmp_path, tail=2) == ["tail", "1"]


async def test_the_last_lines_and_an_end_without_one(tmp_path: Path) -> None:
    """What has no newline is one of them."""
    log = tmp_path / "log"
    log.write_bytes(numbered("cri", range(5)) + b"2025-11-21T01:19:25Z stdout P tail\n")
    assert await texts(log, tail=2) == ["4", "tail"]
    assert await texts(log, tail=0) == []


async def test_a_line_that_never_ends(tmp_path: Path) -> None:
    """It comes in parts, and the last one alone is complete."""
    log = tmp_path / "log"
    encode = encoder("cri")
    copier = Copier("stdout", peeks=True)
    block = b"x" * (1 << 20)
    with open(log, "wb") as file:
        for number in range(40):
            file.writelines(encode(batch) for batch in copier.feed(block, BEGIN + number))
        file.writelines(encode(batch) for batch in copier.feed(b"\n", BEGIN + 40))
    found = await read(log)
    assert sum(len(line.text) for line in found) == 40 << 20
    assert max(len(line.text) for line in found) <= 17 << 20
    assert [line.complete for line in found] == [False, False, True]
    assert found[1].time > found[0].time


async def test_pieces_have_the_time_of_the_first(tmp_path: Path) -> None:
    """What another stream wrote meanwhile is found by its time all the same."""
    log = tmp_path / "log"
    encode = encoder("json-file")
    copier = Copier("stdout")
    with open(log, "wb") as file:
        file.write(numbered("json-file", [0]))
        for number in range(1, 100):  # an hour's line, and every half minute one of the other
            file.writelines(
                encode(batch) for batch in copier.feed(b"x" * 65_536, BEGIN + number * SECOND)
            )
            file.write(numbered("json-file", [number], "stderr"))
    for number in (3, 37, 50, 99):
        moment = BEGIN + number * SECOND
        assert await texts(log, since=moment, stream="stderr") == strings(range(number, 100))


async def test_dockers_directory(tmp_path: Path) -> None:
    """The one json-file in it."""
    (tmp_path / "abc-json.log").write_bytes(numbered("json-file", range(3)))
    (tmp_path / "config.v2.json").touch()
    assert await texts(tmp_path) == strings(range(3))


@pytest.mark.parametrize("what", ["missing", "empty directory", "fifo", "text", "link"])
async def test_what_is_no_log(tmp_path: Path, what: str) -> None:
    """A clear error, and nothing waits."""
    log = tmp_path / "log"
    options: dict[str, Any] = {}
    if what == "empty directory":
        log.mkdir()
    elif what == "fifo":
        os.mkfifo(log)
    elif what == "text":
        log.write_text("this is\nno log\n")
    elif what == "link":
        (tmp_path / "target").write_bytes(numbered("cri", [1]))
        log.symlink_to(tmp_path / "target")
        options = {"nofollow": True}
    with pytest.raises(LogFileError) as caught:
        await read(log, **options)
    assert str(log) in str(caught.value)


async def test_an_empty_log(tmp_path: Path) -> None:
    """Has no lines, which is no error."""
    (tmp_path / "log").touch()
    assert await read(tmp_path / "log") == []
    with pytest.raises(InvalidOptionError):
        read_log("x", tail=-1)


# -- which lines -------------------------------------------------------------------------------

RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.sampled_from(["whole", "cut", "long"]),
        st.integers(0, 3 * SECOND),
    ),
    max_size=40,
)


def _file(
    form: str, records: list[tuple[str, str, int]]
) -> tuple[bytes, list[tuple[str, bytes, int]]]:
    """A file, and the lines in it: stream, text, time."""
    encode = encoder(form)
    found = b""
    lines: list[tuple[str, bytes, int]] = []
    now = BEGIN
    for number, (stream, kind, step) in enumerate(records):
        now += step
        text = b"%d %b" % (number, b"x" * {"whole": 1, "cut": 100, "long": 9000}[kind])
        copier = Copier(stream, cap=64 if kind == "cut" else 16384, peeks=form == "cri")
        found += b"".join(map(encode, copier.feed(text + b"\n", now)))
        lines.append((stream, text, now))
    return found, lines


@FORMATS
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(records=RECORDS, data=st.data())
def test_any_part_of_a_log(
    tmp_path: Path, form: str, records: list[Any], data: st.DataObject
) -> None:
    """Tails, times and streams, over several files: what reading all and choosing gives."""
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    cut = data.draw(st.integers(0, len(records)))
    content, lines = _file(form, records)
    older, _ = _file(form, records[:cut])
    (tmp_path / "log").write_bytes(content[len(older) :])
    if older:
        old = data.draw(st.sampled_from(["log.1", "log.1.gz"]))
        (tmp_path / old).write_bytes(gzip.compress(older) if old.endswith("gz") else older)
    moments = st.one_of(
        st.none(),
        st.integers(BEGIN - SECOND, BEGIN + 60 * SECOND),
        st.sampled_from([*(line[2] for line in lines), BEGIN]),
    )
    since, until = data.draw(moments), data.draw(moments)
    stream = data.draw(st.sampled_from([None, "stdout", "stderr"]))
    tail = data.draw(st.one_of(st.none(), st.integers(0, 50)))
    window = Window(since=since, until=until, stream=stream)
    reader = Reader(str(tmp_path / "log"), tail=tail, window=window, problem=_fail)
    found = [(line.stream, line.text, line.time) for line in filter(None, reader.lines())]
    expected = [
        line
        for line in lines
        if (since is None or line[2] >= since)
        and (until is None or line[2] <= until)
        and stream in {None, line[0]}
    ]
    assert found == (
        expected if tail is None else expected[len(expected) - min(tail, len(expected)) :]
    )


def _fail(problem: Problem) -> None:
    raise AssertionError(str(problem))


@FORMATS
async def test_how_little_is_read(tmp_path: Path, form: str) -> None:
    """A place in a large file is found by halving it, and its last lines from its end."""
    log = tmp_path / "log"
    count = 200_000
    log.write_bytes(numbered(form, range(count)))
    size = log.stat().st_size
    allowed = 65536 * math.ceil(math.log2(size))
    for options, expected in (
        ({"tail": 10}, range(count - 10, count)),
        ({"since": BEGIN + (count - 100) * SECOND}, range(count - 100, count)),
        (
            {"since": BEGIN + 5000 * SECOND, "until": BEGIN + 5009 * SECOND},
            range(5000, 5010),
        ),
    ):
        with anyio.fail_after(GUARD):
            async with read_log(str(log), **options) as stream:  # type: ignore[arg-type]
                assert [line.text.decode() async for line in stream] == strings(expected)
                assert stream.bytes_read <= allowed < size, options


async def test_gzip_files_that_are_too_old_stay_closed(tmp_path: Path) -> None:
    """Docker's note in their header says so; a damaged one that need not be read is no problem."""
    log = tmp_path / "log"
    rotation = Rotation(max_size=2000, max_file=9, compress=True, last_time=lambda: rfc3339(newest))
    file = LogFile(str(log), rotation=rotation)
    file.open()
    newest = 0
    for number in range(60):
        newest = BEGIN + number * SECOND
        file.write(numbered("json-file", [number]))
    file.close()
    (oldest,) = sorted(tmp_path.glob("log.*.gz"))[-1:]
    data = oldest.read_bytes()
    oldest.write_bytes(data[:-20])
    problems: list[Problem] = []
    since = BEGIN + 50 * SECOND
    assert await texts(log, since=since, problem=problems.append) == strings(range(50, 60))
    assert problems == []
    assert (await texts(log, problem=problems.append))[-10:] == strings(range(50, 60))
    assert [problem.path for problem in problems] == [str(oldest)]


# -- damage ------------------------------------------------------------------------------------


@FORMATS
async def test_damaged_lines_are_left_out(tmp_path: Path, form: str) -> None:
    """Each is said with its place; NULs before a record do not cost the record."""
    log = tmp_path / "log"
    parts = [
        numbered(form, [0]),
        b"torn half of a rec\n",
        b"\0" * 5000 + numbered(form, [1]),
        b"\0" * 10 + b"\n",
        b"\n",
        numbered(form, [2]),
        b"2025-11-21T01:1",
    ]
    log.write_bytes(b"".join(parts))
    problems: list[Problem] = []
    async with read_log(str(log), problem=problems.append) as stream:
        assert [line.text.decode() async for line in stream] == strings(range(3))
        assert stream.skipped == 4
    reasons = [problem.reason for problem in problems]
    assert len(reasons) == 5
    assert "torn half" in reasons[0]
    assert "5000 bytes are zero" in reasons[1]
    assert "15 bytes at the end" in reasons[-1]
    assert problems[0].offset == len(parts[0]) + len(parts[1])
    assert str(log) in str(problems[0])


async def test_damaged_files_are_left_out(tmp_path: Path) -> None:
    """One that cannot be opened, one that is cut short: what is there comes."""
    log = tmp_path / "log"
    log.write_bytes(numbered("cri", [9]))
    (tmp_path / "log.1").mkdir()
    whole = gzip.compress(numbered("cri", range(5000)))
    (tmp_path / "log.2.gz").write_bytes(whole[: len(whole) // 2])
    problems: list[Problem] = []
    found = await texts(log, problem=problems.append)
    assert found == [*strings(range(len(found) - 1)), "9"]
    assert 100 < len(found) < 5000
    assert {problem.path for problem in problems} == {f"{log}.1", f"{log}.2.gz"}


# -- following ---------------------------------------------------------------------------------


async def follow(
    log: Path, count: int, change: Callable[[], Any], *, begun: int = 1, **options: Any
) -> list[str]:
    """Follow until there are *count* lines; *change* runs in a thread as soon as one is there."""
    found: list[str] = []
    with anyio.fail_after(GUARD):
        async with read_log(str(log), follow=True, problem=_fail, **options) as stream:
            async with anyio.create_task_group() as group:
                if not begun:
                    group.start_soon(anyio.to_thread.run_sync, change)
                async for line in stream:
                    found.append(line.text.decode())
                    if len(found) == begun:
                        group.start_soon(anyio.to_thread.run_sync, change)
                    if len(found) == count:
                        break
    return found


def append(log: Path, numbers: Iterable[int]) -> None:
    """More lines."""
    with open(log, "ab") as file:
        file.write(numbered("cri", numbers))


@pytest.mark.parametrize(
    "how", ["renamed", "copied and truncated", "copied, compressed", "removed", "compressed"]
)
async def test_followed_through_anything(tmp_path: Path, how: str) -> None:
    """Each line once, in its order, also those that the old file got at the last moment."""
    log = tmp_path / "log"
    # Old ones, which were read before and must not be read again.
    append(tmp_path / "log.8", range(3))
    (tmp_path / "log.7.gz").write_bytes(gzip.compress(numbered("cri", range(3, 5))))
    append(log, range(5, 10))

    def change() -> None:
        append(log, range(10, 20))
        if how == "renamed":
            log.rename(tmp_path / "log.1")
            append(tmp_path / "log.1", range(20, 25))
        elif how == "copied and truncated":
            append(log, range(20, 25))
            shutil.copy(log, tmp_path / "log.1")
            os.truncate(log, 0)
        elif how == "copied, compressed":
            append(log, range(20, 25))
            (tmp_path / "log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
            os.truncate(log, 0)
        elif how == "compressed":
            append(log, range(20, 25))
            (tmp_path / "log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
            log.unlink()
        else:
            append(log, range(20, 25))
            log.unlink()
        append(log, range(25, 40))

    assert await follow(log, 40, change) == strings(range(40))


async def test_followed_into_the_next_life(tmp_path: Path) -> None:
    """Kubelet's directory: a container that is started again has another log."""
    append(tmp_path / "3.log", range(5))

    def change() -> None:
        append(tmp_path / "3.log", range(5, 10))
        with open(tmp_path / "3.log", "ab") as file:
            file.write(b"2025-11-21T01:19:25Z stdout P crashed\n")
        append(tmp_path / "4.log.20261126-101112", range(10, 15))  # rotated in the same moment
        append(tmp_path / "4.log", range(15, 20))
        append(tmp_path / "5.log", range(20, 25))

    found = await follow(tmp_path, 26, change)
    assert found == [*strings(range(10)), "crashed", *strings(range(10, 25))]


@pytest.mark.parametrize("options", [{}, {"tail": 2}, {"since": BEGIN + SECOND}])
async def test_a_hole(
    tmp_path: Path, options: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Many NULs, as after a truncation under a writer that does not append, is skipped."""
    log = tmp_path / "log"
    with open(log, "wb") as file:
        file.write(numbered("cri", [0, 1]))
        file.seek(1 << 27)
        file.write(numbered("cri", [2]))
    problems: list[Problem] = []
    found = await texts(log, problem=problems.append, **options)
    assert found == strings(range(3))[-2 if options else 0 :]
    assert all("bytes are zero" in problem.reason for problem in problems)
    assert len(problems) < 3
    assert "stuck" not in caplog.text


def test_a_hole_takes_no_memory(tmp_path: Path) -> None:
    """In either direction two blocks of it are all that is kept."""
    log = tmp_path / "log"
    line = numbered("cri", [2])
    with open(log, "wb") as file:
        file.write(numbered("cri", [1]))
        file.seek(1 << 24)
        file.write(line)
    tape = Tape(str(log))
    forwards, backwards = list(tape.lines()), list(tape.before(tape.size))
    tape.close()
    assert [place for place, _ in forwards] == [len(line), (1 << 24) + len(line)]
    assert [place for place, _ in backwards] == [len(line), 0]
    for _, text in (forwards[1], backwards[0]):
        assert text is not None
        assert text.lstrip(b"\0") + b"\n" == line
        assert len(text) <= 2 * BLOCK + len(line)


async def test_followed_across_a_hole(tmp_path: Path) -> None:
    """It is no line that is yet to end."""
    log = tmp_path / "log"
    append(log, [0])

    def change() -> None:
        with open(log, "r+b") as file:
            file.seek(1 << 28)
            file.write(numbered("cri", [1, 2]))

    problems: list[Problem] = []
    with anyio.fail_after(GUARD):
        async with read_log(str(log), follow=True, problem=problems.append) as stream:
            assert (await anext(stream)).text == b"0"
            await anyio.to_thread.run_sync(change)
            assert [(await anext(stream)).text for _ in range(2)] == [b"1", b"2"]


async def test_several_rotations_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files between the one that was read and the one that is written are read, too."""
    log = tmp_path / "log"
    append(log, range(5))

    def change() -> None:
        for first in range(5, 25, 5):
            for number in (3, 2, 1):
                if (tmp_path / f"log.{number}").exists():
                    (tmp_path / f"log.{number}").rename(tmp_path / f"log.{number + 1}")
            log.rename(tmp_path / "log.1")
            append(log, range(first, first + 5))

    monkeypatch.setattr("pyshimio.logging.reading.PAUSE", 0.3)
    assert await follow(log, 25, change) == strings(range(25))


async def test_followed_at_full_speed(tmp_path: Path) -> None:
    """A driver that rotates and compresses all the time, and nothing is lost or comes twice."""
    log = tmp_path / "log"
    count = 30_000
    rotation = Rotation(max_size=100_000, max_file=100, compress=True)
    file = LogFile(str(log), rotation=rotation)
    file.open()

    def write() -> None:
        for first in range(0, count, 100):
            file.write(numbered("cri", range(first, first + 100)))
        file.close()

    assert await follow(log, count, write, begun=0) == strings(range(count))
    assert file.rotations > 5


async def test_followed_until_nobody_writes(tmp_path: Path) -> None:
    """It ends when the writer has gone, with what was left of a line."""
    log = tmp_path / "log"
    with open(log, "ab", buffering=0) as writer:
        writer.write(numbered("cri", range(3)))

        def end() -> None:
            writer.write(numbered("cri", [3]) + b"2025-11-21T01:19:25Z stdout P tail\n")
            writer.close()

        found: list[LogLine] = []
        with anyio.fail_after(GUARD):
            async with read_log(str(log), follow=True, until_unwritten=True) as stream:
                async for line in stream:
                    found.append(line)
                    if len(found) == 3:
                        await anyio.to_thread.run_sync(end)
    assert [line.text for line in found] == [b"0", b"1", b"2", b"3", b"tail"]
    assert [line.complete for line in found] == [True, True, True, True, False]


async def test_followed_from_its_last_lines(tmp_path: Path) -> None:
    """A tail first, and then what comes; up to a time, if that is asked for."""
    log = tmp_path / "log"
    append(log, range(100))
    assert await follow(log, 7, partial(append, log, range(100, 105)), tail=2) == strings(
        range(98, 105)
    )
    until = BEGIN + 107 * SECOND
    with anyio.fail_after(GUARD):
        async with read_log(str(log), follow=True, tail=1, until=until) as stream:
            found = [(await anext(stream)).text]
            append(log, range(105, 120))
            found += [line.text async for line in stream]
    assert found == [b"104", b"105", b"106", b"107"]


async def test_a_log_that_is_yet_to_come(tmp_path: Path) -> None:
    """A file without a line is followed as any other."""
    log = tmp_path / "log"
    log.touch()
    assert await follow(log, 3, partial(append, log, range(3)), begun=0) == strings(range(3))


async def test_closed_by_another_task(tmp_path: Path) -> None:
    """Whoever waits for a line is told."""
    log = tmp_path / "log"
    append(log, range(3))
    stream = read_log(str(log), follow=True)
    with anyio.fail_after(GUARD):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                await anext(stream)

            async def wait() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await anext(stream)

            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()
    await stream.aclose()


async def test_cancelled_while_it_follows(tmp_path: Path) -> None:
    """Nothing is left open."""
    log = tmp_path / "log"
    append(log, range(3))
    with anyio.move_on_after(0.3) as scope:
        async with read_log(str(log), follow=True) as stream:
            async for _ in stream:
                pass
    assert scope.cancelled_caught


def test_an_error_of_the_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no end of the log."""
    log = tmp_path / "log"
    append(log, range(3))

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    reader = Reader(str(log))
    monkeypatch.setattr("pyshimio.logging._kernel.pread", fail)
    with pytest.raises(OSError, match="Input/output"):
        list(reader.lines())
