"""What a container has to survive: bursts, deaths, clients that do not read, others who reap."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest

from pyshimio import LoggerExited, LoggerRespawned, PipeIO, Stdio, _sys, create_io
from pyshimio.errors import ChildReapedElsewhereError, RuntimeFailedError
from pyshimio.testing import FakeClient, FakeLogger
from support.children import GUARD, exists, until
from support.containers import RUNTIMES, SLEEP, Scene, containers, running
from support.fifos import make_fifo

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyshimio.runc import Container

pytestmark = [pytest.mark.runtime("runc", "busybox"), pytest.mark.slow]

MIB = 1 << 20
BLOB = random.Random(8).randbytes(8 * MIB)


def put_blob(scene: Scene) -> None:
    """Have ``/blob`` in the container."""
    (Path(scene.runtime.bundle) / "rootfs" / "blob").write_bytes(BLOB)


def numbered(data: bytes) -> None:
    """*data* is how ``seq`` begins, without gap or repeat."""
    count = data.count(b"\n") + 1
    assert b"".join(b"%d\n" % number for number in range(1, count + 1)).startswith(data)


# -- the end of the input --------------------------------------------------------------------

MOMENTS = ("before", "with", "after")
"""CloseIO before the start, in the same instant, and right after it."""


async def close_at(moment: str, process: Any) -> None:
    """Start *process*, and close its stdin at that moment."""
    if moment == "before":
        process.close_stdin()
    async with anyio.create_task_group() as group:
        group.start_soon(process.start)
        if moment == "with":
            group.start_soon(_close, process)
    if moment == "after":
        process.close_stdin()


async def _close(process: Any) -> None:
    process.close_stdin()


@RUNTIMES
async def test_stdin_is_closed_as_an_exec_starts(tmp_path: Path, program: str) -> None:
    """A ``cat`` at a FIFO that nobody has ever opened sees its end, whenever CloseIO comes.

    In the same instant as the start: with runc 100 times on each of the three loops.
    """
    fifo = make_fifo(tmp_path)
    tenths = 10 if program == "runc" else 1
    async with running(tmp_path, program=program) as container:
        for moment in (("with",) * 10 + ("before", "after")) * tenths:
            async with await container.exec("e", ["cat"], io=Stdio(stdin=fifo)) as process:
                await close_at(moment, process)
                assert await process.wait(io=True, timeout=GUARD) == 0


@RUNTIMES
@pytest.mark.parametrize("moment", MOMENTS)
async def test_stdin_is_closed_as_init_starts(tmp_path: Path, program: str, moment: str) -> None:
    """The same for a container's init."""
    fifo = make_fifo(tmp_path)
    async with containers(tmp_path, ["cat"], program=program) as scene:
        async with await scene.create(io=Stdio(stdin=fifo)) as container:
            await close_at(moment, container)
            assert await container.wait(io=True, timeout=GUARD) == 0


# -- bursts ----------------------------------------------------------------------------------

BURSTS = {"runc": 35, "crun": 5}
"""On three loops and with two sinks that makes 210 with runc."""


async def burst(scene: Scene, io: str) -> None:
    """One life of a container that writes much and ends at once."""
    async with await scene.create(io=Stdio(stdout=io)) as container:
        await container.start()
        await container.gone()
        result = await container.delete()
        assert result is not None
        assert result.complete, result


@RUNTIMES
async def test_a_burst_into_a_file(tmp_path: Path, program: str) -> None:
    """Of 8 MiB that init wrote in its last moment nothing is missing, whoever deletes at once."""
    log = tmp_path / "log"
    async with containers(tmp_path, ["dd", "if=/blob", "bs=64k"], program=program) as scene:
        put_blob(scene)
        for _ in range(BURSTS[program]):
            await burst(scene, f"file://{log}")
            assert zlib.crc32(log.read_bytes()) == zlib.crc32(BLOB)
            log.unlink()


