"""Between the reads and a driver: what happens while the driver cannot take anything.

``Block`` waits, and so does the container.  What it does with each batch, with a full disk and with
what goes wrong is the same for ``Ring`` and ``Tee``, which do not wait.
"""

from __future__ import annotations

from . import _kernel
from ._driver import Driver, say_nothing
from ._kernel import NO_ROOM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._record import Batch

__all__ = ("Block", "Counted", "add", "keeps_back")

MOST_REPORTS = 100
RETRY = 0.2
"""Seconds between two looks at a full disk."""


class Counted:
    """What every delivery counts.

    Attributes:
        records, bytes: Taken by the driver.
        failed: Records that the driver refused for good; at least one if it could not be flushed
            or closed in the end.
        dropped: Records that were not handed to it: the ring was full, or the time was up.
        error: The first thing that went wrong.
        report: Told at once what goes wrong, each once, and when a disk has room again.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        driver.report = self._tell
        self.records: int = 0
        self.bytes: int = 0
        self.failed: int = 0
        self.dropped: int = 0
        self._refused: dict[str, int] = {}  # bytes; by the thread that writes
        self._skipped: dict[str, int] = {}  # bytes; by the one that puts
        self.error: Exception | None = None
        self.report: Callable[[str], None] = say_nothing
        self._reported: set[str] = set()

    @property
    def stats(self) -> dict[str, int]:
        """All counters, and the driver's."""
        own = {"records": self.records, "bytes": self.bytes}
        return {**own, "failed": self.failed, "dropped": self.dropped, **self.driver.stats}

    @property
    def lost(self) -> dict[str, int]:
        """Bytes of lines that were refused or dropped, by stream."""
        found = dict(self._refused)
        for stream, size in self._skipped.items():
            add(found, stream, size)
        return found

    def _note(self, error: Exception) -> None:
        """Remember the first thing that went wrong, and say what does."""
        self.error = self.error or error
        self._tell(str(error) or repr(error))

    def _tell(self, text: str) -> None:
        if text not in self._reported and len(self._reported) < MOST_REPORTS:
            self._reported.add(text)
            self.report(text)

    def _skip(self, batch: Batch) -> None:
        """It is not handed to the driver."""
        self.dropped += batch.count
        add(self._skipped, batch.stream, len(batch.data))

    def _put(self, batch: Batch, over: Callable[[], bool]) -> None:
        """Hand a batch to the driver, and wait for room as long as it is not *over*."""
        try:
            self._patiently(lambda: self.driver.write(batch), over)
        except Exception as error:  # noqa: BLE001 - a driver that fails does not end the container
            self.failed += batch.count
            add(self._refused, batch.stream, len(batch.data))
            self._note(error)
        else:
            self.records += batch.count
            self.bytes += len(batch.data)

    def _patiently(self, step: Callable[[], None], over: Callable[[], bool]) -> None:
        waited = False
        while True:
            try:
                step()
            except OSError as error:
                if error.errno not in NO_ROOM or over() or not keeps_back(self.driver):
                    raise
                self._note(error)
                waited = True
                _kernel.sleep(RETRY)
                step = self.driver.flush
            else:
                if waited:
                    self._reported.clear()
                    self.report("there is room again")
                return

    def _end(self, over: Callable[[], bool]) -> None:
        """Flush and close the driver."""
        try:
            self._patiently(self.driver.flush, over)
        except Exception as error:  # noqa: BLE001 - said in the end
            self._lost(error)
        try:
            # (To close may be to wait for a compression.)
            (self.driver.abandon if over() else self.driver.close)()
        except Exception as error:  # noqa: BLE001 - said in the end
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        # (What it keeps back may have been counted when it was refused.)
        self.failed = self.failed or 1
        self._note(error)


def add(counts: dict[str, int], stream: str, count: int) -> None:
    """So many more of a stream."""
    counts[stream] = counts.get(stream, 0) + count


def keeps_back(driver: Driver) -> bool:
    """Whether :meth:`Driver.flush` does something: else a batch that found no room is gone."""
    return type(driver).flush is not Driver.flush


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
        self._end(self._over)

    def abandon(self) -> None:
        """Nothing more comes, and nobody waits."""
        self.driver.abandon()
