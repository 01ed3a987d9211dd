"""Loggers for ``binary:``, written where a test wants them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pyshimio import StdioURI

if TYPE_CHECKING:
    from pathlib import Path

PROBE = """
import json, os, sys
found = {}
for name in os.listdir("/proc/self/fd"):
    try:
        found[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass  # the listing's own
pairs = open("/proc/self/environ").read().split("\\0")[:-1]  # a Python may add to os.environ
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
with open(sys.argv[2] + ".part", "w") as file:
    json.dump({
        "fds": found, "argv": sys.argv, "cwd": os.getcwd(),
        "env": dict(pair.split("=", 1) for pair in pairs),
        "pid": os.getpid(), "group": os.getpgid(0), "session": os.getsid(0),
        "ignored": status["SigIgn"], "blocked": status["SigBlk"],
    }, file)
os.rename(sys.argv[2] + ".part", sys.argv[2])
os.write(5, b"r")
os.close(5)
while os.read(3, 65536) or os.read(4, 65536):
    pass
"""
"""Says in the file that its second argument names what it was started with."""

COLLECT = """
import os, sys, threading
def copy(number, name):
    with open(sys.argv[2] + "/" + name, "ab") as file:
        while data := os.read(number, 65536):
            file.write(data)
threads = [threading.Thread(target=copy, args=pair) for pair in ((3, "out"), (4, "err"))]
os.write(5, b"r")
os.close(5)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
open(sys.argv[2] + "/ended", "w").close()
"""
"""Appends what it reads to ``out`` and ``err`` in the directory of its second argument."""

MORTAL = """
import os, signal, sys
where, life = sys.argv[2], int(sys.argv[4])
number = 0
while True:
    try:
        file = os.open(f"{where}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        break
    except FileExistsError:
        number += 1
os.write(5, b"r")
os.close(5)
while data := os.read(3, 4096):
    os.write(file, data)
    life -= len(data)
    if life <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
"""
"""Writes stdout to the next numbered file and kills itself after so many bytes."""


def python_logger(tmp_path: Path, source: str, name: str = "logger") -> Path:
    """An executable Python program; it sees its arguments from ``sys.argv[1]`` on."""
    path = tmp_path / name
    path.write_text(f"#!{sys.executable} -IS\n{source}")
    path.chmod(0o755)
    return path


def shell_logger(tmp_path: Path, source: str, name: str = "logger") -> Path:
    """An executable shell script."""
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{source}\n")
    path.chmod(0o755)
    return path


def uri_of(path: Path, *args: tuple[str, str], scheme: str = "binary") -> str:
    """The URI of the logger at *path*."""
    return StdioURI.build(scheme, path, args)


def found(path: Path) -> Any:
    """What a :data:`PROBE` said."""
    return json.loads(path.read_text())
