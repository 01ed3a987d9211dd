"""Who sends eight bytes and waits for them to come back.

python -m bench.client STDIN-FIFO STDOUT-FIFO TRIPS
"""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter

MESSAGE = b"8 bytes\n"
WARM_UP = 200


def main() -> None:
    """Open both, go to and fro, print the percentiles in µs."""
    # Both ends: the open does not wait, and no pump finds the FIFO without a writer.
    into = os.open(sys.argv[1], os.O_RDWR)
    back = os.open(sys.argv[2], os.O_RDONLY)
    taken = []
    for _ in range(WARM_UP + int(sys.argv[3])):
        begin = perf_counter()
        os.write(into, MESSAGE)
        answer = os.read(back, 64)
        taken.append(perf_counter() - begin)
        assert answer == MESSAGE
    taken = sorted(taken[WARM_UP:])
    figures = {f"p{part} µs": taken[len(taken) * part // 100] * 1e6 for part in (50, 90, 99)}
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
