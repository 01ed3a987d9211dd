"""Any life of a FIFO, a terminal, a logger and a rotated log is the life of a simple model."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import tty
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from pyshimio import BinaryIO, Console, Stdio, create_io
from pyshimio._fd import OwnedFd
from pyshimio.errors import StreamFailedError
from pyshimio.logging import Copier, LogInfo, Problem, find_driver
from pyshimio.logging._reader import Reader
from pyshimio.testing import FakeClient, FakeLogger
from support.children import until
from support.loops import LOOPS
from support.machine import LoopMachine, run

if TYPE_CHECKING:
    from pyshimio import DrainResult
    from pyshimio.abc import IO
    from pyshimio.logging import Driver

pytestmark = pytest.mark.slow

ON_EACH_LOOP = pytest.mark.parametrize("loop", list(LOOPS))


class Output(LoopMachine):
    """A container's stdout, which the test writes itself, and what becomes of it."""

    io: IO

    def __init__(self, loop: str) -> None:
        super().__init__(loop)
        self.where = tempfile.mkdtemp()
        self.ends.callback(shutil.rmtree, self.where)
        self.written = bytearray()
        self.numbers = itertools.count()
        self.writer: int | None = None

    async def start(self, io: IO) -> None:
        """The container is there."""
        self.io = io
        self.ends.callback(self.on_loop, io.aclose)
        self.writer = os.dup(io.child_fds()[1])
        io.close_after_start()
        await io.copy()

    def put(self, count: int) -> None:
        """Write *count* lines that can be told from each other."""
        assert self.writer is not None
        data = b"".join(b"%06d\n" % next(self.numbers) for _ in range(count))
        try:
            os.write(self.writer, data)
        except BrokenPipeError:
            return
        self.written += data

    def end(self) -> None:
        """The container has ended."""
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None

    async def drained(self) -> DrainResult | None:
        """How its stream ended; None for a failure."""
        try:
            return await self.io.drain(exited=anyio.lowlevel.checkpoint(), linger=0.01)
        except StreamFailedError:
            return None

    def teardown(self) -> None:
        """Give up the container."""
        try:
            super().teardown()
        finally:
            self.end()


# -- a FIFO and its clients -------------------------------------------------------------------


class Fifo(Output):
    """Clients come, read and go; no byte is lost, none comes twice."""

    clients = Bundle("clients")

    def __init__(self, loop: str) -> None:
        super().__init__(loop)
        self.path = f"{self.where}/fifo"
        self.received = bytearray()
        self.created = False
        self.attached: list[FakeClient] = []

    @initialize(target=clients)
    def create(self) -> FakeClient:
        """The first client is waited for."""
        os.mkfifo(self.path)
        client = self._come()
        self.on_loop(self._create)
        self.created = True
        return client

    async def _create(self) -> None:
        await self.start(await create_io(Stdio(stdout=self.path)))

    @rule(target=clients)
    def come(self) -> FakeClient:
        """One more."""
        return self._come()

    def _come(self) -> FakeClient:
        client = FakeClient(self.path).attach()
        self.attached.append(client)
        self.ends.callback(client.detach)
        return client

    @rule(client=consumes(clients))
    def go(self, client: FakeClient) -> None:
        """It has read what it has read."""
        self.attached.remove(client)
        client.detach()

    @precondition(lambda self: self.writer and len(self.written) - len(self.received) < 40_000)
    @rule(count=st.sampled_from([1, 3, 100, 1000]))
    def write(self, count: int) -> None:
        """The container says something; there is room for it in any case."""
        self.put(count)

    @rule(client=clients, count=st.sampled_from([1, 10, 4096, 100_000]))
    def read(self, client: FakeClient, count: int) -> None:
        """A client reads, if there is anything."""
        wanted = min(count, len(self.written) - len(self.received))
        if wanted:
            self.received += self.on_loop(client.read, wanted)

    @rule()
    def container_ends(self) -> None:
        """Once."""
        self.end()

    @invariant()
    def in_order(self) -> None:
        """What was received is what was written first."""
        assert self.written.startswith(self.received)

    def finish(self) -> None:
        """Who comes in the end gets the rest, and then the end."""
        if not self.created:
            return
        # (Who comes when nobody was there at the end, and nothing was left, finds nobody.)
        if left := len(self.written) - len(self.received):
            client = self.attached[-1] if self.attached else self._come()
            self.received += self.on_loop(client.read, left)
        self.end()
        assert self.received == self.written
        result = self.on_loop(self.drained)
        assert result is not None
        assert result.complete
        assert (result.unread, result.abandoned) == (0, 0)


