"""A ring or a tee as a driver: for who has one driver and no place for a delivery."""

from __future__ import annotations

from ._driver import Driver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._info import LogInfo
    from ._plan import Delivery, Plan
    from ._record import Batch

__all__ = ("Delivered",)


class Delivered(Driver):
    """What a plan asks for, behind the steps of a driver.

    Args:
        info: The container.
        plan: With a ring or a second driver.

    Attributes:
        over: Nobody has time any more; set by whoever cannot wait for what goes on in a thread.
    """

    def __init__(self, info: LogInfo, plan: Plan) -> None:
        super().__init__(info.evolve({}))
        self.cap = plan.driver.cap
        self.peeks = plan.driver.peeks
        self._plan = plan
        self._delivery: Delivery | None = None
        self._closed = False
        self.over: bool = False

    def open(self) -> None:
        driver = self._plan.driver
        driver.open()
        try:
            self._delivery = self._plan.deliver(driver, lambda: self.over)
        except BaseException:
            driver.close()
            raise

    def write(self, batch: Batch) -> None:
        assert self._delivery is not None
        self._delivery.put(batch)

    def reopen(self) -> None:
        if self._delivery is not None:
            self._delivery.reopen()

    def close(self) -> None:
        if self._delivery is not None and not self._closed:
            self._closed = True
            self._delivery.finish()

    def abandon(self) -> None:
        self.over = True
        if self._delivery is not None and not self._closed:
            self._closed = True
            self._delivery.abandon()

    def lost(self, stream: str) -> int:
        """Bytes of a stream's lines that were dropped or refused."""
        return 0 if self._delivery is None else self._delivery.lost.get(stream, 0)

    @property
    def stats(self) -> dict[str, int]:
        return {} if self._delivery is None else self._delivery.stats

    def __repr__(self) -> str:
        return f"<Delivered {self._plan.driver!r}>"
