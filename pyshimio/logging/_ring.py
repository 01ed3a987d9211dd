"""Bounded memory between the reads and a driver: nobody waits, and what was lost is said."""

from __future__ import annotations

from ._delivery import RETRY, Counted, add
from ._record import Batch, Partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
    from typing import Literal

    from ._driver import Driver

    Drop = Literal["oldest", "newest"]

__all__ = ("BUFFER", "Ring")

BUFFER = 1 << 20
"""docker's ``max-buffer-size``."""
HOLDING = 300
"""Bytes that a batch takes beside its lines."""


class Ring(Counted):
    """The driver works in a thread of its own, and the container never waits for it.

    Args:
        driver: Open; used by that thread alone from here on.
        size: Bytes of memory that may wait: of lines, and of what holds them.
        drop: Which of them go when there is no room: the ``oldest``, or the ``newest`` as docker
            has it.  A record in their place says how many there were.
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
        self._begun: dict[str, Partial] = {}  # lines of which the driver has a part
        self._over = over
        self._queue: deque[Batch | _Gap] = deque()
        self._waiting = 0
        self._changed = Condition()
        self._ended = self._reopens = False
        self._in_hand: Batch | None = None
        self._thread = Thread(target=self._run, name="pyshimio log", daemon=True)
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Have it wait for the driver; never waits itself."""
        weight = _weight(batch)
        with self._changed:
            if self._drop_oldest:
                while self._waiting and self._waiting + weight > self._size:
                    self._lose_oldest()
            if self._waiting and self._waiting + weight > self._size:
                self._lose(batch)
            else:
                self._queue.append(batch)
                self._waiting += weight
            self._changed.notify()

    def _lose(self, batch: Batch) -> None:
        """The newest one goes."""
        if not isinstance(self._queue[-1], _Gap):
            self._queue.append(_Gap())
        self._add(self._queue[-1], batch)

    def _lose_oldest(self) -> None:
        gap = self._queue.popleft()
        if isinstance(gap, _Gap):
            oldest = self._queue.popleft()
        else:
            gap, oldest = _Gap(), gap
        assert isinstance(oldest, Batch)  # two gaps never meet
        self._waiting -= _weight(oldest)
        self._add(gap, oldest)
        self._queue.appendleft(gap)

    def _add(self, gap: Batch | _Gap, batch: Batch) -> None:
        assert isinstance(gap, _Gap)
        add(gap.counts, batch.stream, batch.count)
        gap.time = batch.time
        self._skip(batch)

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
                if batch is self._in_hand:
                    self._put(batch, self._over)
                else:
                    self._say(batch)
            with self._changed:
                self._in_hand = None
        self._end(self._over)

    def _next(self) -> list[Batch] | None:
        """The next batch, or what is to be said of those that are missing; None at the end."""
        with self._changed:
            while not (self._queue or self._ended or self._reopens):
                self._changed.wait()
            if self._reopens:
                self._reopens = False
                return []
            if not self._queue:
                return None
            found = self._queue.popleft()
            if isinstance(found, _Gap):
                return [batch for stream in found.counts for batch in self._said(found, stream)]
            self._waiting -= _weight(found)
            self._in_hand = found
            partial = found.partial
            if partial is None or partial.last:
                self._begun.pop(found.stream, None)
            else:
                self._begun[found.stream] = partial
            return [found]

    def _say(self, batch: Batch) -> None:
        """What is none of the container's is not counted."""
        try:
            self._patiently(lambda: self.driver.write(batch), self._over)
        except Exception as error:  # noqa: BLE001 - those that are missing are counted
            self._note(error)

    def _said(self, gap: _Gap, stream: str) -> Iterator[Batch]:
        """What stands in the place of those that are missing: a line of its own."""
        begun = self._begun.pop(stream, None)
        if begun is not None:
            end = Partial(begun.id, begun.ordinal + 1, last=True, begun=begun.begun)
            yield Batch(stream, gap.time, b"", end)
        count = gap.counts[stream]
        line = b"pyshimio dropped %d record%b here\n" % (count, b"s" * (count != 1))
        yield Batch(stream, gap.time, line)

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
                self.abandon()
                return

    def abandon(self) -> None:
        """Nothing more comes, what waits is dropped, and the thread ends when the driver does."""
        with self._changed:
            self._ended = True
            if self._in_hand is not None:  # it may be written yet, when nobody is there to know
                self._skip(self._in_hand)
            for found in self._queue:
                if isinstance(found, Batch):
                    self._skip(found)
            self._queue.clear()
            self._waiting = 0
            self._changed.notify()


class _Gap:
    """Where records are missing.

    Attributes:
        counts: How many, by stream.
        time: Of the last of them.
    """

    __slots__ = ("counts", "time")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.time = 0


def _weight(batch: Batch) -> int:
    return len(batch.data) + HOLDING
