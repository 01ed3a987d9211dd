"""PipeIO: whose ends are whose, who owns the pipes, and how a child's life ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import (
    BrokenResourceError,
    BusyResourceError,
    ClosedResourceError,
    EndOfStream,
)

from pyshimio import Command, FileIO, PipeIO, Process, Stdio, abc, create_io
from pyshimio.errors import (
    ChownError,
    CommandNotFoundError,
    DestinationError,
    FifoNotFoundError,
    InvalidOptionError,
    IOStateError,
)
from pyshimio.testing._running import running_loop
from support.children import GUARD, UNPRIVILEGED, CancelKind, cancelled, exists, run, until

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import ByteReceiveStream

KINDS: list[CancelKind] = ["scope", "native"]
STREAMS = ("stdin", "stdout", "stderr")
STUBBORN = 'trap "" TERM; echo ready; exec sleep 60'
FOREVER = "echo ready; while :; do sleep 0.05; done"


async def read_all(stream: ByteReceiveStream | None) -> bytes:
    """Everything up to the end."""
    assert stream is not None
    with anyio.fail_after(GUARD):
        return b"".join([chunk async for chunk in stream])


async def stubborn(io: PipeIO) -> Process:
    """A child that ignores SIGTERM, and does so by now."""
    process = await io.spawn(["sh", "-c", STUBBORN])
    assert io.stdout is not None
    with anyio.fail_after(GUARD):
        assert await io.stdout.receive() == b"ready\n"
    return process


# -- the ends ----------------------------------------------------------------------------


async def test_flags() -> None:
    """Children get blocking ends, we have non-blocking ones of our own, all close-on-exec."""
    async with PipeIO() as io:
        children = io.child_fds()
        parents = [io._parents[stream]._fd.fileno() for stream in STREAMS]
        for number, parent in enumerate(parents):
            child = children[number]
            assert os.get_blocking(child)
            assert not os.get_blocking(parent)
            assert os.fstat(child).st_ino == os.fstat(parent).st_ino
            assert not os.get_inheritable(child)
            assert not os.get_inheritable(parent)


async def test_child_sees_blocking_ends() -> None:
    """The child's 0, 1 and 2 are blocking while we read and write the other ends."""
    async with PipeIO() as io:
        await io.spawn(["grep", "-H", "flags", *(f"/proc/self/fdinfo/{n}" for n in range(3))])
        lines = (await read_all(io.stdout)).decode().splitlines()
    flags = [int(line.split()[-1], 8) for line in lines]
    assert len(flags) == 3
    assert not any(flag & os.O_NONBLOCK for flag in flags)


async def test_round_trip() -> None:
    """What is sent to stdin comes back on stdout; closing stdin ends the child."""
    async with PipeIO() as io:
        assert io.stdin is not None
        assert io.stdout is not None
        process = await io.spawn(["cat"])
        with anyio.fail_after(GUARD):
            for line in (b"one\n", b"two\n"):
                await io.stdin.send(line)
                assert await io.stdout.receive() == line
            await io.stdin.aclose()
            assert await process.wait() == 0
            with pytest.raises(EndOfStream):
                await io.stdout.receive()


async def test_both_outputs() -> None:
    """Stdout and stderr are two streams, and stderr is not stdout."""
    async with PipeIO(stdin=False) as io:
        await io.spawn(["sh", "-c", "echo out; echo err >&2"])
        assert await read_all(io.stdout) == b"out\n"
        assert await read_all(io.stderr) == b"err\n"


async def test_megabytes() -> None:
    """More than a pipe holds, both ways at once, without loss."""
    data = os.urandom(1 << 20)
    async with PipeIO(stderr=False) as io:
        await io.spawn(["cat"])

        async def send() -> None:
            assert io.stdin is not None
            await io.stdin.send(data)
            io.close_stdin()

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            assert await read_all(io.stdout) == data


