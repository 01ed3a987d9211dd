"""Log files: how they are opened, shared, reopened, and what a full disk does."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pickle
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import (
    Command,
    FileIO,
    SinkFailed,
    SinkRecovered,
    Stdio,
    _file,
    _filepool,
    _sys,
    create_io,
)
from pyshimio._file import FileSink, LogFile
from pyshimio.errors import (
    FileAccessError,
    FileOpenError,
    InvalidOptionError,
    NotAFileError,
    RelativePathError,
    StreamFailedError,
    URINulError,
)
from support.children import GUARD, until
from support.mounts import ext4, tmpfs
from support.threads import pool_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyshimio import DrainResult, IOEvent

pytestmark = pytest.mark.filterwarnings("error")


def descriptors_of(path: str | os.PathLike[str]) -> list[int]:
    """This process's descriptors of the file at *path*."""
    there = os.stat(path)
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            status = os.fstat(int(name))
            if (status.st_dev, status.st_ino) == (there.st_dev, there.st_ino):
                found.append(int(name))
    return found


async def run(io: FileIO, script: str) -> DrainResult:
    """Run a shell script to its end and deliver what it wrote."""
    with anyio.fail_after(20):
        process = await io.spawn(["sh", "-c", script])
        assert await process.wait() == 0
        return await io.drain()


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask for a moment."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# -- opening ----------------------------------------------------------------------------


async def test_missing_parents_are_made_0755_and_the_file_0644(tmp_path: Path) -> None:
    """Every missing directory is 0755 and the file 0644, even where the umask would allow more."""
    path = tmp_path / "a" / "b" / "c" / "app.log"
    with umask(0):
        async with FileIO(path) as io:
            await run(io, "echo out")

    modes = [entry.stat().st_mode & 0o7777 for entry in (path, *list(path.parents)[:3])]
    assert modes == [0o644, 0o755, 0o755, 0o755]
    assert path.read_bytes() == b"out\n"


async def test_the_umask_takes_from_the_modes(tmp_path: Path) -> None:
    """A stricter umask is respected."""
    path = tmp_path / "d" / "app.log"
    with umask(0o077):
        async with FileIO(path) as io:
            await run(io, ":")

    assert path.stat().st_mode & 0o7777 == 0o600
    assert path.parent.stat().st_mode & 0o7777 == 0o700


async def test_output_is_appended(tmp_path: Path) -> None:
    """The file is opened with O_APPEND, close-on-exec and non-blocking; what was there stays."""
    path = tmp_path / "app.log"
    path.write_bytes(b"before\n")
    async with FileIO(path) as io:
        process = await io.spawn(["sh", "-c", "read x; echo out"])
        (fd,) = descriptors_of(path)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        assert flags & (os.O_APPEND | os.O_NONBLOCK) == os.O_APPEND | os.O_NONBLOCK
        assert flags & os.O_ACCMODE == os.O_WRONLY
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert await process.wait() == 0
        result = await io.drain()
        assert result.complete

    assert path.read_bytes() == b"before\nout\n"


async def test_two_appenders_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """A file that somebody truncates meanwhile is written from its new end."""
    path = tmp_path / "app.log"
    async with FileIO(path, stdin=True) as io:
        assert io.stdin is not None
        await io.spawn(["cat"])
        await io.stdin.send(b"one\n")
        await until(lambda: path.read_bytes() == b"one\n")
        os.truncate(path, 0)
        await io.stdin.send(b"two\n")
        await until(lambda: path.read_bytes() == b"two\n")
        io.close_stdin()
        assert (await io.drain()).complete


async def test_a_symlink_is_followed_unless_forbidden(tmp_path: Path) -> None:
    """With nofollow a symbolic link is refused, and nothing is made behind it."""
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    io = FileIO(link, nofollow=True)
    with pytest.raises(FileOpenError) as caught:
        await io.spawn(["true"])
    assert caught.value.errno == errno.ELOOP
    assert caught.value.path == str(link)
    assert not target.exists()

    async with FileIO(link) as io:
        await run(io, "echo out")
    assert target.read_bytes() == b"out\n"


