"""Times as log files have them: RFC 3339 with up to nine digits of a second."""

from __future__ import annotations

import time

__all__ = ("rfc3339",)

BILLION = 1_000_000_000


def rfc3339(nanoseconds: int, *, local: bool = False) -> str:
    """Go's RFC3339Nano: zeros at the end of the fraction are left out, and the point with them.

    Args:
        nanoseconds: Since 1970.
        local: In the zone of the machine, as containerd's CRI logger has it; else in UTC.
    """
    seconds, fraction = divmod(nanoseconds, BILLION)
    # Many records come in one second.
    prefix, suffix = _parts(seconds, local)
    if not fraction:
        return prefix + suffix
    digits = f"{fraction:09}".rstrip("0")
    return f"{prefix}.{digits}{suffix}"


class _Last:
    """The last second that was asked for, and what it looks like."""

    __slots__ = ("key", "parts")

    def __init__(self) -> None:
        self.key: tuple[int, bool] = (0, False)
        self.parts: tuple[str, str] = ("1970-01-01T00:00:00", "Z")


def _parts(seconds: int, local: bool) -> tuple[str, str]:  # noqa: FBT001
    key = (seconds, local)
    if key != _last.key:
        broken = time.localtime(seconds) if local else time.gmtime(seconds)
        prefix = (
            f"{broken.tm_year:04}-{broken.tm_mon:02}-{broken.tm_mday:02}"
            f"T{broken.tm_hour:02}:{broken.tm_min:02}:{broken.tm_sec:02}"
        )
        _last.key, _last.parts = key, (prefix, _zone(broken.tm_gmtoff if local else 0))
    return _last.parts


def _zone(offset: int) -> str:
    if not offset:
        return "Z"
    minutes = abs(offset) // 60
    return f"{'-' if offset < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"


_last = _Last()
