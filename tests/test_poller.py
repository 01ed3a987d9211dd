"""Readiness by callback: edges, turns, timers, posts, and an end that leaves nothing."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
import trio

from pyshimio import _sys
from pyshimio._poller import Poller, Watch
from pyshimio.testing._running import running_loop
from support.children import GUARD, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A non-blocking pipe."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def reached(seen: list[int], count: int) -> bool:
    """Whether there were that many callbacks."""
    return len(seen) == count


async def turns() -> None:
    """Let the loop and the poller do what is to be done already."""
    await anyio.sleep(0.02)


async def test_one_callback_for_each_edge(pipe: tuple[int, int]) -> None:
    """A watch calls at each write and never again for bytes that were left."""
    reader, writer = pipe
    seen: list[int] = []
    watch = Poller.current().watch(reader, _sys.EPOLLIN, seen.append)
    await turns()
    assert seen == []
    for count in range(1, 4):
        os.write(writer, b"x")
        await until(partial(reached, seen, count))
        await turns()
        assert len(seen) == count
    assert seen == [_sys.EPOLLIN] * 3
    watch.close()
    watch.close()
    os.write(writer, b"x")
    await turns()
    assert len(seen) == 3


async def test_watch_begins_with_what_is_so(pipe: tuple[int, int]) -> None:
    """What was readable before the registration makes an edge of its own."""
    reader, writer = pipe
    os.write(writer, b"x")
    called = anyio.Event()
    watch = Poller.current().watch(reader, _sys.EPOLLIN, lambda _: called.set())
    with anyio.fail_after(GUARD):
        await called.wait()
    watch.close()


async def test_hang_up_is_told() -> None:
    """The last writer's goodbye comes with EPOLLHUP."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    seen: list[int] = []
    watch = Poller.current().watch(reader, _sys.EPOLLIN, seen.append)
    os.close(writer)
    await until(lambda: seen)
    assert seen[0] & _sys.EPOLLHUP
    watch.close()
    os.close(reader)


async def test_room_is_told(pipe: tuple[int, int]) -> None:
    """A full pipe that is read calls the one who waits to write."""
    reader, writer = pipe
    os.write(writer, b"x" * 65536)
    called = anyio.Event()
    watch = Poller.current().watch(writer, _sys.EPOLLOUT, lambda _: called.set())
    await turns()
    assert not called.is_set()
    os.read(reader, 8192)
    with anyio.fail_after(GUARD):
        await called.wait()
    watch.close()


async def test_listen_is_direct_where_the_loop_allows_it(pipe: tuple[int, int]) -> None:
    """On asyncio a listener is called until all is read; on trio it is told of edges."""
    reader, writer = pipe
    got = bytearray()
    poller = Poller.current()
    watch = poller.listen(reader, lambda _: got.extend(os.read(reader, 1)))
    assert poller.direct is (running_loop() != "trio")
    os.write(writer, b"abc")
    await until(lambda: len(got) == (3 if poller.direct else 1))
    watch.close()
    os.write(writer, b"d")
    await turns()
    assert got == b"abc"[: len(got)]


async def test_what_cannot_be_waited_for() -> None:
    """A regular file is refused, and the refusal leaves the poller as it was."""
    with open(__file__, "rb") as file, pytest.raises(PermissionError):
        Poller.current().watch(file.fileno(), _sys.EPOLLIN, lambda _: None)


async def test_timers(pipe: tuple[int, int]) -> None:
    """Timers come in the order of their time, once, and not when they were cancelled."""
    poller = Poller.current()
    hold = poller.hold()
    order: list[str] = []
    late = poller.later(0.06, lambda: order.append("late"))
    poller.later(0.03, lambda: order.append("middle"))
    never = poller.later(0.04, lambda: order.append("never"))
    poller.later(0, lambda: order.append("first"))
    never.cancel()
    never.cancel()
    await until(lambda: "late" in order)
    late.cancel()
    assert order == ["first", "middle", "late"]
    hold.close()


async def test_timer_alone_keeps_the_poller_until_it_has_fired() -> None:
    """A timer needs no other registration, and may make the next one itself."""
    poller = Poller.current()
    fired: list[int] = []

    def again() -> None:
        fired.append(1)
        if len(fired) < 3:
            poller.later(0.001, again)

    poller.later(0.001, again)
    await until(lambda: len(fired) == 3)


async def test_turns_are_fair() -> None:
    """Whoever asks for another turn gets it behind all others that are ready."""
    poller = Poller.current()
    hold = poller.hold()
    order: list[str] = []

    def again(name: str, left: int) -> Callable[[], None]:
        def turn() -> None:
            order.append(name)
            if left:
                poller.soon(again(name, left - 1))

        return turn

    for name in "abc":
        poller.soon(again(name, 2))
    await until(lambda: len(order) == 9)
    assert order == list("abcabcabc")
    hold.close()


