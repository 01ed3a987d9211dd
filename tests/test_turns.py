"""When a pump turns, how long, and what it asks of the kernel meanwhile."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, cast

import anyio
import pytest

from pyshimio import BytesDropped, SinkFailed, _sys
from pyshimio import _pipesize as pipesize
from pyshimio import _pump as pump_module
from pyshimio._events import EventHub
from pyshimio._fd import OwnedFd
from pyshimio._poller import Poller, Timer, _AsyncioPoller
from pyshimio._ring import RingSink
from pyshimio._sink import DescriptorSink, NullSink, PipeSink
from pyshimio.testing.faults import count_syscalls, fail_syscall
from support.children import GUARD, until
from support.pump import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from pyshimio._pace import Pace

MOVES = ("read", "write", "writev", "splice")


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no turn end because the machine is slow."""
    monkeypatch.setattr(pump_module, "TURN_SECONDS", 1e9)


class Rhythm:
    """A pace that is set by hand."""

    def __init__(self, *, left: int = 0, paused: bool = False) -> None:
        self.left = left
        self.paused = paused
        self.answer = False
        self.asked: list[int] = []

    def pays(self, total: int, _now: float) -> bool:
        """Do as :meth:`Pace.pays`."""
        self.asked.append(total)
        return self.answer


class Pauses:
    """A scene whose pauses end when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, scene: Scene, *, paused: bool) -> None:
        self.rhythm = Rhythm(paused=paused)
        self.rhythm.answer = True
        scene.pump._pace = cast("Pace", self.rhythm)
        self.turns: list[Callable[[], None]] = []
        monkeypatch.setattr(scene.poller, "pause", self.begin)

    def begin(self, turn: Callable[[], None]) -> bool:
        """Do as :meth:`Poller.pause`, for ever."""
        self.turns.append(turn)
        return True

    def over(self) -> None:
        """End the one pause."""
        (turn,) = self.turns
        self.turns.clear()
        turn()

    async def begun(self) -> None:
        """Wait for the next one."""
        await until(lambda: self.turns)


class Timers:
    """A scene's timers, which are due when they are told to be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
        self.waiting: list[Callable[[], None]] = []
        monkeypatch.setattr(scene.poller, "later", self.later)

    def later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Do as :meth:`Poller.later`, but for the time."""
        assert delay == pump_module.IDLE_SECONDS
        self.waiting.append(callback)
        return Timer(callback)

    def due(self) -> None:
        """Let the one timer be due."""
        (callback,) = self.waiting
        self.waiting.clear()
        callback()


class Bystander:
    """Another scene, to see that the loop has come round."""

    def __init__(self) -> None:
        self.scene = Scene()

    async def look(self) -> None:
        """Have everybody served who was ready before."""
        for _ in range(3):
            os.write(self.scene.writer, b"x")
            await self.scene.read(1)


async def moved(scene: Scene, total: int) -> None:
    """Wait until so many bytes have been read."""
    await until(lambda: scene.pump.counters.bytes_in == total)


# -- conversations ----------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["direct", "nested"])
def _listening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pumps listen as each kind of loop allows it (trio has one way only)."""
    if not request.param:
        monkeypatch.setattr(_AsyncioPoller, "direct", False)


@pytest.mark.usefixtures("_listening")
async def test_an_echo_asks_the_kernel_for_one_read_and_one_write() -> None:
    """A line of a quiet stream costs a read and a write, and no look for nothing."""
    scene = Scene()
    os.write(scene.writer, b"hello\n")
    await scene.read(6)
    left = scene.pump._pace.left
    with count_syscalls() as calls:
        for _ in range(5):
            os.write(scene.writer, b"hello\n")
            await scene.read(6)
    assert [name for name in calls.names if name in MOVES] == ["read", "write"] * 5
    assert scene.pump._pace.left == left - 5
    assert scene.pump.counters.writes == 6
    scene.close()


async def test_a_long_conversation_is_looked_at_now_and_then() -> None:
    """So many turns later, and not earlier, the pace is asked, and knows every byte."""
    scene = Scene()
    os.write(scene.writer, b"x")
    await scene.read(1)
    rhythm = Rhythm(left=3)
    scene.pump._pace = cast("Pace", rhythm)
    for _ in range(3):
        os.write(scene.writer, b"x")
        await scene.read(1)
    assert (rhythm.left, rhythm.asked) == (1, [4])
    assert scene.pump.counters.writes == 4
    scene.close()