@RUNTIMES
async def test_a_burst_into_a_fifo(tmp_path: Path, program: str) -> None:
    """The same for a client, which reads while the container is being deleted."""
    fifo = make_fifo(tmp_path)
    async with containers(tmp_path, ["dd", "if=/blob", "bs=64k"], program=program) as scene:
        put_blob(scene)
        for _ in range(BURSTS[program]):
            with FakeClient(fifo) as client:
                async with anyio.create_task_group() as group:
                    group.start_soon(burst, scene, fifo)
                    assert zlib.crc32(await client.read_all()) == zlib.crc32(BLOB)


async def copied(client: FakeClient) -> tuple[int, int]:
    """How much comes, and its checksum."""
    total = checksum = 0
    while data := await client.read(MIB):
        total += len(data)
        checksum = zlib.crc32(data, checksum)
    return total, checksum


class Turns:
    """The longest turn of the loop, in seconds of this thread's own time: others do not count."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """Until it is cancelled."""
        before = time.thread_time()
        while True:
            await anyio.sleep(0.001)
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            before = now


async def test_a_client_that_stops_reading(tmp_path: Path) -> None:
    """While one container's client reads nothing another's gets 104 MiB, and no turn is long."""
    turns = Turns()
    stopped, read = make_fifo(tmp_path, "stopped"), make_fifo(tmp_path, "read")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13; do cat /blob; done"
    with FakeClient(stopped) as idle, FakeClient(read) as client:
        async with (
            running(tmp_path / "a", ["seq", "100000000"], io=Stdio(stdout=stopped)) as one,
            containers(tmp_path / "b", ["sh", "-c", script], name="b") as scene,
        ):
            put_blob(scene)
            await until(lambda: idle.unread >= 1 << 16)
            async with await scene.create(io=Stdio(stdout=read)) as other:
                async with anyio.create_task_group() as group:
                    group.start_soon(turns.watch)
                    await other.start()
                    assert await copied(client) == (13 * len(BLOB), zlib.crc32(BLOB * 13))
                    group.cancel_scope.cancel()
                assert await other.wait(io=True, timeout=GUARD) == 0
            assert one.state == "running"
            assert turns.longest < 0.3  # a few ms, but where caches and cores are shared
            await one.delete(force=True, drain_timeout=0)


@RUNTIMES
async def test_a_container_is_killed_in_a_burst(tmp_path: Path, program: str) -> None:
    """What it has written until then arrives, in its order and without a gap."""
    log, fifo = tmp_path / "log", make_fifo(tmp_path)
    async with containers(tmp_path, ["seq", "100000000"], program=program) as scene:
        async with await scene.create(io=Stdio(stdout=f"file://{log}")) as container:
            await container.start()
            await until(lambda: log.stat().st_size > MIB)
            await container.kill(signal.SIGKILL)
            await ended_in_a_burst(container)
        numbered(log.read_bytes())
        with FakeClient(fifo) as client:
            async with await scene.create(io=Stdio(stdout=fifo)) as container:
                await container.start()
                got = await client.read(MIB)
                async with anyio.create_task_group() as group:
                    os.kill(container.pid, signal.SIGKILL)
                    group.start_soon(ended_in_a_burst, container)
                    got += await client.read_all()
            numbered(got)


async def ended_in_a_burst(container: Container) -> None:
    """It was killed, and all that it wrote has arrived."""
    assert await container.wait(io=True, timeout=GUARD) == 128 + signal.SIGKILL
    assert container.result is not None
    assert container.result.complete, container.result


@pytest.mark.parametrize("handover", [False, True])
async def test_a_logger_is_killed_in_a_burst(tmp_path: Path, handover: bool) -> None:
    """What all the loggers have read, put together, is the output without gap or repeat."""
    logger = FakeLogger.make(tmp_path / "logger", dies_after=400_000)
    io = await create_io(
        Stdio(stdout=logger.uri()), id="c", namespace="n", on_death="respawn", handover=handover
    )
    events = io.events()
    async with containers(tmp_path, ["seq", "200000"]) as scene:
        async with await scene.create(io=io) as container:
            await container.start()
            assert await container.wait(io=True, timeout=GUARD) == 0
            assert container.result is not None
            assert container.result.complete, container.result
    parts = logger.parts
    output = b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert len(parts) == len(output) // 400_000 + 1
    assert b"".join(parts) == output
    told = [type(event) async for event in events]
    assert told.count(LoggerExited) == told.count(LoggerRespawned) == len(parts) - 1


# -- others who reap -------------------------------------------------------------------------


class Thief(threading.Thread):
    """A thread that reaps every child of this process that it gets hold of."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[int] = set()
        self._over = threading.Event()

    def run(self) -> None:
        """Until the block is left."""
        while not self._over.wait(0.0002):
            with contextlib.suppress(ChildProcessError):
                self.taken.add(os.waitpid(-1, os.WNOHANG)[0])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


