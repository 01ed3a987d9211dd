"""How much memory this process has."""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
from pathlib import Path

LIMIT = 1.02


def pss() -> tuple[int, int]:
    """Proportional set size in KiB, and the anonymous part of it; malloc's spare not counted."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    found = dict(re.findall(r"^(Pss|Pss_Anon):\s+(\d+) kB", rollup, re.MULTILINE))
    return int(found["Pss"]), int(found["Pss_Anon"])


def growth(samples: list[int]) -> float:
    """The last quarter's median against the second one's."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    return statistics.median(last) / statistics.median(second)
