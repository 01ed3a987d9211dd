"""The program of a FakeContainer; arguments: a directory (or nothing), and a script in JSON.

It is run by itself (``python -I -S``), so it loads nothing but the standard library.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import time
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any, NoReturn

__all__ = ("UNMET", "numbered")

UNMET = 70
"""The exit status when an expectation was not met."""
STREAMS = {"stdout": 1, "stderr": 2}
STAY = 0.1
WATCH = 0.002
"""Seconds between two looks at what no descriptor tells."""


def numbered(count: int) -> Iterator[bytes]:
    """Lines with their numbers, *count* bytes in all: what is lost, doubled or swapped shows."""
    number = 0
    while count > 0:
        lines = b"".join(b"%07d\n" % n for n in range(number, number + 4096))[:count]
        yield lines
        number += 4096
        count -= len(lines)


class _Actor:
    """Each method is a step, by its name."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def begin(self) -> None:
        """Leave a note for who is to end what is left: the pid, and when it began."""
        with open("/proc/self/stat", "rb") as file:
            start = file.read().rpartition(b")")[2].split()[19].decode()
        self._tell("processes", f"{os.getpid()} {start}")

    def play(self, steps: list[list[Any]]) -> None:
        for name, *args in steps:
            getattr(self, name)(*args)

    # -- what it does ---------------------------------------------------------------------

    def write(self, to: str, text: str, times: int) -> None:
        data = text.encode("latin-1")
        if times < 0:
            many = data * max(1, 65536 // max(1, len(data)))
            while True:
                self._put(to, many)
        for _ in range(times):
            self._put(to, data)

    def numbered(self, to: str, count: int) -> None:
        for lines in numbered(count):
            self._put(to, lines)

    def copy(self, to: str) -> None:
        while data := self._get(65536):
            self._put(to, data)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def stay(self) -> None:
        while self._is_wanted():
            time.sleep(STAY)

    def close(self, name: str) -> None:
        os.close({"stdin": 0, **STREAMS}[name])

    def ignore(self, name: str) -> None:
        def remember(_number: int, _frame: FrameType | None) -> None:
            self._tell("signals", name)

        signal.signal(signal.Signals[name], remember)

    def exit_on(self, name: str, status: int) -> None:
        def leave(_number: int, _frame: FrameType | None) -> None:
            self._tell("signals", name)
            os._exit(status)

        signal.signal(signal.Signals[name], leave)

    def fork(self, directory: str, steps: list[list[Any]], session: str) -> None:
        if os.fork() == 0:
            if session == "new":
                os.setsid()
            actor = _Actor(directory)
            actor.begin()
            _play(actor, steps)
            os._exit(0)

    def exit(self, status: int) -> None:
        os._exit(status)

    def die(self, name: str) -> None:
        number = signal.Signals[name]
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    # -- what it waits for ----------------------------------------------------------------

    def reach(self, name: str) -> None:
        with open(f"{self._directory}/{name}.reached", "w", encoding="utf-8"):
            pass

    def hold(self, name: str) -> None:
        while self._is_wanted() and not os.path.exists(f"{self._directory}/{name}.released"):
            time.sleep(WATCH)

    def expect(self, text: str) -> None:
        wanted, got = text.encode("latin-1"), b""
        while len(got) < len(wanted) and wanted.startswith(got):
            data = self._get(len(wanted) - len(got))
            if not data:
                break
            got += data
        if got != wanted:
            self._unmet(f"expected {wanted!r} on stdin, and got {got!r}")

    def expect_eof(self) -> None:
        if data := self._get(65536):
            self._unmet(f"expected the end of stdin, and got {data!r}")

    def expect_size(self, rows: int, columns: int) -> None:
        while True:
            try:
                size = os.get_terminal_size(0)
            except OSError:
                self._unmet("expected a terminal as stdin")
            if (size.lines, size.columns) == (rows, columns):
                return
            time.sleep(WATCH)

    def _is_wanted(self) -> bool:
        """Whether there is still somebody who could say anything."""
        return not self._directory or os.path.isdir(self._directory)

    # -- underneath -----------------------------------------------------------------------

    def _put(self, to: str, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(STREAMS[to], view) :]

    def _get(self, count: int) -> bytes:
        data = os.read(0, count)
        self._tell("stdin", data)
        return data

    def _unmet(self, what: str) -> NoReturn:
        self._tell("unmet", what)
        sys.stderr.write(f"fake container: {what}\n")
        sys.stderr.flush()
        os._exit(UNMET)

    def _tell(self, where: str, what: str | bytes) -> None:
        if self._directory:
            data = what if isinstance(what, bytes) else f"{what}\n".encode()
            fd = os.open(f"{self._directory}/{where}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(fd, data)
            os.close(fd)


def _play(actor: _Actor, steps: list[list[Any]]) -> None:
    try:
        actor.play(steps)
    except OSError as error:
        # Whoever goes on without the other side has its SIGPIPE ignored.
        actor._unmet(f"a step failed: {error}")


def _main() -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # as a program has them that is no Python
    actor = _Actor(sys.argv[1])
    actor.begin()
    _play(actor, json.loads(zlib.decompress(base64.b85decode(sys.argv[2]))))
    os._exit(0)


if __name__ == "__main__":
    _main()
