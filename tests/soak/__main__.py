"""Run rounds until the time is up, then look at what is left."""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import time
from collections import Counter

from pyshimio.testing._leaks import own_temporary
from support.loops import warm_up

from .memory import LIMIT, growth, own, settle
from .rounds import Round

FEWEST = 16
"""Rounds that are needed to say anything about memory."""


def main() -> int:
    """Run the soak; 0 when every byte and every descriptor was accounted for."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    # In CI the choices are the same each time: a failure there is one of the change.
    seed = "ci" if os.environ.get("CI") else f"{random.SystemRandom().getrandbits(32):08x}"
    parser.add_argument("--seed", default=seed)
    parser.add_argument("--round", type=int, help="run this one only, to see a failure again")
    parser.add_argument("--verbose", action="store_true", help="print each round's history")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    logging.getLogger("pyshimio").addHandler(logging.NullHandler())
    logging.getLogger("pyshimio").propagate = False
    settle()
    warm_up()
    done: Counter[str] = Counter()
    memory: list[int] = []
    until = time.monotonic() + 60 * options.minutes
    number = options.round or 0
    while True:
        one = Round(options.seed, number, done)
        with own_temporary():
            one.run()
        if options.verbose:
            print(*one.history, sep="\n", flush=True)
        if one.failures:
            print(*one.history, *one.failures, sep="\n")
            print(f"again: python -m soak --seed {options.seed} --round {number}")
            return 1
        memory.append(own())
        number += 1
        if options.round is not None or (time.monotonic() > until and number >= FEWEST):
            break
    for what, count in sorted(done.items()):
        print(f"{count:>14,}  {what}")
    if len(memory) < FEWEST:
        print(f"too few rounds ({len(memory)}) to say anything about memory")
        return 0
    ratio = growth(memory)
    print(
        f"memory {memory[0]:,} to {memory[-1]:,} KiB;"
        f" last quarter / second quarter {ratio:.4f} (limit {LIMIT})"
    )
    if ratio > LIMIT:
        print(f"memory grows: {memory}")
        print(f"again: python -m soak --seed {options.seed} --minutes {options.minutes}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
