"""create_io(): which URI makes what, and what is refused before anything is made."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import (
    BinaryIO,
    Command,
    ConsoleIO,
    FileIO,
    NullIO,
    PipeIO,
    Stdio,
    StdioURI,
    create_io,
)
from pyshimio.errors import (
    ChownError,
    DestinationError,
    FifoNotFoundError,
    FifoTimeoutError,
    FileAccessError,
    FileOpenError,
    InvalidOptionError,
    LoggerIsDirectoryError,
    LoggerNotExecutableError,
    LoggerNotFoundError,
    MissingNamespaceError,
    NotAFifoError,
    NotAFileError,
    RelativePathError,
    SchemeConflictError,
    ShimIOError,
    UnknownSchemeError,
    URIAuthorityError,
    URIEscapeError,
    URINulError,
    URISyntaxError,
)
from pyshimio.testing import FakeLogger
from support.children import GUARD, until
from support.fifos import make_fifo
from support.loggers import python_logger, uri_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyshimio import DrainResult
    from pyshimio.io._base import BaseIO

TALK = ["sh", "-c", "echo out; echo err >&2"]


async def run(io: BaseIO, args: list[str] | None = None) -> DrainResult:
    """Run a program to its end and deliver what it wrote."""
    with anyio.fail_after(GUARD):
        process = await io.spawn(args or TALK)
        assert await process.wait() == 0
        return await io.drain()


@contextlib.contextmanager
def fifo(path: Path) -> Iterator[int]:
    """A new FIFO and a reader of it."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def is_open(fd: int) -> bool:
    """Whether this number is a descriptor."""
    return os.path.lexists(f"/proc/self/fd/{fd}")


def tree(top: Path) -> set[str]:
    """All there is below a directory."""
    return {str(path.relative_to(top)) for path in top.rglob("*")}


# -- what is made -----------------------------------------------------------------------


async def test_a_file_uri_for_both_streams(tmp_path: Path) -> None:
    """One text stands for stdout and stderr, and their file is one file."""
    path = tmp_path / "new dir" / "app.log"
    for stdio in (StdioURI.build("file", path), StdioURI("file", path)):
        async with await create_io(stdio) as io:
            assert isinstance(io, FileIO)
            # Opened before anything is started, and once.
            links = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(200) if is_open(fd)]
            assert links.count(str(path)) == 1
            await run(io)
    assert sorted(path.read_text().split()) == ["err", "err", "out", "out"]


async def test_a_path_object(tmp_path: Path) -> None:
    """A pathlib path is a path: to a FIFO, or to an existing file, which is appended to."""
    path = tmp_path / "app?.log"
    path.write_bytes(b"before\n")
    async with await create_io(path) as io:
        assert isinstance(io, PipeIO)
        await run(io, ["echo", "out"])
    assert path.read_bytes() == b"before\nout\n"


async def test_a_plain_path_makes_no_file(tmp_path: Path) -> None:
    """Only file: makes a file; a path whose file is gone is a missing FIFO, also at reopen()."""
    with pytest.raises(FifoNotFoundError):
        await create_io(tmp_path / "missing")
    assert tree(tmp_path) == set()

    path = tmp_path / "app.log"
    path.touch()
    async with await create_io(str(path)) as io:
        process = await io.spawn(["sleep", "100"])
        path.unlink()
        with pytest.raises(FileOpenError):
            await io.reopen()
        assert not path.exists()
        process.kill()


async def test_a_plain_path_of_a_device() -> None:
    """A character device counts as a file."""
    async with await create_io("/dev/null") as io:
        result = await run(io)
        assert result.complete
        assert [stream.moved for stream in result.streams] == [4, 4]


@pytest.mark.parametrize("scheme", ["", "fifo"])
async def test_fifos(tmp_path: Path, scheme: str) -> None:
    """A path and fifo: mean the same FIFO (containerd fails to strip the scheme)."""
    path = tmp_path / "out put"
    with fifo(path) as reader:
        text = StdioURI.build(scheme, path)
        async with await create_io(Stdio(stdout=text)) as io:
            assert type(io) is PipeIO
            assert (await run(io)).complete
            assert os.read(reader, 100) == b"out\n"


