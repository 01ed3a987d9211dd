"""``pyshimio-log``: every driver as a logging binary.

``binary:///usr/bin/pyshimio-log?driver=json-file&log-path=/var/log/x.log&max-size=10m``; beside a
driver's own options there are ``mode`` (``blocking``, or ``non-blocking``: a ring),
``max-buffer-size`` (of the ring, 1m), ``drop`` (``oldest`` or ``newest``), and ``tee.driver``,
``tee.log-path`` and so on for a second driver that gets the same and holds nobody up.
"""

from __future__ import annotations

from ..errors import LogOptionError
from ._delivery import BUFFER, Block, Ring
from ._options import buffer_size, refuse
from ._registry import driver_names, find_driver
from ._runner import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ._delivery import Drop
    from ._driver import Driver
    from ._info import LogInfo
    from ._runner import Delivery

__all__ = ("main",)

TEE = "tee."


def main() -> NoReturn:
    """The console script."""
    plan = _Plan()
    run(plan.make, deliver=plan.deliver)


class _Plan:
    """What the options ask for; found out when they are there, and before anything is opened."""

    def __init__(self) -> None:
        self._ring = False
        self._size = BUFFER
        self._drop: Drop = "oldest"
        self._leg: Driver | None = None

    def make(self, info: LogInfo) -> Driver:
        options = dict(info.options)
        mode = options.pop("mode", "blocking")
        if mode not in {"blocking", "non-blocking"}:
            raise refuse("mode", mode, "blocking or non-blocking")
        self._ring = mode == "non-blocking"
        tee = {
            name.removeprefix(TEE): options.pop(name)
            for name in tuple(options)
            if name.startswith(TEE)
        }
        if not (self._ring or tee):
            for name in ("max-buffer-size", "drop"):
                if name in options:
                    raise refuse(name, options[name], "for mode=non-blocking, or with tee.driver")
        if "max-buffer-size" in options:
            self._size = buffer_size("max-buffer-size", options.pop("max-buffer-size"))
        drop = options.pop("drop", "oldest")
        if drop not in {"oldest", "newest"}:
            raise refuse("drop", drop, "oldest or newest")
        self._drop = "oldest" if drop == "oldest" else "newest"
        if tee and self._ring:
            raise refuse("mode", mode, "blocking with tee.driver: the first driver holds up")
        if tee:
            self._leg = _driver(info, tee, f"{TEE}driver")
        return _driver(info, options, "driver")

    def deliver(self, driver: Driver, over: Callable[[], bool]) -> Delivery:
        if self._leg is not None:
            from ._tee import Tee  # noqa: PLC0415 - few ask for it

            self._leg.open()
            return Tee(driver, [self._leg], size=self._size, drop=self._drop, over=over)
        if self._ring:
            return Ring(driver, size=self._size, drop=self._drop, over=over)
        return Block(driver, over=over)


def _driver(info: LogInfo, options: dict[str, str], option: str) -> Driver:
    name = options.pop("driver", None)
    if name is None:
        raise LogOptionError(
            f"the option {option} is missing: one of {', '.join(driver_names())}", option=option
        )
    return find_driver(name)(info.evolve(options))
