"""What is fuzzed: a function of bytes for each, which raises when something is wrong."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from pyshimio import Console, StdioURI
from pyshimio.errors import ConsoleError, LogFileError, URIError
from pyshimio.io._console_socket import _console_of, _read
from pyshimio.logging import Batch, Copier, LogInfo, Partial, Problem, find_driver
from pyshimio.logging._parse import Piece, detect
from pyshimio.logging._reader import Reader
from pyshimio.testing.strategies import uri_texts

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("SEEDS", "TARGETS")

NOW = 1_763_687_965_144_688_532


@given(uri_texts())
def _uri(text: str) -> None:
    """A text is a URI, which is written as it is read, or an error that carries the text."""
    failed = None
    try:
        uri = StdioURI.parse(text)
    except URIError as error:
        failed = error
    else:
        assert StdioURI.parse(str(uri)) == uri
    assert failed is None or failed.uri == text


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(st.binary(max_size=5000), st.lists(st.sampled_from(["pipe", "terminal"]), max_size=20))
def _console(data: bytes, kinds: list[str]) -> None:
    """A message is one terminal or an error of the tree, and no descriptor is left of it."""
    before = _descriptors()
    ours, theirs = socket.socketpair()
    fds: list[int] = []
    for kind in kinds:
        fds += os.pipe() if kind == "pipe" else os.openpty()
    sent = fds[::2]
    with ours, theirs:
        with contextlib.suppress(OSError):
            socket.send_fds(theirs, [data], sent)
        theirs.close()
        try:
            console = _console_of(_read(ours))
        except ConsoleError:
            assert kinds != ["terminal"] or not 0 < len(data) < 4096, "it was a good message"
        else:
            assert isinstance(console, Console)
            assert kinds == ["terminal"]
            console.close()
    for fd in fds:
        os.close(fd)
    assert _descriptors() == before


def _reader(name: str) -> Callable[[bytes], None]:
    encode = getattr(find_driver(name)(LogInfo("c1", options={"log-path": "/x"})), "encode")  # noqa: B009
    directory = tempfile.mkdtemp()
    path = f"{directory}/log"

    def read(data: bytes) -> None:
        """Any bytes are lines and problems; and what is a record is one that we would write."""
        with open(path, "wb") as file:
            file.write(data)
        problems: list[Problem] = []
        reader = Reader(path, problem=problems.append)
        try:
            lines = [line for line in reader.lines() if line is not None]
        except LogFileError:
            return  # no line of it is one of a log
        finally:
            reader.close()
        assert len(lines) <= data.count(b"\n") + 2
        assert sum(len(line.text) for line in lines) <= len(data)
        # What is whole, and one of ours, is read.
        whole = [line for line in data.split(b"\n")[:-1] if _is_whole(name, line)]
        assert len(lines) + len(problems) >= bool(whole)
        if len(whole) == data.count(b"\n") and data.endswith(b"\n"):
            assert len(lines) == len(whole)
        assert all(b"\n" not in line.text for line in lines) or name == "json-file"
        first = data.partition(b"\n")[0]
        form = detect(first)
        if form is not None and form.name == name:
            _written_again(form.parse(first))

    def _written_again(piece: Piece) -> None:
        if b"\n" in piece.text or piece.text.endswith(b"\r") or not _is_text(piece.text):
            return  # nobody writes such a record
        if not (piece.text or piece.ended):
            return
        if piece.stream not in {"stdout", "stderr"} or not 0 <= piece.time < 1 << 62:
            return
        partial = None if piece.ended else Partial("id", 1, last=False, begun=piece.time)
        written = encode(Batch(piece.stream, piece.time, piece.text + b"\n" * piece.ended, partial))
        form = detect(written.removesuffix(b"\n"))
        assert form is not None
        again = form.parse(written.removesuffix(b"\n"))
        assert (again.stream, again.text, again.time, again.ended) == (
            *(piece.stream, piece.text, piece.time),
            piece.ended,
        )

    return read


def _is_whole(name: str, line: bytes) -> bool:
    """Whether it is a record that ends its container's line."""
    form = detect(line)
    return form is not None and form.name == name and form.parse(line).ended


def _is_text(data: bytes) -> bool:
    """Whether a JSON log can hold it as it is."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _seeds(name: str) -> list[bytes]:
    """Logs of which the fuzzer makes others."""
    driver = find_driver(name)(LogInfo("c1", options={"log-path": "/x", "max-line": "9"}))
    encode = getattr(driver, "encode")  # noqa: B009
    found: list[bytes] = []
    for text in (
        b"one\n",
        b"two\n\nthree\n",
        b"long enough to be cut\n",
        b"\xff\x00 \xe2\x80\xa8\n",
    ):
        copier = Copier("stderr", cap=driver.cap, peeks=driver.peeks)
        batches = [*copier.feed(text, NOW), *copier.finish(NOW)]
        found.append(b"".join(map(encode, batches)))
    return [*found, b"".join(found)]


def _structured(test: Any) -> Callable[[bytes], object]:
    """Bytes for a test of Hypothesis: what its strategies make of them."""
    function: Callable[[bytes], object] = test.hypothesis.fuzz_one_input
    return function


TARGETS: dict[str, Callable[[], Callable[[bytes], object]]] = {
    "uri": lambda: _structured(_uri),
    "console": lambda: _structured(_console),
    "json-file": lambda: _reader("json-file"),
    "cri": lambda: _reader("cri"),
}
"""Makers of what is called with bytes."""

SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "uri": list,
    "console": list,
    "json-file": lambda: _seeds("json-file"),
    "cri": lambda: _seeds("cri"),
}
