"""json-file, CRI and the times in them, byte for byte, beside one entry at a time."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyshimio import logging
from pyshimio.errors import LogOptionError
from pyshimio.logging import Batch, Copier, LogInfo, find_driver
from pyshimio.logging._cri import Cri
from pyshimio.logging._json_file import JsonFile, escape
from pyshimio.logging._plain import Raw
from pyshimio.logging._times import rfc3339
from pyshimio.testing.strategies import byte_streams, chunkings, log_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_763_687_965_144_688_532
LINES = st.lists(log_lines())


def info(**options: str) -> LogInfo:
    """A container with these options of its driver (``_`` for ``-``)."""
    return LogInfo("c1", options={key.replace("_", "-"): value for key, value in options.items()})


# -- json-file ---------------------------------------------------------------------------------


def go_string(data: bytes) -> bytes:
    """What moby's encoder makes of bytes, one by one and slowly."""
    found = bytearray()
    place = 0
    while place < len(data):
        byte = data[place]
        if byte < 0x80:
            if byte in b'\\"':
                found += b"\\" + bytes([byte])
            elif byte == 0x0A:
                found += b"\\n"
            elif byte == 0x0D:
                found += b"\\r"
            elif byte < 0x20 or byte in b"<>&":
                found += b"\\u00" + b"%02x" % byte
            else:
                found.append(byte)
            place += 1
            continue
        for size in (2, 3, 4):
            try:
                character = data[place : place + size].decode()
            except UnicodeDecodeError:
                continue
            if len(character) == 1:
                found += {"\u2028": b"\\u2028", "\u2029": b"\\u2029"}.get(
                    character, character.encode()
                )
                place += size
                break
        else:
            found += b"\\ufffd"
            place += 1
    return bytes(found)


def entry(line: bytes, stream: str, when: str, attrs: bytes = b"") -> bytes:
    """One entry, as moby encodes it."""
    head = b'{"log":"%b",' % go_string(line) if line else b"{"
    return b'%b"stream":"%b",%b"time":"%b"}\n' % (head, stream.encode(), attrs, when.encode())


@given(LINES, st.integers(0, 2**61))
@example([b'ends in ",', b"x"], NOW)
def test_json_file_is_what_moby_writes(lines: list[bytes], when: int) -> None:
    """A batch is what its entries are one at a time."""
    driver = JsonFile(info(log_path="/x"))
    data = b"".join(line + b"\n" for line in lines)
    if data:
        whole = driver.encode(Batch("stdout", when, data))
        assert whole == b"".join(entry(line + b"\n", "stdout", rfc3339(when)) for line in lines)
        for text in whole.splitlines():
            assert json.loads(text)["stream"] == "stdout"
    assert escape(data) == b"".join(go_string(line) + b"\n" for line in lines)


@given(st.text(st.characters(max_codepoint=127, exclude_characters="\n"), max_size=100))
def test_pieces_of_a_line(text: str) -> None:
    """A newline with the last piece alone, and all with the first one's time."""
    driver = JsonFile(info(log_path="/x"))
    line = text.encode()
    copier = Copier("stderr", cap=16)
    batches = [*copier.feed(line, NOW), *copier.feed(b"\n", NOW + 1)]
    entries = [json.loads(entry) for entry in b"".join(map(driver.encode, batches)).splitlines()]
    assert "".join(entry["log"] for entry in entries) == f"{text}\n"
    assert {entry["time"] for entry in entries} == {rfc3339(NOW if len(line) >= 16 else NOW + 1)}
    assert not any(entry["log"].endswith("\n") for entry in entries[:-1])


def pieces_of(data: bytes, cap: int) -> Iterator[tuple[bytes, bool]]:
    """A stream's records as moby's copier has them: the bytes, and whether a newline ends them."""
    *lines, tail = data.split(b"\n")
    for line, ended in (*((line, True) for line in lines), (tail, False)):
        whole = len(line) // cap * cap
        for place in range(0, whole, cap):
            yield line[place : place + cap], False
        if ended or line[whole:]:
            yield line[whole:], ended


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """A stream in its reads, and as a whole."""
    data = draw(byte_streams())
    return draw(chunkings(data)), data


