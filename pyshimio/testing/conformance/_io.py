"""An IO is held to the protocol: a whole life, and every way in which one is cut short."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from ..._command import Command
from ..._events import SinkFailed
from ...abc import IO
from ...errors import CommandNotFoundError, IOStateError
from .._eventually import GUARD, eventually
from .._fake_container import FakeContainer
from ..faults import cancel_everywhere
from ..faults._aftermath import nothing_left
from ._making import made, promise

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from ._making import Make

    Output = Callable[[Any, str], Awaitable[bytes | None]]

__all__ = ("check_io",)

BULK = 200_000
"""Bytes; more than a pipe holds that has not grown."""
TEXT = b"".join(b"%08d" % number for number in range(BULK // 8))
"""What a terminal passes on as it is: no newlines."""
ALIEN = 71
ONLY_THREE = f"""
import os
found = set()
for name in os.listdir("/proc/self/fd"):
    try:
        os.fstat(int(name))
        found.add(int(name))
    except OSError:
        pass  # the listing's own
os._exit(0 if found == {{0, 1, 2}} else {ALIEN})
"""


async def check_io(make: Make[IO], *, output: Output | None = None) -> None:
    """Hold whatever claims to be a :class:`pyshimio.IO` to the protocol.

    It is made, used and closed about twenty times: in the steps of go-runc and in one; out of
    order; with a child that is missing, that does not end, that leaves another one behind; closed
    in the middle, and cancelled at each suspension.  After each time nothing may be left: no
    descriptor, child, thread, task or temporary file.

    Args:
        make: Gives a new one: a function, a coroutine function, or an async context manager.
        output: What has arrived of ``"stdout"`` or ``"stderr"``, called with the IO after the
            drain; None where nobody can know, or where the stream is not kept apart.  It is not
            asked for a stream that the IO gives to its caller.

    Raises:
        AssertionError: A promise was broken; the message says which.

    Example:
        ::

            async def test_file_io(tmp_path: Path) -> None:
                numbers = itertools.count()
                logs: dict[IO, Path] = {}

                def make() -> FileIO:
                    path = tmp_path / f"{next(numbers)}.log"
                    io = FileIO(path)
                    logs[io] = path
                    return io

                async def output(io: IO, stream: str) -> bytes | None:
                    return logs[io].read_bytes() if stream == "stdout" else None

                await check_io(make, output=output)
    """

    @asynccontextmanager
    async def one() -> AsyncGenerator[IO]:
        async with made(make, lambda given: isinstance(given, IO)) as io:
            try:
                yield io
            finally:
                with anyio.CancelScope(shield=True):
                    await io.aclose()

    for test in (
        *(_unused, _closed, _in_steps, _twice, _out_of_order, _child_fds),
        *(_only_three_descriptors, _missing_program, _ends_a_child, _kills_a_child),
        *(_cancelled_aclose, _somebody_holds_the_stream, _end_of_input, _events_end),
        partial(_output, "stdout", output),
        partial(_output, "stderr", output),
    ):
        name = (test.func if isinstance(test, partial) else test).__name__
        what = f"an IO: {name.strip('_').replace('_', ' ')}"
        async with nothing_left(what):
            with anyio.move_on_after(GUARD) as scope:
                async with one() as io:
                    await test(io)
            promise(not scope.cancelled_caught, f"{what}: hangs")

    await cancel_everywhere(_whole_life, name="the life of an IO", around=one)


async def _whole_life(io: IO) -> None:
    async with io:
        await io.spawn(["true"])
        await _drained(io)


@asynccontextmanager
async def _read_by_us(io: IO) -> AsyncGenerator[dict[str, bytearray]]:
    """Receive what the IO gives to its caller, to the end."""
    got: dict[str, bytearray] = {}

    async def receive(name: str, stream: Any) -> None:
        data = bytearray()
        try:
            async for chunk in stream:
                data += chunk
        except anyio.BusyResourceError:  # the IO has taken it
            return
        except anyio.ClosedResourceError:
            pass  # an IO may close it with the drain
        got[name] = data

    async with anyio.create_task_group() as group:
        for name in ("stdout", "stderr"):
            if (stream := getattr(io, name)) is not None:
                group.start_soon(receive, name, stream)
        yield got  # filled when the block has been left


async def _drained(io: IO, *, exited: Any = None) -> None:
    result = await io.drain(exited=exited)
    promise(result.complete, f"a drain is complete when the child has ended: {result}")


def _refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except IOStateError:
        return
    raise AssertionError(f"{what} raises IOStateError")


async def _refuses(call: Callable[[], Awaitable[object]], what: str) -> None:
    try:
        await call()
    except IOStateError:
        return
    raise AssertionError(f"{what} raises IOStateError")


def _check_closed(io: IO) -> None:
    promise("closed" in repr(io), f"repr() says in words that it is closed: {io!r}")


# -- the promises -----------------------------------------------------------------------------


async def _unused(io: IO) -> None:
    promise("closed" not in repr(io), f"a new one is not closed: {io!r}")
    await io.aclose()
    await io.aclose()
    io.close()
    _check_closed(io)


async def _closed(io: IO) -> None:
    io.close()
    io.close()
    _check_closed(io)
    with Command(["true"]) as command:
        _refused(lambda: io.set(command), "set() after close()")
    _refused(io.child_fds, "child_fds() after close()")
    await _refuses(io.copy, "copy() after close()")
    await _refuses(lambda: io.spawn(["true"]), "spawn() after close()")
    io.close_stdin()
    io.close_after_start()
    await io.aclose()


async def _in_steps(io: IO) -> None:
    command = Command(FakeContainer().write(b"steps").exit(3).args)
    io.set(command)
    async with await command.start() as process:
        io.close_after_start()
        io.close_after_start()
        await io.copy()
        async with _read_by_us(io) as got:
            await _drained(io, exited=process)
        promise(await process.wait() == 3, "the child's status is the caller's")
        promise(got.get("stdout", b"steps") == b"steps", "what it wrote is received")


async def _twice(io: IO) -> None:
    process = await io.spawn(FakeContainer().exit_on("SIGUSR1").stay().args)
    await _refuses(lambda: io.spawn(["true"]), "a second spawn()")
    await _refuses(io.copy, "copy() after spawn()")
    promise(not process.exited, "a second spawn() does not disturb the first child")


async def _out_of_order(io: IO) -> None:
    with Command(["true"]) as first, Command(["true"]) as second:
        io.set(first)
        io.close_after_start()
        try:
            io.set(second)
        except IOStateError:
            return
        # There was nothing to close: then this one is as good as the first.
        async with await second.start() as process:
            promise(
                await process.wait() == 0, "set() after close_after_start() works or is refused"
            )


async def _child_fds(io: IO) -> None:
    fds = io.child_fds()
    promise(set(fds) == {0, 1, 2}, f"child_fds() has 0, 1 and 2, not {sorted(fds)}")
    async with await anyio.open_process(
        ["sh", "-c", "echo x; exit 5"], stdin=fds[0], stdout=fds[1], stderr=fds[2]
    ) as process:
        io.close_after_start()
        await io.copy()
        async with _read_by_us(io):
            promise(await process.wait() == 5, "a child of anyio runs with child_fds()")
            await _drained(io)


async def _only_three_descriptors(io: IO) -> None:
    process = await io.spawn([sys.executable, "-I", "-S", "-c", ONLY_THREE])
    async with _read_by_us(io):
        await _drained(io)
    promise(await process.wait() == 0, "the child has descriptors 0, 1 and 2, and no others")


async def _output(stream: str, output: Output | None, io: IO) -> None:
    to: Any = stream
    process = await io.spawn(FakeContainer().write(TEXT[:8000], to=to, times=BULK // 8000).args)
    async with _read_by_us(io) as got:
        await _drained(io)
    promise(await process.wait() == 0, f"a child that writes {BULK} bytes to {stream} ends well")
    data = got.get(stream)
    arrived = bytes(data) if data is not None else await output(io, stream) if output else None
    if arrived is not None:
        wanted = TEXT[:8000] * (BULK // 8000)
        promise(
            arrived == wanted,
            f"all that was written to {stream} arrives: {len(arrived)} of {len(wanted)} bytes",
        )


async def _missing_program(io: IO) -> None:
    try:
        await io.spawn(["/nonexistent/program"])
    except CommandNotFoundError:
        pass
    else:
        raise AssertionError("spawn() of a program that is missing raises CommandNotFoundError")
    _check_closed(io)


async def _ends_a_child(io: IO) -> None:
    process = await io.spawn(["sleep", "1000"])
    async with _read_by_us(io):
        await io.aclose()
    promise(
        process.status == 128 + signal.SIGTERM, f"aclose() ends a child by SIGTERM: {process!r}"
    )
    promise(
        not os.path.exists(f"/proc/{process.pid}"),  # noqa: ASYNC240
        "aclose() reaps the child",
    )
    _check_closed(io)


async def _kills_a_child(io: IO) -> None:
    process = await io.spawn(["sleep", "1000"])
    io.close()
    promise(await process.wait() == 128 + signal.SIGKILL, "close() kills the child")


async def _cancelled_aclose(io: IO) -> None:
    process = await io.spawn(["sleep", "1000"])
    with anyio.CancelScope() as scope:
        scope.cancel()
        await io.aclose()
    await eventually(lambda: process.exited, lambda: "a cancelled aclose() kills the child")
    _check_closed(io)


async def _somebody_holds_the_stream(io: IO) -> None:
    with tempfile.TemporaryDirectory() as directory:
        # (A terminal's session is hung up when its leader ends.)
        child = FakeContainer(directory).ignore("SIGHUP").reach("up").hold("end").reach("ended")
        container = FakeContainer(directory).fork(child).hold("leave")
        process = await io.spawn(container.args)
        await child.reached("up")
        container.release("leave")
        with anyio.move_on_after(GUARD / 2) as scope:
            async with _read_by_us(io):
                await process.wait()
                await io.drain(policy="exited", sink_timeout=1.0)
                await io.aclose()
        child.release("end")
        await child.reached("ended")
    promise(not scope.cancelled_caught, "drain(policy='exited') waits for nobody else's child")


async def _end_of_input(io: IO) -> None:
    io.close_stdin()
    io.close_stdin()
    if io.stdin is None:
        return
    process = await io.spawn(["cat"])
    async with _read_by_us(io):
        promise(await process.wait() == 0, "close_stdin() before the start ends the child's input")
        await _drained(io)


async def _events_end(io: IO) -> None:
    events = io.events()
    await io.spawn(["true"])
    async with _read_by_us(io):
        await _drained(io)
        await io.aclose()
    async for event in events:
        promise(not isinstance(event, SinkFailed), f"nothing went wrong, and it says: {event}")
