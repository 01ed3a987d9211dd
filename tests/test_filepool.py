"""The threads that write files: lanes, stuck jobs, callers that leave, the end."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import _filepool
from pyshimio._filepool import FilePool, Lane
from support.children import until
from support.threads import pool_threads

if TYPE_CHECKING:
    from collections.abc import Iterator


GATE = 20.0
"""Seconds that a gate keeps a thread at most."""


@contextmanager
def lane(name: str = "a lane") -> Iterator[Lane]:
    """A lane that is closed at the end."""
    made = Lane(name)
    try:
        yield made
    finally:
        made.close()


class Gate:
    """A job that waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        """A function for ``call``."""
        self.entered.set()
        assert self.opened.wait(GATE)
        return "passed"

    def job(self, _scratch: bytearray) -> None:
        """The same as a job."""
        self()


async def test_the_jobs_of_a_lane_run_one_at_a_time_and_in_order() -> None:
    """However many threads there are, a sink sees one call at a time."""
    order: list[tuple[str, int]] = []
    running: set[str] = set()
    overlaps: list[str] = []

    def job(name: str, number: int) -> None:
        if name in running:
            overlaps.append(name)
        running.add(name)
        order.append((name, number))
        running.discard(name)

    with lane("a") as a, lane("b") as b, lane("c") as c:
        for number in range(200):
            for one in (a, b, c):
                one.submit(lambda _, name=one.name, n=number: job(name, n))  # type: ignore[misc]
        for one in (a, b, c):
            with anyio.fail_after(20):
                await one.call(lambda: None, lambda _: None)
    assert not overlaps
    for name in "abc":
        assert [n for who, n in order if who == name] == list(range(200))


async def test_a_job_gets_the_scratch_buffer_of_its_thread() -> None:
    """It is large enough for a long write."""
    sizes: list[int] = []
    with lane() as one:
        one.submit(lambda scratch: sizes.append(len(scratch)))
        await one.call(lambda: None, lambda _: None)
    assert sizes == [_filepool.SCRATCH]


async def test_posted_callbacks_run_on_the_loop() -> None:
    """What a job posts is called in the loop's thread."""
    where: list[int] = []
    done = anyio.Event()

    def arrived() -> None:
        where.append(threading.get_ident())
        done.set()

    with lane() as one:
        one.submit(lambda _: one.post(arrived))
        with anyio.fail_after(20):
            await done.wait()
    assert where == [threading.get_ident()]


async def test_stuck_lanes_do_not_stop_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool grows by a thread for each stuck one, and says once which sink is stuck."""
    monkeypatch.setattr(_filepool, "STUCK", 0.05)
    gates = [Gate() for _ in range(2 * _filepool.THREADS)]
    lanes = [Lane(f"stuck {n}") for n in range(len(gates))]
    try:
        with caplog.at_level(logging.WARNING, "pyshimio"):
            for one, gate in zip(lanes, gates, strict=True):
                one.submit(gate.job)
            with lane("free") as free, anyio.fail_after(20):
                assert await free.call(lambda: 1, lambda _: None) == 1
                await until(lambda: all(gate.entered.is_set() for gate in gates))
                assert await free.call(lambda: 2, lambda _: None) == 2
                await until(lambda: all(f"{one.name} is stuck" in caplog.text for one in lanes))
                await anyio.sleep(0.2)
        for one in lanes:
            assert caplog.text.count(f"{one.name} is stuck") == 1
    finally:
        for gate in gates:
            gate.opened.set()
        for one in lanes:
            one.close()
    await until(lambda: not pool_threads())


async def test_one_stuck_file_system_leaves_threads_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many files of one frozen disk there are, those of another one are written."""
    monkeypatch.setattr(_filepool, "STUCK", 0.02)
    gates = [Gate() for _ in range(_filepool.MOST_THREADS + 6)]
    lanes = [Lane(f"stuck {n}") for n in range(len(gates))]
    try:
        for one, gate in zip(lanes, gates, strict=True):
            one.device = 1
            one.submit(gate.job)
        with lane("free") as free, anyio.fail_after(20):
            free.device = 2
            for number in range(20):
                assert await free.call(lambda: number, lambda _: None) == number  # noqa: B023
                await anyio.sleep(0.01)
        entered = sum(gate.entered.is_set() for gate in gates)
        assert entered < _filepool.MOST_THREADS / 2
        for gate in gates:
            gate.opened.set()
        await until(lambda: all(gate.entered.is_set() for gate in gates))
    finally:
        for gate in gates:
            gate.opened.set()
        for one in lanes:
            one.close()
    await until(lambda: not pool_threads())


async def test_two_jobs_at_once_get_a_thread_each() -> None:
    """A thread that was woken already does not count for a second job."""
    with lane("a") as a, lane("b") as b, lane("c") as c:
        await a.call(lambda: None, lambda _: None)  # one idle thread
        first, second = Gate(), Gate()
        b.submit(first.job)
        c.submit(second.job)
        try:
            # Neither waits for the second in which the other would count as stuck.
            assert first.entered.wait(_filepool.STUCK * 0.9)
            assert second.entered.wait(_filepool.STUCK * 0.9)
        finally:
            first.opened.set()
            second.opened.set()


async def test_call_returns_and_raises_what_the_function_does() -> None:
    """A call is a function call in another thread."""
    orphans: list[object] = []

    def fail() -> None:
        raise LookupError("no")

    with lane() as one:
        assert await one.call(threading.get_ident, orphans.append) != threading.get_ident()
        with pytest.raises(LookupError, match="no"):
            await one.call(fail, orphans.append)
    assert orphans == []


