"""What rotation costs whoever writes: ``python -m bench.rotating plain|rotated LOG PACE``.

Lines go through a json-file driver as a logger would put them there, as fast as it takes them, or
with *PACE* MiB a second.  Prints the CPU seconds of this thread for each GiB, and the longest time
that one read's lines took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pyshimio.logging import Batch, Block, LogInfo, find_driver
from pyshimio.logging._runner import keep_freed_memory

LINE = b"%08d the quick brown fox jumps over the lazy dog, and so on, and on, and on, and on\n"
CHUNK = 780
"""Lines of one read: 64 KiB."""
MIB = 1 << 20


def main(kind: str, log: str, pace: str) -> dict[str, float]:
    """Write them."""
    options = {"log-path": log}
    if kind == "rotated":
        options |= {"max-size": "10485760", "max-file": "5", "compress": "true"}
    driver = find_driver("json-file")(LogInfo("bench", options=options))
    driver.open()
    keep_freed_memory()  # as a logger does
    block = Block(driver)
    data = b"".join(LINE % number for number in range(CHUNK))
    rate = float(pace) * MIB
    size = int(rate * 3) if rate else 128 * MIB
    longest, written = 0.0, 0
    cpu, began = time.thread_time(), time.monotonic()
    while written < size:
        if rate and (ahead := written / rate - (time.monotonic() - began)) > 0:
            time.sleep(ahead)
        before = time.monotonic()
        block.put(Batch("stdout", time.time_ns(), data))
        longest = max(longest, time.monotonic() - before)
        written += len(data)
    cpu = time.thread_time() - cpu
    block.finish()
    for path in Path(log).parent.glob(f"{Path(log).name}*"):
        path.unlink()
    return {"cpu": cpu / (written / (1 << 30)), "longest": longest}


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
