"""Drivers by name: ours, and those of other packages.

Another package's driver is an entry point in the group ``pyshimio.log_drivers``: its name, and a
:class:`Driver`.
"""

from __future__ import annotations

from ..errors import DriverConflictError, UnknownDriverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ._driver import Driver

__all__ = ("driver_names", "find_driver")

GROUP = "pyshimio.log_drivers"
OURS = {
    "cri": ("._cri", "Cri"),
    "json-file": ("._json_file", "JsonFile"),
    "none": ("._plain", "Nothing"),
    "raw": ("._plain", "Raw"),
}


def find_driver(name: str) -> type[Driver]:
    """The driver that is called so.

    Raises:
        UnknownDriverError: Nobody has one.
        DriverConflictError: Two installed packages have one.
    """
    from importlib import import_module  # noqa: PLC0415 - a logger has no time to lose

    if name in OURS:
        # (Another package cannot take it over; and to look for one takes ten times as long.)
        module, attribute = OURS[name]
        ours: type[Driver] = getattr(import_module(module, __package__), attribute)
        return ours
    found = _others()
    if name not in found:
        raise UnknownDriverError(
            f"there is no log driver {name!r}; there are {', '.join(driver_names())}",
            option="driver",
        )
    if len(found[name]) > 1:
        raise DriverConflictError(
            f"the log driver {name} is registered {len(found[name])} times"
            f" ({', '.join(entry.value for entry in found[name])}); uninstall all but one",
            option="driver",
        )
    theirs: type[Driver] = found[name][0].load()
    return theirs


def driver_names() -> tuple[str, ...]:
    """All that can be asked for.

    Raises:
        DriverConflictError: Another package has one that is called as one of ours.
    """
    return tuple(sorted({*OURS, *_others()}))


def _others() -> dict[str, list[EntryPoint]]:
    from importlib import metadata  # noqa: PLC0415

    found: dict[str, list[EntryPoint]] = {}
    for entry in metadata.entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    for name in OURS:
        if name in found:
            raise DriverConflictError(
                f"{found[name][0].value} calls its log driver {name}, and that is one of ours;"
                " uninstall it",
                option="driver",
            )
    return found
