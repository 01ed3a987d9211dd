"""Between the reads and a driver: what happens while the driver cannot take anything.

``block`` waits, and so does the container.  ``ring`` keeps what fits into bounded memory, and says
in the stream how much it had to drop.
"""

from __future__ import annotations

from . import _kernel
from ._kernel import NO_ROOM
from ._record import Batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import Literal

    from ._driver import Driver

    Drop = Literal["oldest", "newest"]

__all__ = ("Block", "Ring")

RETRY = 0.2
"""Seconds between two looks at a full disk."""
BUFFER = 1 << 20
"""docker's ``max-buffer-size``."""


class Counted:
    """What every delivery counts.

    Attributes:
        records, bytes: Taken by the driver.
        failed: Records that the driver refused for good.
        dropped: Records that were not handed to it: the ring was full, or the time was up.
        error: The first thing that went wrong.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.records: int = 0
        self.bytes: int = 0
        self.failed: int = 0
        self.dropped: int = 0
        self.error: Exception | None = None

    @property
    def stats(self) -> dict[str, int]:
        """All counters, and the driver's."""
        own = {"records": self.records, "bytes": self.bytes}
        return {**own, "failed": self.failed, "dropped": self.dropped, **self.driver.stats}

    def _note(self, error: Exception) -> None:
        """Remember the first thing that went wrong."""
        self.error = self.error or error

    def _skip(self, count: int) -> None:
        """So many records are not handed to the driver."""
        self.dropped += count

    def _put(self, batch: Batch, over: Callable[[], bool]) -> None:
        """Hand a batch to the driver, and wait for room as long as it is not *over*."""
        try:
            self._patiently(lambda: self.driver.write(batch), over)
        except Exception as error:  # noqa: BLE001 - a driver that fails does not end the container
            self.failed += batch.count
            self._note(error)
        else:
            self.records += batch.count
            self.bytes += len(batch.data)

    def _patiently(self, step: Callable[[], None], over: Callable[[], bool]) -> None:
        while True:
            try:
                step()
            except OSError as error:
                if error.errno not in NO_ROOM or over():
                    raise
                self._note(error)
                _kernel.sleep(RETRY)
                step = self.driver.flush
            else:
                return

    def _flush(self, over: Callable[[], bool]) -> None:
        try:
            self._patiently(self.driver.flush, over)
        except Exception as error:  # noqa: BLE001 - said in the end
            self._note(error)


class Block(Counted):
    """Each batch goes to the driver at once; a full disk stops the container until it has room.

    Args:
        driver: Open.
        over: Whether nobody has time to wait any more.
    """

    def __init__(self, driver: Driver, *, over: Callable[[], bool] = lambda: False) -> None:
        super().__init__(driver)
        self._over = over

    def put(self, batch: Batch) -> None:
        """Hand it on; raises nothing."""
        self._put(batch, self._over)

    def reopen(self) -> None:
        """Have the driver open its files anew."""
        self.driver.reopen()

    def finish(self) -> None:
        """Nothing more comes."""
        self._flush(self._over)
        self.driver.close()


class Ring(Counted):
    """The driver works in a thread of its own, and the container never waits for it.

    Args:
        driver: Open; used by that thread alone from here on.
        size: Bytes of lines that may wait.
        drop: Which of them go when there is no room: the ``oldest``, or the ``newest`` as docker
            has it.
        over: Whether nobody has time to wait any more.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        size: int = BUFFER,
        drop: Drop = "oldest",
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        from collections import deque  # noqa: PLC0415 - few loggers have a ring
        from threading import Condition, Thread  # noqa: PLC0415

        super().__init__(driver)
        self._size = size
        self._drop_oldest = drop == "oldest"
        self._over = over
        self._queue: deque[Batch] = deque()
        self._waiting = 0
        self._gaps: dict[str, int] = {}
        self._changed = Condition()
        self._ended = self._reopens = False
        self._thread = Thread(target=self._run, name="pyshimio log", daemon=True)
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Have it wait for the driver; never waits itself."""
        size = len(batch.data)
        with self._changed:
            while self._queue and self._drop_oldest and self._waiting + size > self._size:
                oldest = self._queue.popleft()
                self._waiting -= len(oldest.data)
                self._lose(oldest)
            if self._waiting + size > self._size and self._queue:
                self._lose(batch)
            else:
                self._queue.append(batch)
                self._waiting += size
            self._changed.notify()

    def _lose(self, batch: Batch) -> None:
        self._skip(batch.count)
        self._gaps[batch.stream] = self._gaps.get(batch.stream, 0) + batch.count

    def reopen(self) -> None:
        """Have the driver open its files anew, between two batches."""
        with self._changed:
            self._reopens = True
            self._changed.notify()

    def _run(self) -> None:
        while (batches := self._next()) is not None:
            if not batches:
                self._reopen()
            for batch in batches:
                self._put(batch, self._over)
        self._flush(self._over)
        self.driver.close()

    def _next(self) -> list[Batch] | None:
        """The next batch, behind what is to be said of those before it; None at the end."""
        with self._changed:
            while not (self._queue or self._ended or self._reopens or self._gaps):
                self._changed.wait()
            if self._reopens:
                self._reopens = False
                return []
            told = [_marker(stream, count) for stream, count in self._gaps.items()]
            self._gaps.clear()
            if self._queue:
                batch = self._queue.popleft()
                self._waiting -= len(batch.data)
                return [*told, batch]
            return told or None

    def _reopen(self) -> None:
        try:
            self.driver.reopen()
        except Exception as error:  # noqa: BLE001 - the old files stay in use
            self._note(error)

    def finish(self) -> None:
        """Nothing more comes; what waits goes to the driver as long as there is time."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        while self._thread.is_alive():
            self._thread.join(RETRY)
            if self._over():
                with self._changed:
                    self._skip(sum(batch.count for batch in self._queue))
                    self._queue.clear()
                return


def _marker(stream: str, count: int) -> Batch:
    line = b"pyshimio dropped %d record%b here\n" % (count, b"s" * (count != 1))
    return Batch(stream, _kernel.clock(), line)
