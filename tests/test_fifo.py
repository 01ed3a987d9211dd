"""FIFOs: opened without threads, kept alive, never losing what nobody has read yet."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
import zlib
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import BytesAbandoned, Command, Stdio, _sys, create_io
from pyshimio._fifo import FifoHandle, FifoSink, FifoSource, KeepAlive
from pyshimio._poller import Poller
from pyshimio.errors import (
    DestinationError,
    FifoNotFoundError,
    FifoTimeoutError,
    NotAFifoError,
)
from pyshimio.testing import FakeClient
from pyshimio.testing.faults import fail_syscall
from support.children import GUARD, until
from support.fifos import make_fifo
from support.threads import pool_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from pyshimio._poller import Timer

PROBES = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]
"""Seconds between two looks at a FIFO that somebody else is to change."""

COUNT = "import sys\nfor i in range({n}): sys.stdout.write('%07d\\n' % i)"


def numbers(count: int) -> bytes:
    """What the program COUNT writes."""
    return b"".join(b"%07d\n" % number for number in range(count))


async def test_output_reaches_the_client_and_then_eof(tmp_path: Path) -> None:
    """A client reads all that the child wrote, and EOF once it has read everything."""
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        async with await create_io(Stdio(stdout=path)) as io:
            await io.spawn(["echo", "hello"])
            result = await io.drain()
            assert result.complete
            assert result.unread == 6
            assert result.abandoned == 0
            assert result.stdout is not None
            assert result.stdout.attached is True
            assert not client.hung_up
            assert await client.read_all() == b"hello\n"


async def test_no_thread_opens_or_copies_a_fifo(tmp_path: Path) -> None:
    """Waiting for a client, copying and draining use no thread."""
    path = make_fifo(tmp_path)
    async with await create_io(Stdio(stdout=path)) as io, anyio.create_task_group() as group:
        group.start_soon(io.spawn, ["echo", "x"])
        await anyio.lowlevel.checkpoint()
        assert not pool_threads()
        with FakeClient(path) as client:
            await io.drain()
            assert await client.read_all() == b"x\n"
            assert not pool_threads()


async def test_client_that_never_comes(tmp_path: Path) -> None:
    """Without a client spawn() fails with its own error, starts nothing and leaves nothing."""
    path = make_fifo(tmp_path)
    started = tmp_path / "started"
    io = await create_io(Stdio(stdout=path), client_timeout=0.05)
    with pytest.raises(FifoTimeoutError, match="no client") as caught:
        await io.spawn(["touch", str(started)])
    assert caught.value.path == path
    assert caught.value.timeout == 0.05
    assert caught.value.errno == errno.ETIMEDOUT
    assert isinstance(caught.value, TimeoutError)
    assert not started.exists()
    await io.aclose()


async def test_a_client_is_looked_for_at_once_and_then_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a client looks often in the beginning, and every 50 ms in the long run."""
    sleep = anyio.sleep
    pauses: list[float] = []

    async def tell(delay: float) -> None:
        pauses.append(delay)
        await sleep(0)

    monkeypatch.setattr(anyio, "sleep", tell)
    handle = FifoHandle(make_fifo(tmp_path))
    with anyio.fail_after(GUARD):
        async with anyio.create_task_group() as group:
            group.start_soon(handle.wait_writer, None)
            while len(pauses) < len(PROBES):
                await sleep(0)
            group.cancel_scope.cancel()
    handle.close()
    assert pauses[: len(PROBES)] == PROBES


async def test_one_of_two_clients_never_comes(tmp_path: Path) -> None:
    """The error of one stream is raised as it is, and the other stream is undone."""
    out, err = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "err")
    io = await create_io(Stdio(stdout=out, stderr=err), client_timeout=0.05)
    with FakeClient(out), pytest.raises(FifoTimeoutError):
        await io.spawn(["true"])


