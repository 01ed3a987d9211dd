"""Byte streams over descriptors: anyio's contract, and what pipes and terminals add to it."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.streams.file import FileStreamAttribute

from pyshimio import _sys
from pyshimio._fd import OwnedFd
from pyshimio._streams import FdReceiveStream, FdSendStream
from pyshimio.testing._running import running_loop
from pyshimio.testing.conformance import check_stream
from support.children import GUARD, CancelKind, cancelled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

KINDS: list[CancelKind] = ["scope", "native"]


@contextmanager
def pipe() -> Generator[tuple[FdSendStream, FdReceiveStream]]:
    """Both ends of a pipe, as streams."""
    reader, writer = _sys.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    sender, receiver = FdSendStream(OwnedFd(writer)), FdReceiveStream(OwnedFd(reader))
    try:
        yield sender, receiver
    finally:
        sender.close()
        receiver.close()


def fill(stream: FdSendStream) -> int:
    """Leave no room in the pipe; how many bytes that took."""
    count = 0
    try:
        while True:
            count += os.write(stream._fd.fileno(), b"x" * 4096)
    except BlockingIOError:
        return count


async def test_a_pipe() -> None:
    """Everything that anyio has of a stream, and no byte lost on the way."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[FdSendStream, FdReceiveStream]]:
        with pipe() as pair:
            yield pair

    await check_stream(make)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_round_trip(kind: Callable[[bytes], Any]) -> None:
    """What is sent, in whatever kind of buffer, is received as bytes."""
    with pipe() as (sender, receiver):
        await sender.send(kind(b"hello"))

        data = await receiver.receive()

        assert data == b"hello"
        assert type(data) is bytes


async def test_memoryview_of_wider_items() -> None:
    """A view's items may have more than one byte each; all of them are sent."""
    with pipe() as (sender, receiver):
        await sender.send(memoryview(b"12345678").cast("I"))  # type: ignore[arg-type]

        assert await receiver.receive() == b"12345678"


async def test_send_what_is_no_buffer() -> None:
    """A str is a TypeError, and the stream can be used afterwards."""
    with pipe() as (sender, receiver):
        with pytest.raises(TypeError):
            await sender.send("text")  # type: ignore[arg-type]

        await sender.send(b"x")
        assert await receiver.receive() == b"x"


@pytest.mark.parametrize("value", [0, -1, -65536])
async def test_max_bytes_is_positive(value: int) -> None:
    """A count below one is refused, and the stream can be used afterwards."""
    with pipe() as (sender, receiver):
        await sender.send(b"x")
        with pytest.raises(ValueError, match="max_bytes must be a positive integer"):
            await receiver.receive(value)

        assert await receiver.receive() == b"x"


@pytest.mark.parametrize("value", [1.5, "1", None])
async def test_max_bytes_is_a_number(value: Any) -> None:
    """A count that is no integer is a TypeError, and the stream can be used afterwards."""
    with pipe() as (sender, receiver):
        await sender.send(b"x")
        with pytest.raises(TypeError):
            await receiver.receive(value)

        assert await receiver.receive() == b"x"


async def test_nobody_reads() -> None:
    """Sending into a pipe without a reader is a broken resource, with the cause."""
    with pipe() as (sender, receiver):
        receiver.close()

        for _ in range(2):
            with pytest.raises(BrokenResourceError) as caught:
                await sender.send(b"x")
            assert isinstance(caught.value.__cause__, BrokenPipeError)


async def test_reader_goes_while_sender_waits() -> None:
    """A sender that waits for room when the reader goes is told."""
    with pipe() as (sender, receiver):
        fill(sender)

        async def send() -> None:
            with pytest.raises(BrokenResourceError):
                await sender.send(b"x")

        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group:
                group.start_soon(send)
                await anyio.wait_all_tasks_blocked()
                receiver.close()


async def test_receive_error() -> None:
    """An error of read(2) that is no end is a broken resource."""
    directory = FdReceiveStream(OwnedFd(os.open("/", os.O_RDONLY | os.O_CLOEXEC)))

    with pytest.raises(BrokenResourceError) as caught:
        await directory.receive()

    assert isinstance(caught.value.__cause__, IsADirectoryError)
    directory.close()


