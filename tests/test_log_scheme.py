"""``log+NAME:``: the same drivers within the process that has the child."""

from __future__ import annotations

import errno
import json
import os
import threading
from contextlib import suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import Stdio, StdioURI, create_io
from pyshimio.errors import LogFileError, LogOptionError, UnknownDriverError, UnknownSchemeError
from pyshimio.logging._rotation import numbered
from pyshimio.logging._scheme import DriverSink, scheme
from support.children import GUARD, until
from support.mounts import tmpfs

if TYPE_CHECKING:
    from pathlib import Path


def entries(path: Path) -> list[tuple[str, str]]:
    """Streams and texts of a json-file, with its old files."""
    found: list[tuple[str, str]] = []
    for name in [*numbered(str(path)), str(path)]:
        with open(name, encoding="utf-8") as file:
            found += [(entry["stream"], entry["log"]) for entry in map(json.loads, file)]
    return found


async def test_a_json_file(tmp_path: Path) -> None:
    """Both streams share one driver, whose files hold every line once."""
    log = tmp_path / "log"
    async with await create_io(f"log+json-file://{log}") as io:
        await io.spawn(["sh", "-c", "echo out; echo err >&2; printf tail"])
        result = await io.drain()
    assert result.complete
    assert sorted(entries(log)) == [("stderr", "err\n"), ("stdout", "out\n"), ("stdout", "tail")]


async def test_rotation_under_a_flood(tmp_path: Path) -> None:
    """Nothing is lost or out of order; the old files are compressed when the child has ended."""
    log = tmp_path / "log"
    uri = f"log+json-file://{log}?max-size=200k&max-file=50"
    async with await create_io(Stdio(stdout=uri)) as io:
        await io.spawn(["seq", "20000"])
        assert (await io.drain()).complete
    assert entries(log) == [("stdout", f"{number}\n") for number in range(1, 20_001)]
    assert len(numbered(str(log))) >= 5


async def test_two_streams_in_two_logs(tmp_path: Path) -> None:
    """Each URI has a driver of its own."""
    out, err = tmp_path / "out", tmp_path / "err"
    stdio = Stdio(stdout=f"log+cri://{out}?utc=true", stderr=f"log+raw://{err}")
    async with await create_io(stdio) as io:
        await io.spawn(["sh", "-c", "echo out; printf err >&2"])
        assert (await io.drain()).complete
    assert out.read_text().endswith("Z stdout F out\n")
    assert err.read_text() == "err"


async def test_reopen(tmp_path: Path) -> None:
    """As for every log file."""
    log, old = tmp_path / "log", tmp_path / "old"
    async with await create_io(f"log+cri://{log}") as io:
        await io.spawn(
            ["sh", "-c", f"echo one; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo two"]
        )
        await until(lambda: log.stat().st_size > 0)
        log.rename(old)
        await io.reopen()
        (tmp_path / "go").touch()
        assert (await io.drain()).complete
    assert old.read_text().endswith("F one\n")
    assert log.read_text().endswith("F two\n")


@pytest.mark.root
async def test_a_ring_never_stops_the_child(tmp_path: Path) -> None:
    """Its disk is full: the child ends all the same, and the log says what it misses."""
    with tmpfs(tmp_path / "disk", "512k") as disk:
        log, ballast = disk / "log", disk / "ballast"
        ballast.write_bytes(b"x" * 480_000)
        uri = f"log+raw://{log}?mode=non-blocking&max-buffer-size=64k"
        async with await create_io(Stdio(stdout=uri)) as io:
            process = await io.spawn(["seq", "1000000"])
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
            ballast.unlink()
            result = await io.drain()
        assert not result.complete
        assert result.stdout is not None
        *lines, last = log.read_bytes().splitlines()
    assert last == b"1000000"
    told = [line for line in lines if line.startswith(b"pyshimio dropped ")]
    assert len(lines) + 1 - len(told) + sum(int(line.split()[2]) for line in told) == 1_000_000
    there = sum(len(line) + 1 for line in [*lines, last] if line not in told)
    whole = sum(len(f"{number}\n") for number in range(1, 1_000_001))
    assert result.stdout.dropped == whole - there


async def test_a_ring_whose_driver_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it refuses is counted as what any other driver does."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log = tmp_path / "log"
    async with await create_io(Stdio(stdout=f"log+raw://{log}?mode=non-blocking")) as io:
        monkeypatch.setattr("pyshimio.logging._kernel.write", refuse)
        await io.spawn(["printf", "one\\ntwo"])
        result = await io.drain()
    assert result.stdout is not None
    assert result.stdout.dropped == 7