@pytest.mark.parametrize("text", ["", "null:", "null:///", "NULL:"])
async def test_nothing(text: str) -> None:
    """All streams empty is a NullIO, and a child's echo succeeds."""
    for stdio in (text, Stdio(stdin=text, stdout=text, stderr=text)):
        async with await create_io(stdio) as io:
            assert isinstance(io, NullIO)
            assert (await run(io)).streams == ()


@pytest.mark.parametrize(
    "streams", [("stdout",), ("stderr",), ("stdin",), ("stdin", "stderr"), ("stdout", "stderr")]
)
async def test_some_streams_alone(tmp_path: Path, streams: tuple[str, ...]) -> None:
    """Any part of the three may be empty: those are /dev/null (containerd fails or panics)."""
    texts: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        readers = {}
        for stream in streams:
            texts[stream] = str(tmp_path / stream)
            if stream == "stdin":
                os.mkfifo(texts[stream])
            else:
                readers[stream] = stack.enter_context(fifo(tmp_path / stream))
        async with await create_io(Stdio(**texts)) as io:
            script = "read x; echo out $x; echo err $x >&2"
            process = await io.spawn(["sh", "-c", script])
            if "stdin" in streams:
                writer = os.open(texts["stdin"], os.O_WRONLY | os.O_NONBLOCK)
                os.write(writer, b"in\n")
                os.close(writer)
                io.close_stdin()
            with anyio.fail_after(GUARD):
                assert await process.wait() == 0
                assert (await io.drain()).complete
            word = b" in" if "stdin" in streams else b""
            for stream, fd in readers.items():
                assert os.read(fd, 100) == stream[3:].encode() + word + b"\n"
            for stream in ("stdout", "stderr"):
                assert (getattr(io.stats, stream) is None) == (stream not in streams)


async def test_mixed_schemes(tmp_path: Path) -> None:
    """Each stream has a destination of its own, whatever the other one's scheme is."""
    log = tmp_path / "err.log"
    with fifo(tmp_path / "out") as reader:
        stdio = Stdio(stdout=f"fifo://{tmp_path}/out", stderr=f"file://{log}")
        async with await create_io(stdio) as io:
            assert (await run(io)).complete
            assert os.read(reader, 100) == b"out\n"
    assert log.read_bytes() == b"err\n"

    logger = FakeLogger.make(tmp_path / "logger")
    stdio = Stdio(stdout=f"file://{log}", stderr=logger.uri())
    async with await create_io(stdio, id="c1", namespace="ns1") as io:
        result = await run(io)
        assert result.complete
        assert result.logger_ended
    assert log.read_bytes() == b"err\nout\n"
    assert logger.stderr == b"err\n"


async def test_a_logger_for_both_streams(tmp_path: Path) -> None:
    """The same logger URI twice is one logger."""
    logger = FakeLogger.make(tmp_path / "logger")
    async with await create_io(logger.uri(), id="c1", namespace="ns1") as io:
        assert isinstance(io, BinaryIO)
        assert len(io._loggers) == 1
        assert (await run(io)).complete
    assert (logger.stdout, logger.stderr) == (b"out\n", b"err\n")


async def test_handover_beside_a_file(tmp_path: Path) -> None:
    """Handover is for the logger's stream alone."""
    log = tmp_path / "out.log"
    logger = FakeLogger.make(tmp_path / "logger")
    stdio = Stdio(stdout=f"file://{log}", stderr=logger.uri())
    async with await create_io(stdio, id="c1", namespace="ns1", handover=True) as io:
        assert (await run(io)).complete
        assert io.stats.stderr is None
        assert io.stats.stdout is not None
    assert log.read_bytes() == b"out\n"
    assert logger.stderr == b"err\n"


@pytest.mark.parametrize("scheme", ["", "file"])
async def test_stdin_from_a_file(tmp_path: Path, scheme: str) -> None:
    """The child gets the file itself, and reads it to its end."""
    source, log = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"input\n" * 1000)
    stdio = Stdio(stdin=StdioURI.build(scheme, source), stdout=f"file://{log}")
    async with await create_io(stdio) as io:
        await run(io, ["cat"])
        assert io.stats.stdin is None
        assert io.stdin is None
    assert log.read_bytes() == b"input\n" * 1000


