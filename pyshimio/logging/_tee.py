"""One log for several drivers."""

from __future__ import annotations

from ._delivery import Block
from ._ring import BUFFER, Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._driver import Driver
    from ._record import Batch
    from ._ring import Drop

__all__ = ("Tee",)


class Tee:
    """Each batch goes to all of them; the first one alone may hold the container up.

    Args:
        must: Gets everything, and decides when the container waits; open.
        legs: Each has a queue of its own, out of which records are dropped, and said to be, when it
            is too slow; open.
        size: Bytes that may wait for each of them.
        drop: As for :class:`Ring`.
        over: Whether nobody has time to wait any more.
    """

    def __init__(
        self,
        must: Driver,
        legs: Sequence[Driver],
        *,
        size: int = BUFFER,
        drop: Drop = "oldest",
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._must = Block(must, over=over)
        self._legs = [Ring(leg, size=size, drop=drop, over=over) for leg in legs]

    def put(self, batch: Batch) -> None:
        """Hand it on."""
        for leg in self._legs:
            leg.put(batch)
        self._must.put(batch)

    def reopen(self) -> None:
        """Have all of them open their files anew."""
        for leg in self._legs:
            leg.reopen()
        self._must.reopen()

    def finish(self) -> None:
        """Nothing more comes."""
        self._must.finish()
        for leg in self._legs:
            leg.finish()

    def abandon(self) -> None:
        """Nothing more comes, and what waits is dropped."""
        self._must.abandon()
        for leg in self._legs:
            leg.abandon()

    @property
    def report(self) -> Callable[[str], None]:
        """As for :class:`Block`."""
        return self._must.report

    @report.setter
    def report(self, report: Callable[[str], None]) -> None:
        self._must.report = report
        for leg in self._legs:
            leg.report = report

    @property
    def failed(self) -> int:
        """Records that one of them refused; one that two refused counts twice."""
        return self._must.failed + sum([leg.failed for leg in self._legs])

    @property
    def dropped(self) -> int:
        """Records that some leg missed."""
        return self._must.dropped + sum([leg.dropped for leg in self._legs])

    @property
    def lost(self) -> dict[str, int]:
        """Bytes of lines that the one that must have them has not, by stream."""
        return self._must.lost

    @property
    def error(self) -> Exception | None:
        """The first thing that went wrong anywhere."""
        errors = (delivery.error for delivery in (self._must, *self._legs))
        return next((error for error in errors if error is not None), None)

    @property
    def stats(self) -> dict[str, int]:
        """All counters; those of the legs behind ``leg1.``, ``leg2.`` and so on."""
        found = dict(self._must.stats)
        for number, leg in enumerate(self._legs, 1):
            found.update((f"leg{number}.{name}", value) for name, value in leg.stats.items())
        return found