@pytest.mark.root
@pytest.mark.parametrize("mode", ["?mode=non-blocking", ""])
async def test_the_end_on_a_full_disk(tmp_path: Path, mode: str) -> None:
    """What a stream ends with waits as all else does; and whoever closes does not."""
    with tmpfs(tmp_path / "disk", "512k") as disk:
        log, ballast = disk / "log", disk / "ballast"
        async with await create_io(Stdio(stdout=f"log+raw://{log}{mode}")) as io:
            ballast.write_bytes(b"x" * 500_000)
            full = disk / "full"
            with suppress(OSError), open(full, "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 1000)
            process = await io.spawn(["sh", "-c", "seq 5000; printf tail"])
            await until(lambda: bool(process.exited))
            with anyio.move_on_after(0.3):
                await io.drain()
            full.unlink()
            ballast.unlink()
            assert (await io.drain()).complete
        assert log.read_bytes().endswith(b"5000\ntail")
        io = await create_io(Stdio(stdout=f"log+raw://{log}{mode}"))
        with suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 1000)
        await io.spawn(["sh", "-c", "seq 5000; printf tail"])
        with anyio.move_on_after(0.3):
            await io.drain()
        io.close()
        await until(lambda: not any(t.name == "pyshimio log" for t in threading.enumerate()))


def on_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DriverSink:
    """An open sink: its disk is full when it is first written to, and broken from then on."""
    uri = StdioURI("log+raw", str(tmp_path / "log"))
    sink = scheme.sinks(uri, streams=["stdout"], id="c", namespace="n")["stdout"]
    sink.open()
    codes = chain([errno.ENOSPC], repeat(errno.EIO))

    def fail(*_: object) -> None:
        code = next(codes)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("pyshimio.logging._kernel.write", fail)
    return sink


def test_a_disk_that_is_full_and_then_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had waited for room is counted when it is lost."""
    sink = on_a_failing_disk(tmp_path, monkeypatch)
    assert sink.write([b"waits\n"]) == 6
    assert sink.dropped == 0
    sink.write([b""])
    monkeypatch.undo()
    sink.flush()
    assert sink.dropped == 6


def test_what_waits_is_lost_with_what_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is broken by then, both are counted."""
    sink = on_a_failing_disk(tmp_path, monkeypatch)
    assert sink.write([b"waits\n" + b"x" * 20_000 + b"\n"]) == 20_007
    monkeypatch.undo()
    assert sink.dropped >= 6 + 16_384
    sink.flush()