async def test_both_streams_to_one_file_share_one_descriptor(tmp_path: Path) -> None:
    """One descriptor, one sink: it is closed when both streams have ended."""
    path = tmp_path / "app.log"
    async with FileIO(path, str(path)) as io:
        process = await io.spawn(
            ["sh", "-c", "echo out; exec >&-; read x; sleep 0.1; echo err >&2"]
        )
        assert len(descriptors_of(path)) == 1
        await process.wait()
        result = await io.drain()
        assert result.complete
        assert descriptors_of(path) == []

    assert path.read_bytes() == b"out\nerr\n"


async def test_different_files_get_a_descriptor_each(tmp_path: Path) -> None:
    """Stderr goes where it was told to go (containerd ignores its path)."""
    out, err = tmp_path / "out.log", tmp_path / "err.log"
    async with FileIO(out, err) as io:
        process = await io.spawn(["sh", "-c", "echo out; echo err >&2"])
        assert len(descriptors_of(out)) == len(descriptors_of(err)) == 1
        await process.wait()
        await io.drain()

    assert (out.read_bytes(), err.read_bytes()) == (b"out\n", b"err\n")


async def test_one_stream_alone(tmp_path: Path) -> None:
    """The other one is /dev/null (containerd's shim panics without a stderr)."""
    path = tmp_path / "err.log"
    async with FileIO(None, path) as io:
        result = await run(io, "echo out; echo err >&2")
        assert io.stats.stdout is None
        assert result.stdout is None

    assert path.read_bytes() == b"err\n"


@pytest.mark.parametrize("reader", [False, True], ids=["alone", "with a reader"])
async def test_a_fifo_is_refused_without_waiting(tmp_path: Path, reader: bool) -> None:
    """A FIFO at the path is an error at once, whether somebody reads it or not."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if reader else -1
    try:
        await refused(path)
    finally:
        if reader:
            os.close(fd)


async def test_a_socket_is_refused(tmp_path: Path) -> None:
    """A unix socket is no log file."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        await refused(path)


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    """A directory is no log file."""
    await refused(tmp_path)


@pytest.mark.root
async def test_a_block_device_is_refused(tmp_path: Path) -> None:
    """A block device is no log file, whether its driver is there or not."""
    path = tmp_path / "disk"
    os.mknod(path, 0o600 | 0o060000, os.makedev(7, 0))
    await refused(path)


async def refused(path: Path) -> None:
    """Spawning with a log file at *path* fails and starts nothing."""
    flag = path.parent / "started"
    with anyio.fail_after(10):
        with pytest.raises(NotAFileError) as caught:
            await FileIO(path).spawn(["touch", str(flag)])
    assert caught.value.path == str(path)
    assert caught.value.errno
    assert "regular file" in str(caught.value)
    assert not flag.exists()
    assert pickle.loads(pickle.dumps(caught.value)).path == str(path)


@pytest.mark.root
async def test_an_unwritable_directory() -> None:
    """A user without the right to make a file there hears so before a child starts."""
    top = Path(tempfile.mkdtemp(dir="/tmp"))
    top.chmod(0o755)
    try:
        for name in ("app.log", "new/dir/app.log"):
            os.seteuid(65534)
            try:
                with pytest.raises(FileAccessError) as caught:
                    await FileIO(top / name).spawn(["true"])
            finally:
                os.seteuid(0)
            assert isinstance(caught.value, PermissionError)
            assert caught.value.errno == errno.EACCES
        assert list(top.iterdir()) == []
    finally:
        shutil.rmtree(top)


async def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    """A path below a regular file cannot be opened."""
    (tmp_path / "file").touch()
    with pytest.raises(FileOpenError) as caught:
        await FileIO(tmp_path / "file" / "x" / "app.log").spawn(["true"])
    assert caught.value.errno == errno.ENOTDIR


