"""``log+NAME:``: a log driver within the process that has the container.

``create_io("log+json-file:///var/log/x.log?max-size=10m&max-file=3")``: the URI's path is the
driver's ``log-path``, its arguments are the other options, those of ``pyshimio-log`` included.  The
driver works in the file pool's threads; two streams with the same URI share one.  A ring, or a
tee's second driver, has a thread of its own, which ends with the streams.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..errors import LogOptionError
from . import _kernel
from ._copier import Copier
from ._delivered import Delivered
from ._delivery import add, keeps_back
from ._info import LogInfo
from ._kernel import NO_ROOM
from ._plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from .._stdio import StdioURI
    from ._driver import Driver
    from ._record import Batch

__all__ = ("DriverSink", "scheme")

PREFIX = "log+"
RETRY = 0.2
"""Seconds between two looks at a full disk, at the end."""


class _Scheme:
    """What :func:`~pyshimio.create_io` asks for the sinks of all streams with one URI."""

    def sinks(
        self,
        uri: StdioURI,
        *,
        streams: Sequence[str],
        id: str,  # noqa: A002 - containerd's word
        namespace: str,
    ) -> dict[str, DriverSink]:
        """One for each stream, with the driver between them.

        Raises:
            LogOptionError: An option is unknown, missing, twice there or wrong.
            UnknownDriverError: There is no such driver.
        """
        options = {"driver": uri.scheme.removeprefix(PREFIX)}
        if uri.path:
            options["log-path"] = uri.path
        for name, value in uri.args:
            if name in options:
                raise LogOptionError(f"the option {name} is there twice", option=name)
            options[name] = value
        info = LogInfo(id, namespace=namespace, options=options)
        plan = Plan(info)
        shared = _Shared(plan.driver if plan.waits else Delivered(info, plan), streams)
        return {stream: DriverSink(shared, stream) for stream in streams}


scheme = _Scheme()


class _Shared:
    """A driver and those who write into it, each from a thread of its own; used in ``with``."""

    def __init__(self, driver: Driver, streams: Sequence[str]) -> None:
        self.driver = driver
        self._lock = threading.Lock()
        self._open = self._abandoned = False
        self._streams = set(streams)  # those that have not ended
        self._stuck: dict[str, int] = {}  # bytes that were taken, and found no room yet
        self._lost: dict[str, int] = {}

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._close_abandoned()

    def open(self) -> None:
        if not (self._open or self._abandoned):
            self.driver.open()
            self._open = True

    def has_room(self) -> bool:
        """Whether what was taken before has found its place."""
        if self._stuck:
            try:
                self.driver.flush()
            except Exception as error:  # noqa: BLE001 - as for what is written
                if isinstance(error, OSError) and error.errno in NO_ROOM:
                    return False
                self._lose_stuck()
            self._stuck = {}
        return True

    def _lose_stuck(self) -> None:
        """A driver that fails for good has thrown away what it kept back."""
        for stream, size in self._stuck.items():
            add(self._lost, stream, size)
        self._stuck = {}

    def lost(self, stream: str) -> int:
        """Bytes of a stream that were taken, and are nowhere."""
        behind = self.driver.lost(stream) if isinstance(self.driver, Delivered) else 0
        return self._lost.get(stream, 0) + behind

    def settled(self) -> bool:
        """Whether what was taken has found its place, or nobody waits for it any more."""
        with self:
            return self._abandoned or self.has_room()

    def put(self, batch: Batch) -> int:
        """Hand it to the driver; how many of its bytes were refused for good."""
        if not self._open:
            return len(batch.data)
        try:
            self.driver.write(batch)
        except OSError as error:
            if error.errno not in NO_ROOM or not keeps_back(self.driver):
                self._lose_stuck()
                return len(batch.data)
            add(self._stuck, batch.stream, len(batch.data))
        except Exception:  # noqa: BLE001 - a driver that fails does not end the container
            self._lose_stuck()
            return len(batch.data)
        return 0

    def reopen(self) -> None:
        if self._open:
            self.driver.reopen()

    def leave(self, stream: str) -> None:
        """A stream has ended (again, maybe); with the last one the driver does."""
        self._streams.discard(stream)
        if self._open and not self._streams:
            self._open = False
            try:
                self.driver.flush()
            finally:
                self.driver.close()

    def abandon(self, stream: str) -> None:
        """Nobody waits for a stream any more.

        With the last one the driver is closed at once, or by the thread that is in it.
        """
        self._streams.discard(stream)
        self._abandoned = not self._streams
        if self._abandoned and isinstance(self.driver, Delivered):
            self.driver.over = True  # for the thread that has the lock
        self._close_abandoned()

    def _close_abandoned(self) -> None:
        if self._abandoned and self._lock.acquire(blocking=False):
            try:
                if self._open:
                    self._open = False
                    self.driver.abandon()
            finally:
                self._lock.release()


class DriverSink:
    """One stream on its way into a driver."""

    blocking = True

    def __init__(self, shared: _Shared, stream: str) -> None:
        self._refused = 0
        self._shared = shared
        self._copier = Copier(stream, cap=shared.driver.cap, peeks=shared.driver.peeks)

    @property
    def dropped(self) -> int:
        """Bytes of lines that the driver refused, or that a ring had no room for."""
        return self._refused + self._shared.lost(self._copier.stream)

    @property
    def driver(self) -> Driver:
        """Shared with the other stream, if that has the same URI."""
        return self._shared.driver

    def open(self) -> None:
        """Open the driver; called in a thread, before anything is written.

        Raises:
            LogFileError: Its file cannot be opened.
        """
        with self._shared:
            self._shared.open()

    def fileno(self) -> int:
        return -1

    def write(self, buffers: Sequence[Buffer]) -> int:
        data = b"".join(buffers)
        with self._shared:
            if not self._shared.has_room():
                return 0
            for batch in self._copier.feed(data, _kernel.clock()):
                self._refused += self._shared.put(batch)
        return len(data)

    def flush(self) -> None:
        self._settle()
        with self._shared:
            for batch in self._copier.finish(_kernel.clock()):
                self._refused += self._shared.put(batch)
        self._settle()
        with self._shared:
            self._shared.leave(self._copier.stream)

    def _settle(self) -> None:
        while not self._shared.settled():
            _kernel.sleep(RETRY)

    def reopen(self) -> None:
        with self._shared:
            self._shared.reopen()

    def close(self) -> None:
        self._shared.abandon(self._copier.stream)

    def __repr__(self) -> str:
        return f"<DriverSink {self._copier.stream} -> {self.driver!r}>"
