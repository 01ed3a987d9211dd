"""SIGKILL of the supervisor: what survives, as docs/supervisor-death.md has it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pyshimio import _sys
from pyshimio.testing import FakeLogger
from support.children import GUARD
from support.fifos import make_fifo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

CHILD = """
import errno, os, signal, sys
where, stubborn = sys.argv[1], sys.argv[2] == "stubborn"
def say(text):
    with open(where + "/said", "a") as file:
        file.write(text + "\\n")
signal.signal(signal.SIGPIPE, signal.SIG_IGN if stubborn else signal.SIG_DFL)
if stubborn:
    signal.signal(signal.SIGHUP, lambda *_: say("SIGHUP"))
orders, number = os.open(where + "/orders", os.O_RDWR), 0
say("started")
while order := os.read(orders, 1):
    try:
        if order == b"w":
            os.write(1, b"%07d\\n" % number)
            number += 1
            say("wrote")
        elif order == b"r":
            say("read " + os.read(0, 100).decode())
        else:
            sys.exit(0)
    except OSError as error:
        say(errno.errorcode[error.errno])
"""
"""Writes a line, reads or exits when it is told to, and says in a file what came of it."""

SUPERVISOR = """
import json, os, sys
import anyio
from pyshimio import BinaryIO, ConsoleIO, FileIO, InheritIO, NullIO, PipeIO, Stdio, create_io
kind, where, logger, *child = sys.argv[1:]

async def make():
    match kind:
        case "pipe":
            return PipeIO()
        case "fifo":
            return await create_io(Stdio(stdin=where + "/in", stdout=where + "/fifo"))
        case "file":
            return FileIO(where + "/out", stdin=True)
        case "relay" | "handover":
            return await BinaryIO.start(
                logger, id="c1", namespace="ns1", stdin=True, handover=kind == "handover"
            )
        case "console":
            return ConsoleIO()
        case "null":
            return NullIO()
        case "inherit":
            return InheritIO()

async def main():
    io = await make()
    process = await io.spawn(child)
    pids = {"child": process.pid}
    if logger:
        pids["logger"] = io.logger_pid
    with open(where + "/pids.part", "w") as file:
        json.dump(pids, file)
    os.rename(where + "/pids.part", where + "/pids")
    if kind in {"pipe", "console"}:
        async for data in io.stdout:
            with open(where + "/out", "ab") as file:
                file.write(data)
    await process.wait()