async def test_clients_may_come_in_any_order(tmp_path: Path) -> None:
    """Each FIFO is opened on its own: stderr's client may come before stdout's."""
    out, err = make_fifo(tmp_path, "out"), make_fifo(tmp_path, "err")
    async with await create_io(Stdio(stdout=out, stderr=err)) as io:
        async with anyio.create_task_group() as group:
            group.start_soon(io.spawn, ["sh", "-c", "echo out; echo err >&2"])
            second = FakeClient(err).attach()
            await anyio.sleep(0.02)
            first = FakeClient(out).attach()
        with first, second:
            await io.drain()
            assert await first.read_all() == b"out\n"
            assert await second.read_all() == b"err\n"


async def test_waiting_for_a_client_can_be_cancelled(tmp_path: Path) -> None:
    """A cancelled spawn() closes everything at once."""
    io = await create_io(Stdio(stdout=make_fifo(tmp_path)))
    with anyio.move_on_after(0.05) as scope:
        await io.spawn(["true"])
    assert scope.cancelled_caught
    assert "closed" in repr(io)


async def test_killed_client_loses_nothing(tmp_path: Path) -> None:
    """A client dies after k bytes, the FIFO fills up, and the next one gets exactly the rest."""
    path = make_fifo(tmp_path)
    total, first_part = 60_000, 12_345
    expected = numbers(total)
    script = (
        "import os,sys; f=os.open(sys.argv[1],os.O_RDONLY); n=int(sys.argv[2])\n"
        "while n: n-=len(os.read(f,n))\n"
        "os.write(1,b'k'); os.kill(os.getpid(),9)"
    )
    async with await create_io(Stdio(stdout=path)) as io:
        async with await create_io(Stdio()) as others:
            async with anyio.create_task_group() as group:
                group.start_soon(io.spawn, [sys.executable, "-c", COUNT.format(n=total)])
                client = await others.spawn([sys.executable, "-c", script, path, str(first_part)])
            with anyio.fail_after(GUARD):
                assert await client.wait() == 137
        await until(lambda: io.stats.stdout and io.stats.stdout.blocked > 0)
        with FakeClient(path) as second:
            assert second.unread > 50_000
            rest = bytearray()
            async with anyio.create_task_group() as group:
                group.start_soon(io.drain)
                rest += await second.read_all()
            assert zlib.crc32(expected[first_part:]) == zlib.crc32(rest)
            assert len(rest) == len(expected) - first_part


async def test_clients_one_after_the_other_while_it_flows(tmp_path: Path) -> None:
    """Clients that detach in mid-stream, again and again, read the output without gap or repeat."""
    path = make_fifo(tmp_path)
    expected = numbers(40_000)
    got = bytearray()
    client = FakeClient(path).attach()
    async with await create_io(Stdio(stdout=path)) as io:
        await io.spawn([sys.executable, "-c", COUNT.format(n=40_000)])
        async with anyio.create_task_group() as group:
            group.start_soon(io.drain)
            while len(got) < len(expected):
                got += await client.read(10_007)
                client.detach()
                client = FakeClient(path).attach()
        client.detach()
    assert bytes(got) == expected


async def test_800_lines_fit_a_fifo_that_nobody_reads(tmp_path: Path) -> None:
    """A chatty child is not blocked by an absent client before 64,000 bytes of lines."""
    path = make_fifo(tmp_path)
    program = "import os\nfor i in range(800): os.write(1, b'%079d\\n' % i)"
    with FakeClient(path) as client:
        async with await create_io(Stdio(stdout=path)) as io:
            await io.spawn([sys.executable, "-c", program])
            with anyio.fail_after(GUARD):
                result = await io.drain()
            assert result.complete
            assert result.unread == client.unread == 64_000
            assert await client.read_all() == b"".join(b"%079d\n" % i for i in range(800))


async def test_lines_are_packed_without_waste(tmp_path: Path) -> None:
    """Lines that do not divide a page fill the FIFO to its end all the same."""
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        handle = FifoHandle(path)
        sink = FifoSink.open_now(handle, KeepAlive())
        handle.close()
        line = b"x" * 1499 + b"\n"
        taken = 0
        while (count := sink.write([line])) is not None:
            taken += count
        assert taken == client.unread == 65536
        assert not sink.splice_ready()
        os.read(client.fileno(), 4096)
        assert sink.splice_ready()
        sink.close()