async def test_the_result_of_a_cancelled_call_goes_to_the_orphanage() -> None:
    """What a function returns after its caller was cancelled is handed to orphan."""
    gate = Gate()
    orphans: list[str] = []
    with lane() as one:
        with anyio.move_on_after(0.05) as scope:
            await one.call(gate, orphans.append)
        assert scope.cancelled_caught
        assert orphans == []
        gate.opened.set()
        await until(lambda: orphans)
    assert orphans == ["passed"]


async def test_a_result_that_came_before_the_cancellation_is_not_lost() -> None:
    """Function finished, caller cancelled before it was woken: an orphan, or still the caller's."""
    orphans: list[str] = []
    taken: list[str] = []
    finished = threading.Event()

    def function() -> str:
        finished.set()
        return "result"

    with lane() as one:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def call() -> None:
                    taken.append(await one.call(function, orphans.append))

                group.start_soon(call)
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
                assert finished.wait(20)
                scope.cancel()
        await until(lambda: orphans or taken)
    assert orphans + taken == ["result"]


async def test_a_cancelled_call_whose_lane_was_closed_still_has_an_orphan() -> None:
    """The pool may be gone by the time the function returns; the thread hands it over then."""
    gate = Gate()
    orphans: list[str] = []
    with anyio.move_on_after(0.05):
        with lane() as one:
            await one.call(gate, orphans.append)
    assert _filepool._current.get() is None
    gate.opened.set()
    await until(lambda: orphans)
    await until(lambda: not pool_threads())


async def test_closing_a_lane_wakes_its_callers() -> None:
    """A call whose lane is closed under it raises instead of waiting for ever."""
    gate = Gate()
    orphans: list[str] = []
    one = Lane("a lane")
    raised: list[BaseException] = []

    async def call() -> None:
        try:
            await one.call(gate, orphans.append)
        except anyio.ClosedResourceError as error:
            raised.append(error)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await until(gate.entered.is_set)
            one.close()
    assert len(raised) == 1
    gate.opened.set()
    await until(lambda: orphans == ["passed"])
    await until(lambda: not pool_threads())


async def test_threads_are_joined_when_the_last_lane_closes() -> None:
    """Not before, and then at once."""
    with lane("a") as a:
        with lane("b") as b:
            await a.call(lambda: None, lambda _: None)
            await b.call(lambda: None, lambda _: None)
        assert pool_threads()
        assert isinstance(_filepool._current.get(), FilePool)
    await until(lambda: not pool_threads())
    assert _filepool._current.get() is None


async def test_idle_threads_are_gone_when_close_returns() -> None:
    """Joined means joined."""
    one = Lane("a lane")
    await one.call(lambda: None, lambda _: None)
    pool = _filepool._current.get()
    assert pool is not None
    await until(lambda: not pool._busy)
    one.close()
    one.close()
    assert not pool_threads()


async def test_closing_does_not_wait_for_a_job_that_has_not_begun() -> None:
    """A job that an idle thread was just woken for may be the one that gets stuck."""
    one, gate = Lane("a lane"), Gate()
    try:
        await one.call(lambda: None, lambda _: None)
        pool = _filepool._current.get()
        assert pool is not None
        await until(lambda: pool._idle == 1)
        began = time.monotonic()
        one.submit(gate.job)
        one.close()
        assert time.monotonic() - began < GATE / 2
    finally:
        gate.opened.set()
    # What was submitted still runs.
    await until(gate.entered.is_set)
    await until(lambda: not pool_threads())


async def test_a_post_after_the_end_is_dropped() -> None:
    """A thread that comes back when the pool is closed disturbs nobody."""
    gate = Gate()
    called: list[int] = []
    one = Lane("a lane")

    def job(scratch: bytearray) -> None:
        gate.job(scratch)
        one.post(lambda: called.append(1))

    one.submit(job)
    await until(gate.entered.is_set)
    one.close()
    gate.opened.set()
    await until(lambda: not pool_threads())
    assert called == []


async def test_a_closed_lane_takes_no_jobs() -> None:
    """submit() and call() raise instead of losing the job in silence."""
    one = Lane("a lane")
    one.close()
    with pytest.raises(anyio.ClosedResourceError):
        one.submit(lambda _: None)
    with pytest.raises(anyio.ClosedResourceError):
        await one.call(lambda: None, lambda _: None)


async def test_a_job_that_raises_is_logged_and_the_lane_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One bug does not stop the thread."""

    def job(_scratch: bytearray) -> None:
        raise RuntimeError("a bug")

    with lane("the lane") as one:
        with caplog.at_level(logging.ERROR, "pyshimio"):
            one.submit(job)
            assert await one.call(lambda: 3, lambda _: None) == 3
    assert "the lane" in caplog.text


async def test_a_new_pool_does_not_wait_for_an_old_one() -> None:
    """While a thread of a closed pool is stuck, the next file gets a pool of its own."""
    gate = Gate()
    old = Lane("old")
    old.submit(gate.job)
    await until(gate.entered.is_set)
    old.close()
    try:
        with lane("new") as new, anyio.fail_after(20):
            assert await new.call(lambda: 1, lambda _: None) == 1
    finally:
        gate.opened.set()
    await until(lambda: not pool_threads())