@pytest.mark.parametrize("wanted", range(8))
async def test_partial(wanted: int) -> None:
    """Each stream can be left out: it is None here and /dev/null in the child."""
    chosen = {stream: bool(wanted >> number & 1) for number, stream in enumerate(STREAMS)}
    reader, writer = os.pipe()
    io = PipeIO(stdin=chosen["stdin"], stdout=chosen["stdout"], stderr=chosen["stderr"])
    script = "links=$(readlink /proc/$$/fd/[012]); echo $links >&3"
    command = Command(["sh", "-c", script], extra_files=[writer])
    os.close(writer)
    async with io:
        for stream in STREAMS:
            assert (getattr(io, stream) is not None) == chosen[stream]
        process = await io.spawn(command)
        assert await process.wait() == 0
    with open(reader) as file:
        links = file.read().split()
    assert [link.startswith("pipe:") for link in links] == list(chosen.values())
    assert {link for link in links if not link.startswith("pipe:")} <= {"/dev/null"}


async def test_dead_child_breaks_stdin() -> None:
    """No read end of stdin is kept here: sending to a child that has gone is an error."""
    async with PipeIO() as io:
        process = await io.spawn(["true"])
        await process.wait()
        assert io.stdin is not None
        with anyio.fail_after(GUARD):
            with pytest.raises(BrokenResourceError):
                await io.stdin.send(b"x")


async def test_dying_child_wakes_the_sender() -> None:
    """A sender that waits for a child to read is told when the child dies."""
    async with PipeIO() as io:
        process = await io.spawn(["sleep", "60"])

        async def send() -> None:
            assert io.stdin is not None
            with pytest.raises(BrokenResourceError):
                await io.stdin.send(bytes(1 << 20))

        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group:
                group.start_soon(send)
                await anyio.wait_all_tasks_blocked()
                process.kill()


async def test_close_stdin_before_the_start() -> None:
    """The end of the input is a latch: a child that starts later sees it at once."""
    async with PipeIO() as io:
        io.close_stdin()
        io.close_stdin()
        process = await io.spawn(["cat"])
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0


# -- whose pipes -------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("uid, gid", [(1000, 1001), (-1, 1001), (1000, -1), (-1, -1)])
async def test_chown(uid: int, gid: int) -> None:
    """Uid and gid are independent, and -1 leaves either as it is."""
    async with PipeIO(uid, gid) as io:
        for fd in io.child_fds().values():
            status = os.fstat(fd)
            assert status.st_uid == (uid if uid >= 0 else os.geteuid())
            assert status.st_gid == (gid if gid >= 0 else os.getegid())


@pytest.mark.root
@pytest.mark.parametrize("owned", [True, False])
async def test_child_opens_its_stdio_by_name(owned: bool) -> None:
    """A child that is somebody else can open /dev/stdout, for that is what the owner is for."""
    script = "cat /dev/stdin && echo out > /dev/stdout && echo err > /dev/stderr"
    async with PipeIO(*((1000, 1000) if owned else ())) as io:
        assert io.stdin is not None
        await io.stdin.send(b"in\n")
        io.close_stdin()
        process = await io.spawn(Command(["sh", "-c", script], user=1000, group=1000))
        out, err = await read_all(io.stdout), await read_all(io.stderr)
        if owned:
            assert (await process.wait(), out, err) == (0, b"in\nout\n", b"err\n")
        else:
            assert await process.wait() != 0
            assert b"Permission denied" in err


REFUSED = """
import json, os
from pyshimio import PipeIO
from pyshimio.errors import ChownError

before = len(os.listdir("/proc/self/fd"))
try:
    PipeIO(1000, 1001)
except ChownError as error:
    strict = [str(error), error.uid, error.gid, error.errno]
left = len(os.listdir("/proc/self/fd")) - before
io = PipeIO(1000, 1001, chown="try")
owner = os.fstat(io.child_fds()[1]).st_uid
io.close()
PipeIO(os.getuid(), -1).close()
left_at_last = len(os.listdir("/proc/self/fd")) - before
print(json.dumps([strict, left, owner, left_at_last]))
"""