async def test_endless_turns_leave_the_loop_its_own() -> None:
    """Turns that never end do not keep other tasks and timers of the loop from running."""
    poller = Poller.current()
    hold = poller.hold()
    stop = False

    def busy() -> None:
        time.sleep(0.001)
        if not stop:
            poller.soon(busy)

    for _ in range(8):
        poller.soon(busy)
    fired = anyio.Event()
    poller.later(0.01, fired.set)
    with anyio.fail_after(GUARD):
        for _ in range(20):
            await anyio.sleep(0.001)
        await fired.wait()
    stop = True
    await turns()
    hold.close()


async def test_posts_from_threads() -> None:
    """Callbacks that threads post run on the loop, all of them, in each thread's order."""
    poller = Poller.current()
    hold = poller.hold()
    loop_thread = threading.get_ident()
    seen: list[tuple[int, int]] = []
    where: set[int] = set()

    def arrived(name: int, number: int) -> None:
        seen.append((name, number))
        where.add(threading.get_ident())

    def work(name: int) -> None:
        for number in range(200):
            poller.post(partial(arrived, name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    await until(lambda: len(seen) == 600)
    for thread in threads:
        thread.join()
    assert where == {loop_thread}
    for name in range(3):
        assert [number for who, number in seen if who == name] == list(range(200))
    hold.close()


async def test_callback_that_raises(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that raises is logged, and the poller serves all others as before."""
    reader, writer = pipe
    poller = Poller.current()
    calls: list[str] = []

    def bad(_events: int = 0) -> None:
        calls.append("bad")
        raise RuntimeError("what a sink may do")

    watch = poller.watch(reader, _sys.EPOLLIN, bad)
    poller.soon(bad)
    poller.later(0, bad)
    poller.post(bad)
    os.write(writer, b"x")
    await until(lambda: len(calls) == 4)
    done = anyio.Event()
    poller.soon(done.set)
    with anyio.fail_after(GUARD):
        await done.wait()
    watch.close()
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4
    assert "what a sink may do" in caplog.text


async def test_opened_with_the_first_and_closed_with_the_last(pipe: tuple[int, int]) -> None:
    """The poller has descriptors only while something is registered, and is shared till then."""
    reader, writer = pipe
    before = len(os.listdir("/proc/self/fd"))
    first = Poller.current().watch(reader, _sys.EPOLLIN, lambda _: None)
    poller = Poller.current()
    second = poller.watch(writer, _sys.EPOLLOUT, lambda _: None)
    hold = poller.hold()
    assert Poller.current() is poller
    assert len(os.listdir("/proc/self/fd")) == before + 2
    for registration in (first, second):
        registration.close()
    assert Poller.current() is poller
    hold.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert Poller.current() is not poller


async def test_closed_and_opened_again_at_once(pipe: tuple[int, int]) -> None:
    """The poller can close and open in one turn, even out of its own callback."""
    reader, writer = pipe
    seen: list[int] = []
    watches: list[Watch] = []
    poller = Poller.current()

    def again(events: int) -> None:
        seen.append(events)
        os.read(reader, 10)
        watches.pop().close()
        watches.append(poller.watch(reader, _sys.EPOLLIN, again))

    watches.append(poller.watch(reader, _sys.EPOLLIN, again))
    for count in range(1, 4):
        os.write(writer, b"x")
        await until(partial(reached, seen, count))
    for _ in range(3):
        watches.pop().close()
        watches.append(poller.watch(reader, _sys.EPOLLIN, again))
    os.write(writer, b"x")
    await until(lambda: len(seen) == 4)
    watches.pop().close()


async def test_fork_does_not_harm_the_parent(pipe: tuple[int, int]) -> None:
    """A forked process that goes away leaves the parent's poller as it was."""
    reader, writer = pipe
    seen: list[int] = []
    watch = Poller.current().watch(reader, _sys.EPOLLIN, seen.append)
    await turns()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os.close(reader)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    os.write(writer, b"x")
    await until(lambda: seen)
    watch.close()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_loop_that_ends_first(loop: str, pipe: tuple[int, int]) -> None:
    """A run ends cleanly although something is registered, which may be closed afterwards."""
    left: list[Watch] = []

    async def main() -> None:
        poller = Poller.current()
        left.append(poller.watch(pipe[0], _sys.EPOLLIN, lambda _: None))
        left.append(poller.listen(pipe[1], lambda _: None))
        left.append(poller.hold())
        poller.soon(lambda: None)
        await anyio.sleep(0.01)

    anyio.run(main, backend=loop)
    for watch in left:
        watch.close()


def test_trio_run_that_crashes(pipe: tuple[int, int]) -> None:
    """An exception of the caller's comes out of the run as it is, with a live registration."""
    left: list[Watch] = []

    async def main() -> None:
        left.append(Poller.current().watch(pipe[0], _sys.EPOLLIN, lambda _: None))
        await anyio.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trio.run(main)
    left[0].close()