async def test_stdin_alone_from_a_file(tmp_path: Path) -> None:
    """A child without outputs may still have an input."""
    source = tmp_path / "in"
    source.write_bytes(b"input\n")
    async with await create_io(Stdio(stdin=str(source))) as io:
        await run(io, ["sh", "-c", 'read x; test "$x" = input'])


async def test_a_terminal(tmp_path: Path) -> None:
    """terminal=True is a ConsoleIO, and stderr's text is not even read."""
    log = tmp_path / "tty.log"
    stdio = Stdio(stdout=f"file://{log}", stderr="no URI", terminal=True)
    async with await create_io(stdio) as io:
        assert isinstance(io, ConsoleIO)
        await run(io, ["sh", "-c", "test -t 1 && echo tty"])
    assert log.read_bytes() == b"tty\r\n"


async def test_the_options_of_files_and_fifos(tmp_path: Path) -> None:
    """client_timeout, ring, nofollow and mark reach their sinks."""
    os.mkfifo(tmp_path / "fifo")
    io = await create_io(Stdio(stdout=str(tmp_path / "fifo")), client_timeout=0.05)
    with pytest.raises(FifoTimeoutError):
        await io.spawn(["true"])
    async with await create_io(Stdio(stdout=str(tmp_path / "fifo")), ring=4096) as io:
        process = await io.spawn(["true"])
        assert await process.wait() == 0
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    with pytest.raises(FileOpenError):
        await create_io(f"file://{link}", nofollow=True)
    async with await create_io("file:///dev/full", on_error="fail") as io:
        process = await io.spawn(["echo", "out"])
        await process.wait()
        with pytest.raises(OSError, match="No space left"):
            await io.drain()


@pytest.mark.root
async def test_the_pipes_belong_to_whom_they_are_given(tmp_path: Path) -> None:
    """Uid and gid are independent of each other."""
    log = tmp_path / "log"
    for uid, gid, owner in ((1234, -1, (1234, 0)), (-1, 4321, (0, 4321))):
        async with await create_io(f"file://{log}", uid=uid, gid=gid) as io:
            process = await io.spawn(["sleep", "100"])
            status = os.stat(f"/proc/{process.pid}/fd/1")
            assert (status.st_uid, status.st_gid) == owner
            process.kill()


# -- schemes of other packages ----------------------------------------------------------


MODULE = """
class Sink:
    blocking = {blocking}
    dropped = 0
    made = []

    def __init__(self, uri, *, stream, id, namespace):
        self.facts = (uri.scheme, uri.path, dict(uri.args), stream, id, namespace)
        self.taken = bytearray()
        self.flushed = self.closed = 0
        self.made.append(self)

    def fileno(self):
        return -1

    def write(self, buffers):
        data = b"".join(bytes(buffer) for buffer in buffers)
        self.taken += data
        return len(data)

    def flush(self):
        self.flushed += 1

    def reopen(self):
        pass

    def close(self):
        self.closed += 1
"""


@contextlib.contextmanager
def distribution(where: Path, name: str, scheme: str, *, blocking: bool = False) -> Iterator[Any]:
    """An installed package that registers *scheme*; yields its sink's class."""
    where.mkdir()
    module = f"{name}_sink"
    (where / f"{module}.py").write_text(MODULE.format(blocking=blocking))
    info = where / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pyshimio.io_schemes]\n{scheme} = {module}:Sink\n")
    sys.path.insert(0, str(where))
    try:
        yield __import__(module).Sink
    finally:
        sys.path.remove(str(where))
        sys.modules.pop(module, None)
        sys.path_importer_cache.pop(str(where), None)


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_scheme_of_another_package(tmp_path: Path, blocking: bool) -> None:
    """Its factory gets the URI, the stream and the names, and makes one sink a stream."""
    with distribution(tmp_path / "site", "alpha", "x-alpha", blocking=blocking) as kind:
        uri = "x-alpha:///where?key=value"
        async with await create_io(uri, id="c1", namespace="ns1") as io:
            assert (await run(io)).complete
        facts = ("x-alpha", "/where", {"key": "value"})
        assert [sink.facts for sink in kind.made] == [
            (*facts, "stdout", "c1", "ns1"),
            (*facts, "stderr", "c1", "ns1"),
        ]
        assert [bytes(sink.taken) for sink in kind.made] == [b"out\n", b"err\n"]
        assert all(sink.closed for sink in kind.made)
        if blocking:
            assert [sink.flushed for sink in kind.made] == [1, 1]


