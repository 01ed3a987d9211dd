"""How much of a log is read for its last lines: ``python -m bench.seeking LOG tail|since``."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from typing import Any

import anyio

from pyshimio.logging import read_log
from pyshimio.logging._parse import nanoseconds

BLOCK = 1 << 16
COUNT = 10
EPOCH = 1_700_000_000
LINE = 100
"""Bytes of each line; one a second."""


def write(path: str, size: int) -> None:
    """A CRI log of so many bytes."""
    head = "{}-{:02}-{:02}T{:02}:{:02}:{:02}Z stdout F "
    with open(path, "wb", buffering=1 << 20) as file:
        for first in range(0, size // LINE, 86_400):
            day = _day(EPOCH + first)
            for second in range(86_400):
                hour, rest = divmod(second, 3600)
                text = head.format(*day, hour, *divmod(rest, 60))
                file.write(text.encode().ljust(LINE - 1, b"x") + b"\n")


def _day(moment: int) -> tuple[int, int, int]:
    broken = time.gmtime(moment)
    return broken.tm_year, broken.tm_mon, broken.tm_mday


async def main(*args: str) -> dict[str, float]:
    """Bytes read, beside what halving may cost."""
    path, what = args
    size = os.path.getsize(path)
    options: dict[str, Any] = {"tail": COUNT}
    if what == "since":
        with open(path, "rb") as file:
            file.seek(-LINE * COUNT, os.SEEK_END)
            moment = file.read(20).decode()
        options = {"since": nanoseconds(moment)}
    async with read_log(path, **options) as log:
        lines = [line async for line in log]
        allowed = BLOCK * math.log2(size) + LINE * len(lines)
        return {
            "lines": len(lines),
            "bytes": log.bytes_read,
            "of allowed": log.bytes_read / allowed,
        }


if __name__ == "__main__":
    json.dump(anyio.run(main, *sys.argv[1:]), sys.stdout)
