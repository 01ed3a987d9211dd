"""What went wrong while nobody asked: the iterator and the log."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import anyio

from pyshimio import BytesDropped, NullIO, SinkFailed
from pyshimio._events import BACKLOG, EventHub
from support.children import GUARD

if TYPE_CHECKING:
    import pytest

    from pyshimio import IOEvent


def dropped(count: int, stream: str = "stdout") -> BytesDropped:
    """An event."""
    return BytesDropped(stream, count, "a test")


async def test_events_from_the_call_on() -> None:
    """Every event after the call is delivered, in order, to each iterator; earlier ones are not."""
    hub = EventHub()
    hub.emit(dropped(1))
    first = hub.events()
    hub.emit(dropped(2))
    second = hub.events()
    hub.emit(dropped(3))
    hub.close()
    assert [event async for event in first] == [dropped(2), dropped(3)]
    assert [event async for event in second] == [dropped(3)]


async def test_waiting_reader_is_woken() -> None:
    """A reader that waits gets what comes, and its end when the hub closes."""
    hub = EventHub()
    got: list[IOEvent] = []
    events = hub.events()

    async def read() -> None:
        async for event in events:
            got.append(event)

    with anyio.fail_after(GUARD):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            hub.emit(dropped(1))
            await anyio.wait_all_tasks_blocked()
            assert got == [dropped(1)]
            hub.close()
            hub.close()


async def test_slow_reader_loses_the_oldest() -> None:
    """A reader that falls behind keeps the newest events and holds nobody up."""
    hub = EventHub()
    events = hub.events()
    for number in range(BACKLOG + 5):
        hub.emit(dropped(number))
    hub.close()
    got = [event async for event in events]
    assert len(got) == BACKLOG
    assert got[0] == dropped(5)
    assert got[-1] == dropped(BACKLOG + 4)


async def test_reader_after_the_end() -> None:
    """Asked after the end there are no events, and no waiting."""
    hub = EventHub()
    hub.close()
    assert [event async for event in hub.events()] == []


async def test_forgotten_reader_is_dropped() -> None:
    """An iterator that its owner forgot takes nothing any more."""
    hub = EventHub()
    events = hub.events()
    assert len(hub._readers) == 1
    del events
    gc.collect()
    assert len(hub._readers) == 0


async def test_log_is_rate_limited(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for each kind and stream in five seconds, however many events there are."""
    now = 100.0
    monkeypatch.setattr("pyshimio._sys.monotonic", lambda: now)
    hub = EventHub()
    for _ in range(10):
        hub.emit(dropped(1))
        hub.emit(dropped(1, "stderr"))
        hub.emit(SinkFailed("stdout", OSError("x"), final=False))
    assert len(caplog.records) == 3
    assert {record.name for record in caplog.records} == {"pyshimio"}
    now += 5
    hub.emit(dropped(1))
    assert len(caplog.records) == 4


async def test_events_of_an_io_end_with_it() -> None:
    """An IO's iterator ends when the IO is closed."""
    async with NullIO() as io:
        events = io.events()
    assert [event async for event in events] == []