async def test_a_sink_that_was_made_is_closed_when_the_rest_fails(tmp_path: Path) -> None:
    """A later failure closes what a factory made."""
    with distribution(tmp_path / "site", "beta", "x-beta") as kind:
        with pytest.raises(FifoNotFoundError):
            await create_io(Stdio(stdout="x-beta:", stderr=str(tmp_path / "missing")))
        assert [sink.closed for sink in kind.made] == [1]


async def test_a_scheme_that_two_packages_register(tmp_path: Path) -> None:
    """Neither is chosen."""
    with (
        distribution(tmp_path / "one", "gamma", "x-twice"),
        distribution(tmp_path / "two", "delta", "x-twice"),
    ):
        with pytest.raises(SchemeConflictError) as caught:
            await create_io("x-twice:///x")
    assert caught.value.scheme == "x-twice"
    assert "gamma_sink" in str(caught.value)
    assert "delta_sink" in str(caught.value)


# -- bad input --------------------------------------------------------------------------


def bad_input(tmp_path: Path) -> list[tuple[str, dict[str, Any], type[ShimIOError]]]:
    """A name, the streams, and the error that they are due."""
    plain = tmp_path / "plain"
    plain.touch()
    os.mkfifo(tmp_path / "fifo")
    return [
        ("unknown scheme", {"stdout": "gopher:///x"}, UnknownSchemeError),
        ("unknown scheme without a path", {"stderr": "tcp://host:1"}, UnknownSchemeError),
        ("a scheme that is no stdin", {"stdin": uri_of(plain)}, UnknownSchemeError),
        ("%zz", {"stdout": "file:///bad%zz"}, URIEscapeError),
        ("NUL", {"stdout": "/run/a\0b"}, URINulError),
        ("escaped NUL", {"stderr": "file:///a%00b"}, URINulError),
        ("relative", {"stdout": "var/log/x"}, RelativePathError),
        ("relative with a scheme", {"stdin": "fifo:x"}, RelativePathError),
        ("two slashes", {"stdout": "file://var/log/x"}, URIAuthorityError),
        ("fragment", {"stdout": "file:///x#y"}, URISyntaxError),
        ("no logger", {"stdout": f"binary://{tmp_path}/missing"}, LoggerNotFoundError),
        ("not executable", {"stderr": f"binary-v2://{plain}"}, LoggerNotExecutableError),
        ("a logger's directory", {"stdout": f"binary://{tmp_path}"}, LoggerIsDirectoryError),
        ("no FIFO", {"stdout": f"{tmp_path}/missing"}, FifoNotFoundError),
        ("no FIFO with fifo:", {"stderr": f"fifo://{tmp_path}/missing"}, FifoNotFoundError),
        ("no FIFO for stdin", {"stdin": f"{tmp_path}/missing"}, FifoNotFoundError),
        ("no FIFO but a file", {"stdout": f"fifo://{plain}"}, NotAFifoError),
        ("a directory", {"stdout": str(tmp_path)}, NotAFifoError),
        ("a directory as a file", {"stdout": f"file://{tmp_path}"}, NotAFileError),
        ("a FIFO as a file", {"stdout": f"file://{tmp_path}/fifo"}, NotAFileError),
    ]


