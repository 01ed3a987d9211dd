"""Lines of log files back into what they were made of."""

from __future__ import annotations

import calendar
import json
from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("FORMATS", "Format", "Piece", "detect", "nanoseconds")

BILLION = 1_000_000_000
NOTHING: Mapping[str, str] = {}


@attrs.frozen
class Piece:
    """What one line of a file holds.

    Args:
        time: Nanoseconds since 1970.
        stream: ``"stdout"`` or ``"stderr"``.
        text: Bytes of the container's line, without its newline.
        ended: The container's line ends here.
        attributes: docker's, by name.
    """

    time: int
    stream: str
    text: bytes
    ended: bool
    attributes: Mapping[str, str] = NOTHING


class Format(Protocol):
    """One kind of log file."""

    @property
    def name(self) -> str:
        """What the driver that writes it is called."""
        ...

    def parse(self, line: bytes) -> Piece:
        """A line without its newline.

        Raises:
            ValueError: It is no such line.
        """
        ...


def nanoseconds(text: str) -> int:
    """RFC 3339, with any number of digits, as nanoseconds since 1970.

    Raises:
        ValueError: It is none.
    """
    date, zone = text[:19], text[19:]
    if len(date) != 19 or date[4::3] != "--T::"[: len(date[4::3])]:
        raise ValueError(f"{text!r} is no time such as 2026-11-26T10:11:12.5Z")
    parts = (date[:4], date[5:7], date[8:10], date[11:13], date[14:16], date[17:19])
    year, month, day, hour, minute, second = map(_number, parts)
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise ValueError(f"{text!r} is no time")
    fraction = 0
    if zone[:1] == ".":
        digits = zone[1:].rstrip("Zz")
        for sign in "+-":
            digits = digits.partition(sign)[0]
        fraction = _number(digits[:9].ljust(9, "0"))
        zone = zone[1 + len(digits) :]
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    return (seconds - _offset(zone)) * BILLION + fraction


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no number")
    return int(text)


def _offset(zone: str) -> int:
    if zone in {"Z", "z"}:
        return 0
    if len(zone) != 6 or zone[0] not in "+-" or zone[3] != ":":
        raise ValueError(f"{zone!r} is no zone such as Z or +01:00")
    seconds = (_number(zone[1:3]) * 60 + _number(zone[4:6])) * 60
    return -seconds if zone[0] == "-" else seconds


class _JsonFile:
    """docker's and nerdctl's."""

    name = "json-file"

    def parse(self, line: bytes) -> Piece:
        try:
            entry: dict[str, Any] = json.loads(line)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if type(entry) is not dict or not isinstance(entry.get("time"), str):
            raise ValueError("no object with a time")
        text: object = entry.get("log", "")
        stream: object = entry.get("stream", "")
        attributes: Mapping[str, str] = entry.get("attrs") or NOTHING
        if not (isinstance(text, str) and isinstance(stream, str) and isinstance(attributes, dict)):
            raise ValueError("a field of another type")  # noqa: TRY004
        ended = text.endswith("\n")
        return Piece(
            nanoseconds(entry["time"]),
            stream,
            text.removesuffix("\n").encode("utf-8", "surrogatepass"),
            ended,
            attributes,
        )


class _Cri:
    """containerd's, CRI-O's and conmon's (``k8s-file``)."""

    name = "cri"

    def parse(self, line: bytes) -> Piece:
        parts = line.split(b" ", 3)
        if len(parts) != 4:
            raise ValueError("fewer than four parts")
        time, stream, tags, text = parts
        tag = tags.split(b":", 1)[0]
        if stream not in {b"stdout", b"stderr"} or tag not in {b"P", b"F"}:
            raise ValueError("no stream and tag")
        return Piece(nanoseconds(time.decode("ascii")), stream.decode(), text, tag == b"F")


FORMATS: tuple[Format, ...] = (_JsonFile(), _Cri())


def detect(line: bytes) -> Format | None:
    """Whose line that is; None for nobody's."""
    for form in FORMATS:
        try:
            form.parse(line)
        except ValueError:
            continue
        return form
    return None