@pytest.mark.usefixtures("_listening")
@pytest.mark.parametrize("size", [5, 5000])
async def test_last_words(size: int) -> None:
    """What comes with the writer's goodbye arrives, and then the end."""
    scene, bystander = Scene(), Bystander()
    await bystander.look()
    os.write(scene.writer, b"x" * size)
    scene.end()
    await scene.finish()
    assert scene.pump.eof
    assert os.read(scene.reader, 1 << 16) == b"x" * size
    scene.close()
    bystander.scene.close()


async def test_a_page_in_a_conversation_makes_busy() -> None:
    """Where a whole page comes at once, what is behind it is spliced."""
    scene = Scene()
    os.write(scene.writer, b"x")
    await scene.read(1)
    os.write(scene.writer, b"x" * 3 * 4096)
    assert await scene.read(3 * 4096) == b"x" * 3 * 4096
    assert (scene.pump.counters.writes, scene.pump.counters.path) == (3, "splice")
    scene.close()


async def test_a_conversation_that_nobody_reads() -> None:
    """Lines that fill the sink to its last byte leave the next one whole, for later."""
    scene = Scene()
    for number in range(32):
        os.write(scene.writer, b"x" * 2048)
        await moved(scene, 2048 * (number + 1))
    os.write(scene.writer, b"next")
    await until(lambda: scene.pump.stats().blocked)
    assert scene.pump.counters.bytes_out == 65536
    assert await scene.read(65540) == b"x" * 65536 + b"next"
    assert scene.pump.counters.bytes_out == scene.pump.counters.bytes_in == 65540
    scene.close()


async def test_a_turn_does_all_that_is_to_do() -> None:
    """One turn moves what is there, in parts if need be, and passes the mark behind it."""
    scene = Scene()
    os.write(scene.writer, b"a" * 4000)
    scene.pump._turn()
    os.write(scene.writer, b"b" * 200)  # more than fits the page that was begun
    scene.pump._turn()
    assert scene.unread() == 4200
    with count_syscalls() as calls:
        os.write(scene.writer, b"c" * 10)
        scene.pump._turn()
    assert [name for name in calls.names if name in MOVES] == ["read", "write"]
    os.write(scene.writer, b"d" * 10)
    scene.pump.mark(stop=False)
    scene.pump._turn()
    assert scene.pump.reached
    scene.close()


async def test_a_turn_tries_a_full_sink_once() -> None:
    """A turn ends where the sink has no room, whether its bytes are new or wait already."""
    scene = Scene()
    os.write(scene.writer, b"x" * 65536)
    while scene.unread() < 65536:
        scene.pump._turn()
    os.write(scene.writer, b"y")
    for moves in (["read", "write"], ["write"]):
        with count_syscalls() as calls:
            scene.pump._turn()
        assert [name for name in calls.names if name in MOVES] == moves
    scene.close()


async def test_turns_are_queued_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many reasons there are for a turn, one comes, and none after the end."""
    scene, bystander = Scene(), Bystander()
    await bystander.look()
    soon: list[Callable[[], None]] = []
    with monkeypatch.context() as patch:
        patch.setattr(scene.poller, "soon", soon.append)
        for _ in range(3):
            scene.pump.retry()
        assert len(soon) == 1
        soon.pop()()
        scene.pump.retry()
        assert len(soon) == 1
        soon.pop()()
        scene.pump.end()
        scene.pump.retry()
        assert soon == []
    scene.close()
    bystander.scene.close()


async def test_a_full_sink_is_left_alone() -> None:
    """While there is no room nothing is read and nothing is tried."""
    scene, bystander = Scene(), Bystander()
    for text in (b"x", b"y"):
        os.write(scene.writer, text * 65536)
        await until(lambda: scene.unread() == 65536)
    await until(lambda: scene.pump.stats().blocked)
    await bystander.look()
    with count_syscalls() as calls:
        await bystander.look()
    assert [name for name in calls.names if name in MOVES] == ["read", "write"] * 3
    scene.close()
    bystander.scene.close()


async def test_blocked_time_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seconds that a stream has waited for room are told as they pass, and add up."""
    scene = Scene()
    now = 100.0
    with monkeypatch.context() as patch:
        patch.setattr(_sys, "monotonic", lambda: now)
        for begin, waited in ((100.0, 0.0), (200.0, 3.0)):
            now = begin
            os.write(scene.writer, b"x" * 65536)
            scene.pump._turn()
            os.write(scene.writer, b"x" * 65536)
            for _ in range(3):
                scene.pump._turn()  # finds no room, again and again
                assert scene.pump.stats().blocked == waited + now - begin
                now += 1
            assert len(os.read(scene.reader, 1 << 17)) == 65536
            scene.pump._turn()
            assert scene.pump.stats().blocked == waited + 3
            now += 50
            assert scene.pump.stats().blocked == waited + 3
            assert len(os.read(scene.reader, 1 << 17)) == 65536
    scene.close()


