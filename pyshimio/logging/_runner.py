"""A log driver as the program at the other end of ``binary://`` and ``binary-v2://``.

The contract (containerd's, nerdctl's and kata's): descriptors 3 and 4 are the container's stdout
and stderr, 5 hears one byte when we are ready; ``CONTAINER_ID`` and ``CONTAINER_NAMESPACE`` are in
the environment, options are ``key value`` pairs on the command line.  The end is EOF on both
streams.  SIGTERM comes at the same moment, or earlier from who loses patience: so it starts a clock
and stops nothing.  SIGUSR1 has files opened anew.
"""

from __future__ import annotations

import os
import sys

from ..errors import LogOptionError, ShimIOError
from . import _kernel
from ._copier import Copier
from ._delivery import Block
from ._info import LogInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType
    from typing import NoReturn

    from ._driver import Driver
    from ._plan import Delivery

    Deliver = Callable[[Driver, Callable[[], bool]], Delivery]

__all__ = ("keep_freed_memory", "options_of", "run")

STREAMS = {3: "stdout", 4: "stderr"}
READY = 5
READ = 1 << 16
TOLD = ("repaired", "failures", "compressions_failed")
"""Of a driver's counters, those that say that something is wrong."""
FREED = 1 << 23
"""Bytes."""
PATIENCE = 10.0
"""Seconds from SIGTERM on; SIGKILL comes after 12 (containerd) or when the caller thinks so."""