@pytest.mark.parametrize("number", range(20))
async def test_bad_input_is_an_error_of_its_own(tmp_path: Path, number: int) -> None:
    """Before any side effect: no file is made, no logger started, no descriptor kept."""
    cases = bad_input(tmp_path)
    assert len(cases) == 20
    name, streams, kind = cases[number]
    log = tmp_path / "other.log"
    logger = uri_of(python_logger(tmp_path, f"open({str(log)!r}, 'w')"))
    before = tree(tmp_path)
    # Beside the bad stream stands a good logger, which must not be started.
    other = next(stream for stream in ("stderr", "stdout") if stream not in streams)
    with pytest.raises(kind) as caught:
        await create_io(Stdio(**{other: logger, **streams}), id="c1", namespace="ns1")
    assert type(caught.value) is kind, name
    assert isinstance(caught.value, (ValueError, OSError))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("number", range(17))
async def test_bad_text_beside_a_file_makes_no_file(tmp_path: Path, number: int) -> None:
    """What can be seen without opening a file is seen before a file is made."""
    name, streams, kind = bad_input(tmp_path)[number]
    other = next(stream for stream in ("stderr", "stdout") if stream not in streams)
    before = tree(tmp_path)
    stdio = Stdio(**{other: f"file://{tmp_path}/dir/other.log", **streams})
    with pytest.raises(kind):
        await create_io(stdio, id="c1", namespace="ns1")
    assert tree(tmp_path) == before, name


async def test_a_logger_without_a_namespace(tmp_path: Path) -> None:
    """It is refused before the logger is even looked for."""
    with pytest.raises(MissingNamespaceError):
        await create_io(f"binary://{tmp_path}/missing")


@pytest.mark.root
async def test_a_chown_that_is_refused() -> None:
    """An unprivileged user cannot give pipes away, unless chown="try"; no file is made."""
    top = Path(tempfile.mkdtemp(dir="/tmp"))
    top.chmod(0o777)
    try:
        os.seteuid(65534)
        try:
            with pytest.raises(ChownError) as caught:
                await create_io(f"file://{top}/app.log", uid=1234, gid=4321)
            assert (caught.value.uid, caught.value.gid) == (1234, 4321)
            assert isinstance(caught.value, PermissionError)
            assert tree(top) == set()
            async with await create_io(f"file://{top}/app.log", uid=1234, chown="try") as io:
                assert (await run(io)).complete
        finally:
            os.seteuid(0)
    finally:
        shutil.rmtree(top)


@pytest.mark.root
async def test_a_file_in_an_unwritable_directory() -> None:
    """The error comes from create_io(), before a child exists."""
    top = Path(tempfile.mkdtemp(dir="/tmp"))
    top.chmod(0o755)
    try:
        os.seteuid(65534)
        try:
            with pytest.raises(FileAccessError):
                await create_io(f"file://{top}/new/app.log")
        finally:
            os.seteuid(0)
        assert tree(top) == set()
    finally:
        shutil.rmtree(top)


@pytest.mark.parametrize(
    "options",
    [{"on_error": "ignore"}, {"on_death": "restart"}, {"chown": "never"}, {"on_exit": "stay"}],
    ids=lambda options: next(iter(options)),
)
async def test_options_that_do_not_exist(tmp_path: Path, options: dict[str, Any]) -> None:
    """They are refused before a file is made, whether they would be used or not."""
    with pytest.raises(InvalidOptionError) as caught:
        await create_io(f"file://{tmp_path}/dir/app.log", **options)
    assert [caught.value.option] == list(options)
    assert tree(tmp_path) == set()


async def test_a_stdio_that_is_neither_text_nor_path() -> None:
    """Something else is refused as such."""
    with pytest.raises(InvalidOptionError):
        await create_io(7)  # type: ignore[arg-type]


async def test_a_stdin_that_cannot_be_read(tmp_path: Path) -> None:
    """A path below a file is no input."""
    (tmp_path / "file").touch()
    with pytest.raises(DestinationError):
        await create_io(Stdio(stdin=f"{tmp_path}/file/x"))