async def test_figures_of_a_ring() -> None:
    """What waits in a ring is neither delivered nor dropped yet; what it had no room for is."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    hub = EventHub()
    scene = Scene(
        RingSink(
            "stdout",
            PipeSink(OwnedFd(writer)),
            capacity=100_000,
            lane=None,
            poller=Poller.current(),
            hub=hub,
        )
    )
    total = 0
    for size, dropped in ((65536, 0), (60_000, 0), (60_000, 20_000)):
        os.write(scene.writer, b"x" * size)
        total += size
        await moved(scene, total)
        await until(lambda: _sys.unread(reader) == 65536)
        stats = scene.pump.stats()
        assert (stats.bytes_out, stats.dropped) == (65536, dropped)
    scene.close()
    hub.close()
    os.close(reader)


@pytest.mark.parametrize("stop", [True, False])
async def test_what_comes_behind_a_mark(stop: bool) -> None:
    """A mark is behind the bytes that were there, whatever a background writer adds."""
    scene, bystander = Scene(), Bystander()
    await bystander.look()
    os.write(scene.writer, b"x" * 100)
    scene.pump.mark(stop=stop)
    os.write(scene.writer, b"y" * 50)
    with anyio.fail_after(GUARD):
        await scene.pump.wait_marked()
    assert scene.pump.done.is_set() is stop
    if stop:
        await bystander.look()
        assert scene.unread() == 100
    else:
        assert await scene.read(150) == b"x" * 100 + b"y" * 50
    scene.close()
    bystander.scene.close()


class Broken(PipeSink):
    """Breaks when it is written to."""

    def append(self, data: bytes | memoryview) -> int | None:
        """Raise, whatever it is given."""
        del data
        raise ZeroDivisionError


async def test_conversation_whose_source_fails() -> None:
    """A source that cannot be read ends its stream with what the kernel said."""
    scene, bystander = Scene(), Bystander()
    await bystander.look()
    with fail_syscall("read", error=errno.EIO):
        os.write(scene.writer, b"hello")
        await scene.finish()
    assert isinstance(scene.pump.error, OSError)
    assert scene.pump.error.errno == errno.EIO
    assert scene.pump.counters.bytes_in == 0
    scene.close()
    bystander.scene.close()


async def test_conversation_whose_sink_raises() -> None:
    """What a sink raises in a conversation ends the stream, and all is accounted for."""
    scene = Scene(sink_type=Broken)
    bystander = Bystander()
    await bystander.look()  # the first turn found nothing
    os.write(scene.writer, b"hello")
    await scene.finish()
    error = scene.pump.error
    assert isinstance(error, ZeroDivisionError)
    stats = scene.pump.stats()
    assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (5, 0, 5)
    assert stats.writes == 0
    scene.hub.close()
    assert [event async for event in scene.events] == [SinkFailed("stdout", error, final=True)]
    scene.close()
    bystander.scene.close()


class Leaky(DescriptorSink):
    """Drops what it is given first, then has no room, then breaks."""

    broken = False

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        """Take, refuse or raise."""
        if self.broken:
            raise ZeroDivisionError
        if self.dropped == 10:
            return None
        count = sum(memoryview(buffer).nbytes for buffer in buffers)
        self.dropped += count
        return count


@pytest.mark.parametrize("broken", [False, True])
async def test_what_is_dropped_adds_up(broken: bool) -> None:
    """Bytes that the sink dropped and bytes that it did not take are all told."""
    scene = Scene(sink_type=Leaky)
    for total in (5, 10):
        os.write(scene.writer, b"hello")
        await moved(scene, total)
    os.write(scene.writer, b"goodbye")
    await until(lambda: scene.pump.stats().blocked)
    if broken:
        cast("Leaky", scene.sink).broken = True
        scene.pump.retry()
        await scene.finish()
    else:
        scene.pump.end()
    stats = scene.pump.stats()
    assert (stats.bytes_in, stats.bytes_out, stats.dropped, stats.writes) == (17, 0, 17, 2)
    scene.hub.close()
    (event,) = [event async for event in scene.events]
    if not broken:
        assert event == BytesDropped("stdout", 7, "the sink did not take it in time")
    scene.close()


# -- bulk -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4096, 65536])
@pytest.mark.parametrize("proven", [False, True])
async def test_a_block_is_one_splice(size: int, proven: bool) -> None:
    """A block of a busy stream costs one splice, and no look for nothing."""
    scene = Scene()
    for _ in range(3):
        os.write(scene.writer, b"x" * 65536)
        await scene.read(65536)
    if proven:
        scene.pump._go_busy()  # as a stream does that has used up its turn
        os.write(scene.writer, b"x" * 65536)
        await scene.read(65536)
    before = scene.pump.stats()
    with count_syscalls() as calls:
        for _ in range(5):
            os.write(scene.writer, b"x" * size)
            await scene.read(size)
    assert [name for name in calls.names if name in MOVES] == ["splice"] * 5
    stats = scene.pump.stats()
    assert stats.writes == before.writes + 5
    assert stats.bytes_in == stats.bytes_out == before.bytes_in + 5 * size
    scene.close()


class Endless(NullSink):
    """Each write puts as much into the source again."""

    writer = -1
    tick = 0

    def write(self, buffers: Sequence[Buffer]) -> int | None:
        """Take it, and have a tick pass."""
        self.tick += 1
        os.write(self.writer, b"x" * sum(memoryview(buffer).nbytes for buffer in buffers))
        return super().write(buffers)


def endless(monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, Endless]:
    """A scene that always has more, with a clock that ticks with each write."""
    sink = Endless(count=False)
    scene = Scene(sink)
    sink.writer = scene.writer
    monkeypatch.setattr(_sys, "perf_counter", lambda: float(sink.tick))
    os.write(scene.writer, b"x" * 65536)
    return scene, sink


@pytest.mark.parametrize("budget", ["bytes", "seconds"])
async def test_turn_ends_with_its_budget(monkeypatch: pytest.MonkeyPatch, budget: str) -> None:
    """A turn is over as soon as it has moved enough or has lasted too long; another follows."""
    monkeypatch.setattr(pump_module, "TURN_SECONDS", 2.0 if budget == "seconds" else 1e9)
    monkeypatch.setattr(pump_module, "TURN_BYTES", 3 * 65536 if budget == "bytes" else 1 << 40)
    soon: list[Callable[[], None]] = []
    with monkeypatch.context() as patch:
        scene, _ = endless(patch)
        patch.setattr(scene.poller, "soon", soon.append)
        scene.pump._busy = True
        for turns in (1, 2):
            scene.pump._queued = False
            scene.pump._turn()
            assert scene.pump.counters.bytes_in == turns * 3 * 65536
            assert scene.pump._queued
            assert len(soon) == turns
    scene.close()


async def test_it_takes_a_page_to_be_busy() -> None:
    """A stream that comes by less than a page is read by pages, and one that does not by more."""
    ours, theirs = socket.socketpair()
    scene = Scene(DescriptorSink(OwnedFd(ours.detach())))
    sizes: list[int] = []
    read = scene.pump.source.read

    def tell(size: int) -> bytes | None:
        sizes.append(size)
        return read(size)

    scene.pump.source.read = tell  # type: ignore[method-assign]
    total = 0
    for size in (4095, 4096, 1):
        os.write(scene.writer, b"x" * size)
        total += size
        await moved(scene, total)
    first = sizes.index(1 << 16)
    assert set(sizes[:first]) == {4096}
    assert set(sizes[first:]) == {1 << 16}
    scene.end()
    await scene.finish()
    theirs.close()
    scene.close()


# -- pauses -----------------------------------------------------------------------------


@pytest.mark.parametrize("trial", [False, True])
async def test_a_paused_stream_is_left_alone(monkeypatch: pytest.MonkeyPatch, trial: bool) -> None:
    """During a pause nothing moves; when it is over, everything; and so again and again."""
    scene, bystander = Scene(), Bystander()
    pauses = Pauses(monkeypatch, scene, paused=not trial)
    got = 0

    async def pause_and_go() -> None:
        nonlocal got
        await pauses.begun()
        for _ in range(2):
            os.write(scene.writer, b"one")
            await bystander.look()
            assert scene.unread() == 0
        pauses.over()
        assert await scene.read(6) == b"oneone"
        got += 6

    await pause_and_go()
    await pause_and_go()
    await pauses.begun()
    pauses.rhythm.answer = False
    pauses.over()
    for _ in range(2):
        os.write(scene.writer, b"two")
        assert await scene.read(3) == b"two"
        got += 3
    pauses.rhythm.answer = True
    os.write(scene.writer, b"two")
    assert await scene.read(3) == b"two"
    got += 3
    await pause_and_go()
    await pauses.begun()
    pauses.rhythm.answer = False
    scene.end()
    if trial:
        pauses.over()
    await scene.finish()
    assert scene.pump.eof
    assert scene.pump.counters.bytes_out == got
    bystander.scene.close()
    scene.close()


@pytest.mark.parametrize("trial", [False, True])
async def test_what_a_pause_has_gathered(monkeypatch: pytest.MonkeyPatch, trial: bool) -> None:
    """After a pause a stream is busy: what has come is moved at once, unless it was a trial."""
    scene = Scene()
    pauses = Pauses(monkeypatch, scene, paused=not trial)
    await pauses.begun()
    os.write(scene.writer, b"x")
    pauses.over()
    assert await scene.read(1) == b"x"
    await pauses.begun()
    writes = scene.pump.counters.writes
    for text in (b"y" * 4000, b"z" * 4000):
        os.write(scene.writer, text)
    pauses.over()
    assert await scene.read(8000) == b"y" * 4000 + b"z" * 4000
    assert scene.pump.counters.writes == writes + (2 if trial else 1)
    assert scene.pump.counters.path == ("copy" if trial else "splice")
    scene.close()


async def test_pause_of_a_stream_whose_sink_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that a reader makes is not looked at during a pause, and again after it."""
    scene, bystander = Scene(), Bystander()
    pauses = Pauses(monkeypatch, scene, paused=True)
    pauses.rhythm.answer = False
    os.write(scene.writer, b"x" * 65536)
    await until(lambda: scene.unread() == 65536)
    os.write(scene.writer, b"y" * 65536)
    await until(lambda: scene.pump.stats().blocked)
    pauses.rhythm.answer = True
    os.write(scene.writer, b"z" * os.fpathconf(scene.writer, "PC_PIPE_BUF"))
    await pauses.begun()
    await scene.read(65536)
    moved = scene.unread()
    await bystander.look()
    assert scene.unread() == moved
    pauses.rhythm.answer = False
    pauses.over()
    await until(lambda: scene.unread() == 65536)
    # Full again, so the watch is armed.
    assert await scene.read(65536) == b"y" * 65536
    assert await scene.read(4096) == b"z" * 4096
    bystander.scene.close()
    scene.close()


