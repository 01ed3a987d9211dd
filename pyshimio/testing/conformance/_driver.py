"""A log driver is held to its five steps: by hand, and as a logger of its own."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio

from ..._stdio import StdioURI
from ...errors import LogOptionError
from ...io.create import create_io
from ...logging import Copier, Driver, LogInfo
from .._eventually import GUARD
from .._fake_container import FakeContainer
from ..faults import full_disk
from ..faults._aftermath import nothing_left
from ._making import promise

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    Lines = Sequence[bytes] | None
    Read = Callable[[str], Awaitable[Sequence[bytes] | None]]

__all__ = ("check_driver",)

LINES = (
    *(b"plain", b"", b" ", b"\ttab", b"carriage\rreturn", b"<3>severity", b'"quoted" \\ {json}'),
    *(
        b"a\0b",
        b"\xff\xfe not utf-8",
        "h\u00e9\u2028llo \U0001f600".encode(),
        b"\x1b[31mred\x1b[0m",
    ),
)
"""What a driver has to take whatever it makes of it."""
LINE = b"line %06d"
PROGRAM = """#!{python}
import importlib, importlib.util, sys
sys.path[:] = {path!r}
try:
    module = importlib.import_module({module!r})
except ImportError:
    spec = importlib.util.spec_from_file_location({module!r}, {file!r})
    module = importlib.util.module_from_spec(spec)
    sys.modules[{module!r}] = module
    spec.loader.exec_module(module)
from pyshimio.logging import run
driver = module
for name in {name!r}.split("."):
    driver = getattr(driver, name)