@ON_EACH_LOOP
def test_a_fifo(loop: str) -> None:
    """Whoever comes and goes, each byte is read once, and in its order."""
    run(partial(Fifo, loop), examples=25)


# -- a terminal -------------------------------------------------------------------------------

TYPED = st.binary(min_size=1, max_size=200)


class Terminal(LoopMachine):
    """Both sides of a terminal in raw mode are a pair of queues, and a size."""

    def __init__(self, loop: str) -> None:
        super().__init__(loop)
        self.typed, self.shown = bytearray(), bytearray()
        self.size = (0, 0)
        self.console, slave = self.on_loop(self._open)
        self.slaves = [slave]
        self.ends.callback(self.console.close)

    async def _open(self) -> tuple[Console, OwnedFd]:
        console, slave = Console.open()
        tty.setraw(slave.fileno())
        return console, slave

    def _slave(self) -> int:
        slave: OwnedFd = self.slaves[-1]
        return slave.fileno()

    @precondition(lambda self: self.slaves and len(self.typed) < 2000)
    @rule(data=TYPED)
    def types(self, data: bytes) -> None:
        """Somebody at the keyboard."""
        self.on_loop(self.console.stdin.send, data)
        self.typed += data

    @precondition(lambda self: self.slaves and self.typed)
    @rule(count=st.integers(1, 300))
    def program_reads(self, count: int) -> None:
        """What was typed, in its order."""
        # (All of it, however it comes: what may be done next is not to depend on that.)
        wanted, got = min(count, len(self.typed)), b""
        while len(got) < wanted:
            got += os.read(self._slave(), wanted - len(got))
        assert self.typed.startswith(got)
        del self.typed[:wanted]

    @precondition(lambda self: self.slaves and len(self.shown) < 2000)
    @rule(data=TYPED)
    def program_writes(self, data: bytes) -> None:
        """The program shows something."""
        assert os.write(self._slave(), data) == len(data)
        self.shown += data

    @precondition(lambda self: self.shown)
    @rule(count=st.integers(1, 300))
    def looks(self, count: int) -> None:
        """Somebody looks at the screen; what was shown is there after a hangup, too."""
        wanted, got = min(count, len(self.shown)), b""
        while len(got) < wanted:
            got += self.on_loop(self.console.stdout.receive, wanted - len(got))
        assert self.shown.startswith(got)
        del self.shown[:wanted]

    @precondition(lambda self: self.slaves)
    @rule(rows=st.integers(1, 500), columns=st.integers(1, 500))
    def resized(self, rows: int, columns: int) -> None:
        """The window has another size."""
        self.console.resize(rows, columns)
        self.size = (rows, columns)

    @precondition(lambda self: self.slaves)
    @rule()
    def program_forks(self) -> None:
        """One more has it open."""
        self.slaves.append(OwnedFd(os.dup(self._slave())))

    @precondition(lambda self: self.slaves)
    @rule()
    def program_ends(self) -> None:
        """One fewer."""
        self.slaves.pop().close()
        if not self.slaves:
            self.typed.clear()

    @precondition(lambda self: not self.slaves and not self.shown)
    @rule()
    def is_hung_up(self) -> None:
        """Nobody has it open, and everything was seen: that is the end, and stays it."""
        with pytest.raises(anyio.EndOfStream):
            self.on_loop(self.console.stdout.receive)

    @invariant()
    def size_is_known(self) -> None:
        """Both sides have the size that was set last."""
        assert self.console.size == self.size
        if self.slaves:
            size = os.get_terminal_size(self._slave())
            assert (size.lines, size.columns) == self.size

    def teardown(self) -> None:
        """The program is gone."""
        for slave in self.slaves:
            slave.close()
        super().teardown()


