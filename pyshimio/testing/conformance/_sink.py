"""A sink is held to the protocol: by hand, and behind a stream of an IO."""

from __future__ import annotations

import os
import select
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from ...abc import Sink
from ...io.file import FileIO
from .._eventually import GUARD
from .._fake_container import FakeContainer, numbered
from ..faults._aftermath import nothing_left
from ._making import is_open, made, promise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from ._making import Make

__all__ = ("check_sink",)

BULK = 300_000
SHORT = 0.2
"""Seconds; what does not wait takes less on any machine."""
MANY = 1500
"""Buffers; more than one call of the kernel takes (IOV_MAX is 1024)."""


async def check_sink(make: Make[Sink], *, read: Callable[[Any], bytes] | None = None) -> None:
    """Hold a sink to :class:`pyshimio.Sink`.

    Args:
        make: Gives a new sink, whose destination is empty: a function, a coroutine function, or an
            async context manager.
        read: What has arrived up to now; it gets the sink, which is closed by then.  What is
            missing has to be in :attr:`~pyshimio.abc.Sink.dropped`; of what a child writes at the
            pace at which it is taken, nothing may be.  None: nobody can know.

    Raises:
        AssertionError: A promise was broken; the message says which.

    Example:
        ::

            async def test_recorder() -> None:
                await check_sink(Recorder, read=lambda recorder: bytes(recorder.data))
    """

    def arrived(sink: Sink, data: bytes, what: str) -> None:
        sink.close()
        if read is None:
            return
        got, dropped = read(sink), sink.dropped
        promise(
            len(got) == len(data) - dropped and _in_order(got, data),
            f"{what}: what was taken arrives, in its order, or counts as dropped;"
            f" {len(got)} bytes of {len(data)} did, and {dropped} were",
        )

    by_hand = (_words, _unused, _buffers, _many_buffers, _buffers_are_the_callers, _reopened)
    tests: dict[str, Callable[[Sink], Awaitable[bytes]]] = {
        **{test.__name__: partial(_in_its_thread, test) for test in (*by_hand, _closed)},
        "behind a stream": _behind_a_stream,
        "never waits": _never_waits,
    }
    for name, test in tests.items():
        what = f"a sink: {name.strip('_').replace('_', ' ')}"
        async with nothing_left(what):
            with anyio.move_on_after(GUARD) as scope:
                async with made(make, lambda one: isinstance(one, Sink)) as sink:
                    try:
                        data = await test(sink)
                        arrived(sink, data, what)
                    finally:
                        sink.close()
            promise(not scope.cancelled_caught, f"{what}: hangs")


def _in_order(got: bytes, data: bytes) -> bool:
    """Whether *got* is *data*, or what is left of it when some of it is taken out."""
    rest = iter(data)
    return got == data or all(byte in rest for byte in got)


async def _in_its_thread(test: Callable[[Sink], bytes], sink: Sink) -> bytes:
    """As it is used: one that blocks by a thread, which opens it first, others by the loop."""

    def run() -> bytes:
        if (opening := getattr(sink, "open", None)) is not None:
            opening()
        return test(sink)

    if not sink.blocking:
        return test(sink)
    return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)


def _put(sink: Sink, buffers: Sequence[Buffer]) -> None:
    """Have all of *buffers* taken, in as many calls as it wants."""
    left = [memoryview(buffer).cast("B") for buffer in buffers]
    until = time.monotonic() + GUARD / 2
    while left:
        promise(time.monotonic() < until, "write() takes something when fileno() is writable")
        offered = sum(map(len, left))
        taken = sink.write(left)
        if taken is None:
            promise(not sink.blocking, "write() of a blocking sink waits, and never says None")
            fd = sink.fileno()
            promise(fd >= 0, "write() says None only if fileno() says what to wait for")
            ready = select.select([], [fd], [], GUARD)[1]
            promise(ready, "fileno() becomes writable after write() has said None")
            continue
        promise(isinstance(taken, int), f"write() says how many bytes it has taken, not {taken!r}")
        promise(0 <= taken <= offered, f"write() cannot take {taken} of {offered} bytes")
        promise(taken or not offered, "write() takes something, or says None, or raises")
        while left and taken >= len(left[0]):
            taken -= len(left.pop(0))
        if left:
            left[0] = left[0][taken:]


