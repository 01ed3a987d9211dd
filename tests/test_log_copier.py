"""Bytes into lines: the same records however the reads fall, for both rules about the cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyshimio.logging import Batch, Copier, Partial, Record
from pyshimio.testing.strategies import byte_streams, chunkings

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = 1_700_000_000_000_000_000


def copied(pieces: Iterable[bytes], *, cap: int, peeks: bool) -> list[Batch]:
    """All batches of a stream that comes in *pieces*."""
    copier = Copier("stdout", cap=cap, peeks=peeks)
    found: list[Batch] = []
    for number, piece in enumerate(pieces):
        found += copier.feed(piece, NOW + number)
    found += copier.finish(NOW)
    assert copier.waiting == 0
    return found


def plain(batches: Iterable[Batch]) -> list[tuple[bytes, int, bool]]:
    """Lines and pieces: bytes, ordinal (0 for a whole line), and whether the line ends."""
    return [
        (record.line, 0, True)
        if record.partial is None
        else (record.line, record.partial.ordinal, record.partial.last)
        for batch in batches
        for record in batch.records()
    ]


def expected(data: bytes, *, cap: int, peeks: bool) -> list[tuple[bytes, int, bool]]:
    """The same, line by line and slowly."""
    lines = data.split(b"\n")
    tail = lines.pop()
    found: list[tuple[bytes, int, bool]] = []
    for number, whole in enumerate([*lines, tail]):
        line, ended = whole, number < len(lines)
        ordinal = 0
        # (With CR LF a line of the cap has a byte more.)
        returns = peeks and ended and line.endswith(b"\r")
        while cap and len(line) - returns >= cap + peeks:
            ordinal += 1
            found.append((line[:cap], ordinal, False))
            line = line[cap:]
        if ended:
            found.append((line, ordinal + 1 if ordinal else 0, True))
        elif line:
            found.append((line, ordinal + 1, False))
    return found


READS = byte_streams().flatmap(chunkings)


@given(READS, st.one_of(st.just(0), st.integers(1, 40)), st.booleans())
@example([b"x" * 5 + b"\n" + b"y" * 6], 5, False)
@example([b"x" * 5 + b"\n" + b"y" * 6], 5, True)
@example([b"\0\0\r\n"], 1, True)
def test_records_do_not_depend_on_the_reads(pieces: list[bytes], cap: int, peeks: bool) -> None:
    """Cut anywhere, the stream gives the records that it has line by line."""
    data = b"".join(pieces)
    batches = copied(pieces, cap=cap, peeks=peeks)
    assert plain(batches) == expected(data, cap=cap, peeks=peeks)
    for batch in batches:
        assert batch.count == len(list(batch.records()))
        if batch.partial is None:
            assert batch.data.endswith(b"\n")
        elif cap:  # a carriage return before the line's end is no part of it
            returns = peeks and batch.partial.last and batch.data.endswith(b"\r")
            assert len(batch.data) <= cap + returns


@pytest.mark.parametrize("peeks", [False, True])
@pytest.mark.parametrize("step", [1, 100, 4096, 65536])
def test_lines_about_the_cap(step: int, peeks: bool) -> None:
    """A byte less, exactly, and a byte more than the cap, in reads of any size."""
    cap = 16384
    data = b"".join(b"%c" % (97 + n) * (cap + n - 1) + b"\n" for n in range(3)) + b"\n" + b"t" * cap
    pieces = [data[place : place + step] for place in range(0, len(data), step)]
    assert plain(copied(pieces, cap=cap, peeks=peeks)) == expected(data, cap=cap, peeks=peeks)


def test_pieces_of_one_line_belong_together() -> None:
    """They share an id and the time of the first, and another long line has another id."""
    batches = copied([b"a" * 10, b"a" * 10, b"\n" + b"b" * 10], cap=8, peeks=False)
    partials = [batch.partial for batch in batches]
    assert all(partial is not None for partial in partials)
    first = [partial for partial in partials[:3] if partial is not None]
    second = [partial for partial in partials[3:] if partial is not None]
    assert {partial.id for partial in first}.isdisjoint({partial.id for partial in second})
    assert len({partial.id for partial in first}) == 1
    assert [partial.begun for partial in first] == [NOW] * 3
    assert [batch.time for batch in batches[:3]] == [NOW, NOW + 1, NOW + 2]
    assert [partial.ordinal for partial in first] == [1, 2, 3]
    assert [partial.last for partial in first] == [False, False, True]
    assert second[-1].ended
    assert not first[0].ended


def test_a_hundred_megabytes_without_a_newline() -> None:
    """No more than a piece and a read are kept."""
    copier = Copier("stdout")
    total = 0
    for _ in range(1600):
        for batch in copier.feed(b"x" * 65536, NOW):
            total += len(batch.data)
        assert copier.waiting <= 16384
    total += sum(len(batch.data) for batch in copier.finish(NOW))
    assert total == 1600 * 65536


def test_severity_is_taken_off_where_it_is_asked_for() -> None:
    """``<N>`` at the beginning of a line, and nowhere else."""
    batch = Batch("stdout", NOW, b"<3>bad\n<8>no\n<3\nx<3>\n<0>\n")
    records = list(batch.records(severity=True))
    assert [(record.severity, record.line) for record in records] == [
        (3, b"bad"),
        (None, b"<8>no"),
        (None, b"<3"),
        (None, b"x<3>"),
        (0, b""),
    ]
    assert next(batch.records()).line == b"<3>bad"
    piece = Batch("stdout", NOW, b"<3>x", Partial("id", 2, last=False, begun=NOW))
    assert list(piece.records(severity=True)) == [Record(b"<3>x", "stdout", NOW, piece.partial)]


def test_what_they_say() -> None:
    """In words, and equal when they are."""
    partial = Partial("id", 1, last=True, begun=NOW)
    assert partial == Partial("id", 1, last=True, begun=NOW) != Partial("i", 1, last=True, begun=0)
    assert len({partial, Partial("id", 1, last=True, begun=NOW)}) == 1
    record = Record(b"x", "stdout", NOW, partial)
    assert record == Record(b"x", "stdout", NOW, partial) != Record(b"y", "stdout", NOW)
    assert len({record, Record(b"x", "stdout", NOW, partial)}) == 1
    assert "id 1 last" in repr(record)
    assert "2 lines" in repr(Batch("stdout", NOW, b"a\nb\n"))
