"""``pyshimio logs``: what a container wrote, out of the files that its log is kept in."""

from __future__ import annotations

import json
import os
import re
import sys
import time

import anyio
import attrs
import click

from ..errors import ShimIOError
from ..logging import LogLine, Problem, read_log
from ..logging._parse import nanoseconds
from ..logging._times import rfc3339
from . import FAILED
from ._say import say
from ._trouble import Refusal

__all__ = ("LogOptions", "show")

SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
BILLION = 1_000_000_000


@attrs.frozen(kw_only=True)
class LogOptions:
    """The command line."""

    path: str
    follow: bool
    until_unwritten: bool
    tail: int | None
    since: str | None
    until: str | None
    stream: str | None
    details: bool
    timestamps: bool
    as_json: bool


def show(options: LogOptions) -> int:
    """Print them and return the exit status."""
    try:
        anyio.run(_show, options)
    except BrokenPipeError:
        # Whoever read them has enough; Python would try to flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except (ShimIOError, OSError, Refusal) as error:
        say(str(error))
        return FAILED
    return 0


async def _show(options: LogOptions) -> None:
    printer = _Printer(options)
    log = read_log(
        options.path,
        follow=options.follow,
        until_unwritten=options.until_unwritten,
        tail=options.tail,
        since=_moment(options.since, "--since"),
        until=_moment(options.until, "--until"),
        stream=options.stream,  # type: ignore[arg-type]
        problem=_complain,
    )
    async with log:
        async for line in log:
            printer.print(line)


def _complain(problem: Problem) -> None:
    say(str(problem))


def _moment(text: str | None, option: str) -> int | None:
    """A time, or how long ago it was.

    Raises:
        Refusal: It is neither.
    """
    if text is None:
        return None
    if re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        ago = sum(
            float(number) * SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", text)
        )
        return time.time_ns() - int(ago * BILLION)
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * BILLION + int(fraction.ljust(9, "0") or 0)
    try:
        return nanoseconds(text if re.search(r"(Z|z|[+-]\d\d:\d\d)$", text) else f"{text}Z")
    except ValueError as error:
        raise Refusal(
            f"{option} is a time such as 2026-11-26T10:11:12.5Z, seconds since 1970, or how long"
            f" ago such as 1h30m, not {text!r}"
        ) from error


class _Printer:
    """Lines on their way to our stdout and stderr."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._begun: dict[str, bool] = {}  # whether the last line there has no end
        self._coloured = {
            "stdout": sys.stdout.isatty(),
            "stderr": sys.stderr.isatty(),
        }

    def print(self, line: LogLine) -> None:
        if self._options.as_json:
            data = json.dumps(_as_object(line), ensure_ascii=False) + "\n"
            # (What is no character stands there as JSON has it.)
            sys.stdout.buffer.write(data.encode("utf-8", "backslashreplace"))
            sys.stdout.buffer.flush()
            return
        text = line.text + (b"\n" if line.complete else b"")
        if self._options.details and line.attributes:
            pairs = ",".join(f"{name}={line.attributes[name]}" for name in sorted(line.attributes))
            text = f"{pairs} ".encode("utf-8", "backslashreplace") + text
        stream = "stderr" if line.stream == "stderr" else "stdout"
        coloured = self._coloured[stream]
        if self._options.timestamps:
            time = f"{rfc3339(line.time)} "
            text = (click.style(time, dim=True) if coloured else time).encode() + text
        if stream == "stderr" and coloured:
            text = click.style("▌", fg="red").encode() + text
        target = getattr(sys, stream).buffer
        if self._begun.get(stream):
            text = b"\n" + text  # something else than the rest of that line
        self._begun[stream] = not (line.complete or line.more)
        target.write(text)
        target.flush()


def _as_object(line: LogLine) -> dict[str, object]:
    return {
        "time": rfc3339(line.time),
        "stream": line.stream,
        "log": line.text.decode("utf-8", "replace"),
        "complete": line.complete,
        **({"attrs": dict(line.attributes)} if line.attributes else {}),
    }