def test_arguments_are_judged_before_anything_is_made() -> None:
    """Relative paths, NULs and unknown policies are refused by the constructor."""
    with pytest.raises(RelativePathError):
        FileIO("var/log/app.log")
    with pytest.raises(RelativePathError):
        FileIO("/tmp/x", "")
    with pytest.raises(URINulError):
        FileIO("/tmp/a\0b")
    with pytest.raises(InvalidOptionError) as caught:
        FileIO("/tmp/x", on_error="ignore")  # type: ignore[arg-type]
    assert caught.value.option == "on_error"


async def test_an_open_that_fails_in_between_leaves_nothing(tmp_path: Path) -> None:
    """A kernel that refuses to say what was opened costs no descriptor."""
    path = tmp_path / "app.log"

    def failing(fd: int) -> os.stat_result:
        raise OSError(errno.EIO, "no status")

    real, _sys.fstat = _sys.fstat, failing
    try:
        with pytest.raises(OSError, match="no status"):
            LogFile(str(path))
    finally:
        _sys.fstat = real
    assert descriptors_of(path) == []


async def test_spawning_nothing_closes_the_files(tmp_path: Path) -> None:
    """A program that does not exist leaves the file, its lane and its thread closed."""
    path = tmp_path / "app.log"
    with pytest.raises(FileNotFoundError):
        await FileIO(path, path).spawn([str(tmp_path / "missing")])
    assert descriptors_of(path) == []


# -- devices ----------------------------------------------------------------------------


async def test_dev_null_takes_everything() -> None:
    """A memory device is written on the loop, without a thread."""
    async with FileIO("/dev/null", "/dev/null") as io:
        await io.spawn(["sh", "-c", "head -c 3000000 /dev/zero; echo err >&2"])
        await until(lambda: not pool_threads())  # opened in one, and that is all
        result = await io.drain()
        assert result.complete
        assert result.stdout is not None
        assert result.stdout.moved == 3000000


async def test_a_terminal_that_both_streams_share(tmp_path: Path) -> None:
    """A terminal that nobody reads blocks both streams, and nothing is lost when it is read."""
    master, slave = _sys.openpty()
    try:
        os.set_blocking(master, False)
        name = os.ttyname(slave)
        async with FileIO(name, name) as io:
            script = "seq -f o%.f 20000 & seq -f e%.f 20000 >&2; wait"
            process = await io.spawn(["sh", "-c", script])

            def both_wait() -> bool:
                stats = io.stats
                assert stats.stdout is not None
                assert stats.stderr is not None
                return (
                    stats.stdout.bytes_in > stats.stdout.bytes_out
                    and stats.stderr.bytes_in > stats.stderr.bytes_out
                )

            await until(both_wait)
            seen = bytearray()

            def finished() -> bool:
                with contextlib.suppress(BlockingIOError):
                    seen.extend(os.read(master, 65536))
                return seen.count(b"\n") == 40000

            await until(finished)
            assert await process.wait() == 0
            assert (await io.drain()).complete
    finally:
        os.close(master)
        os.close(slave)
    # The chunks of the two streams may cut each other's lines, but no byte is lost.
    text = seen.replace(b"\r\n", b"\n")
    expected = b"".join(b"%c%d\n" % (kind, n) for kind in b"oe" for n in range(1, 20001))
    assert sorted(text) == sorted(expected)


async def test_a_terminal_is_reopened_while_it_is_full() -> None:
    """After reopen() the stream goes on into whatever has the name now."""
    first, second = _sys.openpty(), _sys.openpty()
    link = Path(tempfile.mkdtemp()) / "tty"
    try:
        os.set_blocking(first[0], False)
        os.set_blocking(second[0], False)
        link.symlink_to(os.ttyname(first[1]))
        async with FileIO(link, stdin=True) as io:
            await io.spawn(["sh", "-c", "seq 5000; cat"])
            await until(lambda: (s := io.stats.stdout) is not None and s.bytes_in > s.bytes_out)
            link.unlink()
            link.symlink_to(os.ttyname(second[1]))
            await io.reopen()
            seen = bytearray()

            def finished() -> bool:
                with contextlib.suppress(BlockingIOError):
                    seen.extend(os.read(second[0], 65536))
                return seen.endswith(b"5000\r\n")

            await until(finished)
            io.close_stdin()
            assert (await io.drain()).complete
    finally:
        for fd in (*first, *second):
            os.close(fd)
        shutil.rmtree(link.parent)