def _words(sink: Sink) -> bytes:
    promise(isinstance(sink.blocking, bool), "blocking is a bool")
    promise(isinstance(sink.fileno(), int), "fileno() is a number")
    promise(sink.dropped == 0, "nothing has been dropped before the first write")
    return b""


def _unused(sink: Sink) -> bytes:
    sink.flush()
    sink.close()
    sink.close()
    return b""


def _buffers(sink: Sink) -> bytes:
    _put(sink, [b"", b"bytes,", bytearray(b"bytearray,"), memoryview(b"xmemoryview")[1:]])
    promise(sink.write([]) in {0, None}, "a write of no buffers takes nothing")
    promise(sink.write([b""]) in {0, None}, "a write of an empty buffer takes nothing")
    _put(sink, [b",", b"", b"end"])
    sink.flush()
    return b"bytes,bytearray,memoryview,end"


def _many_buffers(sink: Sink) -> bytes:
    data = numbered(MANY * 8)
    _put(sink, [data[start : start + 8] for start in range(0, len(data), 8)])
    _put(sink, [data * 4])
    sink.flush()
    return data * 5


def _buffers_are_the_callers(sink: Sink) -> bytes:
    buffer = bytearray(b"before")
    _put(sink, [buffer])
    try:
        buffer[:] = b"after, and longer"
    except BufferError as error:
        raise AssertionError("a buffer is the caller's again when write() has returned") from error
    sink.flush()
    return b"before"


def _reopened(sink: Sink) -> bytes:
    _put(sink, [b"one,"])
    sink.reopen()
    _put(sink, [b"two"])
    sink.flush()
    return b"one,two"


def _closed(sink: Sink) -> bytes:
    _put(sink, [b"x"])
    sink.flush()
    sink.close()
    sink.close()
    dropped = sink.dropped
    # The numbers that it had are somebody else's now.
    pipes = [os.pipe() for _ in range(8)]
    try:
        try:
            sink.write([b"stray"])
            sink.flush()
        except Exception:  # noqa: S110 - to refuse is right, too
            pass
        for reader, _ in pipes:
            stray = select.select([reader], [], [], 0)[0]
            promise(not stray, "after close() it writes into no descriptor that was its own once")
        sink.close()
        for pair in pipes:
            for fd in pair:
                promise(is_open(fd), "close() closes its descriptors once")
    finally:
        for pair in pipes:
            for fd in pair:
                if is_open(fd):
                    os.close(fd)
    # (It may have counted what came too late.)
    return b"x" if sink.dropped == dropped else b"xstray"


async def _behind_a_stream(sink: Sink) -> bytes:
    async with FileIO("/dev/null") as io:
        tap = io.attach("stdout", sink, ring=BULK * 2)
        await io.spawn(FakeContainer().numbered(BULK).args)
        result = await io.drain()
        promise(result.complete, f"the stream beside it is whole: {result}")
        await tap.detach()
        promise(tap.dropped == 0, f"it keeps up with a stream; {tap.dropped} bytes were dropped")
    return numbered(BULK)


async def _never_waits(sink: Sink) -> bytes:
    if sink.blocking:
        return await _in_its_thread(lambda _: b"", sink)
    calls: dict[str, Callable[[], object]] = {
        "write()": lambda: sink.write([b"x"]),
        "flush()": sink.flush,
        "close()": sink.close,
    }
    for what, call in calls.items():
        begin = time.monotonic()
        call()
        took = time.monotonic() - begin
        promise(took < SHORT, f"{what} of a sink that does not block never waits: {took:.2f} s")
    return b"x"
