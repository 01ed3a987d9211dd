"""The program of a FakeLogger, which is copied beside its plan (``plan.json``).

It is run by itself (``python -IS``), so it loads nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

STREAMS = {3: "stdout", 4: "stderr"}
READY = 5


class _Logger:
    """One start of it, with a directory of its own."""

    def __init__(self, plan: dict[str, Any], here: str) -> None:
        self._plan = plan
        number = 1
        while True:
            self._where = f"{here}/start-{number}"
            try:
                os.mkdir(self._where)
                break
            except FileExistsError:
                number += 1
        self._open = dict(STREAMS)

    def run(self) -> int:
        self._check()
        self._write("about.json", json.dumps(_about()))
        for name in ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"):
            signal.signal(signal.Signals[name], self._signalled)
        if not self._become_ready():
            return int(self._plan["status"]) or 1
        self._copy()
        self._write("end", "eof")
        if not self._plan["ends"]:
            while True:
                signal.pause()
        return int(self._plan["status"])

    def _become_ready(self) -> bool:
        how = self._plan["ready"]
        if how == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exit":
            return False
        while how == "never":
            signal.pause()
        if how in {"byte", "keep"}:
            os.write(READY, b"r")
        if how != "keep":
            os.close(READY)
        self._write("ready", how)
        return True

    def _copy(self) -> None:
        files = {
            fd: os.open(f"{self._where}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for fd, name in STREAMS.items()
        }
        dies, stalls = self._plan["dies_after"], self._plan["stalls_after"]
        limit = min(one for one in (dies, stalls, 1 << 62) if one is not None)
        taken = 0
        poller = select.poll()
        for fd in self._open:
            poller.register(fd, select.POLLIN)
        while self._open:
            if taken >= limit:
                self._write("end", "died" if dies == limit else "stalled")
                if dies == limit:
                    os.kill(os.getpid(), signal.SIGKILL)
                while True:
                    signal.pause()
            for fd, _ in poller.poll():
                if taken >= limit:
                    break
                data = os.read(fd, min(65536, limit - taken))
                taken += len(data)
                os.write(files[fd], data)
                if not data:
                    poller.unregister(fd)
                    del self._open[fd]

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._write("signals", f"{name}\n")
        if name == "SIGTERM" and self._open:
            self.wrong(f"SIGTERM before the end of {' and '.join(self._open.values())}")
        if name not in self._plan["ignores"]:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _check(self) -> None:
        """What a shim owes to a logger (containerd's and nerdctl's contract)."""
        found: dict[int, os.stat_result] = {}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the listing's own
                found[int(name)] = os.fstat(int(name))
        for fd in range(6):
            if fd not in found:
                self.wrong(f"descriptor {fd} is not there")
        for fd in sorted(found.keys() - set(range(6))):
            self.wrong(f"descriptor {fd} is none of ours: {os.readlink(f'/proc/self/fd/{fd}')}")
        for fd, mode, word in (
            (3, os.O_RDONLY, "reads"),
            (4, os.O_RDONLY, "reads"),
            (5, 1, "writes"),
        ):
            if fd not in found:
                continue
            flags = _flags(fd)
            if not stat.S_ISFIFO(found[fd].st_mode) or flags & os.O_ACCMODE != mode:
                self.wrong(f"descriptor {fd} is no pipe that one {word}")
            if flags & os.O_NONBLOCK:
                self.wrong(f"descriptor {fd} does not block")
        for name in ("CONTAINER_ID", "CONTAINER_NAMESPACE"):
            if not os.environ.get(name):
                self.wrong(f"{name} is not in the environment")
        if len(sys.argv) % 2 == 0:
            self.wrong(f"its arguments are no pairs: {sys.argv[1:]}")
        blocked, ignored = _signal_masks()
        if blocked:
            self.wrong(f"signals are blocked: {blocked:#x}")
        if ignored & 1 << signal.SIGTERM - 1:
            self.wrong("SIGTERM is ignored")

    def wrong(self, what: str) -> None:
        self._write("wrong", f"{what}\n")

    def _write(self, name: str, text: str) -> None:
        fd = os.open(f"{self._where}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, text.encode())
        os.close(fd)


def _about() -> dict[str, object]:
    # (What a shell has added, where one has started us.)
    shells = {f"PWD={os.getcwd()}", f"_={sys.executable}", "OLDPWD"}
    with open("/proc/self/environ", "rb") as file:  # a Python may add to os.environ
        pairs = os.fsdecode(file.read()).split("\0")[:-1]
    with open("/proc/self/stat", "rb") as file:
        start = int(file.read().rpartition(b")")[2].split()[19])
    return {
        "args": sys.argv[1:],
        "env": {
            name: value
            for name, _, value in (pair.partition("=") for pair in pairs if pair not in shells)
        },
        "start": start,
        "cwd": os.getcwd(),
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "session": os.getsid(0),
    }


def _flags(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith("flags:")]
    return int(line.split()[1], 8)


def _signal_masks() -> tuple[int, int]:
    with open("/proc/self/status", encoding="utf-8") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    return int(status["SigBlk"], 16), int(status["SigIgn"], 16)


def _main() -> int:
    here = os.path.dirname(sys.argv[0])
    with open(f"{here}/plan.json", encoding="utf-8") as file:
        plan = json.load(file)
    logger = _Logger(plan, here)
    try:
        return logger.run()
    except Exception as error:
        logger.wrong(f"the fake logger itself has failed: {error!r}")
        return 1


if __name__ == "__main__":
    sys.exit(_main())