async def test_a_terminal_that_was_hung_up_blocks_until_it_is_reopened(tmp_path: Path) -> None:
    """With on_error="block" EIO costs no byte and no busy loop; reopen() ends the wait."""
    master, slave = _sys.openpty()
    link = tmp_path / "log"
    link.symlink_to(os.ttyname(slave))
    try:
        async with FileIO(link, stdin=True, on_error="block") as io:
            assert io.stdin is not None
            await io.spawn(["cat"])
            os.close(master)
            master = -1
            await io.stdin.send(b"kept\n")
            await until(lambda: (s := io.stats.stdout) is not None and s.bytes_in == 5)
            link.unlink()
            link.touch()
            await io.reopen()
            await until(lambda: link.read_bytes() == b"kept\n")
            io.close_stdin()
            assert (await io.drain()).complete
    finally:
        os.close(slave)
        if master >= 0:
            os.close(master)


# -- reopen -----------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True])
async def test_reopen_after_a_rotation(tmp_path: Path, inline: bool) -> None:
    """After rename and reopen() both streams go on in a new file, through one descriptor."""
    path, rotated = tmp_path / "app.log", tmp_path / "app.log.1"
    async with FileIO(path, path, stdin=True, inline=inline) as io:
        assert io.stdin is not None
        await io.spawn(["sh", "-c", "read a; echo $a; read a; echo $a; read a; echo $a >&2"])
        await io.stdin.send(b"one\n")
        await until(lambda: path.read_bytes() == b"one\n")
        path.rename(rotated)
        await io.stdin.send(b"two\n")
        await until(lambda: rotated.read_bytes() == b"one\ntwo\n")
        await io.reopen()
        assert path.read_bytes() == b""
        assert descriptors_of(rotated) == []
        assert len(descriptors_of(path)) == 1
        await io.stdin.send(b"three\n")
        assert (await io.drain()).complete

    assert path.read_bytes() == b"three\n"


async def test_a_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """A path that cannot be opened again is an error, and not the end of the stream."""
    path, rotated = tmp_path / "app.log", tmp_path / "app.log.1"
    async with FileIO(path, stdin=True) as io:
        assert io.stdin is not None
        await io.spawn(["cat"])
        path.rename(rotated)
        path.mkdir()
        with pytest.raises(NotAFileError):
            await io.reopen()
        await io.stdin.send(b"one\n")
        io.close_stdin()
        assert (await io.drain()).complete

    assert rotated.read_bytes() == b"one\n"


async def test_a_stream_may_end_while_its_file_is_reopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """reopen() passes over a stream that ends meanwhile, like one that has ended before."""
    path = str(tmp_path / "log")
    at_end, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    real_readv, real_open = _sys.readv, _sys.open

    def readv(fd: int, buffers: Sequence[memoryview]) -> int:
        count = real_readv(fd, buffers)
        if count == 0:
            at_end.set()
            go_on.wait(GUARD)
        return count

    def slow_open(name: str, flags: int, mode: int = 0o777) -> int:
        if at_end.is_set() and name == path:
            ended.wait(GUARD)
        return real_open(name, flags, mode)

    monkeypatch.setattr(_sys, "readv", readv)
    monkeypatch.setattr(_sys, "open", slow_open)
    with anyio.fail_after(GUARD):
        async with FileIO(path) as io:
            await io.spawn(["echo", "hello"])
            await until(at_end.is_set)
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(io.reopen)
                    await anyio.wait_all_tasks_blocked()
                    go_on.set()
                    assert (await io.drain()).stdout is not None
                    ended.set()
            finally:
                go_on.set()
                ended.set()
    assert Path(path).read_bytes() == b"hello\n"


