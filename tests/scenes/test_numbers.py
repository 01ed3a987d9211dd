"""Descriptor numbers: whatever happens, only what is ours is closed, and once."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import anyio

from pyshimio import FileIO, PipeIO, Stdio, _sys, create_io
from pyshimio.testing import FakeClient
from support.children import GUARD
from support.fifos import make_fifo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

OPENERS = ("open", "dup", "eventfd", "pidfd_open", "pipe", "timerfd")
ROUNDS = 6
SIDE_BY_SIDE = 8


class Ledger:
    """Which numbers are the library's, by what it asked of the kernel."""

    def __init__(self) -> None:
        self.ours: set[int] = set()
        self.wrong: list[str] = []
        self.closed = 0
        self._lock = threading.Lock()

    def opened(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """*call*, and what it returns is ours."""

        def wrapped(*args: Any) -> Any:
            result = call(*args)
            with self._lock:
                for fd in result if isinstance(result, tuple) else (result,):
                    if fd in self.ours:
                        self.wrong.append(f"somebody else closed {fd}, which {name} got again")
                    self.ours.add(fd)
            return result

        return wrapped

    def close(self, fd: int) -> None:
        """Close what is ours."""
        with self._lock:
            self.closed += 1
            if fd not in self.ours:
                self.wrong.append(f"closed {fd}, which was not open")
            self.ours.discard(fd)
        os.close(fd)


class Stranger:
    """Opens and closes files all the time, so that each free number is taken at once."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = str(path)
        self._inode = os.stat(path).st_ino
        self._fds: list[int] = []
        self.lost = 0

    def turn(self) -> None:
        """Close the older half, if it is still what was opened, and open as many."""
        old, self._fds = self._fds[:20], self._fds[20:]
        for fd in old:
            try:
                self.lost += os.fstat(fd).st_ino != self._inode
                os.close(fd)
            except OSError:
                self.lost += 1
        self._fds += [os.open(self._path, os.O_RDONLY | os.O_CLOEXEC) for _ in range(20)]

    def close(self) -> None:
        """Give everything back."""
        self.turn()
        for fd in self._fds:
            os.close(fd)


async def test_no_stray_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a busy scene of streams that begin, end and are cut off, every close is of our own.

    A stranger reuses each number as soon as it is free, and finds all of its own untouched.
    """
    ledger = Ledger()
    for name in OPENERS:
        if hasattr(_sys, name):
            monkeypatch.setattr(_sys, name, ledger.opened(name, getattr(_sys, name)))
    monkeypatch.setattr(_sys, "close", ledger.close)
    stranger = Stranger(tmp_path / "stranger")
    over = False

    async def disturb() -> None:
        while not over:
            stranger.turn()
            await anyio.sleep(0)

    async def one(number: int) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        out, stdin = make_fifo(directory, "out"), make_fifo(directory, "in")
        for turn in range(ROUNDS):
            with FakeClient(out) as client:
                async with await create_io(Stdio(stdin=stdin, stdout=out)) as io:
                    await io.spawn(["cat"])
                    writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
                    os.write(writer, b"hello\n")
                    os.close(writer)
                    assert await client.read(6) == b"hello\n"
                    io.close_stdin()
                    await io.drain()
            async with FileIO(directory / "log") as io:
                await io.spawn(["sh", "-c", "seq 3000; seq 3000 >&2"])
                if turn % 3:
                    await io.drain()
                elif turn:
                    io.close()
            async with PipeIO(grace=0) as io:
                await io.spawn(["yes"])
                assert io.stdout is not None
                assert await io.stdout.receive()
            with anyio.move_on_after(0.002 * turn):
                async with FileIO(directory / "log") as io:
                    await io.spawn(["yes"])
                    await anyio.sleep_forever()

    try:
        with anyio.fail_after(2 * GUARD):
            async with anyio.create_task_group() as outer:
                outer.start_soon(disturb)
                async with anyio.create_task_group() as group:
                    for number in range(SIDE_BY_SIDE):
                        group.start_soon(one, number)
                over = True
    finally:
        over = True
        stranger.close()
    assert not ledger.wrong, ledger.wrong
    assert not stranger.lost
    assert ledger.closed > SIDE_BY_SIDE * ROUNDS * 10
