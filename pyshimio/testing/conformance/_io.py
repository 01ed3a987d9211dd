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
from ._making import is_open, made, promise

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
        # (Who ends it is the test, or its own block: to do it here would hide what they leave.)
        async with made(make, lambda given: isinstance(given, IO)) as io:
            yield io

    for test in (
        *(_unused, _closed, _block, _in_steps, _twice, _out_of_order, _child_fds),
        *(_only_three_descriptors, _missing_program, _ends_a_child, _kills_a_child),
        *(_cancelled_aclose, _somebody_holds_the_stream, _end_of_input, _input, _events_end),
        *(_waits_for_the_exit, _stats, _closes_its_own_alone),
        partial(_undrained, output),
        partial(_output, "stdout", output),
        partial(_output, "stderr", output),
    ):
        name = (test.func if isinstance(test, partial) else test).__name__
        what = f"an IO: {name.strip('_').replace('_', ' ')}"
        async with nothing_left(what):
            with anyio.move_on_after(GUARD) as scope:
                async with one() as io:
                    try:
                        await test(io)
                    except BaseException:
                        # (What was broken may hang, too.)
                        with anyio.move_on_after(GUARD / 4, shield=True):
                            await io.aclose()
                        raise
                    if test not in {_closed, _kills_a_child, _block}:
                        await io.aclose()
            promise(not scope.cancelled_caught, f"{what}: hangs")

    await cancel_everywhere(_whole_life, name="the life of an IO", around=one)
    await cancel_everywhere(_end_of_a_life, name="the end of an IO with a child", around=one)


async def _whole_life(io: IO) -> None:
    async with io:
        await io.spawn(["true"])
        await _drained(io)


async def _end_of_a_life(io: IO) -> None:
    async with io:
        await io.spawn(["sleep", "1000"])


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


async def _check_closed(io: IO) -> None:
    await _refuses(lambda: io.spawn(["true"]), "spawn() after the end")


# -- the promises -----------------------------------------------------------------------------


async def _unused(io: IO) -> None:
    before = repr(io)
    await io.aclose()
    await io.aclose()
    io.close()
    promise(repr(io) != before, f"repr() says whether it is closed: {io!r}")
    await _check_closed(io)


async def _closed(io: IO) -> None:
    io.close()
    io.close()
    with Command(["true"]) as command:
        _refused(lambda: io.set(command), "set() after close()")
    _refused(io.child_fds, "child_fds() after close()")
    await _refuses(io.copy, "copy() after close()")
    await _refuses(lambda: io.spawn(["true"]), "spawn() after close()")
    io.close_stdin()
    io.close_after_start()


async def _block(io: IO) -> None:
    async with io as same:
        promise(same is io, "its block gives the IO itself")
        process = await io.spawn(Command(["sleep", "1000"]))
    promise(process.exited, "leaving its block ends the child")
    await _check_closed(io)


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
    process = await io.spawn(["sleep", "1000"])
    await _refuses(lambda: io.spawn(["true"]), "a second spawn()")
    await _refuses(io.copy, "copy() after spawn()")
    await io.aclose()
    promise(
        process.status == 128 + signal.SIGTERM,
        f"a second spawn() does not disturb the first child: {process!r}",
    )


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
        async with _read_by_us(io) as got:
            promise(await process.wait() == 5, "a child of anyio runs with child_fds()")
            await _drained(io)
        said = bytes(got.get("stdout", b"x\n")).replace(b"\r", b"")
        promise(said == b"x\n", f"what it wrote to child_fds()[1] is received, not {said!r}")


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
    await _check_closed(io)


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
    await _check_closed(io)


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
    await _check_closed(io)


async def _somebody_holds_the_stream(io: IO) -> None:
    with tempfile.TemporaryDirectory() as directory:
        # (A terminal's session is hung up when its leader ends.)
        child = FakeContainer(directory).ignore("SIGHUP").reach("up").hold("end").reach("ended")
        container = FakeContainer(directory).fork(child).hold("leave")
        process = await io.spawn(container.args)
        await child.reached("up")
        container.release("leave")
        try:
            with anyio.move_on_after(GUARD / 2) as scope:
                async with _read_by_us(io):
                    await process.wait()
                    await io.drain(policy="exited", sink_timeout=1.0)
                    await io.aclose()
        finally:
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


async def _input(io: IO) -> None:
    # (A terminal ends its input by a character at the beginning of a line.)
    process = await io.spawn(FakeContainer().expect(b"typed\n").expect_eof().exit(9).args)
    stdin = io.stdin
    if stdin is None:
        return
    async with _read_by_us(io):
        await stdin.send(b"typed\n")
        io.close_stdin()
        status = await process.wait()
        await _drained(io)
    promise(status == 9, "what is sent to stdin arrives, and close_stdin() is its end")


async def _waits_for_the_exit(io: IO) -> None:
    exited = anyio.Event()
    command = Command(["true"])
    io.set(command)
    async with await command.start() as process:
        io.close_after_start()
        await process.wait()
        await io.copy()
        drained: list[bool] = []

        async def drain() -> None:
            await io.drain(exited=exited.wait())
            drained.append(exited.is_set())

        async with _read_by_us(io), anyio.create_task_group() as group:
            group.start_soon(drain)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            exited.set()
        promise(drained == [True], "drain(exited=) waits for the exit first")


async def _stats(io: IO) -> None:
    await io.spawn(FakeContainer().write(b"counted").args)
    async with _read_by_us(io):
        await _drained(io)
    stats = io.stats
    for moved in (stats.stdout, stats.stderr):
        if moved is not None:
            promise(moved.bytes_in == moved.bytes_out, f"what came in went out: {moved}")
    if stats.stdout is not None:
        promise(stats.stdout.bytes_in == 7, f"stats counts what the child wrote: {stats.stdout}")


async def _closes_its_own_alone(io: IO) -> None:
    await io.spawn(["true"])
    io.close()
    pipes = [fd for _ in range(12) for fd in os.pipe()]  # they get the numbers that it had
    try:
        io.close()
        io.close_after_start()
        io.close_stdin()
        await io.aclose()
        promise(all(map(is_open, pipes)), "a second close() closes nothing")
    finally:
        for fd in filter(is_open, pipes):
            os.close(fd)


async def _undrained(output: Output | None, io: IO) -> None:
    process = await io.spawn(FakeContainer().write(b"left").args)
    await process.wait()
    if io.stdout is None or output is None:
        await io.aclose()
        if output is not None and (arrived := await output(io, "stdout")) is not None:
            promise(arrived == b"left", f"aclose() delivers what is left, not {arrived!r}")


async def _events_end(io: IO) -> None:
    events = io.events()
    await io.spawn(["true"])
    async with _read_by_us(io):
        await _drained(io)
        await io.aclose()
    async for event in events:
        promise(not isinstance(event, SinkFailed), f"nothing went wrong, and it says: {event}")
