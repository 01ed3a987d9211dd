"""json-files of ours that a real dockerd reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyshimio.logging import Batch, Block, Copier, LogInfo, find_driver
from pyshimio.logging._times import rfc3339
from support.dockerd import Dockerd, dockerd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.runtime("dockerd", "docker", "runc", "busybox"), pytest.mark.slow]

EPOCH = 1_763_687_965_000_000_000
SECOND = 1_000_000_000
COUNT = 5000
OPTIONS = ("--log-opt", "max-size=100k", "--log-opt", "max-file=9", "--log-opt", "compress=true")


@pytest.fixture
def daemon() -> Iterator[Dockerd]:
    """A dockerd."""
    with dockerd() as running:
        yield running


def line(number: int) -> bytes:
    """One of each kind: plain, with what is escaped, in UTF-8, ended by a carriage return."""
    kinds = (b"plain", b'<b>&"\\\t\x1b[1m', "\u2028äöü€😀".encode(), b"end\r")
    return b"%d %b\n" % (number, kinds[number % len(kinds)])


def write(log: Path, data: list[tuple[int, bytes]], **options: str) -> None:
    """Our driver's files in the place of docker's own: the times and bytes of each read."""
    log.unlink()
    given = {"log-path": str(log), **options}
    driver = find_driver("json-file")(LogInfo("c", options=given))
    driver.open()
    block = Block(driver)
    copier = Copier("stdout")
    for when, piece in data:
        for batch in copier.feed(piece, when):
            block.put(batch)
    for batch in copier.finish(data[-1][0]):
        block.put(batch)
    block.finish()
    assert block.error is None


def test_rotated_and_compressed(daemon: Dockerd) -> None:
    """All of it, the last lines, those since and until a time, and the times themselves."""
    log = daemon.container(*OPTIONS)
    lines = [line(number) for number in range(COUNT)]
    reads = [(EPOCH + number * SECOND, text) for number, text in enumerate(lines)]
    options = {"max-size": "100k", "max-file": "9", "compress": "true"}
    write(log, reads, **options)
    names = sorted(os.listdir(log.parent))
    assert f"{log.name}.1.gz" in names
    assert f"{log.name}.4.gz" in names
    assert daemon.logs() == b"".join(lines)
    assert daemon.logs("--tail", "700") == b"".join(lines[-700:])
    # (If the oldest file has nothing since then, docker 20.10 leaves out all compressed ones.)
    since, until = rfc3339(EPOCH + 123 * SECOND), rfc3339(EPOCH + 2345 * SECOND)
    assert daemon.logs("--since", since, "--until", until) == b"".join(lines[123:2346])
    since = rfc3339(EPOCH + (COUNT - 9) * SECOND)
    assert daemon.logs("--since", since) == b"".join(lines[-9:])
    stamped = daemon.logs("--timestamps", "--tail", "2").splitlines()
    assert stamped[0].split(b" ", 1)[0] == b"2025-11-21T02:42:43.000000000Z"


def test_pieces_and_what_is_no_utf8(daemon: Dockerd) -> None:
    """A line longer than the cap is one again, and each wrong byte is U+FFFD."""
    log = daemon.container()
    long = b"x" * 50_000 + b"\n"
    write(log, [(EPOCH, b"a\xffb\xe2\x80\n"), (EPOCH, long), (EPOCH, b"\n\ntail")])
    assert daemon.logs() == "a\ufffdb\ufffd\ufffd\n".encode() + long + b"\n\ntail"


def test_attributes(daemon: Dockerd) -> None:
    """``docker logs --details`` shows those that were chosen."""
    log = daemon.container()
    log.unlink()
    info = LogInfo(
        "c",
        labels={"app": "we b", "other": "no"},
        options={"log-path": str(log), "labels": "app", "tag": "<{{.ID}}>"},
    )
    driver = find_driver("json-file")(info)
    driver.open()
    driver.write(Batch("stdout", EPOCH, b"line\n"))
    driver.close()
    assert daemon.logs("--details") == b"app=we+b,tag=%3Cc%3E line\n"