async def test_partly_taken_line_is_not_left_behind(tmp_path: Path) -> None:
    """What a FIFO's last page could not hold follows at once, not with the next output."""
    path = make_fifo(tmp_path)
    program = (
        "import os\nos.write(1, b'a' * 4000)\nos.read(0, 1)\nos.write(1, b'b' * 200)\nos.read(0, 1)"
    )
    with FakeClient(path) as client:
        stdin = make_fifo(tmp_path, "in")
        async with await create_io(Stdio(stdin=stdin, stdout=path)) as io:
            await io.spawn([sys.executable, "-c", program])
            await until(lambda: client.unread == 4000)
            writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, b"\n")
            os.close(writer)
            await until(lambda: client.unread == 4200)
            io.close_stdin()
            await io.drain()


async def test_name_is_gone_after_create(tmp_path: Path) -> None:
    """A FIFO whose name was unlinked is still the one that create_io() saw."""
    path = make_fifo(tmp_path)
    io = await create_io(Stdio(stdout=path))
    with FakeClient(path) as client:
        os.unlink(path)
        async with io:
            await io.spawn(["echo", "x"])
            await io.drain()
            assert await client.read_all() == b"x\n"


async def test_name_is_replaced_after_create(tmp_path: Path) -> None:
    """Something else under the FIFO's name gets nothing."""
    path = make_fifo(tmp_path)
    io = await create_io(Stdio(stdout=path))
    with FakeClient(path) as client:
        os.unlink(path)
        (tmp_path / "fifo").write_bytes(b"precious")
        async with io:
            await io.spawn(["echo", "x"])
            await io.drain()
            assert await client.read_all() == b"x\n"
    assert (tmp_path / "fifo").read_bytes() == b"precious"


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
async def test_missing_fifo(tmp_path: Path, stream: str) -> None:
    """A FIFO that is not there is said by create_io(), and nothing is left."""
    path = str(tmp_path / "none")
    with pytest.raises(FifoNotFoundError, match="mkfifo") as caught:
        await create_io(Stdio(**{stream: path}))  # type: ignore[arg-type]
    assert caught.value.path == path
    assert caught.value.errno == errno.ENOENT
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
async def test_not_a_fifo(tmp_path: Path, stream: str) -> None:
    """``fifo:`` insists on a FIFO and refuses a regular file without touching it."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with pytest.raises(NotAFifoError, match="file://") as caught:
        await create_io(Stdio(**{stream: f"fifo://{path}"}))  # type: ignore[arg-type]
    assert (caught.value.path, caught.value.errno) == (str(path), errno.ENOTSUP)
    assert path.read_bytes() == b"x"


def test_handle_of_a_path_that_cannot_be_looked_at() -> None:
    """A name that the kernel refuses is a typed error with its errno."""
    path = "/" + "x" * 300
    with pytest.raises(DestinationError, match=f"cannot look at '{path}': File name") as caught:
        FifoHandle(path)
    assert (caught.value.path, caught.value.errno) == (path, errno.ENAMETOOLONG)


def test_fifo_that_cannot_be_examined(tmp_path: Path) -> None:
    """A FIFO that the kernel opens and does not describe is a typed error, and let go of."""
    path = make_fifo(tmp_path)
    with (
        fail_syscall("fstat", error=errno.EIO),
        pytest.raises(DestinationError, match=f"cannot look at '{path}': Input/output") as caught,
    ):
        FifoHandle(path)
    assert (caught.value.path, caught.value.errno) == (path, errno.EIO)


def test_fifo_that_cannot_be_opened(tmp_path: Path) -> None:
    """A FIFO that cannot be opened for another reason than a missing reader says which."""
    path = make_fifo(tmp_path)
    handle = FifoHandle(path)
    for open_end in (handle.open_reader, handle.open_writer):
        with (
            fail_syscall("reopen", error=errno.ENFILE),
            pytest.raises(DestinationError, match=f"cannot open the FIFO '{path}': Too") as caught,
        ):
            open_end()
        assert (caught.value.path, caught.value.errno) == (path, errno.ENFILE)
    handle.close()


def test_one_fifo_by_two_names(tmp_path: Path) -> None:
    """Handles know the inode, whatever it is called."""
    path, other = make_fifo(tmp_path), make_fifo(tmp_path, "other")
    os.symlink(path, tmp_path / "link")
    os.link(path, tmp_path / "second")
    names = (path, str(tmp_path / "link"), str(tmp_path / "second"), other)
    handles = [FifoHandle(name) for name in names]
    inodes = [handle.inode for handle in handles]
    for handle in handles:
        handle.close()
    status = os.stat(path)
    assert inodes[:3] == [(status.st_dev, status.st_ino)] * 3
    assert inodes[3] not in inodes[:3]


async def test_attached(tmp_path: Path) -> None:
    """attached() tells a client's reader from our own keep-alive reader, and loses no byte."""
    path = make_fifo(tmp_path)
    handle = FifoHandle(path)
    sink = FifoSink.open_now(handle, KeepAlive())
    handle.close()
    assert sink.write([b"abc"]) == 3
    assert not sink.attached()
    with FakeClient(path) as client:
        assert sink.attached()
        assert sink.unread() == 3
        assert os.read(client.fileno(), 10) == b"abc"
    assert not sink.attached()
    assert repr(sink) == f"<FifoSink {path!r} open>"
    sink.close()
    assert sink.attached() is False
    assert repr(sink) == f"<FifoSink {path!r} closed>"


