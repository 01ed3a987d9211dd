"""``pyshimio-log``: every driver as a logging binary.

``binary:///usr/bin/pyshimio-log?driver=json-file&log-path=/var/log/x.log&max-size=10m``; ``_plan``
has the options that are not a driver's own.
"""

from __future__ import annotations

from ._plan import Plan
from ._runner import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ._driver import Driver
    from ._info import LogInfo
    from ._plan import Delivery

__all__ = ("main",)


def main() -> NoReturn:
    """The console script."""
    plan: Plan | None = None

    def make(info: LogInfo) -> Driver:
        nonlocal plan
        plan = Plan(info)
        return plan.driver

    def deliver(driver: Driver, over: Callable[[], bool]) -> Delivery:
        assert plan is not None
        return plan.deliver(driver, over)

    run(make, deliver=deliver)
