"""The container: it says what it does on both streams, and ends in the middle of a line."""

import sys

for number in range(1000):
    print(f"tick {number}", flush=True)
    if number % 100 == 0:
        print(f"warning: {number}", file=sys.stderr, flush=True)
print("the end", end="", flush=True)
sys.exit(3)