@pytest.mark.root
async def test_chown_refused() -> None:
    """A refused chown is an error before anything starts; with "try" it is none."""
    done = await run([*UNPRIVILEGED, sys.executable, "-c", REFUSED])
    assert done.status == 0, done.stderr.decode()
    (text, *facts), left, owner, left_at_last = json.loads(done.stdout)
    assert text.startswith("cannot give stdin's pipe to 1000:1001")
    assert 'chown="try"' in text
    assert facts == [1000, 1001, 1]
    assert (left, owner, left_at_last) == (0, 0, 0)
    assert issubclass(ChownError, PermissionError)


# -- the caller's streams and copy() -----------------------------------------------------


async def test_busy_after_copy(tmp_path: Path) -> None:
    """Once the IO copies a stream it is nobody else's."""
    async with FileIO(str(tmp_path / "log")) as io:
        await io.copy()
        assert io.stdout is not None
        with pytest.raises(BusyResourceError):
            await io.stdout.receive()


async def test_copy_while_in_use(tmp_path: Path) -> None:
    """A stream that a task reads cannot be copied."""
    async with FileIO(str(tmp_path / "log")) as io:
        stdout = io.stdout
        assert stdout is not None

        async def receive() -> None:
            with pytest.raises(ClosedResourceError):
                await stdout.receive()

        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group:
                group.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(BusyResourceError):
                    await io.copy()


async def test_stdin_from_a_fifo(tmp_path: Path) -> None:
    """What a client writes into stdin's FIFO arrives; the end of the input is a latch."""
    fifo = tmp_path / "stdin"
    os.mkfifo(fifo)
    async with await create_io(Stdio(stdin=str(fifo), stdout=str(log_in(tmp_path)))) as io:
        io.close_stdin()
        assert io.stdin is not None
        with open(os.open(fifo, os.O_RDWR), "wb", buffering=0) as client:
            client.write(b"hello")
            process = await io.spawn(["cat"])
            with pytest.raises(BusyResourceError):
                await io.stdin.send(b"x")
            await until(lambda: (tmp_path / "log").read_bytes() == b"hello")
        with anyio.fail_after(GUARD):
            assert await process.wait() == 0
            assert (await io.drain()).complete
        assert (tmp_path / "log").read_bytes() == b"hello"
        assert io.stats.stdin is not None
        assert io.stats.stdin.bytes_out == 5


async def test_fifo_for_stdin_that_is_never_used(tmp_path: Path) -> None:
    """An IO that is closed before it copies gives its handle on the FIFO back."""
    os.mkfifo(tmp_path / "stdin")
    io = await create_io(Stdio(stdin=f"fifo://{tmp_path}/stdin"))
    io.close()


@pytest.mark.parametrize("scheme", ["", "file://"])
async def test_stdin_from_a_file(tmp_path: Path, scheme: str) -> None:
    """A file is handed to the child as it is."""
    (tmp_path / "in").write_text("hello")
    log = log_in(tmp_path)
    async with await create_io(Stdio(stdin=f"{scheme}{tmp_path}/in", stdout=str(log))) as io:
        assert io.stdin is None
        process = await io.spawn(["cat"])
        assert await process.wait() == 0
        await io.drain()
    assert log.read_text() == "hello"


async def test_stdin_from_nothing(tmp_path: Path) -> None:
    """A path that is not there, or cannot be opened, is refused before anything starts."""
    with pytest.raises(FifoNotFoundError):
        await create_io(Stdio(stdin=str(tmp_path / "missing")))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DestinationError, match="cannot read stdin from"):
        await create_io(Stdio(stdin=f"file://{tmp_path}/loop"))


def log_in(path: Path) -> Path:
    """A log file that is there already, so a path is enough to name it."""
    log = path / "log"
    log.touch()
    return log


# -- other ways to start a child ---------------------------------------------------------


async def test_with_subprocess() -> None:
    """The child's ends suit subprocess; what is not connected is DEVNULL."""
    async with PipeIO(stderr=False) as io:
        fds = io.child_fds()
        assert fds[2] == subprocess.DEVNULL
        with subprocess.Popen(["cat"], stdin=fds[0], stdout=fds[1], stderr=fds[2]) as process:
            io.close_after_start()
            assert io.stdin is not None
            await io.stdin.send(b"hello")
            io.close_stdin()
            assert await read_all(io.stdout) == b"hello"
            assert process.wait(GUARD) == 0