@contextlib.contextmanager
def copy_in_a_child(fd: int) -> Generator[None]:
    """What every child is for a moment, between the start and the end of its exec."""
    with subprocess.Popen(["cat"], pass_fds=[fd], stdin=subprocess.PIPE):
        yield


async def test_copy_of_our_own_reader_is_no_client(tmp_path: Path) -> None:
    """attached() cannot tell while a child has a copy of our reader, and says that."""
    path = make_fifo(tmp_path)
    handle, keep = FifoHandle(path), KeepAlive()
    sink = FifoSink.open_now(handle, keep)
    handle.close()
    assert keep._reader is not None
    with copy_in_a_child(keep._reader.fileno()):
        assert sink.attached() is None
        with FakeClient(path):
            assert sink.attached() is None
    assert sink.attached() is False
    with FakeClient(path):
        assert sink.attached() is True
    sink.close()


async def test_copy_that_goes_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that is closed while it is looked for does not pass for a client either."""
    path = make_fifo(tmp_path)
    handle, keep = FifoHandle(path), KeepAlive()
    sink = FifoSink.open_now(handle, keep)
    handle.close()
    assert keep._reader is not None
    copy = os.dup(keep._reader.fileno())
    marked = _sys.marked

    def late(fd: int, byte: int) -> bool:
        os.close(copy)
        return marked(fd, byte)

    monkeypatch.setattr(_sys, "marked", late)
    assert sink.attached() is False
    sink.close()


async def test_a_file_system_without_locks(tmp_path: Path) -> None:
    """Where nothing can be marked copies cannot be told, and nothing else is different."""
    path = make_fifo(tmp_path)
    handle = FifoHandle(path)
    with fail_syscall("mark", error=errno.ENOLCK):
        sink = FifoSink.open_now(handle, KeepAlive())
    handle.close()
    with fail_syscall("marked", error=errno.ENOLCK):
        assert sink.attached() is False
        with FakeClient(path):
            assert sink.attached() is True
    sink.close()


async def test_spawn_beside_an_unread_fifo(tmp_path: Path) -> None:
    """Children that are started at the moment of the last look do not pass for clients.

    The exec of a child lets its parent go on before it closes the descriptors, and the more
    there are the longer it takes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = make_fifo(tmp_path)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(2000):
            stack.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        handle = FifoHandle(path)
        sink = FifoSink.open_now(handle, KeepAlive())
        handle.close()
        seen: Counter[bool | None] = Counter()
        for _ in range(20):
            async with await Command(["true"]).start() as process:
                seen[sink.attached()] += 1
                await process.wait()
                assert sink.attached() is False
        sink.close()
    assert seen[True] == 0


