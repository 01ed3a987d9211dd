"""A pair of byte streams is held to anyio's contract, and to what we add: no byte is lost."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from .._eventually import GUARD
from .._fake_container import numbered
from ..faults._aftermath import nothing_left
from ._making import made, promise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import ByteReceiveStream, ByteSendStream

    from ._making import Make

__all__ = ("check_stream",)

BULK = 1_000_000
"""Bytes; more than a pipe is likely to hold."""
Pair: TypeAlias = "tuple[ByteSendStream, ByteReceiveStream]"
Test: TypeAlias = "Callable[[ByteSendStream, ByteReceiveStream], Awaitable[None]]"


async def check_stream(make: Make[Pair]) -> None:
    """Hold a byte stream, of which we have both ends, to its contract.

    Args:
        make: Gives a new pair: what is sent into the first one is received from the second.  It may
            be a function that returns it, a coroutine function, or an async context manager.

    Raises:
        AssertionError: A promise was broken; the message says which.

    Example:
        ::

            @asynccontextmanager
            async def cat():
                async with PipeIO(stderr=False) as io:
                    await io.spawn(["cat"])
                    yield io.stdin, io.stdout


            async def test_streams() -> None:
                await check_stream(cat)
    """
    for test in TESTS:
        async with nothing_left(f"a stream: {test.__name__.strip('_')}"):
            with anyio.move_on_after(GUARD) as scope:
                async with made(make, _is_pair) as (send, receive):
                    try:
                        await test(send, receive)
                    finally:
                        with anyio.CancelScope(shield=True), suppress(anyio.BrokenResourceError):
                            await send.aclose()
                            await receive.aclose()
            promise(not scope.cancelled_caught, f"a stream: {test.__name__.strip('_')}: hangs")


def _is_pair(given: Any) -> bool:
    return isinstance(given, tuple)


async def _all(receive: ByteReceiveStream, max_bytes: int = 65536) -> bytes:
    data = bytearray()
    with suppress(anyio.EndOfStream):
        while True:
            data += await receive.receive(max_bytes)
    return bytes(data)


async def _exactly(receive: ByteReceiveStream, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        data += await receive.receive(count - len(data))
    return bytes(data)


async def _raises(call: Callable[[], Awaitable[object]], kind: type[Exception], what: str) -> None:
    try:
        await call()
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what}: raised {error!r}, not {kind.__name__}") from error
    raise AssertionError(f"{what}: raised nothing, not {kind.__name__}")


# -- the promises -----------------------------------------------------------------------------


async def _bytes_arrive(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    data = bytes(range(256))
    await send.send(data)
    promise(await _exactly(receive, 256) == data, "what is received is what was sent")
    await send.send(b"")
    await send.send(b"x")
    got = await receive.receive()
    promise(got == b"x", f"an empty item is sent at once and not seen, but {got!r} came")
    promise(isinstance(got, bytes), f"bytes are received, not {type(got).__name__}")


async def _max_bytes(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    await send.send(b"abc")
    for byte in (b"a", b"b", b"c"):
        got = await receive.receive(1)
        promise(got == byte, f"no more is received than was asked for, but {got!r} came")
    await _raises(lambda: receive.receive(0), ValueError, "max_bytes of 0 is refused")


async def _bulk(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    data = numbered(BULK)

    async def sender() -> None:
        await send.send(data[: BULK // 2])
        for start in range(BULK // 2, BULK, 4999):
            await send.send(data[start : start + 4999])
        await send.aclose()

    got = b""
    async with anyio.create_task_group() as group:
        group.start_soon(sender)
        got = await _all(receive, 7000)
    promise(got == data, f"all of {BULK} bytes arrive, in their order; {len(got)} came")


async def _end(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    await send.send(b"last")
    await send.aclose()
    promise(await _exactly(receive, 4) == b"last", "what was sent before the end arrives")
    for _ in range(2):
        await _raises(receive.receive, anyio.EndOfStream, "behind the last byte is the end")
    await _raises(lambda: send.send(b"x"), anyio.ClosedResourceError, "send() after aclose()")
    await send.aclose()


async def _waiting_receiver_sees_the_end(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(
            _raises, receive.receive, anyio.EndOfStream, "a receiver that waits when the end comes"
        )
        await _settle()
        await send.aclose()


async def _closed_receiver(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    await receive.aclose()
    await receive.aclose()
    await _raises(receive.receive, anyio.ClosedResourceError, "receive() after aclose()")

    async def forever() -> None:
        while True:
            await send.send(bytes(65536))

    await _raises(forever, anyio.BrokenResourceError, "sending what nobody will receive")


async def _close_wakes_the_receiver(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    del send
    async with anyio.create_task_group() as group:
        group.start_soon(
            _raises, receive.receive, anyio.ClosedResourceError, "receive() while it is closed"
        )
        await _settle()
        await receive.aclose()


async def _close_wakes_the_sender(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    del receive

    async def forever() -> None:
        while True:
            await send.send(bytes(65536))

    async with anyio.create_task_group() as group:
        group.start_soon(_raises, forever, anyio.ClosedResourceError, "send() while it is closed")
        await _settle()
        await send.aclose()


async def _one_receiver(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    got: list[bytes] = []

    async def first() -> None:
        got.append(await receive.receive())

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await _settle()
        await _raises(receive.receive, anyio.BusyResourceError, "a second receiver")
        await send.send(b"x")
    promise(got == [b"x"], "the first receiver gets what comes")


async def _one_sender(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    async def first() -> None:
        await send.send(numbered(BULK))
        await send.aclose()

    got = b""
    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await _settle()
        await _raises(lambda: send.send(b"x"), anyio.BusyResourceError, "a second sender")
        got = await _all(receive)
    promise(got == numbered(BULK), "the first sender's bytes arrive, and nobody else's")


async def _cancelled_receive(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    got = bytearray()

    async def take() -> None:
        got.extend(await receive.receive(1))

    with anyio.CancelScope() as scope:
        scope.cancel()
        await take()
    promise(scope.cancelled_caught, "receive() is a checkpoint")
    for turns in range(9):
        # Cancelled when there is nothing, and wherever it is when there is something.
        async with anyio.create_task_group() as group:
            group.start_soon(take)
            await _settle(turns)
            if turns % 3:
                await send.send(b"%d" % turns)
                await _settle(turns // 3)
            group.cancel_scope.cancel()
    await send.send(b"more")
    while not got.endswith(b"more"):
        got += await receive.receive()
    promise(
        bytes(got) == b"124578more", f"a cancelled receive() takes nothing: {bytes(got)!r} came"
    )


async def _cancelled_send(send: ByteSendStream, receive: ByteReceiveStream) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await send.send(b"never")
    promise(scope.cancelled_caught, "send() is a checkpoint when there is room, too")
    async with anyio.create_task_group() as group:
        group.start_soon(send.send, numbered(BULK * 4))
        await _settle()
        group.cancel_scope.cancel()
    await send.aclose()
    got = await _all(receive)
    promise(
        numbered(BULK * 4).startswith(got),
        "a cancelled send() has sent the beginning of its item, and nothing else",
    )


async def _settle(turns: int = 20) -> None:
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    if turns >= 20:
        await anyio.wait_all_tasks_blocked()


TESTS: tuple[Test, ...] = (
    _bytes_arrive,
    _max_bytes,
    _bulk,
    _end,
    _waiting_receiver_sees_the_end,
    _closed_receiver,
    _close_wakes_the_receiver,
    _close_wakes_the_sender,
    _one_receiver,
    _one_sender,
    _cancelled_receive,
    _cancelled_send,
)