async def test_with_anyio() -> None:
    """The child's ends suit anyio.open_process."""
    async with PipeIO(stdin=False) as io:
        fds = io.child_fds()
        process = await anyio.open_process(
            ["sh", "-c", "echo out; echo err >&2"], stdin=fds[0], stdout=fds[1], stderr=fds[2]
        )
        async with process:
            io.close_after_start()
            assert await read_all(io.stdout) == b"out\n"
            assert await read_all(io.stderr) == b"err\n"
            assert await process.wait() == 0


async def test_with_asyncio() -> None:
    """The child's ends suit asyncio's own subprocesses (there are none on trio)."""
    if running_loop() == "trio":
        return
    async with PipeIO(stdin=False) as io:
        fds = io.child_fds()
        process = await asyncio.create_subprocess_exec(
            "echo", "out", stdin=fds[0], stdout=fds[1], stderr=fds[2]
        )
        io.close_after_start()
        assert await read_all(io.stdout) == b"out\n"
        assert await process.wait() == 0


async def test_step_by_step() -> None:
    """go-runc's steps: set, start, close_after_start, wait."""
    async with PipeIO() as io:
        command = Command(["sh", "-c", "cat; exit 3"])
        io.set(command)
        async with await command.start() as process:
            io.close_after_start()
            io.close_after_start()
            assert io.stdin is not None
            await io.stdin.send(b"hello")
            await io.stdin.aclose()
            assert await read_all(io.stdout) == b"hello"
            assert await process.wait() == 3


async def test_parent_keeps_no_child_end() -> None:
    """After spawn nobody here holds a child's end, so the end of the child is the end."""
    async with PipeIO() as io:
        ends = [os.readlink(f"/proc/self/fd/{fd}") for fd in io.child_fds().values()]
        await io.spawn(["cat"])
        open_now = []
        for name in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):
                open_now.append(os.readlink(f"/proc/self/fd/{name}"))
        assert [open_now.count(end) for end in ends] == [1, 1, 1]


async def test_steps_out_of_order() -> None:
    """Each step that comes too late says so."""
    io = PipeIO()
    io.close_after_start()
    with Command(["true"]) as command:
        with pytest.raises(IOStateError, match="child's ends are closed"):
            io.set(command)
        await io.aclose()
        for step in (lambda: io.set(command), io.child_fds):
            with pytest.raises(IOStateError, match="closed"):
                step()
        with pytest.raises(IOStateError):
            await io.copy()
        with pytest.raises(IOStateError):
            await io.spawn(["true"])


async def test_spawn_twice() -> None:
    """One IO serves one process; the first goes on."""
    async with PipeIO() as io:
        process = await io.spawn(["cat"])
        with pytest.raises(IOStateError, match="one IO serves one process"):
            await io.spawn(["cat"])
        assert io.stdin is not None
        await io.stdin.send(b"x")
        io.close_stdin()
        assert await read_all(io.stdout) == b"x"
        assert await process.wait() == 0


async def test_failing_spawn() -> None:
    """When the child cannot be started everything is given back."""
    io = PipeIO()
    with pytest.raises(CommandNotFoundError):
        await io.spawn(["/no/such/program"])
    assert repr(io).startswith("<PipeIO closed")


# -- the end -----------------------------------------------------------------------------


async def test_sigterm_at_the_end() -> None:
    """A child that is alive when the block is left gets SIGTERM, and is reaped."""
    async with PipeIO(grace=3600) as io:
        script = f'trap "exit 3" TERM; {FOREVER}'
        process = await io.spawn(["sh", "-c", script])
        assert io.stdout is not None
        assert await io.stdout.receive() == b"ready\n"
        with anyio.fail_after(GUARD):
            await io.aclose()
        assert process.status == 3