async def test_hung_up_terminal() -> None:
    """A terminal's EIO is the end of the stream, behind everything that it showed."""
    master, slave = _sys.openpty()
    os.set_blocking(master, False)
    os.write(slave, b"bye")
    os.close(slave)
    screen = FdReceiveStream(OwnedFd(master))

    assert await screen.receive() == b"bye"
    for _ in range(2):
        with pytest.raises(EndOfStream):
            await screen.receive()
    screen.close()


async def test_used_after_close() -> None:
    """Closing twice is fine; using a closed stream is not."""
    with pipe() as (sender, receiver):
        for stream in (sender, receiver):
            await stream.aclose()
            await stream.aclose()
            stream.close()

        with pytest.raises(ClosedResourceError):
            await sender.send(b"x")
        with pytest.raises(ClosedResourceError):
            await receiver.receive()
        assert "closed" in repr(sender)


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_receive(kind: CancelKind) -> None:
    """A cancelled receive takes nothing, and the stream can be used afterwards."""
    with pipe() as (sender, receiver):
        await cancelled(kind, receiver.receive)
        await sender.send(b"x")

        assert await receiver.receive() == b"x"


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_send(kind: CancelKind) -> None:
    """A cancelled send stops after what the pipe has taken by then."""
    data = os.urandom(1 << 18)
    with pipe() as (sender, receiver):
        size = _sys.pipe_size(sender._fd.fileno())

        await cancelled(kind, lambda: sender.send(data))

        await sender.aclose()
        got = b""
        async for chunk in receiver:
            got += chunk
        assert got == data[:size]


async def test_no_cancellation_behind_the_read() -> None:
    """A cancellation that comes while bytes are received loses none of them.

    The receiver is cancelled after each number of turns of the loop: either it returns the
    bytes, or they are still in the pipe.
    """
    for turns in range(6):
        with pipe() as (sender, receiver):
            got: list[bytes] = []

            async def receive(receiver: FdReceiveStream = receiver, got: list[bytes] = got) -> None:
                got.append(await receiver.receive())

            await sender.send(b"x")
            await _cancel_after(turns, receive)
            sender.close()
            with suppress(EndOfStream):
                got.append(await receiver.receive())
            assert got == [b"x"]


async def _cancel_after(turns: int, func: Callable[[], Coroutine[Any, Any, None]]) -> None:
    if running_loop() == "trio":
        async with anyio.create_task_group() as group:
            group.start_soon(func)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        return
    task = asyncio.ensure_future(func())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def test_every_call_is_a_checkpoint() -> None:
    """A loop that always finds bytes lets other tasks run."""

    async def other() -> None:
        ran.set()

    with pipe() as (sender, receiver):
        async with anyio.create_task_group() as group:
            await sender.send(bytes(100))
            ran = anyio.Event()
            group.start_soon(other)
            for _ in range(100):
                await receiver.receive(1)
            assert ran.is_set()
            ran = anyio.Event()
            group.start_soon(other)
            for _ in range(100):
                await sender.send(b"x")
            assert ran.is_set()


async def test_taken() -> None:
    """A stream that a pump has taken is busy for everybody else, and not closed by them."""
    with pipe() as (_, receiver):
        fd = receiver.take()

        with pytest.raises(BusyResourceError):
            await receiver.receive()
        with pytest.raises(BusyResourceError):
            receiver.take()
        await receiver.aclose()
        assert not fd.closed
        assert repr(receiver) == "<FdReceiveStream being copied>"
        fd.close()


async def test_taken_while_in_use() -> None:
    """A pump cannot take a stream that a task waits on."""
    with pipe() as (sender, receiver):

        async def receive() -> None:
            assert await receiver.receive() == b"x"

        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group:
                group.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(BusyResourceError):
                    receiver.take()
                await sender.send(b"x")


async def test_taken_after_close() -> None:
    """A closed stream has nothing to take."""
    with pipe() as (sender, _):
        sender.close()
        with pytest.raises(ClosedResourceError):
            sender.take()


async def test_descriptor_as_extra_attribute() -> None:
    """The descriptor can be asked for, as with anyio's own streams."""
    with pipe() as (sender, receiver):
        assert sender.extra(FileStreamAttribute.fileno) == sender._fd.fileno()
        assert repr(receiver) == "<FdReceiveStream open>"