async def test_no_pause_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that cannot pause goes on without."""
    scene = Scene()
    monkeypatch.setattr(scene.poller, "pause", lambda turn: False)  # noqa: ARG005
    rhythm = Rhythm(paused=True)
    rhythm.answer = True
    scene.pump._pace = cast("Pace", rhythm)
    for _ in range(3):
        os.write(scene.writer, b"x")
        assert await scene.read(1) == b"x"
    scene.close()


# -- quiet and busy ---------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1 << 20, 1])
async def test_pipes_grow_with_the_rate(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """So many bytes within a second make the pipes larger; the same in a longer time do not."""
    monkeypatch.setattr(pump_module, "TURN_BYTES", budget)
    monkeypatch.setattr(pipesize, "HASTE_BYTES", 1000)
    monkeypatch.setattr(pipesize, "HASTE_SECONDS", 10.0)
    scene = Scene()
    pump = scene.pump
    now = 0.0

    def turn(when: float, size: int) -> int:
        nonlocal now
        now = when
        os.write(scene.writer, b"x" * size)
        pump._turn()
        assert len(os.read(scene.reader, 1 << 20)) == size
        sizes = {_sys.pipe_size(fd) for fd in (scene.writer, scene.reader)}
        assert len(sizes) == 1
        return sizes.pop()

    with monkeypatch.context() as patch:
        patch.setattr(_sys, "perf_counter", lambda: now)
        # A window begins with the first turn, and what that has moved is not in it.
        assert turn(100.0, 2000) == 65536
        assert turn(110.0, 999) == 65536
        pace = pump._pace
        assert turn(110.0, 1) == 1 << 18
        assert pump._pace is not pace  # there is more to gather, so everything is tried anew
        # Growth begins another window.
        assert turn(110.0, 2000) == 1 << 18
        assert turn(115.0, 999) == 1 << 18
        assert turn(120.1, 2000) == 1 << 18
        assert turn(120.2, 1000) == 1 << 20
        pace = pump._pace
        assert turn(121.0, 1000) == turn(121.1, 1000) == 1 << 20
        assert pump._pace is pace
    scene.close()


async def test_an_idle_stream_calms_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy stream that moves nothing for the idle time is quiet again, and may be busy again."""
    scene, bystander = Scene(), Bystander()
    pump = scene.pump
    timers = Timers(monkeypatch, scene)
    pauses = Pauses(monkeypatch, scene, paused=True)
    await pauses.begun()  # a pause makes busy, and what has moved before is no reason to stay
    for _ in range(2):
        pauses.rhythm.answer = False
        os.write(scene.writer, b"x" * 9000)
        await bystander.look()
        assert scene.unread() == 0
        pauses.over()
        await scene.read(9000)
        timers.due()  # something has moved since
        await bystander.look()
        timers.due()
        assert timers.waiting == []
        assert (pump._direct is not None) is scene.poller.direct
        writes = pump.counters.writes
        os.write(scene.writer, b"x" * 4096 + b"y" * 5)
        assert await scene.read(4101) == b"x" * 4096 + b"y" * 5
        assert pump.counters.writes == writes + 2  # a page, and what was behind it
        await bystander.look()
        assert timers.waiting == []
        pauses.rhythm.answer = True
        os.write(scene.writer, b"x")
        assert await scene.read(1) == b"x"
        await pauses.begun()
    pauses.over()
    await pauses.begun()
    timers.due()  # nothing has moved since
    assert timers.waiting == []
    pauses.turns.clear()
    os.write(scene.writer, b"x")
    await pauses.begun()
    os.write(scene.writer, b"x")
    await bystander.look()
    assert scene.unread() == 1
    scene.close()
    bystander.scene.close()


