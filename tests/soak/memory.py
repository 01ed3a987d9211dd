"""How much memory this process has."""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
from pathlib import Path

LIMIT = 1.02
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # of <malloc.h>
_libc = ctypes.CDLL(None)


def settle() -> None:
    """Have freed memory given back; call it before there are threads.

    By itself malloc keeps what it has ever needed: its threshold for mappings rises to the
    largest buffer that was freed, and each thread gets a heap of its own, full of holes later.
    What the random rounds need at their highest would count as growth, in steps of a thread's
    512 KiB buffer, which alone is nearly 2 % of such a small process.
    """
    _libc.mallopt(_MMAP_THRESHOLD, 1 << 17)
    _libc.mallopt(_ARENA_MAX, 1)


def own() -> int:
    """This process's own part of its Pss in KiB: its anonymous and its shared memory.

    The rest are pages of programs and libraries.  Nothing there can leak, and our share of
    them grows whenever another process that has them, too, ends.
    """
    gc.collect()
    _libc.malloc_trim(0)
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return sum(map(int, re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", rollup, re.MULTILINE)))


def growth(samples: list[int]) -> float:
    """The last quarter's median against the second one's."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    return statistics.median(last) / statistics.median(second)