def written(driver: Any, reads: list[bytes]) -> bytes:
    """What a driver makes of a stream that comes in these reads, all at one time."""
    copier = Copier("stdout", cap=driver.cap, peeks=driver.peeks)
    batches = [batch for read in reads for batch in copier.feed(read, NOW)]
    return b"".join(map(driver.encode, [*batches, *copier.finish(NOW)]))


@given(streams(), st.integers(1, 9))
def test_any_stream_is_what_moby_writes(stream: tuple[list[bytes], bytes], cap: int) -> None:
    """Pieces of long lines and the tail included, whatever the reads are."""
    reads, data = stream
    expected = b"".join(
        entry(piece + b"\n" * ended, "stdout", rfc3339(NOW))
        for piece, ended in pieces_of(data, cap)
    )
    assert written(JsonFile(info(log_path="/x", max_line=str(cap))), reads) == expected


@given(streams(), st.integers(1, 9))
def test_any_stream_is_what_containerd_writes(stream: tuple[list[bytes], bytes], cap: int) -> None:
    """A line's end, CR LF or LF, is no part of it; what is longer than the cap is cut."""
    reads, data = stream
    *lines, tail = data.split(b"\n")
    expected = bytearray()
    for line, ended in (*((line, True) for line in lines), (tail, False)):
        rest = line.removesuffix(b"\r") if ended else line
        # (The CR counts until it is known to be the end's: a piece never waits for two bytes.)
        while len(rest) > cap:
            expected += b"%b stdout P %b\n" % (rfc3339(NOW).encode(), rest[:cap])
            rest = rest[cap:]
        if ended or rest:
            tag = b"F" if ended else b"P"
            expected += b"%b stdout %b %b\n" % (rfc3339(NOW).encode(), tag, rest)
    assert written(Cri(info(log_path="/x", utc="true", max_line=str(cap))), reads) == expected


@given(streams(), st.integers(1, 9))
def test_raw_is_the_stream(stream: tuple[list[bytes], bytes], cap: int) -> None:
    """Byte for byte, however it is cut."""
    reads, data = stream
    driver = Raw(info(log_path="/x"))
    driver.cap = cap
    assert written(driver, reads) == data


def test_golden_json() -> None:
    """The line that a real dockerd wrote."""
    container = LogInfo(
        "0123456789abcdef",
        name="/web",
        labels={"app": "web", "other": "no"},
        env=("TENANT_ID=t1", "SERVICE_ID=s1", "HOME=/"),
        options={
            "log-path": "/x",
            "labels": "app",
            "env-regex": "_ID$",
            "tag": "{{.Name}}/{{.ID}}",
        },
    )
    attrs = {"a": "\t<\\u0009"}
    driver = JsonFile(LogInfo("c", labels=attrs, options={"log-path": "/x", "labels": "a"}))
    found = driver.encode(Batch("stdout", NOW, b"\n"))
    assert b'"attrs":{"a":"\\t\\u003c\\\\u0009"},' in found
    line = b'hello <b>&"x\\\xff\xe2\x80\xa8 \x1b[31mred\ttab\r\n'
    assert JsonFile(container).encode(Batch("stdout", NOW, line)) == (
        b'{"log":"hello \\u003cb\\u003e\\u0026\\"x\\\\\\ufffd\\u2028 \\u001b[31mred\\u0009tab'
        b'\\r\\n","stream":"stdout","attrs":{"SERVICE_ID":"s1","TENANT_ID":"t1","app":"web",'
        b'"tag":"web/0123456789ab"},"time":"2025-11-21T01:19:25.144688532Z"}\n'
    )


def test_the_end_without_a_newline() -> None:
    """An entry without one."""
    driver = JsonFile(info(log_path="/x"))
    copier = Copier("stdout")
    assert list(copier.feed(b"tail", NOW)) == []
    (batch,) = copier.finish(NOW)
    assert driver.encode(batch) == entry(b"tail", "stdout", rfc3339(NOW))


# -- CRI ---------------------------------------------------------------------------------------

