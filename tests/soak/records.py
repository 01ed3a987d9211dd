"""What a child writes: numbered records, so that each byte says where it belongs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

RECORD = b"%08x %010d soak-record\n"
SIZE = 32
NEEDLE = 2 * SIZE
LINE = re.compile(rb"([^\n]*)(\n|$)")


MOST = 40_000
MARK = b"########"
# One text to copy from: thousands of small objects for each stream would leave the heap in
# pieces, and the soak looks at how much memory there is.
_TEMPLATE = b"".join((RECORD % (0, number)).replace(b"00000000", MARK, 1) for number in range(MOST))


def stream(mark: int, count: int) -> bytes:
    """The whole of a stream of at most MOST records."""
    return _TEMPLATE[: count * SIZE].replace(MARK, b"%08x" % mark)


def missing(whole: bytes, got: bytes) -> int:
    """How many bytes of *whole* are not in *got*, which may have gaps and nothing else.

    Raises:
        AssertionError: *got* has something twice, out of order, or made up.
    """
    position = at = 0
    while at < len(got):
        length = _common(whole, position, got, at)
        position += length
        at += length
        if at < len(got):
            # A gap: what follows it stands somewhere further on.
            found = whole.find(got[at : at + NEEDLE], position)
            assert found >= 0, f"byte {at} is not from this stream, or not in order: " + repr(
                got[max(0, at - SIZE) : at + NEEDLE]
            )
            position = found
    return len(whole) - len(got)


def _common(whole: bytes, position: int, got: bytes, at: int) -> int:
    """How far the two agree."""
    length = min(len(whole) - position, len(got) - at)
    if whole[position : position + length] == got[at : at + length]:
        return length
    low, high = 0, length
    while high - low > 1:
        middle = (low + high) // 2
        if whole[position : position + middle] == got[at : at + middle]:
            low = middle
        else:
            high = middle
    return low


def joined(mark: int, parts: Iterable[bytes]) -> bytes:
    """A log in several files as one: a line that only the next file could end is ended.

    Bytes that were dropped may be gone with a rotation between them and those before, and then
    the next file begins with a record of its own, not with the rest of the last one.
    """
    beginning = b"%08x " % mark
    whole = bytearray()
    for part in filter(None, parts):
        anew = part.startswith(beginning) or beginning.startswith(part)
        if whole and not whole.endswith(b"\n") and anew:
            whole += b"\n"
        whole += part
    return bytes(whole)


def kept(mark: int, got: bytes) -> tuple[int, int]:
    """What is left of a stream that lost lines: whole records, and beginnings of some.

    A line that was cut is ended by a newline of the library's own, which does not count.

    Returns:
        Bytes of the stream, and how many of them may not be: a record that lost only its own
        newline looks like a whole one.

    Raises:
        AssertionError: Something else is there, or not in order.
    """
    count = whole = gaps = cuts = 0
    last = -1
    for match in LINE.finditer(got):
        line, end = match.groups()
        if not match[0]:  # the end
            break
        if end and len(line) == SIZE - 1:
            whole += 1
        else:
            cuts += 1
        number = int(line[9:19]) if len(line) >= 19 else last + 1
        assert number > last, f"record {number} behind {last}"
        known = len(line) if len(line) >= 19 else min(len(line), 9)
        assert (RECORD % (mark, number))[:known] == line[:known], f"{line!r} is not from here"
        gaps += number != last + 1
        if len(line) >= 19:
            last = number
        count += len(line)
    return count + whole, gaps + bool(cuts)