async def test_a_file_that_is_closed_while_a_thread_reopens_it(tmp_path: Path) -> None:
    """The descriptor that comes too late is closed."""
    path = tmp_path / "app.log"
    file = LogFile(str(path))
    sink = FileSink(file)
    sink.close()
    file.reopen()
    assert file.fd.closed
    assert descriptors_of(path) == []
    sink.close()
    assert "closed" in repr(sink)
    assert "closed" in repr(file)


# -- no room ----------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon instead of every second."""
    monkeypatch.setattr(_file, "RETRY", 0.05)
    monkeypatch.setattr("pyshimio._filepump.RETRY", 0.05)


LINES = b"".join(b"%07d\n" % n for n in range(20_000))  # 160,000 bytes, eight a line


@pytest.mark.root
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("inline", [False, True])
async def test_a_full_disk_drops_whole_lines_and_recovers(
    tmp_path: Path, mark: bool, inline: bool
) -> None:
    """The child runs on, what is dropped is counted, and no half line is glued to another."""
    source = tmp_path / "lines"
    source.write_bytes(LINES)
    events: list[IOEvent] = []
    with tmpfs(tmp_path / "small") as disk:
        path, filler = disk / "app.log", disk / "filler"
        filler.write_bytes(b"x" * 8192)
        async with FileIO(path, stdin=True, mark=mark, inline=inline) as io:

            async def listen() -> None:
                async for event in io.events():
                    events.append(event)

            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                await anyio.lowlevel.checkpoint()
                assert io.stdin is not None
                script = f"cat {source}; echo over >&2; cat"
                await io.spawn(["sh", "-c", script])
                # The child is not stopped: its whole output is taken.
                await until(lambda: (s := io.stats.stdout) is not None and s.bytes_in == len(LINES))
                await until(lambda: (s := io.stats.stdout) is not None and s.dropped > 0)
                filler.unlink()
                # The first line after this may be the one that finds that there is room.
                for n in range(200):
                    await io.stdin.send(b"after %d\n" % n)
                    if any(isinstance(event, SinkRecovered) for event in events):
                        break
                    await anyio.sleep(0.02)
                await io.stdin.send(b"end\n")
                io.close_stdin()
                result = await io.drain()
                stats = io.stats.stdout
                group.cancel_scope.cancel()
        text = path.read_bytes()
    assert stats is not None
    assert stats.bytes_in == stats.bytes_out + stats.dropped
    assert result.stdout is not None
    assert result.stdout.dropped == stats.dropped > 0
    assert not result.complete
    failed = [event for event in events if isinstance(event, SinkFailed)]
    assert failed
    assert not failed[0].final
    recovered = [event for event in events if isinstance(event, SinkRecovered)]
    assert sum(event.dropped for event in recovered) == stats.dropped

    lines = text.split(b"\n")
    assert lines.pop() == b""
    assert lines[-1] == b"end"
    marks = [line for line in lines if line.startswith(b"[pyshimio: ")]
    assert bool(marks) == mark
    if mark:
        total = sum(int(line.split()[1]) for line in marks)
        assert total == stats.dropped
    # What was cut by the end of the disk is the last line before the gap, if any.
    cut = [
        line
        for line in lines
        if line not in marks and not line.startswith((b"after ", b"end")) and len(line) != 7
    ]
    assert len(cut) <= 1
    for line in cut:
        assert LINES.startswith(text[: text.index(b"\n" + line + b"\n") + 1 + len(line)])


@pytest.mark.root
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("inline", [False, True])
async def test_a_full_disk_may_block_the_child(tmp_path: Path, inline: bool) -> None:
    """With on_error="block" every byte arrives once there is room, and nothing is added."""
    source = tmp_path / "lines"
    source.write_bytes(LINES * 8)  # more than the pipe and the pump can hold
    with tmpfs(tmp_path / "small", "2m") as disk:
        path, filler = disk / "app.log", disk / "filler"
        filler.write_bytes(b"x" * ((2 << 20) - (64 << 10)))
        async with FileIO(path, on_error="block", mark=True, inline=inline) as io:
            process = await io.spawn(["cat", str(source)])
            await until(lambda: path.stat().st_size == 64 << 10)
            stats = io.stats.stdout
            assert stats is not None
            assert not process.exited
            filler.unlink()
            with anyio.fail_after(20):
                assert await process.wait() == 0
                result = await io.drain()
            assert result.complete
        assert path.read_bytes() == LINES * 8