@RUNTIMES
async def test_somebody_reaps_an_exec(tmp_path: Path, program: str) -> None:
    """Who waits for everything takes an exec's status, and neither its output nor its end."""
    async with running(tmp_path, program=program) as container:
        events = container.exits.events()
        process = await container.exec("e", ["sh", "-c", "echo out; read line"], io=PipeIO())
        await process.start()
        with Thief() as thief:
            process.close_stdin()
            while process.pid not in thief.taken:  # no turn of the loop between exit and theft
                time.sleep(0.001)
        for io in (False, True):
            with pytest.raises(ChildReapedElsewhereError, match="waitpid"):
                await process.wait(io=io, timeout=GUARD)
        assert (process.state, process.status) == ("stopped", None)
        assert process.io.stdout is not None
        assert await process.io.stdout.receive() == b"out\n"
        result = await process.delete()
        assert result is not None
        assert result.complete
        event = await anext(events)
        assert (event.id, event.exit_status) == ("e", None)
        assert container.state == "running"


@RUNTIMES
async def test_somebody_reaps_all_the_time(tmp_path: Path, program: str) -> None:
    """Each step works or says that somebody else reaps; a process that did not start is none."""
    async with running(tmp_path, program=program) as container:
        started = 0
        with Thief():
            for _ in range(10):
                process = await container.exec("e", SLEEP)
                try:
                    await process.start()
                    started += 1
                    with contextlib.suppress(ChildReapedElsewhereError):
                        await process.delete(force=True)
                except ChildReapedElsewhereError:
                    pass
                assert process.state == "deleted"
            with contextlib.suppress(ChildReapedElsewhereError):
                await container.delete(force=True)
        assert not exists(container.pid)
        await container.delete()
        assert container.state == "deleted"


# -- terminals -------------------------------------------------------------------------------


@RUNTIMES
async def test_a_slave_is_closed_and_opened_again(tmp_path: Path, program: str) -> None:
    """A terminal that nobody has open for a while shows what is written afterwards, too."""
    screen = tmp_path / "screen"
    script = (
        "echo one; exec 0<&- 1>&- 2>&-; while [ ! -e /go ]; do sleep 0.01; done;"
        " exec >/dev/console; echo two"
    )
    async with containers(tmp_path, ["sh", "-c", script], program=program, terminal=True) as scene:
        async with await scene.create(io=f"file://{screen}") as container:
            await container.start()
            await until(lambda: screen.read_bytes() == b"one\r\n")
            await until(lambda: not has_terminal(container.pid))
            await anyio.wait_all_tasks_blocked()
            (Path(scene.runtime.bundle) / "rootfs" / "go").touch()
            assert await container.wait(io=True, timeout=GUARD) == 0
        assert screen.read_bytes() == b"one\r\ntwo\r\n"


def has_terminal(pid: int) -> bool:
    """Whether it has a terminal open, on whatever descriptor."""
    where = f"/proc/{pid}/fd"
    return any("/dev/pts" in os.readlink(f"{where}/{name}") for name in os.listdir(where))


# -- a runtime that dies ---------------------------------------------------------------------


def runtime_at(verb: str, when: Callable[[int], object]) -> int:
    """The pid of a runtime that does *verb*, once something is so; else 0."""
    for pid in _sys.children():
        with contextlib.suppress(OSError):
            args = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if verb.encode() in args and when(pid):
                return pid
    return 0


