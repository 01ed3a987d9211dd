r"""Hypothesis strategies: URIs, what containers write, how it is cut and mixed, log lines.

It needs Hypothesis (``pip install 'pyshimio[testing]'``).

Example:
    ::

        @given(data=byte_streams(), reads=st.data())
        def test_my_splitter(data: bytes, reads: st.DataObject) -> None:
            pieces = reads.draw(chunkings(data))
            assert split(pieces) == split([data])
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

from .._stdio import StdioURI
from ._fake_container import FakeContainer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = (
    "byte_scripts",
    "byte_streams",
    "chunkings",
    "container_of",
    "interleavings",
    "log_lines",
    "uri_texts",
    "uris",
)

T = TypeVar("T")
Script = tuple[tuple[str, bytes], ...]

_SCHEMES = ("fifo", "file", "binary", "binary-v2", "x.y+z-1")
# The characters that mean something to one splitter or another, more often than by chance.
_PARTS = st.binary(max_size=40).map(lambda data: os.fsdecode(data.replace(b"\0", b""))) | st.text(
    "%2Ffz;+&=?#:/ \t\n\\\u00e9\udcff", max_size=12
)
_NASTY = (
    *(b"", b"plain", b'",', b'"},', b'\\",', b"\\", b"\\\\u0041", b"\0\0", b"\x7f", b"<3>text"),
    *("\u2028\u2029".encode(), b"\xe2\x80", b"\xe2\x80\xa8\x80", b"<a>&\t\r", b"a\rb", b"\x1b[31m"),
    *(b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xf0\x9f\x98\x80", b"x" * 7),
)


def _canonical(text: str) -> str:
    """The one str that os.fsdecode gives for the bytes of *text*."""
    return os.fsdecode(os.fsencode(text))


def uris(schemes: Sequence[str] = _SCHEMES) -> st.SearchStrategy[StdioURI]:
    """URIs that are right, with any path and arguments that such a scheme may have.

    Args:
        schemes: To choose from.
    """
    paths = _PARTS.map(lambda part: _canonical("/" + part))
    pairs = st.lists(st.tuples(_PARTS.map(_canonical), _PARTS.map(_canonical)), max_size=5)
    return st.builds(StdioURI, st.sampled_from(schemes), paths, pairs.map(tuple))


def uri_texts() -> st.SearchStrategy[str]:
    """Texts that are URIs, nearly so, or nothing of the kind."""
    pieces = st.sampled_from(
        [*("file", "null", "binary", "fifo", "://", ":///"), *":/?&=#%a0+ \0\ud800"]
    )
    return st.one_of(
        st.text(),
        st.lists(pieces).map("".join),
        uris().map(str),
        st.tuples(uris().map(str), pieces).map("".join),
    )


def log_lines(*, max_size: int = 20) -> st.SearchStrategy[bytes]:
    r"""Lines without their ``\n``: any bytes, any text, and what formats stumble over.

    Args:
        max_size: Bytes or characters of what is made at random.
    """
    return st.one_of(
        st.binary(max_size=max_size),
        st.text(max_size=max_size).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.sampled_from(_NASTY),
    ).map(lambda line: line.replace(b"\n", b""))


@st.composite
def byte_streams(draw: st.DrawFn, *, max_lines: int = 12) -> bytes:  # noqa: D417 - see @composite
    r"""What one stream carries: lines that end with ``\n`` or ``\r\n``, and perhaps half of one.

    Args:
        max_lines: So many at most.
    """
    lines = draw(st.lists(log_lines(), max_size=max_lines))
    ends = draw(st.lists(st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n"]), min_size=len(lines)))
    return b"".join(itertools.chain(*zip(lines, ends, strict=False))) + draw(
        st.just(b"") | log_lines()
    )


@st.composite
def chunkings(  # noqa: D417 - see @composite
    draw: st.DrawFn, data: bytes, *, max_cuts: int = 8
) -> list[bytes]:
    """The same bytes in pieces, none of them empty, as reads of any sizes find them.

    Args:
        data: What is cut.
        max_cuts: At so many places at most.
    """
    places = draw(st.lists(st.integers(0, len(data)), max_size=max_cuts).map(sorted))
    return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)]) if a < b]


@st.composite
def interleavings(draw: st.DrawFn, *sequences: Sequence[T]) -> list[T]:
    """All items of all *sequences*, each sequence's in its order."""
    left = [list(sequence) for sequence in sequences]
    mixed: list[T] = []
    while remaining := [items for items in left if items]:
        mixed.append(draw(st.sampled_from(remaining)).pop(0))
    return mixed


def byte_scripts(*, max_steps: int = 8) -> st.SearchStrategy[Script]:
    """What a container writes: ``("stdout" or "stderr", bytes)``, one after the other.

    Args:
        max_steps: So many writes at most.
    """
    step = st.tuples(st.sampled_from(["stdout", "stderr"]), byte_streams(max_lines=4))
    return st.lists(step, max_size=max_steps).map(tuple)


def container_of(script: Script, container: FakeContainer | None = None) -> FakeContainer:
    """A container that writes what one of :func:`byte_scripts` says.

    Args:
        script: It.
        container: What it does before that.
    """
    container = container or FakeContainer()
    for stream, data in script:
        container = container.write(data, to="stderr" if stream == "stderr" else "stdout")
    return container