def run(
    driver: Callable[[LogInfo], Driver],
    *,
    deliver: Deliver | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Be the logger of one container, from its first byte to its last, and exit.

    Synchronous and light: nothing is loaded but what :mod:`pyshimio.logging` needs.  The exit
    status is 0, and 1 when the driver could not be opened or refused records, or when the time was
    up before the end; why is said on stderr, and so is what a ring has dropped.

    Args:
        driver: A :class:`Driver`, or what makes one.
        deliver: Makes what stands between the reads and the driver; None is
            :class:`~pyshimio.logging.Block`.
        argv: Options, ``key value`` pairs; None is the command line.
    """
    sys.exit(_Runner(driver, deliver or _block).main(sys.argv[1:] if argv is None else argv))


def _block(driver: Driver, over: Callable[[], bool]) -> Delivery:
    return Block(driver, over=over)


def options_of(argv: Sequence[str]) -> dict[str, str]:
    """A logger's command line as options.

    Raises:
        LogOptionError: A key has no value, or is there twice.
    """
    if len(argv) % 2:
        raise LogOptionError(
            f"a logger's arguments are pairs of a key and a value, and {argv[-1]!r} has none",
            option=argv[-1],
        )
    found: dict[str, str] = {}
    for key, value in zip(argv[::2], argv[1::2], strict=True):
        if key in found:
            raise LogOptionError(f"the option {key} is there twice", option=key)
        found[key] = value
    return found


class _Runner:
    def __init__(self, driver: Callable[[LogInfo], Driver], deliver: Deliver) -> None:
        self._make = driver
        self._deliver = deliver
        self._deadline: float | None = None
        self._reopens = False

    def main(self, argv: Sequence[str]) -> int:
        driver: Driver | None = None
        try:
            _take_descriptors()
            wakeup = self._listen()
            made = self._make(_info(argv, os.environ))
            made.open()
            driver = made
            delivery = self._deliver(driver, self._over)
            delivery.report = _say
            _say_ready()
        except Exception as error:  # noqa: BLE001 - another package's driver may raise anything
            known = isinstance(error, (ShimIOError, OSError))
            _say(str(error) if known else f"the log driver failed: {error!r}")
            if driver is not None:
                driver.abandon()
            return 1
        keep_freed_memory()
        copiers = {
            fd: Copier(stream, cap=driver.cap, peeks=driver.peeks) for fd, stream in STREAMS.items()
        }
        left = self._copy(copiers, delivery, wakeup)
        delivery.finish()
        return _verdict(delivery, left, late=self._over())

    # -- signals ------------------------------------------------------------------------

    def _listen(self) -> int:
        reader, writer = _kernel.pipe()
        _kernel.handle(_kernel.SIGTERM, self._on_term)
        _kernel.handle(_kernel.SIGUSR1, self._on_usr1)
        _kernel.wake_by(writer)
        return reader

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        if self._deadline is None:
            self._deadline = _kernel.monotonic() + PATIENCE

    def _on_usr1(self, _number: int, _frame: FrameType | None) -> None:
        self._reopens = True

    def _over(self) -> bool:
        return self._deadline is not None and _kernel.monotonic() > self._deadline

    # -- bytes --------------------------------------------------------------------------

    def _copy(self, copiers: dict[int, Copier], delivery: Delivery, wakeup: int) -> list[int]:
        """Read until both streams have ended, or the time is up; those that have not ended."""
        while copiers and not self._over():
            left = None if self._deadline is None else self._deadline - _kernel.monotonic()
            for fd in _kernel.poll([*copiers, wakeup], left):
                if fd == wakeup:
                    _kernel.read(wakeup, READ)
                    continue
                data = _kernel.read(fd, READ)
                now = _kernel.clock()
                for batch in copiers[fd].feed(data, now) if data else copiers[fd].finish(now):
                    delivery.put(batch)
                if not data:
                    del copiers[fd]
            if self._reopens:
                self._reopens = False
                self._reopen(delivery)
        for copier in copiers.values():
            for batch in copier.finish(_kernel.clock()):
                delivery.put(batch)
        return list(copiers)

    def _reopen(self, delivery: Delivery) -> None:
        try:
            delivery.reopen()
        except (ShimIOError, OSError) as error:
            _say(str(error))


def _info(argv: Sequence[str], environ: Mapping[str, str]) -> LogInfo:
    return LogInfo(
        environ.get("CONTAINER_ID", ""),
        namespace=environ.get("CONTAINER_NAMESPACE", ""),
        options=options_of(argv),
    )


def _take_descriptors() -> None:
    """Keep ours from children, and close what the shim has let through by mistake.

    Raises:
        LogOptionError: They are not there.
    """
    for fd in (*STREAMS, READY):
        try:
            _kernel.set_close_on_exec(fd)
        except OSError as error:
            raise LogOptionError(
                "this is started by a shim (binary:///path/to/this), which hands over the"
                f" descriptors 3, 4 and 5; {fd} is not open",
                option="fd",
            ) from error
    for name in _kernel.listdir("/proc/self/fd"):
        if int(name) > READY:
            try:
                _kernel.close(int(name))
            except OSError:
                pass  # the listing's own


def keep_freed_memory() -> None:
    """Have glibc keep some of what is freed.

    A batch takes a few hundred KiB and frees them; by default the heap's end goes back to the
    kernel each time, and half of a logger's CPU is for getting the pages again.  What is mapped
    for one large object, and freed, raises that limit (to twice its size); it is never touched.
    """
    bytes(FREED)


def _say_ready() -> None:
    """One byte for ``binary-v2``, and the end, which is enough for all others."""
    try:
        _kernel.write(READY, b"\0")
    finally:
        _kernel.close(READY)


def _verdict(delivery: Delivery, left: list[int], *, late: bool) -> int:
    """What there is to say in the end, and the exit status."""
    lost = [
        f"{_kernel.unread(fd)} bytes of {STREAMS[fd]} were not read {PATIENCE:.0f} s after SIGTERM"
        for fd in left
    ]
    if delivery.failed:
        lost.append(f"{delivery.failed} records were refused")
    if delivery.dropped:
        lost.append(f"{delivery.dropped} records were dropped")
    if delivery.error is not None:
        lost.append(str(delivery.error))
    counted = {
        name: value
        for name, value in delivery.stats.items()
        if name.rpartition(".")[2] in TOLD and value
    }
    lost += [f"{name} {value}" for name, value in counted.items()]
    if lost:
        _say("; ".join(lost))
    return 1 if left or delivery.failed or (late and delivery.dropped) else 0


def _say(text: str) -> None:
    name = os.path.basename(sys.argv[0]) or "logger"
    # A reader that has gone is no reason to lose a log.
    try:
        _kernel.write(2, f"{name}: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