class Killer(threading.Thread):
    """Kills a runtime that does *verb*, when something is so."""

    def __init__(self, verb: str, when: Callable[[int], object]) -> None:
        super().__init__()
        self._find = partial(runtime_at, verb, when)
        self._over = threading.Event()
        self.killed = False

    def run(self) -> None:
        """Look all the time."""
        while not self._over.is_set():
            if pid := self._find():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.killed = True
                return

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def children_of(pid: int, count: int) -> bool:
    """Whether it has so many children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(len((task / "children").read_text().split()) for task in tasks) >= count


STAGES: dict[str, Callable[[Scene, int], object]] = {
    "program": lambda _, __: True,
    "directory": lambda scene, _: (Path(scene.runtime.root) / scene.runtime.name).exists(),
    "child": lambda _, pid: children_of(pid, 1),
    "second child": lambda _, pid: children_of(pid, 2),
    "third child": lambda _, pid: children_of(pid, 3),
    "state": lambda scene, _: any(
        (Path(scene.runtime.root) / scene.runtime.name / name).exists()
        for name in ("state.json", "status")
    ),
}
"""How far ``create`` has come, seen from outside."""
CREATES = pytest.mark.parametrize(
    "program, stage",
    [
        *(("runc", stage) for stage in STAGES),
        *(
            pytest.param("crun", stage, marks=pytest.mark.runtime("crun"))
            for stage in ("program", "directory", "child", "state")
        ),
    ],
)
"""crun has one child."""


@CREATES
async def test_the_runtime_is_killed_in_the_middle(
    tmp_path: Path, program: str, stage: str
) -> None:
    """However far it has come, it is an error, and nothing of the container is left."""
    async with containers(tmp_path, program=program) as scene:
        killed = False
        while not killed:  # it may be through before the signal comes
            with Killer("create", partial(STAGES[stage], scene)) as killer:
                try:
                    container = await scene.create(io=f"file://{tmp_path}/log")
                except RuntimeFailedError:
                    killed = True
                else:
                    await container.delete(force=True)
            assert killer.killed or not killed
            assert await scene.runc.list() == ()


@CREATES
async def test_the_caller_is_cancelled_in_the_middle(
    tmp_path: Path, program: str, stage: str
) -> None:
    """The same when nobody wants the container any more."""
    async with containers(tmp_path, program=program) as scene:
        when = partial(STAGES[stage], scene)

        async def watch(scope: anyio.CancelScope) -> None:
            while not runtime_at("create", when):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        cancelled = False
        while not cancelled:  # it may be through before anybody has looked
            scope = anyio.CancelScope()
            async with anyio.create_task_group() as watching:
                with scope:
                    watching.start_soon(watch, scope)
                    container = await scene.create(io=f"file://{tmp_path}/log")
                    with anyio.CancelScope(shield=True):
                        await container.delete()
                watching.cancel_scope.cancel()
            cancelled = scope.cancelled_caught
            assert await scene.runc.list() == ()


def others_in(container: Container) -> set[int]:
    """Processes in a container beside its init."""
    space = _sys.pid_namespace(container.pid)
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {container.pid}
    return {pid for pid in pids if _sys.pid_namespace(pid) == space}


def runs_sleep(pid: int) -> bool:
    """Whether that is what it runs by now."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")
    return False


EXEC_STAGES: dict[str, Callable[[Container, int], object]] = {
    "child": lambda _, pid: children_of(pid, 1),
    "in the container": lambda container, _: others_in(container),
    "program": lambda container, _: any(map(runs_sleep, others_in(container))),
}
"""How far ``runc exec`` has come."""


@RUNTIMES
@pytest.mark.parametrize("stage", EXEC_STAGES)
async def test_the_runtime_of_an_exec_is_killed(tmp_path: Path, program: str, stage: str) -> None:
    """However far it has come, no process is left in the container that nobody knows."""
    async with running(tmp_path, program=program) as container:
        killed = 0
        while killed < 5:  # it may be through before the signal comes
            process = await container.exec("e", SLEEP)
            with Killer("exec", partial(EXEC_STAGES[stage], container)) as killer:
                try:
                    await process.start()
                except RuntimeFailedError:
                    killed += 1
                    assert killer.killed
            await process.delete(force=True)
            assert _sys.children() == [container.pid]
            assert not others_in(container)