@pytest.mark.root
async def test_a_full_disk_may_fail_the_stream(tmp_path: Path) -> None:
    """With on_error="fail" the child gets EPIPE and drain() says why."""
    with tmpfs(tmp_path / "small") as disk:
        async with FileIO(disk / "app.log", on_error="fail") as io:
            process = await io.spawn(["sh", "-c", "yes"])
            with anyio.fail_after(20):
                assert await process.wait() == 128 + 13
                with pytest.raises(StreamFailedError) as caught:
                    await io.drain()
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.stream == "stdout"
        assert isinstance(caught.value.__cause__, OSError)
        stats = io.stats.stdout
        assert stats is not None
        assert stats.bytes_in == stats.bytes_out + stats.dropped


@pytest.mark.root
async def test_reopen_tries_a_full_disk_again_at_once(tmp_path: Path) -> None:
    """reopen() does not wait for the second to be over."""
    with tmpfs(tmp_path / "small") as disk:
        path, filler = disk / "app.log", disk / "filler"
        filler.write_bytes(b"x" * 65536)
        async with FileIO(path, on_error="block", stdin=True) as io:
            assert io.stdin is not None
            await io.spawn(["cat"])
            await io.stdin.send(b"one\n")
            await until(lambda: (s := io.stats.stdout) is not None and s.writes > 0)
            filler.unlink()
            with anyio.fail_after(20):
                await io.reopen()
            await until(lambda: path.read_bytes() == b"one\n")
            io.close_stdin()
            assert (await io.drain()).complete


@pytest.mark.parametrize("on_error", ["drop", "fail"])
async def test_dev_full(on_error: Any) -> None:
    """A device that is always full drops and counts all, or fails the stream."""
    async with FileIO("/dev/full", on_error=on_error) as io:
        process = await io.spawn(["sh", "-c", "echo one; echo two"])
        await process.wait()
        if on_error == "fail":
            with pytest.raises(StreamFailedError):
                await io.drain()
            return
        result = await io.drain()
        assert result.stdout is not None
        assert (result.stdout.moved, result.stdout.dropped) == (0, 8)
        assert result.stdout.finished


async def test_dev_full_blocks_without_spinning() -> None:
    """With on_error="block" the loop is left alone; what is held at the end counts as dropped."""
    async with FileIO("/dev/full", on_error="block") as io:
        process = await io.spawn(["sh", "-c", "echo one"])
        assert await process.wait() == 0
        result = await io.drain(linger=0.05, sink_timeout=0.2)
        stats = io.stats.stdout
        assert stats is not None
        assert stats.writes <= 2
        assert result.stdout is not None
        assert not result.stdout.finished
        assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (4, 0, 4)


async def test_a_file_size_limit_counts_as_a_full_disk(tmp_path: Path) -> None:
    """EFBIG drops, too."""
    path = tmp_path / "app.log"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with FileIO(path, stdin=True) as io:
        assert io.stdin is not None
        process = await io.spawn(["cat"])
        await io.stdin.send(b"12345\n" * 1000)
        await until(lambda: path.stat().st_size == 6000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6003, limits[1]))
        try:
            await io.stdin.send(b"67890\n")
            await until(lambda: (s := io.stats.stdout) is not None and s.dropped == 3)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        io.close_stdin()
        assert await process.wait() == 0
        await io.drain()
    assert path.read_bytes() == b"12345\n" * 1000 + b"678"


