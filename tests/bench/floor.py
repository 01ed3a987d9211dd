"""What nobody can beat: the child alone, or read and write and nothing else.

python -m bench.floor --fifo PATH --bytes N -- COMMAND...
python -m bench.floor --file PATH -- COMMAND...
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time

from .party import used

CHUNK = 1 << 18
PIPE = 1 << 20


def child_alone(path: str, command: list[str]) -> None:
    """The child writes into the FIFO itself; its bytes are not seen here."""
    with open(path, "wb", buffering=0) as fifo:
        subprocess.run(command, check=True, stdout=fifo)


def two_calls(path: str, command: list[str]) -> int:
    """Read 256 KiB, write them, and so on."""
    source, target = os.pipe()
    fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, PIPE)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    buffer = memoryview(bytearray(CHUNK))
    total = 0
    with subprocess.Popen(command, stdout=target):
        os.close(target)
        while count := os.readv(source, [buffer]):
            os.write(log, buffer[:count])
            total += count
    os.close(source)
    os.close(log)
    return total


def main() -> None:
    """Read the command line, move, print."""
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fifo")
    where.add_argument("--file")
    parser.add_argument("--bytes", type=int, default=0, help="what the child alone writes")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    cpu, begin = used(), time.perf_counter()
    count = args.bytes
    if args.fifo:
        child_alone(args.fifo, args.command)
    else:
        count = two_calls(args.file, args.command)
    seconds = time.perf_counter() - begin
    json.dump({"cpu": used() - cpu, "seconds": seconds, "bytes": count}, sys.stdout)


if __name__ == "__main__":
    main()