@ON_EACH_LOOP
def test_a_terminal(loop: str) -> None:
    """Whatever is typed, shown and resized, both sides see it in its order, up to the hangup."""
    run(partial(Terminal, loop), examples=40, steps=40)


# -- the life of a logger ---------------------------------------------------------------------


class Logger(Output):
    """A logger that is killed and stopped at any moment; what is told of it is true."""

    def __init__(self, loop: str) -> None:
        super().__init__(loop)
        self.logger = FakeLogger.make(f"{self.where}/logger")
        self.policy = ""
        self.kills = 0
        self.stopped = False

    @initialize(policy=st.sampled_from(["epipe", "drain", "respawn"]))
    def create(self, policy: str) -> None:
        """It is ready before the container begins."""
        self.policy = policy
        self.on_loop(self._create)

    async def _create(self) -> None:
        await self.start(
            await BinaryIO.start(
                self.logger.uri(),
                id="c1",
                namespace="ns",
                on_death=self.policy,  # type: ignore[arg-type]
                grace=0.2,
            )
        )

    @precondition(lambda self: self.writer and not self.stopped)
    @rule(count=st.sampled_from([1, 10, 300]))
    def write(self, count: int) -> None:
        """The container says something, and it is on its way before anything else happens."""
        before = len(self.logger.stdout)
        self.put(count)
        if not self.kills:
            self.on_loop(until, lambda: len(self.logger.stdout) >= before + count * 7)

    @precondition(lambda self: self.writer)
    @rule()
    def killed(self) -> None:
        """By whoever may."""
        starts = self.logger.starts
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.logger.about["pid"], signal.SIGKILL)
        self.kills += 1
        self.stopped = False
        if self.policy == "respawn" and self.kills <= 4:
            self.on_loop(until, lambda: self.logger.starts > starts and self.logger.about)

    @precondition(lambda self: self.writer and not self.stopped and not self.kills)
    @rule()
    def stop(self) -> None:
        """It takes nothing for a while."""
        os.kill(self.logger.about["pid"], signal.SIGSTOP)
        self.stopped = True

    @precondition(lambda self: self.stopped)
    @rule()
    def go_on(self) -> None:
        """And takes everything then."""
        os.kill(self.logger.about["pid"], signal.SIGCONT)
        self.stopped = False

    @invariant()
    def in_order(self) -> None:
        """What it has is what was written; with one logger alone, from the beginning on."""
        got = self.logger.stdout
        if self.policy == "respawn":
            lines = got.splitlines(keepends=True)
            assert [line for line in lines if line.endswith(b"\n")] == sorted(set(lines))
        else:
            assert self.written.startswith(got)

    def finish(self) -> None:
        """A drain that says that all is there tells the truth."""
        if self.writer is not None:
            if self.stopped:
                self.go_on()
            self.end()
            result = self.on_loop(self.drained)
            if result is not None and result.complete:
                assert self.logger.stdout == self.written or self.policy == "respawn"
            if not self.kills:
                assert result is not None
                assert result.complete
                assert self.logger.stdout == self.written
                assert self.logger.ended
                self.logger.check()


@ON_EACH_LOOP
def test_a_logger(loop: str) -> None:
    """Killed, stopped and started again: nothing comes twice, and no loss is kept a secret."""
    run(partial(Logger, loop), examples=12, steps=12)


# -- a log that is rotated --------------------------------------------------------------------


ENVELOPE = len(
    b'{"log":"\\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}\n'
)  # what a record has beside its line
LONGEST = 306 + ENVELOPE


