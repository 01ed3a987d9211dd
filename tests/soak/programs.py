"""The children and loggers, as programs of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CHILD = r"""
import os, signal, sys, time
RECORD = b"%08x %010d soak-record\n"
def put(fd, data):
    while data:
        data = data[os.write(fd, data):]
def write(fd, mark, first, count, chunk):
    data = b"".join(RECORD % (mark, number) for number in range(first, first + count))
    for start in range(0, len(data), chunk):
        put(fd, data[start:start + chunk])
def background(seconds, *steps):
    if not os.fork():
        time.sleep(seconds)
        do(steps)
        os._exit(0)
def echo():
    while data := os.read(0, 65536):
        put(1, data)
def do(steps):
    for name, *args in steps:
        {"write": write, "sleep": time.sleep, "exit": os._exit, "echo": echo, "close": os.close,
         "background": background, "kill": lambda n: os.kill(os.getpid(), n)}[name](*args)
do(eval(sys.argv[1]))
"""
"""Does the steps that its argument lists."""

LOGGER = """
import os, select, signal, sys, time
where, life, stall = sys.argv[2], int(sys.argv[4]), float(sys.argv[6])
names = {3: "stdout", 4: "stderr"}
generation = 0
while True:
    try:
        os.close(os.open(f"{where}/{generation}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        break
    except FileExistsError:
        generation += 1
flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
files = {fd: os.open(f"{where}/{name}-{generation:04}", flags) for fd, name in names.items()}
os.write(5, b"r")
os.close(5)
time.sleep(stall)
poll = select.poll()
for fd in names:
    poll.register(fd, select.POLLIN)
left = set(names)
while left:
    for fd, _ in poll.poll():
        data = os.read(fd, 4096)
        if not data:
            poll.unregister(fd)
            left.discard(fd)
        while data:
            count = os.write(files[fd], data)
            data = data[count:]
            life -= count
        if life <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
"""
"""Appends what it reads to files of its own and dies after so many bytes."""


def install(directory: Path) -> tuple[list[str], str]:
    """Write both programs; how to start a child, and the logger's path."""
    child, logger = directory / "child.py", directory / "logger"
    child.write_text(CHILD, encoding="utf-8")
    logger.write_text(f"#!{sys.executable} -IS\n{LOGGER}", encoding="utf-8")
    logger.chmod(0o755)
    return [sys.executable, "-I", "-S", str(child)], str(logger)