async def test_a_cancelled_open_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that hangs in open() is left behind, and its descriptor closed in time."""
    import threading  # noqa: PLC0415

    from pyshimio import _sys  # noqa: PLC0415

    entered, opened = threading.Event(), threading.Event()
    real = os.open

    def slow(path: Any, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith("app.log") and flags & os.O_CREAT:
            entered.set()
            assert opened.wait(20)
        return real(path, flags, mode)

    monkeypatch.setattr(_sys, "open", slow)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(create_io, f"file://{tmp_path}/app.log")
            await until(entered.is_set)
            group.cancel_scope.cancel()
    finally:
        opened.set()
    await until(lambda: all(t.name != "pyshimio-file" for t in threading.enumerate()))
    assert (tmp_path / "app.log").exists()


BAD_FILES = {
    "a directory": "dir",
    "below a file": "file/log",
    "a trailing slash": "new/sub/",
    "a long name": f"new/{'x' * 300}",
    "a FIFO": "fifo",
}


@pytest.mark.parametrize("name", BAD_FILES.values(), ids=BAD_FILES.keys())
async def test_a_bad_file_beside_a_good_one(tmp_path: Path, name: str) -> None:
    """When one of two files cannot be, neither the other one nor a directory is made."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    before = sorted(tmp_path.rglob("*"))
    good, bad = f"file://{tmp_path}/a/b/log", StdioURI.build("file", f"{tmp_path}/{name}")
    for stdout, stderr in ((good, bad), (bad, good)):
        with pytest.raises(DestinationError):
            await create_io(Stdio(stdout=stdout, stderr=stderr))
        assert sorted(tmp_path.rglob("*")) == before
    async with FileIO(f"{tmp_path}/a/b", f"{tmp_path}/{name}") as io:
        with pytest.raises(DestinationError):
            await io.spawn(["true"])
        assert sorted(tmp_path.rglob("*")) == before


async def test_two_names_of_one_file(tmp_path: Path) -> None:
    """A file and a link to it are one file, opened once, which is not there at first."""
    log, link = tmp_path / "log", tmp_path / "link"
    link.symlink_to(log)
    io = await create_io(Stdio(stdout=f"file://{log}", stderr=f"file://{link}"))
    async with io:
        links = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        assert links.count(str(log)) == 1
        await io.spawn(["sh", "-c", "echo out; echo err >&2"])
        assert (await io.drain()).complete
    assert sorted(log.read_bytes().splitlines()) == [b"err", b"out"]


@pytest.mark.parametrize("options", [{"ring": -1}, {"client_timeout": -0.5}])
async def test_numbers_below_zero(tmp_path: Path, options: Any) -> None:
    """A size or a time is not negative."""
    with pytest.raises(InvalidOptionError):
        await create_io(f"fifo://{make_fifo(tmp_path)}", **options)


async def test_an_unknown_user_is_found_before_a_client_is_waited_for(tmp_path: Path) -> None:
    """Who the child is to be is looked up before anything is opened."""
    async with await create_io(f"fifo://{make_fifo(tmp_path)}") as io:
        with pytest.raises(InvalidOptionError), anyio.fail_after(GUARD):
            await io.spawn(Command(["true"], user="nobody-of-that-name"))


async def test_a_directory_is_no_stdin(tmp_path: Path) -> None:
    """A directory as stdin is refused by name, before a child finds out."""
    with pytest.raises(DestinationError) as caught:
        await create_io(Stdio(stdin=str(tmp_path), stdout="null:"))
    assert caught.value.errno == errno.EISDIR
    assert caught.value.path == str(tmp_path)


async def test_stdin_of_the_caller(tmp_path: Path) -> None:
    """Whoever asks for it writes stdin, whatever becomes of the output; but not two at once."""
    for stdio in (Stdio(stdout=f"file://{tmp_path}/log"), Stdio()):
        async with await create_io(stdio, stdin_stream=True) as io:
            process = await io.spawn(["cat"])
            assert io.stdin is not None
            await io.stdin.send(b"typed")
            io.close_stdin()
            assert await process.wait() == 0
    assert (tmp_path / "log").read_bytes() == b"typed"
    with pytest.raises(InvalidOptionError, match="cannot be written"):
        await create_io(Stdio(stdin="/dev/null"), stdin_stream=True)