async def test_sigkill_after_grace(tmp_path: Path) -> None:
    """One that does not heed it gets SIGKILL when the grace is over, and not before."""
    async with PipeIO(grace=1.0) as io:
        script = f'trap "echo term > {tmp_path}/seen" TERM; {FOREVER}'
        process = await io.spawn(["sh", "-c", script])
        assert io.stdout is not None
        assert await io.stdout.receive() == b"ready\n"
        start = anyio.current_time()
        with anyio.fail_after(GUARD):
            await io.aclose()
        assert anyio.current_time() - start >= 0.99
        assert process.status == 128 + signal.SIGKILL
        assert (tmp_path / "seen").read_text() == "term\n"


@pytest.mark.parametrize("how", ["aclose", "close"])
async def test_left_alone(how: str) -> None:
    """With on_exit="leave" the child lives on, and is reaped when it has exited."""
    io = PipeIO(on_exit="leave")
    process = await stubborn(io)
    with anyio.fail_after(GUARD):
        if how == "aclose":
            await io.aclose()
        else:
            io.close()

    os.kill(process.pid, 0)
    assert not process.exited
    process.kill()
    await until(lambda: not exists(process.pid))


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_aclose(kind: CancelKind) -> None:
    """A cancelled aclose gives no grace: killed, reaped and closed before it returns."""
    io = PipeIO(grace=3600)
    process = await stubborn(io)

    await cancelled(kind, io.aclose)

    assert process.status == 128 + signal.SIGKILL
    assert not exists(process.pid)
    assert repr(io).startswith("<PipeIO closed")
    await io.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_block(kind: CancelKind) -> None:
    """A block that is cancelled ends its child at once."""
    processes: list[Process] = []

    async def block() -> None:
        async with PipeIO(grace=0) as io:
            processes.append(await stubborn(io))
            await anyio.sleep_forever()

    with anyio.fail_after(GUARD):
        if kind == "native" and running_loop() != "trio":
            task = asyncio.ensure_future(block())
            await until(lambda: processes)
            task.cancel()
            await asyncio.wait([task])
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(block)
                await until(lambda: processes)
                group.cancel_scope.cancel()
    assert processes[0].status == 128 + signal.SIGKILL
    assert not exists(processes[0].pid)


async def test_close_kills() -> None:
    """The close that cannot wait kills; the zombie goes a moment later."""
    io = PipeIO()
    process = await stubborn(io)
    for _ in range(2):
        io.close()
    await io.aclose()

    with anyio.fail_after(GUARD):
        assert await process.wait() == 137
    assert not exists(process.pid)


async def test_closed_twice() -> None:
    """Closing again does nothing, however it is done."""
    io = PipeIO()
    for _ in range(2):
        await io.aclose()
        io.close()
    assert io.stdout is not None
    with pytest.raises(ClosedResourceError):
        await io.stdout.receive()


def test_closed_without_a_loop() -> None:
    """An IO can be made and closed where no loop runs."""
    PipeIO().close()


async def test_drain_without_pumps() -> None:
    """A drain of the caller's own streams waits for the exit and has nothing to say."""
    async with PipeIO(stdin=False) as io:
        process = await io.spawn(["true"])
        result = await io.drain()
        assert process.status == 0
        assert result.complete
        assert (result.stdout, result.stderr, result.streams) == (None, None, ())
        assert io.stats.stdout is None


# -- options and repr --------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, option",
    [
        ({"chown": "maybe"}, "chown"),
        ({"on_exit": "stay"}, "on_exit"),
        ({"uid": -2}, "uid"),
        ({"gid": 1 << 32}, "gid"),
    ],
)
def test_bad_options(options: dict[str, Any], option: str) -> None:
    """What cannot mean anything is refused before any pipe is made."""
    with pytest.raises(InvalidOptionError) as caught:
        PipeIO(**options)
    assert caught.value.option == option


async def test_repr() -> None:
    """The state in words."""
    async with PipeIO(stdin=False) as io:
        assert repr(io) == "<PipeIO open stdin=none stdout=open stderr=open>"
        io.close_after_start()
        assert repr(io) == "<PipeIO open stdin=none stdout=started stderr=started>"
    assert repr(io) == "<PipeIO closed stdin=none stdout=started stderr=started>"


def test_protocols() -> None:
    """An IO is one by the protocol that says what one is."""
    io = PipeIO()
    assert isinstance(io, abc.IO)
    io.close()