GOLDEN: list[tuple[list[bytes], int, list[tuple[bytes, bytes]]]] = [
    ([b""], 0, []),
    ([b"\n\n"], 0, [(b"F", b""), (b"F", b"")]),
    ([b"a\r\nb\r\r\n"], 0, [(b"F", b"a"), (b"F", b"b\r")]),
    ([b"a\rb\n"], 0, [(b"F", b"a\rb")]),
    ([b"abc"], 0, [(b"P", b"abc")]),
    ([b"ab", b"c\nde"], 0, [(b"F", b"abc"), (b"P", b"de")]),
    ([b"12345\n"], 5, [(b"F", b"12345")]),
    ([b"123456\n"], 5, [(b"P", b"12345"), (b"F", b"6")]),
    ([b"1234\r\n"], 5, [(b"F", b"1234")]),
    ([b"1234\r5\n"], 5, [(b"P", b"1234\r"), (b"F", b"5")]),
    ([b"1234\r"], 5, [(b"P", b"1234\r")]),
    # (A line's end is no part of it, so these are not too long; containerd's readLine.)
    ([b"12345\r\n"], 5, [(b"F", b"12345")]),
    ([b"12345\r", b"\n", b"1\n"], 5, [(b"F", b"12345"), (b"F", b"1")]),
    ([b"12345\rx\n"], 5, [(b"P", b"12345"), (b"F", b"\rx")]),
    ([b"12345\r"], 5, [(b"P", b"12345"), (b"P", b"\r")]),
    ([b"x" * 16384 + b"\r\n"], 16384, [(b"F", b"x" * 16384)]),
    ([b"x" * 4095 + b"\r\n"], 0, [(b"F", b"x" * 4095)]),
    ([b"x" * 16384 + b"\n"], 16384, [(b"F", b"x" * 16384)]),
    ([b"x" * 16385 + b"\n"], 16384, [(b"P", b"x" * 16384), (b"F", b"x")]),
    ([b"ab\n"], 1, [(b"P", b"a"), (b"F", b"b")]),
    ([b"a\x00b\n"], 0, [(b"F", b"a\x00b")]),
    # (Here containerd's last piece is longer than its cap; ours is not.)
    ([b"12345678901"], 5, [(b"P", b"12345"), (b"P", b"67890"), (b"P", b"1")]),
]


def cri(pieces: list[bytes], cap: int, **options: str) -> bytes:
    """What the driver makes of a stream."""
    driver = Cri(info(log_path="/x", max_line=str(cap), utc="true", **options))
    copier = Copier("stderr", cap=driver.cap, peeks=driver.peeks)
    batches = [batch for piece in pieces for batch in copier.feed(piece, NOW)]
    return b"".join(map(driver.encode, [*batches, *copier.finish(NOW)]))


@pytest.mark.parametrize("pieces, cap, lines", GOLDEN)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_golden_cri(
    pieces: list[bytes], cap: int, lines: list[tuple[bytes, bytes]], one_by_one: bool
) -> None:
    """What containerd's own logger makes of the same, in the same reads and byte by byte."""
    if one_by_one:
        joined = b"".join(pieces)
        pieces = [joined[place : place + 1] for place in range(len(joined))]
    head = b"2025-11-21T01:19:25.144688532Z stderr "
    assert cri(pieces, cap) == b"".join(b"%b%b %b\n" % (head, tag, line) for tag, line in lines)


def test_the_end_of_a_cri_log() -> None:
    """P as containerd has it; F for those who ask for it, and not for the pieces before."""
    assert cri([b"123456"], 5).split(b"\n")[1].split()[2:] == [b"P", b"6"]
    tags = [line.split()[2] for line in cri([b"123456"], 5, final_tag="F").splitlines()]
    assert tags == [b"P", b"F"]


@given(LINES)
def test_cri_is_what_containerd_writes(lines: list[bytes]) -> None:
    """A batch is what its lines are one at a time."""
    driver = Cri(info(log_path="/x", utc="true"))
    if lines:
        data = b"".join(line + b"\n" for line in lines)
        when = rfc3339(NOW).encode()
        assert driver.encode(Batch("stdout", NOW, data)) == b"".join(
            b"%b stdout F %b\n" % (when, line.removesuffix(b"\r")) for line in lines
        )


# -- times -------------------------------------------------------------------------------------


@given(st.integers(0, 2**62))
@example(0)
@example(1_500_000_000)
@example(1_000_000_001)
def test_times(nanoseconds: int) -> None:
    """RFC 3339 with as many digits as there are."""
    text = rfc3339(nanoseconds)
    seconds, fraction = divmod(nanoseconds, 10**9)
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    digits = f".{fraction:09}".rstrip("0").rstrip(".")
    assert text == f"{moment:%Y}".zfill(4) + f"{moment:-%m-%dT%H:%M:%S}{digits}Z"


