"""What options ask for beside a driver's own: which driver, what stands before it, for whom.

The same for ``pyshimio-log`` and for ``log+NAME:``:

- ``driver``: its name;
- ``mode``: ``blocking``, or ``non-blocking``: a ring;
- ``max-buffer-size`` (of the ring, 1m) and ``drop`` (``oldest`` or ``newest``);
- ``tee.driver``, ``tee.log-path`` and so on: a second driver, which gets the same and holds nobody
  up;
- ``container.name``, ``container.image-id``, ``container.image-name``, ``container.command``,
  ``container.label.NAME`` and ``container.env.NAME``: what the shim does not tell of the container,
  for ``tag``, ``labels`` and ``env`` to choose from.
"""

from __future__ import annotations

from ..errors import LogOptionError
from ._delivery import Block
from ._info import LogInfo
from ._options import buffer_size, refuse
from ._registry import driver_names, find_driver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ._driver import Driver
    from ._record import Batch
    from ._ring import Drop

    class Delivery(Protocol):
        """What batches are put into: :class:`Block`, :class:`Ring` or :class:`Tee`."""

        @property
        def failed(self) -> int: ...
        @property
        def dropped(self) -> int: ...
        @property
        def error(self) -> Exception | None: ...
        @property
        def stats(self) -> dict[str, int]: ...
        @property
        def lost(self) -> dict[str, int]: ...
        @property
        def report(self) -> Callable[[str], None]: ...
        @report.setter
        def report(self, report: Callable[[str], None], /) -> None: ...
        def put(self, batch: Batch) -> None: ...
        def reopen(self) -> None: ...
        def finish(self) -> None: ...
        def abandon(self) -> None: ...


__all__ = ("Plan",)

TEE = "tee."
CONTAINER = "container."
LABEL = "label."
ENV = "env."
SAID = ("name", "image-id", "image-name", "command")


class Plan:
    """All of it, checked before anything is opened.

    Args:
        info: The container, with all the options.

    Attributes:
        driver: The one that decides when the container waits; not open.
        waits: Whether it stands alone, with nothing before it.

    Raises:
        LogOptionError: An option is missing, unknown or wrong.
        UnknownDriverError: There is no such driver.
    """

    def __init__(self, info: LogInfo) -> None:
        options = dict(info.options)
        info = _told(info, options)
        mode = options.pop("mode", "blocking")
        if mode not in {"blocking", "non-blocking"}:
            raise refuse("mode", mode, "blocking or non-blocking")
        self._ring = mode == "non-blocking"
        tee = _taken(options, TEE)
        if not (self._ring or tee):
            for name in ("max-buffer-size", "drop"):
                if name in options:
                    raise refuse(name, options[name], "for mode=non-blocking, or with tee.driver")
        self._size = buffer_size("max-buffer-size", options.pop("max-buffer-size", "1m"))
        drop = options.pop("drop", "oldest")
        if drop not in {"oldest", "newest"}:
            raise refuse("drop", drop, "oldest or newest")
        self._drop: Drop = "oldest" if drop == "oldest" else "newest"
        if "max-line" in tee:
            raise refuse("tee.max-line", tee["max-line"], "that of the first driver: leave it out")
        if tee and self._ring:
            raise refuse("mode", mode, "blocking with tee.driver: the first driver holds up")
        self._leg: Driver | None = _driver(info, tee, f"{TEE}driver") if tee else None
        self.driver: Driver = _driver(info, options, "driver")
        self.waits: bool = not (self._ring or tee)

    def deliver(self, driver: Driver, over: Callable[[], bool]) -> Delivery:
        """What stands before *driver*, which is open.

        Raises:
            LogFileError: The second driver's file cannot be opened.
        """
        if self._leg is not None:
            from ._tee import Tee  # noqa: PLC0415 - few ask for it

            self._leg.open()
            return Tee(driver, [self._leg], size=self._size, drop=self._drop, over=over)
        if self._ring:
            from ._ring import Ring  # noqa: PLC0415 - few ask for it

            return Ring(driver, size=self._size, drop=self._drop, over=over)
        return Block(driver, over=over)


def _taken(options: dict[str, str], prefix: str) -> dict[str, str]:
    """The options that begin so, without that; they are no longer among *options*."""
    names = [name for name in options if name.startswith(prefix)]
    return {name.removeprefix(prefix): options.pop(name) for name in names}


def _told(info: LogInfo, options: dict[str, str]) -> LogInfo:
    """The container, with what its options say of it."""
    said = _taken(options, CONTAINER)
    if not said:
        return info
    labels, env = _taken(said, LABEL), _taken(said, ENV)
    if unknown := said.keys() - set(SAID):
        known = ", ".join((*SAID, f"{LABEL}NAME", f"{ENV}NAME"))
        name = min(unknown)
        raise LogOptionError(
            f"{CONTAINER}{name} is not known of a container; there are {known}",
            option=f"{CONTAINER}{name}",
        )
    return LogInfo(
        info.id,
        namespace=info.namespace,
        name=said.get("name", ""),
        image_id=said.get("image-id", ""),
        image_name=said.get("image-name", ""),
        command=[said["command"]] if "command" in said else (),
        labels=labels,
        env=[f"{name}={value}" for name, value in env.items()],
    )


def _driver(info: LogInfo, options: dict[str, str], option: str) -> Driver:
    name = options.pop("driver", None)
    if name is None:
        raise LogOptionError(
            f"the option {option} is missing: one of {', '.join(driver_names())}", option=option
        )
    return find_driver(name)(info.evolve(options))
