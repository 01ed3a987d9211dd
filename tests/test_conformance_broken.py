"""What breaks a promise is found out, and told which one."""

from __future__ import annotations

import contextlib
import inspect
import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import DrainResult, FileIO, NullIO, PipeIO
from pyshimio._fd import OwnedFd
from pyshimio._sink import PipeSink
from pyshimio._streams import FdReceiveStream, FdSendStream
from pyshimio.logging import Driver, LogFile, LogInfo, Options, absolute_path
from pyshimio.testing import Recorder
from pyshimio.testing.conformance import check_driver, check_io, check_sink, check_stream

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from pyshimio import Command
    from pyshimio.logging import Batch


# -- IOs --------------------------------------------------------------------------------------

LEFT: list[int] = []


@pytest.fixture
def left() -> Generator[None]:
    """What is left behind on purpose goes away."""
    yield
    for fd in set(LEFT):
        os.close(fd)
    LEFT.clear()


class Forgetful(PipeIO):
    """Leaves a descriptor."""

    async def aclose(self) -> None:
        """One too few."""
        LEFT.append(os.open("/dev/null", os.O_RDONLY))
        await super().aclose()


class Generous(NullIO):
    """Lets its child have what is none of the child's business."""

    def set(self, command: Command) -> None:
        """One too many."""
        super().set(command)
        with open("/dev/null", "rb") as file:
            command.set_fd(3, file)


class Hasty(PipeIO):
    """Says that all is there before it is, and waits for nobody."""

    async def drain(self, **_: Any) -> DrainResult:
        """At once."""
        self.close()
        return DrainResult()


class Untidy(PipeIO):
    """Does nothing at the end of its block."""

    async def __aexit__(self, *_: object) -> None:
        """Nothing."""


class Impatient(PipeIO):
    """Does not wait for the exit."""

    async def drain(self, **options: Any) -> DrainResult:
        """As if it had come."""
        exited = options.pop("exited", None)
        if inspect.iscoroutine(exited):
            exited.close()
            return DrainResult()
        return await super().drain(exited=exited, **options)


class Deaf(PipeIO):
    """Never ends its child's input."""

    def close_stdin(self) -> None:
        """Not at all."""


class Mute(PipeIO):
    """Does not say what has moved."""

    @property
    def stats(self) -> Any:
        """Nothing."""
        return None


class Blunt(PipeIO):
    """Closes what it had, and who has its numbers since."""

    def close(self) -> None:
        """Again and again."""
        fds = [stream._fd.fileno() for stream in self._parents.values() if not stream._fd.closed]
        self.numbers = getattr(self, "numbers", fds)
        super().close()
        for fd in self.numbers:
            with contextlib.suppress(OSError):
                os.close(fd)


class Stuck(PipeIO):
    """Never comes back from its end."""

    async def aclose(self) -> None:
        """Never."""
        await super().aclose()
        await anyio.sleep_forever()