anyio.run(main)
"""


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@contextmanager
def subreaper() -> Iterator[None]:
    """Have orphans as children of our own: their status says what ended them."""
    prctl, set_child_subreaper = ctypes.CDLL(None).prctl, 36
    assert prctl(set_child_subreaper, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(set_child_subreaper, 0, 0, 0, 0)


class Scene:
    """A supervisor, its child and perhaps its logger."""

    def __init__(self, where: Path, kind: str, stubborn: bool) -> None:
        self.where = where
        self.orders = os.open(make_fifo(where, "orders"), os.O_RDWR)
        logger = ""
        if kind in {"relay", "handover"}:
            # It writes what it read before it reads on.
            logger = FakeLogger.make(where / "logger").uri()
        self.out = where / ("logger/start-1/stdout" if logger else "out")
        child = [
            *(sys.executable, "-I", "-S", "-c", CHILD, str(where)),
            "stubborn" if stubborn else "plain",
        ]
        self._pids: list[int] = []
        self.supervisor = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, kind, str(where), logger, *child],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def wait_until_started(self) -> None:
        """Both are there."""
        wait_for((self.where / "pids").exists)
        pids: dict[str, int] = json.loads((self.where / "pids").read_text())
        self.child, self.logger = pids["child"], pids.get("logger")
        self._pids = list(pids.values())
        self.heard("started")

    def said(self) -> list[str]:
        """What the child said."""
        try:
            return (self.where / "said").read_text().splitlines()
        except FileNotFoundError:
            return []

    def heard(self, *last: str) -> None:
        """Wait until the last that the child said is this."""
        wait_for(lambda: self.said()[-len(last) :] == list(last))

    def order(self, order: str, answer: str) -> None:
        """Have the child do something and wait for what comes of it."""
        count = len(self.said()) + 1
        os.write(self.orders, order.encode())
        wait_for(lambda: len(self.said()) == count)
        assert self.said()[-1] == answer

    def order_fatal(self, order: str) -> int:
        """Have the child do what ends it; its status."""
        os.write(self.orders, order.encode())
        return self.ended(self.child)

    def stop_supervisor(self) -> None:
        """From here on it moves nothing."""
        self.supervisor.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.supervisor.pid, os.WSTOPPED | os.WNOWAIT)

    def kill_supervisor(self) -> None:
        """Without a word."""
        self.supervisor.kill()
        assert self.supervisor.wait(GUARD) == -signal.SIGKILL

    def lives(self, pid: int | None) -> bool:
        """Whether that child of our own has not ended."""
        assert pid is not None
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def ended(self, pid: int | None) -> int:
        """Wait until it has, and say how: a status, or minus a signal."""
        assert pid is not None
        wait_for(lambda: not self.lives(pid))
        self._pids.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.orders)
        if self.supervisor.poll() is None:
            self.supervisor.kill()
            self.supervisor.wait()
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def scene(where: Path, kind: str, *, stubborn: bool = False) -> Iterator[Scene]:
    """Start one, and see that nothing of it is left."""
    with subreaper(), Scene(where, kind, stubborn) as made:
        made.wait_until_started()
        yield made


LINE = [b"%07d\n" % number for number in range(10)]


def holds(path: Path, data: bytes) -> Callable[[], bool]:
    """Whether the file has that content."""
    return lambda: path.exists() and path.read_bytes() == data


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "file", "relay"])
def test_child_behind_a_pipe_of_ours_gets_sigpipe(
    tmp_path: Path, kind: str, stubborn: bool
) -> None:
    """It lives until it writes: then SIGPIPE, or EPIPE; what was not copied yet is gone.

    Its stdin is at its end, and a logger sees EOF, has what was copied and ends by itself.
    """
    with scene(tmp_path, kind, stubborn=stubborn) as it:
        it.order("w", "wrote")
        wait_for(holds(it.out, LINE[0]))
        it.stop_supervisor()
        it.order("w", "wrote")
        it.kill_supervisor()
        if it.logger is not None:
            assert it.ended(it.logger) == 0
        it.order("r", "read ")
        assert it.lives(it.child)
        if stubborn:
            it.order("w", "EPIPE")
            assert it.order_fatal("q") == 0
        else:
            assert it.order_fatal("w") == -signal.SIGPIPE
        assert it.out.read_bytes() == LINE[0]


def read_now(fd: int) -> bytes | None:
    """What is in the FIFO; None when that is nothing yet, empty at its end."""
    try:
        return os.read(fd, 100)
    except BlockingIOError:
        return None


@pytest.mark.parametrize("client", ["stays", "goes"])
def test_fifo_holds_its_bytes_for_a_client_that_has_it_open(tmp_path: Path, client: str) -> None:
    """A client that is there reads what was copied, then EOF; without one it is gone.

    The child's stdin ends although the client of the stdin FIFO is still there.
    """
    out = make_fifo(tmp_path)
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(make_fifo(tmp_path, "in"), os.O_RDWR)
    try:
        with scene(tmp_path, "fifo") as it:
            os.write(writer, b"typed")
            it.order("r", "read typed")
            it.order("w", "wrote")
            wait_for(lambda: (read_now(reader) or b"") == LINE[0])
            it.order("w", "wrote")
            poll = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
            try:
                wait_for(lambda: _sys.unread(poll) == len(LINE[1]))
            finally:
                os.close(poll)
            it.stop_supervisor()
            it.order("w", "wrote")
            if client == "goes":
                os.close(reader)
            it.kill_supervisor()
            if client == "goes":
                reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
            else:
                assert read_now(reader) == LINE[1]
            # Nobody has it open for writing: the same to a client as its end.
            assert read_now(reader) == b""
            it.order("r", "read ")
            assert it.lives(it.child)
            assert it.order_fatal("w") == -signal.SIGPIPE
    finally:
        os.close(reader)
        os.close(writer)


def test_handover_goes_on(tmp_path: Path) -> None:
    """With handover child and logger notice nothing: every line arrives, then EOF."""
    with scene(tmp_path, "handover") as it:
        it.order("w", "wrote")
        it.stop_supervisor()
        it.order("w", "wrote")
        it.kill_supervisor()
        it.order("w", "wrote")
        wait_for(holds(it.out, b"".join(LINE[:3])))
        it.order("r", "read ")
        assert it.lives(it.child)
        assert it.lives(it.logger)
        it.order("w", "wrote")
        assert it.order_fatal("q") == 0
        assert it.ended(it.logger) == 0
        assert it.out.read_bytes() == b"".join(LINE[:4])


def test_terminal_hangs_up(tmp_path: Path) -> None:
    """The session of a terminal gets SIGHUP at once."""
    with scene(tmp_path, "console") as it:
        it.order("w", "wrote")
        wait_for(holds(it.out, b"0000000\r\n"))
        it.kill_supervisor()
        assert it.ended(it.child) == -signal.SIGHUP


def test_terminal_is_dead_for_who_survives_its_hangup(tmp_path: Path) -> None:
    """A child that handles SIGHUP cannot write any more (EIO), and reads the end of input."""
    with scene(tmp_path, "console", stubborn=True) as it:
        it.order("w", "wrote")
        wait_for(holds(it.out, b"0000000\r\n"))
        it.kill_supervisor()
        it.heard("SIGHUP")
        it.order("w", "EIO")
        it.order("r", "read ")
        assert it.order_fatal("q") == 0


@pytest.mark.parametrize("kind", ["null", "inherit"])
def test_child_without_a_pipe_of_ours_goes_on(tmp_path: Path, kind: str) -> None:
    """With NullIO and InheritIO the child writes on."""
    with scene(tmp_path, kind) as it:
        it.order("w", "wrote")
        it.kill_supervisor()
        it.order("w", "wrote")
        it.order("r", "read ")
        assert it.order_fatal("q") == 0