class Rotated(RuleBasedStateMachine):
    """A log that rotates itself, or is renamed by somebody, and its process may be killed."""

    def __init__(self) -> None:
        super().__init__()
        self.where = tempfile.mkdtemp()
        self.path = f"{self.where}/log"
        self.lines: list[bytes] = []
        self.renamed = 0
        self.driver: Driver | None = None
        self.options: dict[str, str] = {}

    @initialize(
        name=st.sampled_from(["json-file", "cri"]),
        size=st.sampled_from(["", "200b", "1k", "3k"]),
        files=st.integers(1, 4),
        compress=st.booleans(),
    )
    def create(self, name: str, size: str, files: int, compress: bool) -> None:
        """With options that go together."""
        self.name, self.files = name, files
        self.options = {"log-path": self.path}
        if size and name == "json-file":  # kubelet rotates the other one
            self.options |= {"max-size": size, "max-file": str(files)}
            if compress and files > 1:
                self.options["compress"] = "true"
        self._open()

    def _open(self) -> None:
        self.driver = find_driver(self.name)(LogInfo("c1", options=self.options))
        self.driver.open()

    def _running(self) -> Driver:
        assert self.driver is not None
        return self.driver

    @rule(count=st.integers(1, 30), length=st.sampled_from([1, 10, 100, 300]))
    def write(self, count: int, length: int) -> None:
        """Lines that can be told from each other."""
        driver = self._running()
        copier = Copier("stdout", cap=driver.cap, peeks=driver.peeks)
        lines = [b"%06d%b" % (len(self.lines) + n, b"x" * length) for n in range(count)]
        for batch in copier.feed(b"".join(line + b"\n" for line in lines), 1_700_000_000 * 10**9):
            driver.write(batch)
        self.lines += lines

    @rule()
    def flush(self) -> None:
        """Nothing is kept back from here on."""
        self._running().flush()

    @rule()
    def reopen(self) -> None:
        """On a signal that nobody had to send."""
        self._running().reopen()

    @precondition(lambda self: "max-size" not in self.options and self.renamed < 3)
    @rule()
    def logrotate(self) -> None:
        """Renamed by somebody else, who says so afterwards."""
        self._running().flush()
        for number in range(self.renamed, 0, -1):
            os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.rename(self.path, f"{self.path}.1")
        self.renamed += 1
        self._running().reopen()

    @rule()
    def killed(self) -> None:
        """What it has written is there; another one goes on."""
        self._running().flush()
        self._running().abandon()
        self._open()

    @rule()
    def restarted(self) -> None:
        """In good order."""
        self._running().flush()
        self._running().close()
        self._open()

    @rule()
    def read(self) -> None:
        """What is read is the end of what was written, without a gap, and nothing twice."""
        self._running().flush()
        self._check()

    @invariant()
    def files_are_counted(self) -> None:
        """No more than were asked for."""
        if "max-size" in self.options:
            names = [name for name in os.listdir(self.where) if not name.endswith(".tmp")]
            assert len({name.removesuffix(".gz") for name in names}) <= self.files

    def _check(self) -> None:
        found = self._found()
        assert found == self.lines[len(self.lines) - len(found) :]
        if "max-size" not in self.options:
            assert found == self.lines
        # Each file that was rotated was full, but for the record that it had no room for.
        size = {"200b": 200, "1k": 1000, "3k": 3000}.get(self.options.get("max-size", ""), 0)
        kept = sum(len(line) + ENVELOPE for line in found)
        everything = sum(len(line) + ENVELOPE for line in self.lines)
        assert kept >= min(everything, (self.files - 1) * (size - LONGEST))
        assert found[-1:] == self.lines[-1:]

    def _found(self) -> list[bytes]:
        problems: list[Problem] = []
        reader = Reader(self.path, problem=problems.append)
        found = [line.text for line in reader.lines() if line is not None]
        reader.close()
        assert not problems
        return found

    def teardown(self) -> None:
        """Once more, when nothing is under way any more."""
        if self.driver is not None:
            self.driver.flush()
            self.driver.close()
            self._check()
        shutil.rmtree(self.where)


def test_a_rotated_log() -> None:
    """Whoever rotates it, and whoever is killed meanwhile: what is kept is whole."""
    run(Rotated, examples=60, steps=30)
