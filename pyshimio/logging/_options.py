"""Options of a driver, as text: which there are, what each may be, and what is wrong with one.

All of it is checked before anything is opened.
"""

from __future__ import annotations

import os

from ..errors import LogOptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Check: TypeAlias = "Callable[[str, str], object]"

__all__ = ("Options", "absolute_path", "count", "flag", "key_list", "refuse", "size", "text")

UNITS = {"": 1, "b": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4, "p": 1000**5}
"""docker's for ``max-size``: 1k is 1000."""
BINARY_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
"""docker's for ``max-buffer-size``: 1k is 1024."""
LONGEST = 20
"""Characters of a number."""
TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def refuse(name: str, value: str, what: str) -> LogOptionError:
    """The error for an option that is not what it may be."""
    return LogOptionError(f"{name} is {what}, not {value!r}", option=name)


def text(_name: str, value: str) -> str:
    """Anything."""
    return value


def flag(name: str, value: str) -> bool:
    """True or false, in one of Go's spellings."""
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise refuse(name, value, "true or false")


def count(name: str, value: str) -> int:
    """A number from 1 on."""
    if not (value.isascii() and value.isdigit() and len(value) < LONGEST and int(value) > 0):
        raise refuse(name, value, "a number from 1 on")
    return int(value)


def size(name: str, value: str) -> int:
    """Bytes, with a decimal unit: ``10m`` is 10,000,000; more than 0."""
    return _size(name, value, UNITS)


def buffer_size(name: str, value: str) -> int:
    """Bytes, with a binary unit: ``1m`` is 1,048,576; more than 0."""
    return _size(name, value, BINARY_UNITS)


def _size(name: str, value: str, units: Mapping[str, int]) -> int:
    number = value.strip().lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:].isalpha() else ""
    digits = number.removesuffix(unit).rstrip()
    whole, _, part = digits.partition(".")
    is_number = (
        len(digits) < LONGEST
        and whole.isdigit()
        and (part.isdigit() or not part)
        and digits.isascii()
    )
    if is_number and unit in units and (found := int(float(digits) * units[unit])) > 0:
        return found
    raise refuse(name, value, "a size of more than 0 such as 10m or 64k")


def line_cap(name: str, value: str) -> int:
    """Bytes, or 0 for none."""
    return 0 if value == "0" else buffer_size(name, value)


def absolute_path(name: str, value: str) -> str:
    """A path that means the same wherever the driver is started."""
    if not os.path.isabs(value) or "\0" in value:
        raise refuse(name, value, "an absolute path")
    return value


def key_list(_name: str, value: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(filter(None, value.split(",")))


class Options:
    """What a driver accepts.

    Args:
        driver: Its name, for messages.
        checks: Each option's name, and what makes a value of its text or raises.
        required: Those that must be there.
    """

    def __init__(
        self, driver: str, checks: Mapping[str, Check], *, required: tuple[str, ...] = ()
    ) -> None:
        self.driver = driver
        self.checks: dict[str, Check] = dict(checks)
        self.required = required

    def read(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The values; of what is not given there is none.

        Raises:
            LogOptionError: One is unknown, missing or wrong.
        """
        for name in given:
            if name not in self.checks:
                raise LogOptionError(
                    f"the log driver {self.driver} has no option {name!r}; it has"
                    f" {', '.join(sorted(self.checks)) or 'none'}",
                    option=name,
                )
        for name in self.required:
            if name not in given:
                raise LogOptionError(
                    f"the log driver {self.driver} needs the option {name}; it has"
                    f" {', '.join(sorted(self.checks))}",
                    option=name,
                )
        return {name: self.checks[name](name, value) for name, value in given.items()}