@pytest.mark.parametrize("there", [True, False])
async def test_end_while_a_child_has_a_copy(tmp_path: Path, there: bool) -> None:
    """A FIFO that has been read waits a moment to see by whom, if children are in the way."""
    path = make_fifo(tmp_path)
    handle, keep = FifoHandle(path), KeepAlive()
    sink = FifoSink.open_now(handle, keep)
    handle.close()
    done = anyio.Event()
    assert keep._reader is not None
    with FakeClient(path) as client:
        if not there:
            client.detach()
        with copy_in_a_child(keep._reader.fileno()):
            sink.finish(Poller.current(), done.set)
            assert not done.is_set()
        with anyio.fail_after(GUARD):
            await done.wait()
        assert sink.attached() is there


async def test_end_does_not_wait_for_a_copy_that_stays(tmp_path: Path) -> None:
    """A forked worker that keeps a copy of our reader for good does not keep the FIFO open."""
    path = make_fifo(tmp_path)
    handle, keep = FifoHandle(path), KeepAlive()
    sink = FifoSink.open_now(handle, keep)
    handle.close()
    done = anyio.Event()
    assert keep._reader is not None
    with copy_in_a_child(keep._reader.fileno()):
        sink.finish(Poller.current(), done.set)
        with anyio.fail_after(GUARD):
            await done.wait()
    assert sink.fd.closed
    assert sink.attached() is False


async def test_abandoned_bytes_are_told_although_a_child_has_a_copy(tmp_path: Path) -> None:
    """What dies unread is told, also where a child's copy of our reader looks like a client."""
    path = make_fifo(tmp_path)
    client = FakeClient(path).attach()
    io = await create_io(Stdio(stdout=path))
    events = io.events()
    await io.spawn(["echo", "hello"])
    await until(lambda: client.unread == 6)
    client.detach()
    ((_, fifo),) = io._fifos()
    assert fifo._keep._reader is not None
    with copy_in_a_child(fifo._keep._reader.fileno()):
        result = await io.drain()
        assert result.abandoned == 6
        await io.aclose()
    assert [event async for event in events] == [BytesAbandoned("stdout", 6)]


async def test_two_ios_in_one_fifo_abandon_nothing_while_one_lives(tmp_path: Path) -> None:
    """What one of two IOs leaves in a FIFO is not abandoned before the other one leaves, too."""
    path = make_fifo(tmp_path)
    client = FakeClient(path).attach()
    ios = [await create_io(Stdio(stdout=path)) for _ in range(2)]
    events = [io.events() for io in ios]
    for io in ios:
        await io.spawn(["echo", "hello"])
    await until(lambda: client.unread == 12)
    client.detach()
    for io in ios:
        await io.drain()
        await io.aclose()
    assert [[event async for event in each] for each in events] == [
        [],
        [BytesAbandoned("stdout", 12)],
    ]


async def test_stream_that_ends_leaves_the_other_ones_fifo_alive(tmp_path: Path) -> None:
    """Of two streams in one FIFO the one that goes on has a reader, and nobody loses a byte."""
    path = make_fifo(tmp_path)
    handle, keep = FifoHandle(path), KeepAlive()
    first, second = FifoSink.open_now(handle, keep), FifoSink.open_now(handle, keep)
    handle.close()
    assert (first.speaks, second.speaks) == (True, False)
    assert first.write([b"one"]) == 3

    first.close()

    assert second.speaks
    assert not _sys.poll_now(second.fileno()) & _sys.EPOLLERR
    assert second.write([b"two"]) == 3
    with FakeClient(path) as client:
        assert await client.read(6) == b"onetwo"
    second.close()
    with FakeClient(path) as client:
        assert client.unread == 0