class Room:
    """A kernel whose disk is full when it is told so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.code = errno.ENOSPC
        self.now = 0.0
        self._write = os.write
        monkeypatch.setattr(_sys, "write", self.write)
        monkeypatch.setattr(_sys, "monotonic", lambda: self.now)

    def write(self, fd: int, data: Any) -> int:
        """As much as there is room for."""
        if self.left is None:
            return self._write(fd, data)
        if not self.left:
            raise OSError(self.code, os.strerror(self.code))
        count = self._write(fd, bytes(data)[: self.left])
        self.left -= count
        return count


@pytest.mark.parametrize("code", sorted(_sys.NO_ROOM), ids=lambda code: errno.errorcode[code])
async def test_the_five_errors_that_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Each of them drops up to the end of a line, is told once, and is over after a second."""
    path = tmp_path / "app.log"
    room = Room(monkeypatch)
    room.code = code
    file = LogFile(str(path), mark=True)
    sink = FileSink(file)
    told: list[tuple[int | None, int]] = []
    file.trouble = lambda error, lost: told.append((getattr(error, "errno", None), lost))
    try:
        assert sink.write([b"one\n"]) == 4
        room.left = 2
        assert sink.write([b"two\n"]) == 2  # a short write first, as disks do
        assert sink.write([b"o\nthr"]) == 5
        assert told == [(code, 0)]
        room.left = None
        assert sink.write([b"ee\n"]) == 3  # before the second is over nothing is tried
        room.now = 0.9
        assert sink.write([b"four\nfi"]) == 7
        room.now = 1.0
        assert sink.write([b"ve"]) == 2  # the rest of a line without a beginning
        assert sink.write([b"\nsix\n"]) == 5
        assert sink.write([b"seven\n"]) == 6
        assert sink.dropped == 5 + 3 + 7 + 2 + 1
        assert told == [(code, 0), (None, 18)]
    finally:
        sink.close()
    assert path.read_bytes() == b"one\ntw\n[pyshimio: 18 bytes dropped]\nsix\nseven\n"


async def test_a_mark_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full again while the mark is written keeps counting from where it was."""
    path = tmp_path / "app.log"
    room = Room(monkeypatch)
    file = LogFile(str(path), mark=True)
    sink = FileSink(file)
    try:
        room.left = 0
        assert sink.write([b"one\n"]) == 4
        room.now += 1.0
        assert sink.write([b"two\n"]) == 4
        room.left, room.now = None, room.now + 1.0
        assert sink.write([b"three\n"]) == 6
        assert sink.dropped == 8
    finally:
        sink.close()
    assert path.read_bytes() == b"[pyshimio: 8 bytes dropped]\nthree\n"


async def test_two_streams_of_one_full_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stream goes on with a whole line of its own; each knows its own loss."""
    path = tmp_path / "app.log"
    room = Room(monkeypatch)
    file = LogFile(str(path))
    out, err = FileSink(file), FileSink(file)
    try:
        room.left = 0
        assert out.write([b"out"]) == 3
        assert err.write([b"err 1\n"]) == 6
        room.left, room.now = None, 1.0
        assert err.write([b"err 2\n"]) == 6
        assert out.write([b" rest\nout 2\n"]) == 12
        assert (out.dropped, err.dropped) == (9, 6)
    finally:
        out.close()
        still_open = not file.fd.closed
        err.close()
    assert still_open
    assert path.read_bytes() == b"err 2\nout 2\n"


# -- other errors -----------------------------------------------------------------------