@pytest.fixture
def _elsewhere() -> Iterator[None]:
    os.environ["TZ"] = "Asia/Kolkata"
    time.tzset()
    yield
    del os.environ["TZ"]
    time.tzset()


@pytest.mark.usefixtures("_elsewhere")
def test_local_times() -> None:
    """With the offset of the zone."""
    assert rfc3339(NOW, local=True) == "2025-11-21T06:49:25.144688532+05:30"
    assert rfc3339(NOW) == "2025-11-21T01:19:25.144688532Z"


# -- what a container is called ----------------------------------------------------------------


def test_attributes_are_chosen() -> None:
    """By name and by pattern, the environment over labels, the tag over both."""
    container = LogInfo(
        "0123456789abcdef",
        namespace="n",
        labels={"a": "1", "ab": "2", "tag": "label", "both": "label"},
        env=("both=env", "empty=", "broken"),
        options={"labels": "a,none", "labels-regex": "b$|tag|both", "env": "both,empty,broken"},
    )
    found = {"a": "1", "ab": "2", "tag": "label", "both": "env", "empty": ""}
    assert container.attributes() == found
    assert LogInfo("c", options={"tag": "{{.Name}}"}).attributes() == {}
    tagged = container.evolve({**container.options, "tag": "{{.ID}} {{ .Namespace }}"})
    assert tagged.attributes() == {**found, "tag": "0123456789ab n"}


@pytest.mark.parametrize(
    "options, word",
    [
        ({"labels-regex": "("}, "labels-regex"),
        ({"tag": "{{.Nothing}}"}, ".FullID"),
        ({"tag": "{{.ID"}, "{{.ID"),
    ],
)
def test_what_is_no_pattern_or_template(options: dict[str, str], word: str) -> None:
    """It is said, by its name."""
    with pytest.raises(LogOptionError) as caught:
        LogInfo("c", options=options).attributes()
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "driver, options, words",
    [
        ("none", {"log-path": "/x"}, ("no option", "log-path", "none")),
        ("raw", {}, ("needs", "log-path", "nofollow")),
        ("raw", {"log-path": "x"}, ("log-path", "absolute", "'x'")),
        ("json-file", {"log-path": "/x", "max-size": "0"}, ("max-size", "'0'")),
        ("json-file", {"log-path": "/x", "max-size": "10x"}, ("max-size", "'10x'")),
        ("json-file", {"log-path": "/x", "max-size": "-1"}, ("max-size", "'-1'")),
        ("json-file", {"log-path": "/x", "max-file": "0"}, ("max-file", "'0'")),
        ("json-file", {"log-path": "/x", "max-file": "9" * 5000}, ("max-file",)),
        ("json-file", {"log-path": "/x", "max-size": "9" * 400}, ("max-size",)),
        ("json-file", {"log-path": "/x", "compress": "true"}, ("compress", "max-size")),
        (
            "json-file",
            {"log-path": "/x", "max-size": "1k", "compress": "true"},
            ("compress", "max-file"),
        ),
        ("json-file", {"log-path": "/x", "compress": "yes"}, ("compress", "'yes'")),
        ("json-file", {"log-path": "/x", "mx-size": "1"}, ("mx-size", "max-size", "max-file")),
        ("json-file", {"log-path": "/x", "max-line": "x"}, ("max-line",)),
        ("cri", {"log-path": "/x", "final-tag": "Q"}, ("final-tag", "'Q'")),
        ("no-such", {}, ("no-such", "cri, json-file, none, raw")),
    ],
)
def test_options_that_are_wrong(driver: str, options: dict[str, str], words: list[str]) -> None:
    """What is wrong is named, and so is what there is."""
    with pytest.raises(LogOptionError) as caught:
        find_driver(driver)(LogInfo("c", options=options))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "text, size",
    [
        ("1", 1),
        ("10b", 10),
        ("1k", 1000),
        ("10m", 10**7),
        ("1.5g", 15 * 10**8),
        ("2 MB", 2 * 10**6),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Docker's units for files are decimal."""
    assert logging.size("max-size", text) == size
