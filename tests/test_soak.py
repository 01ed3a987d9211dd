"""The soak's own judgement: what it must notice, and that a seed says what will happen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from soak.memory import growth
from soak.records import SIZE, joined, kept, missing, stream

MARK = 0xC0FFEE
WHOLE = stream(MARK, 100)


def test_gaps_are_counted() -> None:
    """What is missing is counted to the byte, wherever it was cut."""
    assert missing(WHOLE, WHOLE) == 0
    assert missing(WHOLE, b"") == len(WHOLE)
    assert missing(WHOLE, WHOLE[:777]) == len(WHOLE) - 777
    assert missing(WHOLE, WHOLE[:500] + WHOLE[777:]) == 277


@pytest.mark.parametrize(
    "got",
    [
        WHOLE + WHOLE[-SIZE:],
        WHOLE[:320] + WHOLE[160:],
        WHOLE[:100] + b"?" + WHOLE[101:],
        stream(MARK + 1, 3),
    ],
    ids=["twice", "back", "changed", "foreign"],
)
def test_what_is_no_gap_is_refused(got: bytes) -> None:
    """Bytes that come twice, too early, changed, or from elsewhere are an error."""
    with pytest.raises(AssertionError):
        missing(WHOLE, got)
    with pytest.raises((AssertionError, ValueError)):
        kept(MARK, got)


def test_cut_lines_are_counted() -> None:
    """A newline that ends a line that was cut is not counted as the stream's."""
    assert kept(MARK, WHOLE) == (len(WHOLE), 0)
    assert kept(MARK, WHOLE[:330] + b"\n" + WHOLE[640:])[0] == len(WHOLE) - 310


@pytest.mark.parametrize("first,second", [(330, 330), (330, 640), (320, 640), (325, 640)])
def test_cut_lines_are_not_glued_by_a_rotation(first: int, second: int) -> None:
    """The next file goes on with the line, or begins with another one; both are understood."""
    parts = [WHOLE[:first], b"", WHOLE[second:]]
    assert kept(MARK, joined(MARK, parts))[0] == len(WHOLE) - (second - first)


def test_growth() -> None:
    """Memory is compared by medians of quarters; the beginning does not count."""
    assert growth([1] * 4 + [100] * 12) == 1.0
    assert growth([1] * 4 + [100] * 8 + [110] * 4) == pytest.approx(1.1)


def soak(*args: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run one round of the soak, after some lines of Python."""
    source = f"{before}\nimport runpy\nrunpy.run_module('soak', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", source, *args],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.slow
def test_seed_says_what_happens() -> None:
    """The same seed makes the same choices."""
    first, second = (soak("--seed=4", "--round=0", "--verbose") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stdout + second.stdout
    histories = [
        sorted(line for line in done.stdout.splitlines() if line.startswith("0."))
        for done in (first, second)
    ]
    assert histories[0]
    assert histories[0] == histories[1]


THEFT = """
from pyshimio import _sys
real, calls = _sys.{call}, 0
def steal(*args):
    global calls
    calls += 1
    return {instead} if calls % 5 == 0 else real(*args)
_sys.{call} = steal
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "call,instead,words",
    [
        # (Which of the two depends on where the bytes are cut.)
        ("write", "len(args[1])", "missing, 0 said to be|not in order"),
        ("close", "None", "left behind: descriptor"),
    ],
)
def test_theft_is_noticed(call: str, instead: str, words: str) -> None:
    """Writes that are lost, or descriptors that are not closed, end the soak."""
    done = soak("--seed=4", "--round=0", before=THEFT.format(call=call, instead=instead))
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(words, done.stdout), done.stdout
    assert "again: python -m soak --seed 4 --round 0" in done.stdout