@pytest.mark.root
async def test_a_file_that_turns_immutable_ends_the_stream(tmp_path: Path) -> None:
    """EPERM is no full disk: the error is stored and raised by drain(), the child gets EPIPE."""
    with ext4(tmp_path / "disk") as disk:
        path = disk / "app.log"
        async with FileIO(path, stdin=True) as io:
            assert io.stdin is not None
            process = await io.spawn(["sh", "-c", "cat; while echo more; do sleep 0.01; done"])
            await io.stdin.send(b"one\n")
            await until(lambda: path.read_bytes() == b"one\n")
            subprocess.run(["chattr", "+i", str(path)], check=True)
            try:
                await io.stdin.send(b"two\n")
                io.close_stdin()
                with anyio.fail_after(20):
                    await process.wait()
                    with pytest.raises(StreamFailedError) as caught:
                        await io.drain()
                    await io.aclose()  # said once is enough
                    with pytest.raises(FileAccessError) as denied:
                        await FileIO(path).spawn(["true"])
            finally:
                subprocess.run(["chattr", "-i", str(path)], check=True)
        assert caught.value.errno == errno.EPERM
        assert isinstance(caught.value.__cause__, PermissionError)
        assert denied.value.errno == errno.EPERM
        assert path.read_bytes() == b"one\n"
        stats = io.stats.stdout
        assert stats is not None
        assert stats.bytes_in == stats.bytes_out + stats.dropped


async def test_a_failed_stream_is_raised_by_aclose_when_nobody_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a stream is not lost with the block."""
    room = Room(monkeypatch)
    monkeypatch.setattr(_sys, "monotonic", __import__("time").monotonic)
    with pytest.raises(StreamFailedError) as caught:
        async with FileIO(tmp_path / "app.log", tmp_path / "err.log") as io:
            room.left, room.code = 0, errno.EACCES
            process = await io.spawn(["sh", "-c", "echo out"])
            await process.wait()
            await until(lambda: repr(io).count("ended") >= 1)
    assert caught.value.errno == errno.EACCES


async def test_a_stuck_sink_is_given_up_after_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that does not return is abandoned by drain(), counted, and its thread ends later."""
    release, entered = threading.Event(), threading.Event()
    real = os.write

    def stuck(fd: int, data: Any) -> int:
        entered.set()
        release.wait(20)
        return real(fd, data)

    monkeypatch.setattr(_sys, "write", stuck)
    try:
        async with FileIO(tmp_path / "app.log") as io:
            process = await io.spawn(["sh", "-c", "echo one"])
            await process.wait()
            await until(entered.is_set)
            result = await io.drain(linger=0.05, sink_timeout=0.1)
            stats = io.stats.stdout
            assert stats is not None
            assert result.stdout is not None
            assert not result.stdout.finished
            assert (stats.bytes_in, stats.bytes_out, stats.dropped) == (4, 0, 4)
            release.set()
            await until(lambda: not any(t.name == "pyshimio-file" for t in threading.enumerate()))
            # What the thread did in the end changes no figure.
            assert io.stats.stdout == stats
    finally:
        release.set()
    assert _filepool._current.get() is None


async def test_stdio_with_a_file_for_each_stream(tmp_path: Path) -> None:
    """create_io() makes the same of two file: URIs."""
    stdio = Stdio(stdout=f"file://{tmp_path}/d/out.log", stderr=f"file://{tmp_path}/d/err.log")
    async with await create_io(stdio) as io:
        assert isinstance(io, FileIO)
        process = await io.spawn(Command(["sh", "-c", "echo out; echo err >&2"]))
        assert await process.wait() == 0
        assert (await io.drain()).complete
    assert (tmp_path / "d" / "out.log").read_bytes() == b"out\n"
    assert (tmp_path / "d" / "err.log").read_bytes() == b"err\n"


async def test_reopen_goes_on_behind_a_file_that_cannot_be(tmp_path: Path) -> None:
    """One file that cannot be opened again keeps nobody from opening the other one."""
    out, err = tmp_path / "out", tmp_path / "err"
    async with FileIO(out, err, stdin=True) as io:
        await io.spawn(["sh", "-c", "read line; echo out; echo err >&2"])
        for path in (out, err):
            path.rename(f"{path}.1")
        out.mkdir()
        with pytest.raises(NotAFileError):
            await io.reopen()
        assert io.stdin is not None
        await io.stdin.send(b"go\n")
        assert (await io.drain()).complete
    assert (tmp_path / "out.1").read_bytes() == b"out\n"
    assert (err.read_bytes(), (tmp_path / "err.1").read_bytes()) == (b"err\n", b"")
