"""The keys that end an attachment, found in what is typed, and how they are spelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyshimio.client import DetachKeys, parse_detach_keys
from pyshimio.errors import InvalidOptionError


def fed(keys: bytes, *pieces: bytes) -> tuple[bytes, bool]:
    """What is passed on of *pieces*, the rest included, and whether the keys were there."""
    found = DetachKeys(keys)
    passed = b""
    for piece in pieces:
        data, complete = found.feed(piece)
        passed += data
        if complete:
            return passed, True
    return passed + found.rest(), False


@pytest.mark.parametrize(
    "pieces",
    [
        (b"ls\n\x10\x11",),
        (b"ls\n\x10", b"\x11"),
        (b"ls\n", b"\x10", b"", b"\x11"),
        (b"ls\n\x10\x11behind\x10\x11",),
    ],
)
def test_the_keys_are_found(pieces: tuple[bytes, ...]) -> None:
    """However they are cut: what is before them is passed on, and nothing else."""
    assert fed(b"\x10\x11", *pieces) == (b"ls\n", True)


def test_ctrl_p_ctrl_q_are_the_default() -> None:
    """Without an argument the keys are docker's."""
    assert DetachKeys().feed(b"a\x10\x11") == (b"a", True)


def test_a_beginning_is_held_back_until_it_is_none() -> None:
    """A ctrl-p waits for the next key, and goes on with it when that is another one."""
    keys = DetachKeys(b"\x10\x11")

    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b") == (b"\x10b", False)
    assert keys.feed(b"\x10\x10") == (b"\x10", False)
    assert keys.rest() == b"\x10"
    assert keys.rest() == b""


def test_a_beginning_in_a_beginning() -> None:
    """A sequence that repeats itself is found where a mismatch is the start of another try."""
    assert fed(b"aab", b"aa", b"a", b"b") == (b"a", True)
    assert fed(b"abab!", b"ababab", b"!") == (b"ab", True)


@given(
    keys=st.binary(min_size=1, max_size=4).map(lambda keys: bytes(b % 3 for b in keys)),
    pieces=st.lists(st.binary(max_size=6).map(lambda data: bytes(b % 3 for b in data))),
)
def test_pieces_make_no_difference(keys: bytes, pieces: list[bytes]) -> None:
    """What is passed on is what stands before the first of the keys, or everything."""
    whole = b"".join(pieces)
    before, found, _ = whole.partition(keys)

    assert fed(keys, *pieces) == (before, bool(found))


def test_no_keys() -> None:
    """A sequence of nothing would be found everywhere, and is refused."""
    with pytest.raises(InvalidOptionError):
        DetachKeys(b"")


@pytest.mark.parametrize(
    "text, keys",
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@", b"\0"),
        ("ctrl-a,ctrl-z", b"\x01\x1a"),
        ("ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1b\x1c\x1d\x1e\x1f"),
        ("a,B,DEL,-", b"aB\x7f-"),
    ],
)
def test_spelling(text: str, keys: bytes) -> None:
    """Keys are spelled as docker has them."""
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-P", "ctrl-pp", "a,,b", "ab", "é", "strg-p"])
def test_misspelling(text: str) -> None:
    """What is no key is refused, and named."""
    with pytest.raises(InvalidOptionError) as caught:
        parse_detach_keys(text)
    assert caught.value.option == "detach_keys"