async def test_a_blocked_stream_does_not_calm_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that waits for room stays where it hears of it, however long it takes."""
    scene = Scene()
    timers = Timers(monkeypatch, scene)
    for text in (b"x", b"y"):
        os.write(scene.writer, text * 65536)
        await until(lambda: scene.unread() == 65536)
    await until(lambda: scene.pump.stats().blocked)
    for _ in range(3):
        timers.due()
    assert len(timers.waiting) == 1
    assert await scene.read(2 * 65536) == b"x" * 65536 + b"y" * 65536
    scene.close()


async def test_a_splice_that_left_something_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that slept in a full pipe and wrote between the look and the splice is heard.

    It found the pipe not empty, so it has made no edge, and sleeps in the full pipe again.
    """
    scene = Scene()
    scene.pump._go_busy()
    cast("PipeSink", scene.sink)._consumed = -1  # as if the client had read something
    os.write(scene.writer, b"x" * (1 << 16))
    unread = _sys.unread
    source = scene.pump.source.fd.fileno()
    looks = [-_sys.PAGE]  # the first one comes before the writer's last page

    def look(fd: int) -> int:
        return unread(fd) + (looks.pop() if fd == source and looks else 0)

    monkeypatch.setattr(_sys, "unread", look)
    scene.pump._turn()
    assert unread(scene.reader) == (1 << 16) - _sys.PAGE
    assert scene.pump._queued
    scene.end()
    assert len(await scene.read(1 << 16)) == 1 << 16
    await scene.finish()
    scene.close()