class Wordless(NullIO):
    """Does not say how it is."""

    def __repr__(self) -> str:
        return "<an IO>"


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize(
    "make, broken",
    [
        (Forgetful, "unused: left behind: .*/dev/null"),
        (Generous, "0, 1 and 2, and no others"),
        (Hasty, "what it wrote is received|the child's status is the caller's"),
        (Untidy, "its block|left behind"),
        (Impatient, r"waits for the exit first"),
        (Deaf, "close_stdin|hangs"),
        (Mute, "NoneType|stats"),
        (Blunt, "closes nothing"),
        (Stuck, "hangs"),
        (Wordless, "says whether it is closed: <an IO>"),
        (lambda: 3, "not what is tested"),
    ],
)
async def test_ios(make: Any, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An IO that leaks, gives too much away, loses what was written or says nothing."""
    monkeypatch.setattr("pyshimio.testing.conformance._io.GUARD", 2.0)
    with pytest.raises((AssertionError, AttributeError), match=broken):
        await check_io(make)


async def test_an_io_that_loses_bytes(tmp_path: Path) -> None:
    """What did not arrive is counted."""
    path = tmp_path / "log"

    def make() -> FileIO:
        path.unlink(missing_ok=True)
        return FileIO(path)

    async def output(_io: Any, stream: str) -> bytes | None:
        return path.read_bytes()[:-1] if stream == "stdout" else None

    with pytest.raises(AssertionError, match="199999 of 200000 bytes"):
        await check_io(make, output=output)


# -- sinks ------------------------------------------------------------------------------------


class Keeping(Recorder):
    """Keeps what was only lent to it."""

    def write(self, buffers: Sequence[Any]) -> int | None:
        """And holds on to it."""
        self.kept = [memoryview(buffer) for buffer in buffers]
        return super().write(buffers)

    def close(self) -> None:
        """Let go."""
        self.kept = []
        super().close()


class Boastful(Recorder):
    """Says that it has taken more than it was given."""

    def write(self, buffers: Sequence[Any]) -> int | None:
        """One more."""
        return (super().write(buffers) or 0) + 1


class Waiting(Recorder):
    """Says that it would block, and not what to wait for."""

    def fileno(self) -> int:
        """Nothing."""
        return -1

    def write(self, buffers: Sequence[Any]) -> int | None:  # noqa: ARG002
        """Never."""
        return None


class Stray(Recorder):
    """Goes on writing when it has been closed."""

    target: tuple[int, int] | None = None

    def write(self, buffers: Sequence[Any]) -> int | None:
        """To whoever has the number by now."""
        self.target = self.target or os.pipe()
        return os.writev(self.target[1], buffers[:1000])

    def close(self) -> None:
        """Once."""
        if not self.closed and self.target is not None:
            for fd in self.target:
                os.close(fd)
        super().close()


class Twice(PipeSink):
    """Takes no notice of an end that has come already."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe2(os.O_NONBLOCK)
        super().__init__(OwnedFd(writer))

    def close(self) -> None:
        """As often as it is told to."""
        super().close()
        with contextlib.suppress(OSError):
            os.close(self.reader)


@pytest.mark.parametrize(
    "make, broken",
    [
        (Keeping, "the caller's again"),
        (Boastful, r"cannot take 7 of 6 bytes|cannot take \d+ of \d+ bytes"),
        (Waiting, "what to wait for"),
        (Stray, "its own once"),
        (Twice, "closes its descriptors once"),
        (object, "not what is tested"),
    ],
)
async def test_sinks(make: Any, broken: str) -> None:
    """A sink that keeps buffers, miscounts, or touches what is somebody else's by now."""
    with pytest.raises(AssertionError, match=broken):
        await check_sink(make)


async def test_a_sink_that_loses_bytes() -> None:
    """What did not arrive is counted."""
    with pytest.raises(AssertionError, match="29 bytes of 30 did"):
        await check_sink(Recorder, read=lambda recorder: bytes(recorder.data[:-1]))


class Choosy(Recorder):
    """Keeps every other byte, and counts the rest."""

    thrown = 0

    @property
    def dropped(self) -> int:
        """So many."""
        return self.thrown

    def write(self, buffers: Sequence[Any]) -> int | None:
        """Half of it."""
        data = b"".join(buffers)
        kept = data[::2]
        super().write([kept])
        self.thrown += len(data) - len(kept)
        return len(data)


class Mixed(Choosy):
    """Counts well, and gives another order."""

    def write(self, buffers: Sequence[Any]) -> int | None:
        """Backwards."""
        return super().write([b"".join(buffers)[::-1]])


class Strict(Choosy):
    """Throws away commas, and all that comes too late."""

    def write(self, buffers: Sequence[Any]) -> int | None:
        """The rest of it."""
        data = b"".join(buffers)
        kept = b"" if self.closed else data.replace(b",", b"")
        if kept:
            Recorder.write(self, [kept])
        self.thrown += len(data) - len(kept)
        return len(data)


async def test_a_sink_that_drops_bytes() -> None:
    """It may, if it counts them and keeps the others in their order; not beside a stream."""
    await check_sink(Strict, read=lambda sink: bytes(sink.data))
    with pytest.raises(AssertionError, match="it keeps up with a stream; 150000 bytes"):
        await check_sink(Choosy, read=lambda sink: bytes(sink.data))
    with pytest.raises(AssertionError, match=r"its order.* 15 bytes of 30 did, and 15 were"):
        await check_sink(Mixed, read=lambda sink: bytes(sink.data))


# -- drivers ----------------------------------------------------------------------------------


class Good(Driver):
    """Keeps every line in a file."""

    options = Options("good", {"log-path": absolute_path}, required=("log-path",))
    file: LogFile | None = None

    def open(self) -> None:
        """Its file."""
        self.file = LogFile(self.values["log-path"])
        self.file.open()

    def write(self, batch: Batch) -> None:
        """As it was written."""
        assert self.file is not None
        self.file.write(self.changed(batch.as_written))

    def changed(self, data: bytes) -> bytes:
        """Not at all."""
        return data

    def flush(self) -> None:
        """What is kept back."""
        assert self.file is not None
        self.file.flush()

    def close(self) -> None:
        """The file."""
        if self.file is not None:
            self.file.close()


class Lossy(Good):
    """Thinks that empty lines are nothing."""

    def changed(self, data: bytes) -> bytes:
        """They are not."""
        return b"" if data == b"\n" else data


class Careless(Good):
    """Takes any option."""

    def __init__(self, info: LogInfo) -> None:
        super().__init__(LogInfo(info.id, options={"log-path": info.options["log-path"]}))


class Eager(Good):
    """Opens its file before it is told to."""

    def __init__(self, info: LogInfo) -> None:
        with open(info.options["log-path"], "wb"):
            super().__init__(info)


class Withholding(Good):
    """Hands on nothing before its end."""

    def write(self, batch: Batch) -> None:
        """Into memory."""
        self.kept = getattr(self, "kept", b"") + batch.as_written

    def flush(self) -> None:
        """Not yet."""

    def close(self) -> None:
        """Now."""
        if self.file is not None:
            self.file.write(getattr(self, "kept", b""))
            self.file.flush()
            self.kept = b""
        super().close()


class Open(Good):
    """Does not close what it has opened."""

    def close(self) -> None:
        """Not at all."""
        if self.file is not None:
            LEFT.append(self.file._fd)


class Late(Good):
    """Is there for tests only, and fails as a logger."""

    def open(self) -> None:
        """Only where a test has it."""
        if self.info.name != "name":
            raise OSError("not here")
        super().open()


async def read(directory: str) -> list[bytes]:
    """The lines that have arrived."""
    with open(f"{directory}/log", "rb") as file:
        data = file.read()
    return data.removesuffix(b"\n").split(b"\n") if data else []


def options(directory: str) -> dict[str, str]:
    """Where to."""
    return {"log-path": f"{directory}/log"}


async def test_a_driver_of_ones_own() -> None:
    """A good one passes."""
    await check_driver(Good, options, read=read, keeps_files=True)


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize(
    "driver, broken",
    [
        (Lossy, "line 1 was b'', and is b' '"),
        (Careless, "an option that there is not"),
        (Withholding, "lines were written, 0 are there|line 0|No such file"),
        (Open, r"left behind: descriptor \d+ -> .*/log"),
        (Eager, r"nothing is made before open\(\); there is \['log'\]"),
    ],
)
async def test_drivers(driver: type[Driver], broken: str) -> None:
    """A driver that loses lines, takes what means nothing, or does things too early."""
    with pytest.raises(AssertionError, match=broken):
        await check_driver(driver, options, read=read)


async def test_a_driver_that_is_no_logger() -> None:
    """One that works in a test, and not where it is meant for."""
    with pytest.raises(Exception, match=r"exited with status 1|not here"):
        await check_driver(Late, options, read=read)


# -- streams ----------------------------------------------------------------------------------


class Chatty(FdReceiveStream):
    """Gives more than was asked for."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """All that there is."""
        return await super().receive(max(max_bytes, 100))


class Cancelled(FdReceiveStream):
    """Can be cancelled when it has read."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """And loses what it has."""
        data = await super().receive(max_bytes)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        return data


class Partial(FdSendStream):
    """Sends what fits at once, and forgets the rest."""

    async def send(self, item: bytes) -> None:
        """Once."""
        await super().send(item[:5000])


@pytest.mark.parametrize(
    "sender, receiver, broken",
    [
        (FdSendStream, Chatty, "no more is received than was asked for"),
        (FdSendStream, Cancelled, "takes nothing: b'.*more' came"),
        (Partial, FdReceiveStream, "all of 1000000 bytes arrive"),
    ],
)
async def test_streams(sender: Any, receiver: Any, broken: str) -> None:
    """A stream that gives too much, or loses bytes."""

    def make() -> tuple[Any, Any]:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return sender(OwnedFd(writer)), receiver(OwnedFd(reader))

    with pytest.raises(AssertionError, match=broken):
        await check_stream(make)