run(driver)
"""


async def check_driver(
    driver: type[Driver],
    options: Callable[[str], Mapping[str, str]],
    *,
    read: Read | None = None,
    takes_any_bytes: bool = True,
    keeps_files: bool = False,
) -> None:
    r"""Hold a :class:`pyshimio.logging.Driver` to what its users rely on.

    Options that mean nothing are refused before anything is opened; each line arrives once and in
    its order, whatever is in it, however long it is, and when it is opened anew in between; it can
    be closed at any time and twice; and it works as the logger of a container, which becomes ready
    in time, ends with the streams and exits with 0.

    Args:
        driver: The class; it has to be importable, or in a file of its own.
        options: Gives its options for a directory of the suite's, a new one each time.
        read: Gives the lines that have arrived, for the same directory: their bytes, without
            newlines, pieces of one line joined.  None, or to give None: nobody can know.
        takes_any_bytes: Whether lines that are no UTF-8, and NULs, come out as they went in.
        keeps_files: Whether it keeps them in a :class:`~pyshimio.logging.LogFile` below the
            directory; then a disk that is full for a while may lose none.

    Raises:
        AssertionError: A promise was broken; the message says which.

    Example:
        ::

            async def test_my_driver() -> None:
                async def read(directory: str) -> list[bytes]:
                    return Path(f"{directory}/log").read_bytes().split(b"\n")[:-1]

                await check_driver(
                    MyDriver, lambda directory: {"path": f"{directory}/log"}, read=read
                )
    """
    suite = _Suite(driver, options, read, takes_any_bytes=takes_any_bytes)
    tests: list[Callable[[], Lines]] = [
        *(suite.refuses_options, suite.unused, suite.lines, suite.long_lines, suite.many_lines),
        *(suite.two_streams, suite.reopened, suite.abandoned),
        *((suite.disk_that_is_full,) if keeps_files else ()),
    ]
    for test in tests:
        async with _alone(suite, test.__name__):
            # By a thread, as a driver is used: it may wait for its disk.
            lines = await anyio.to_thread.run_sync(test, abandon_on_cancel=True)
            if lines is not None:
                await suite.arrived(lines)  # what was flushed is there before the end
            await anyio.to_thread.run_sync(suite.close, abandon_on_cancel=True)
    async with _alone(suite, "as a logger"):
        await suite.as_a_logger()


@asynccontextmanager
async def _alone(suite: _Suite, name: str) -> AsyncGenerator[None]:
    what = f"the driver {suite.name}: {name.replace('_', ' ')}"
    async with nothing_left(what):
        with tempfile.TemporaryDirectory() as directory, anyio.move_on_after(GUARD) as scope:
            suite.directory = directory
            try:
                yield
            except BaseException as error:
                with suppress(Exception):
                    suite.close()
                if not isinstance(error, AssertionError):
                    raise
                raise AssertionError(f"{what}: {error}") from error
        promise(not scope.cancelled_caught, f"{what}: hangs")
    suite.forget()


class _Suite:
    def __init__(
        self,
        driver: type[Driver],
        options: Callable[[str], Mapping[str, str]],
        read: Read | None,
        *,
        takes_any_bytes: bool,
    ) -> None:
        self._driver = driver
        self._options = options
        self._read = read
        self._any_bytes = takes_any_bytes
        self.name: str = driver.__name__
        self.directory: str = ""
        self._made: list[Driver] = []  # kept: the collector is not to end what close() forgot
        self._abandoned = False

    def _make(self, more: Mapping[str, str] | None = None) -> Driver:
        options = {**self._options(self.directory), **(more or {})}
        driver = self._driver(LogInfo("c1", namespace="ns", name="name", options=options))
        self._made.append(driver)
        return driver

    def close(self) -> None:
        """Close all that were made, twice."""
        for driver in () if self._abandoned else self._made * 2:
            driver.close()

    def forget(self) -> None:
        """The next test has others."""
        self._made = []
        self._abandoned = False

    def _opened(self) -> Driver:
        driver = self._make()
        driver.open()
        return driver

    def _write(self, driver: Driver, data: bytes, stream: str = "stdout") -> None:
        """What a container writes, in reads of no particular size."""
        copier = Copier(stream, cap=driver.cap, peeks=driver.peeks)
        for start in range(0, len(data), 4999):
            for batch in copier.feed(data[start : start + 4999], time.time_ns()):
                driver.write(batch)
        for batch in copier.finish(time.time_ns()):
            driver.write(batch)

    async def arrived(self, lines: Sequence[bytes]) -> None:
        if self._read is None or (got := await self._read(self.directory)) is None:
            return
        for number, (one, other) in enumerate(zip(lines, got, strict=False)):
            promise(one == other, f"line {number} was {one[:100]!r}, and is {other[:100]!r}")
        promise(len(got) == len(lines), f"{len(lines)} lines were written, {len(got)} are there")

    # -- the promises ---------------------------------------------------------------------

    def refuses_options(self) -> Lines:
        for more, what in (
            ({"no-such-option-at-all": "x"}, "an option that there is not"),
            ({"": "x"}, "an option without a name"),
        ):
            try:
                self._make(more)
            except LogOptionError:
                pass
            else:
                raise AssertionError(f"{what} is refused with a LogOptionError")
        left = os.listdir(self.directory)
        promise(not left, f"nothing is made before open(); there is {left}")
        for name in self._driver.options.required:
            options = dict(self._options(self.directory))
            options.pop(name, None)
            try:
                self._driver(LogInfo("c1", options=options))
            except LogOptionError:
                continue
            raise AssertionError(f"the lack of {name} is refused with a LogOptionError")
        return None

    def unused(self) -> Lines:
        driver = self._make()
        promise(repr(driver), "repr() says something")
        driver.close()
        driver.close()
        opened = self._opened()
        opened.flush()
        opened.close()
        opened.close()
        promise(
            all(isinstance(value, int) for value in opened.stats.values()),
            f"its counters are numbers: {opened.stats}",
        )
        return []

    def lines(self) -> Lines:
        lines = [
            line for line in LINES if self._any_bytes or (b"\0" not in line and b"\xff" not in line)
        ]
        driver = self._opened()
        for line in lines:
            self._write(driver, line + b"\n")
        self._write(driver, b"\n".join(lines) + b"\n")
        self._write(driver, b"no newline at the end")
        driver.flush()
        return [*lines, *lines, b"no newline at the end"]

    def long_lines(self) -> Lines:
        cap = self._driver.cap or 1 << 16
        lines = [bytes([65 + n % 26]) * n for n in (cap - 1, cap, cap + 1, 3 * cap, 3 * cap + 1)]
        driver = self._opened()
        self._write(driver, b"\n".join(lines) + b"\n")
        driver.flush()
        return lines

    def many_lines(self) -> Lines:
        lines = [LINE % number for number in range(20_000)]
        driver = self._opened()
        self._write(driver, b"\n".join(lines) + b"\n")
        driver.flush()
        return lines

    def two_streams(self) -> Lines:
        driver = self._opened()
        lines: list[bytes] = []
        for number in range(100):
            lines.append(LINE % number)
            self._write(driver, lines[-1] + b"\n", "stderr" if number % 3 else "stdout")
        driver.flush()
        return lines

    def reopened(self) -> Lines:
        driver = self._opened()
        lines = [LINE % number for number in range(10)]
        for line in lines:
            self._write(driver, line + b"\n")
            driver.reopen()
        driver.flush()
        return lines

    def abandoned(self) -> Lines:
        driver = self._opened()
        self._write(driver, b"x\n")
        driver.abandon()
        self._abandoned = True  # that is its end
        return None

    def disk_that_is_full(self) -> Lines:
        """What is written meanwhile is kept back, and there when there is room again."""
        driver = self._opened()
        self._write(driver, b"before\n")
        driver.flush()
        with full_disk(self.directory, room=3) as disk:
            try:
                self._write(driver, b"meanwhile\n")
                driver.flush()
            except OSError as error:
                promise(error.errno is not None, "a full disk is said with its errno")
            promise(
                disk.refused,
                "the driver writes through pyshimio (a LogFile), or its disk cannot be made full:"
                " keeps_files= is for those that do",
            )
            disk.make_room()
            driver.flush()
        self._write(driver, b"after\n")
        driver.flush()
        return [b"before", b"meanwhile", b"after"]

    async def as_a_logger(self) -> None:
        """At the other end of ``binary://``, by the same contract as any other logger."""
        module: Any = sys.modules[self._driver.__module__]
        promise(
            "<locals>" not in self._driver.__qualname__ and module.__name__ != "__main__",
            "a driver that is to be run as a logger stands at the top of a module",
        )
        text = PROGRAM.format(
            python=sys.executable,
            path=sys.path,
            module=self._driver.__module__,
            file=getattr(module, "__file__", ""),
            name=self._driver.__qualname__,
        )
        lines = [LINE % number for number in range(2000)]
        container = FakeContainer().write(b"".join(line + b"\n" for line in lines))
        with tempfile.TemporaryDirectory() as where:
            program = _program(f"{where}/logger", text)
            uri = StdioURI.build("binary", program, self._options(self.directory))
            async with await create_io(uri, id="c1", namespace="ns") as io:
                await io.spawn(container.args)
                result = await io.drain()
        promise(result.complete, f"the logger takes everything and ends with 0: {result}")
        await self.arrived(lines)


def _program(path: str, text: str) -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)
    return path