async def test_another_packages_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name makes a scheme, too."""
    monkeypatch.syspath_prepend(str(tmp_path))
    info = tmp_path / "one-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: one\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pyshimio.log_drivers]\nmine = shouts:Shouts\n")
    (tmp_path / "shouts.py").write_text(
        "from pyshimio.logging._plain import Raw\n"
        "class Shouts(Raw):\n"
        "    def encode(self, batch):\n"
        "        return super().encode(batch).upper()\n"
    )
    log = tmp_path / "log"
    async with await create_io(f"log+mine://{log}") as io:
        await io.spawn(["echo", "hello"])
        assert (await io.drain()).complete
    assert log.read_text() == "HELLO\n"


async def test_a_tee(tmp_path: Path) -> None:
    """Both logs have all of it, each in its own format."""
    raw, cri = tmp_path / "raw", tmp_path / "cri"
    uri = f"log+raw://{raw}?tee.driver=cri&tee.log-path={cri}&tee.utc=true&max-buffer-size=8m"
    async with await create_io(uri) as io:
        await io.spawn(["sh", "-c", "seq 10000; echo err >&2"])
        assert (await io.drain()).complete
    lines = [b"%d" % number for number in range(1, 10_001)] + [b"err"]
    assert sorted(raw.read_bytes().splitlines()) == sorted(lines)
    assert sorted(line.split(b" ", 3)[3] for line in cri.read_bytes().splitlines()) == sorted(lines)


async def test_a_second_log_that_cannot_be_opened(tmp_path: Path) -> None:
    """It is said, and the first one is closed again."""
    uri = f"log+raw://{tmp_path}/raw?tee.driver=raw&tee.log-path=/no/such/directory/x"
    with pytest.raises(LogFileError, match="/no/such"):
        await create_io(uri)


async def test_an_abandoned_ring(tmp_path: Path) -> None:
    """Whoever closes does not wait, and its thread ends."""
    io = await create_io(f"log+raw://{tmp_path}/log?mode=non-blocking")
    io.close()
    await until(lambda: not any(t.name == "pyshimio log" for t in threading.enumerate()))


@pytest.mark.parametrize(
    "uri, error, word",
    [
        ("log+json-file:///x?max-size=0", LogOptionError, "max-size"),
        ("log+json-file:///x?size=1", LogOptionError, "size"),
        ("log+json-file:///x?tag=a&tag=b", LogOptionError, "twice"),
        ("log+raw:", LogOptionError, "log-path"),
        ("log+raw:///x?driver=cri", LogOptionError, "twice"),
        ("log+raw:///x?mode=some", LogOptionError, "non-blocking"),
        ("log+raw:///x?drop=oldest", LogOptionError, "drop"),
        ("log+no-such:///x", UnknownDriverError, "json-file"),
        ("log:///x", UnknownSchemeError, "log+"),
        (
            "log+raw:///x?tee.driver=raw&tee.log-path=/y&tee.max-line=1",
            LogOptionError,
            "tee.max-line",
        ),
        ("log+json-file:///no/such/directory/x", LogFileError, "/no/such"),
    ],
)
async def test_what_is_wrong(uri: str, error: type[Exception], word: str) -> None:
    """It is said before anything starts."""
    with pytest.raises(error) as caught:
        await create_io(uri)
    assert word in str(caught.value)


async def test_a_driver_that_nobody_has() -> None:
    """The scheme alone says so, too."""
    with pytest.raises(UnknownDriverError, match="json-file"):
        scheme.sinks(StdioURI("log+mine", "/x"), streams=["stdout"], id="", namespace="")


@pytest.mark.root
async def test_a_full_disk(tmp_path: Path) -> None:
    """The child waits as long as it is full, and nothing is lost or cut."""
    with tmpfs(tmp_path / "disk", "512k") as disk:
        log, ballast = disk / "log", disk / "ballast"
        ballast.write_bytes(b"x" * 480_000)
        async with await create_io(Stdio(stdout=f"log+raw://{log}")) as io:
            process = await io.spawn(["seq", "60000"])
            await until(lambda: log.exists() and log.stat().st_size > 8000)
            assert not process.exited
            ballast.write_bytes(b"")
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
            assert (await io.drain()).complete
        assert log.read_text() == "".join(f"{number}\n" for number in range(1, 60_001))


@pytest.mark.parametrize("text, lost", [("out\\n", 4), ("tail", 4), ("out\\ntail", 8)])
async def test_a_driver_that_fails_costs_its_records_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, lost: int
) -> None:
    """The child goes on; what was refused is counted as dropped, also what it ended with."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log = tmp_path / "log"
    async with await create_io(Stdio(stdout=f"log+raw://{log}")) as io:
        monkeypatch.setattr("pyshimio.logging._kernel.write", refuse)
        process = await io.spawn(["printf", text])
        assert await process.wait() == 0
        result = await io.drain()
    assert result.stdout is not None
    assert result.stdout.dropped == lost


async def test_closed_before_anything_is_written(tmp_path: Path) -> None:
    """Nothing is left open."""
    io = await create_io(f"log+json-file://{tmp_path}/log")
    io.close()
    io.close()


def test_a_stream_ends_once(tmp_path: Path) -> None:
    """However often it is told so, the other one's driver stays open."""
    log = tmp_path / "log"
    sinks = scheme.sinks(
        StdioURI("log+raw", str(log)), streams=["stdout", "stderr"], id="c", namespace="n"
    )
    sinks["stdout"].open()
    for _ in range(3):
        sinks["stderr"].flush()
        sinks["stderr"].close()
        sinks["stderr"].close()
    sinks["stdout"].write([b"tail"])
    sinks["stdout"].flush()
    assert log.read_bytes() == b"tail"
    assert sinks["stdout"].dropped == 0


def test_a_sink_says_what_it_is(tmp_path: Path) -> None:
    """In words; and an end in the middle of a write closes when the write returns."""
    uri = StdioURI("log+raw", str(tmp_path / "log"))
    sinks = scheme.sinks(uri, streams=["stdout", "stderr"], id="c", namespace="n")
    sink = sinks["stdout"]
    assert isinstance(sink, DriverSink)
    assert "stdout" in repr(sink)
    assert "Raw" in repr(sink)
    assert sink.driver is sinks["stderr"].driver
    sink.open()
    assert sink.write([b"one\n", b"two"]) == 7
    sinks["stderr"].close()
    assert not repr(sink.driver._file).endswith("closed>")  # type: ignore[attr-defined]
    with sink._shared:
        sink.close()  # the loop has no time to wait for this thread
        assert not repr(sink.driver._file).endswith("closed>")  # type: ignore[attr-defined]
    assert repr(sink.driver._file).endswith("closed>")  # type: ignore[attr-defined]
    sink.open()
    sink.reopen()
    assert sink.write([b"late\n"]) == 5
    assert sink.dropped == len("twolate\n")
    assert repr(sink.driver._file).endswith("closed>")  # type: ignore[attr-defined]