@pytest.mark.parametrize("there", [True, False])
async def test_end_comes_when_the_fifo_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A finished FIFO is looked at seldom and seldomer, closed when read, and remembers by whom."""
    path = make_fifo(tmp_path)
    handle = FifoHandle(path)
    sink = FifoSink.open_now(handle, KeepAlive())
    handle.close()
    poller = Poller.current()
    later = poller.later
    delays: list[float] = []

    def tell(delay: float, callback: Callable[[], None]) -> Timer:
        delays.append(delay)
        return later(delay / 10, callback)

    monkeypatch.setattr(poller, "later", tell)
    done = anyio.Event()
    with FakeClient(path) as client:
        assert sink.write([b"abc"]) == 3
        sink.finish(poller, done.set)
        await until(lambda: len(delays) >= len(PROBES))
        assert not client.hung_up
        assert os.read(client.fileno(), 10) == b"abc"
        if not there:
            client.detach()
        with anyio.fail_after(GUARD):
            await done.wait()
        assert sink.fd.closed
        assert sink.attached() is there
    assert delays[: len(PROBES)] == PROBES


async def test_abandoned_bytes_are_reported(tmp_path: Path) -> None:
    """Bytes that no client is there to read count as abandoned, in the result and as an event."""
    path = make_fifo(tmp_path)
    client = FakeClient(path).attach()
    io = await create_io(Stdio(stdout=path))
    events = io.events()
    async with io:
        await io.spawn(["echo", "hello"])
        await until(lambda: client.unread == 6)
        client.detach()
        result = await io.drain()
        assert result.complete
        assert (result.unread, result.abandoned) == (6, 6)
        assert result.stdout is not None
        assert result.stdout.attached is False
    assert [event async for event in events] == [BytesAbandoned("stdout", 6)]


async def test_client_that_comes_back_while_closing(tmp_path: Path) -> None:
    """aclose() keeps a FIFO alive for a moment, so a client that comes back misses nothing."""
    path = make_fifo(tmp_path)
    client = FakeClient(path).attach()
    io = await create_io(Stdio(stdout=path))
    events = io.events()
    await io.spawn(["echo", "hello"])
    await until(lambda: client.unread == 6)
    client.detach()
    await io.drain()
    async with anyio.create_task_group() as group:
        group.start_soon(io.aclose)
        await anyio.sleep(0.05)
        client = FakeClient(path).attach()
    assert await client.read_all() == b"hello\n"
    client.detach()
    assert [event async for event in events] == []


# -- stdin ------------------------------------------------------------------------------


async def test_stdin_clients_come_and_go(tmp_path: Path) -> None:
    """A client that detaches from stdin is no EOF; another one goes on."""
    path, out = make_fifo(tmp_path, "in"), make_fifo(tmp_path, "out")
    with FakeClient(out) as client:
        async with await create_io(Stdio(stdin=path, stdout=out)) as io:
            process = await io.spawn(["cat"])
            for text in (b"one\n", b"two\n", b"three\n"):
                writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                os.write(writer, text)
                os.close(writer)
                assert await client.read(len(text)) == text
            assert not process.exited
            io.close_stdin()
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
            await io.drain()
            assert await client.read_all() == b""


@pytest.mark.parametrize("moment", ["created", "started", "twice"])
async def test_close_stdin_is_a_latch(tmp_path: Path, moment: str) -> None:
    """close_stdin() counts whenever it is called, many times over."""
    path = make_fifo(tmp_path)
    for _ in range(15):
        async with await create_io(Stdio(stdin=path)) as io:
            if moment in {"created", "twice"}:
                io.close_stdin()
            process = await io.spawn(["cat"])
            if moment in {"started", "twice"}:
                io.close_stdin()
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0


async def test_close_stdin_delivers_what_was_written_before(tmp_path: Path) -> None:
    """The latch, set before the FIFO is open, lets a client finish that was there first."""
    path, out = make_fifo(tmp_path, "in"), make_fifo(tmp_path, "out")
    with FakeClient(out) as client:
        async with await create_io(Stdio(stdin=path, stdout=out)) as io:
            io.close_stdin()
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, b"early\n")
            process = await io.spawn(["cat"])
            os.close(reader)
            os.write(writer, b"late\n")
            assert await client.read(11) == b"early\nlate\n"
            assert not process.exited
            os.close(writer)
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0


async def test_stdin_fifo_is_opened_by_spawn_alone(tmp_path: Path) -> None:
    """An IO that is closed before its start has opened no FIFO for a client to find."""
    path = make_fifo(tmp_path)
    async with await create_io(Stdio(stdin=path)):
        with pytest.raises(OSError, match="No such device"):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)


def test_source_ends_when_told(tmp_path: Path) -> None:
    """The keep-alive writer holds off EOF, and end() lets it come."""
    handle = FifoHandle(make_fifo(tmp_path))
    source = FifoSource(handle)
    handle.close()
    with pytest.raises(BlockingIOError):
        os.read(source.reader.fileno(), 1)
    source.end()
    assert os.read(source.reader.fileno(), 1) == b""
    source.close()


@pytest.mark.parametrize("scheme", ["fifo://", ""])
async def test_two_streams_of_one_fifo_are_no_clients_of_each_other(
    tmp_path: Path, scheme: str
) -> None:
    """With stdout and stderr in one FIFO, what dies unread is told once, and held a moment."""
    path = make_fifo(tmp_path)
    with FakeClient(path):
        io = await create_io(Stdio(stdout=scheme + path, stderr=f"fifo://{path}"))
        await io.spawn(["sh", "-c", "echo out; echo err >&2"])
    events = io.events()
    result = await io.drain()
    assert (result.unread, result.abandoned) == (8, 8)
    assert result.stdout is not None
    assert result.stdout.attached is False
    async with anyio.create_task_group() as group:
        group.start_soon(io.aclose)
        with FakeClient(path) as late:  # within the moment that aclose() waits
            while late.unread < 8:
                await anyio.sleep(0)
            # Two pumps: either may come first.
            assert set(os.read(late.fileno(), 100).splitlines()) == {b"out", b"err"}
    assert [event async for event in events if isinstance(event, BytesAbandoned)] == []


async def test_what_two_streams_leave_in_one_fifo_is_told_once(tmp_path: Path) -> None:
    """Nobody comes for what two streams have left in one FIFO: one event, all bytes."""
    path = make_fifo(tmp_path)
    with FakeClient(path):
        io = await create_io(f"fifo://{path}")
        await io.spawn(["sh", "-c", "echo out; echo err >&2"])
    events = io.events()
    await io.drain()
    await io.aclose()
    assert [event.count async for event in events if isinstance(event, BytesAbandoned)] == [8]


@pytest.mark.parametrize("stream", [1, 2])
async def test_a_shared_fifo_grows_for_either_stream(tmp_path: Path, stream: int) -> None:
    """Of two streams in one FIFO whichever is fast makes it larger, and gives that back."""
    path = make_fifo(tmp_path)
    program = f"head -c 64M /dev/zero >&{stream}; echo quiet >&{3 - stream}; read end"
    with FakeClient(path) as client:
        async with await create_io(Stdio(stdout=path, stderr=path), stdin_stream=True) as io:
            await io.spawn(["sh", "-c", program])
            left = Poller.current().pipes.left
            assert len(await client.read((64 << 20) + 6)) == (64 << 20) + 6
            assert _sys.pipe_size(client.fileno()) == 1 << 20
            io.close_stdin()
            assert (await io.drain()).complete
            assert await client.read_all() == b""
            assert _sys.pipe_size(client.fileno()) == 1 << 16
            assert Poller.current().pipes.left == left
