"""Logging binaries: many lines into json-file and CRI logs, and how soon one is ready."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from support.log_binary import LogBinary

from .bundle import make_bundle, make_rootfs
from .rounds import Goal, Row
from .seeking import write
from .stage import TIMEOUT, answer, pinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rounds import Sample
    from .stage import Stage

MIB = 1 << 20
SIZE = 256 * MIB
GIB = SIZE / (1 << 30)
KINDS = ("plain", "mix")
LINE = 84
"""Bytes of a plain line, with its newline."""
OURS = (sys.executable, "-c", "from pyshimio.logging._main import main; main()")
BARE = ("/usr/bin/python3", "-I", "-S", "-c", "pass")
STARTS = 20


def json_lines(stage: Stage) -> Row:
    """json-file beside nerdctl's loop."""
    return _row(stage, "jsonlog", "json-file", {"plain": 0.15, "mix": 0.5})


def cri_lines(stage: Stage) -> Row:
    """CRI beside containerd's algorithm, and beside conmon."""
    return _row(stage, "crilog", "cri", {"plain": 0.2, "mix": 0.2})


def _row(stage: Stage, name: str, form: str, limits: dict[str, float]) -> Row:
    parties = {}
    goals: list[Goal] = []
    for kind in KINDS:
        source = _source(stage, form, kind)
        log = stage.path(f"{form}.log")
        ours = (*OURS, "driver", form, "log-path", log)
        parties[kind] = partial(_logged, stage, source, log, ours)
        if stage.peer is not None:
            go = (stage.peer, "-log", form, log)
            parties[f"go {kind}"] = partial(_logged, stage, source, log, go)
            goals.append(Goal("cpu s/GiB", kind, f"go {kind}", limits[kind]))
        if form == "cri" and shutil.which("conmon"):
            parties[f"conmon {kind}"] = partial(_conmon, stage, source, kind)
            goals.append(Goal("cpu s/GiB", kind, f"conmon {kind}", 1.0))
        goals.append(Goal("peak MiB", kind, None, 20.0))
    return Row(
        name,
        f"256 MiB of lines into a {form} log: plain ones of 84 bytes, and a mix",
        parties,
        tuple(goals),
    )


def _source(stage: Stage, form: str, kind: str) -> str:
    """A file of lines, the same for all parties."""
    path = stage.path(f"{form}-{kind}")
    if not os.path.exists(path):
        lines = list(_lines(form, kind))
        block = b"".join(lines)
        with open(path, "wb") as file:
            file.writelines(block for _ in range(SIZE // len(block) + 1))
            file.truncate(SIZE)
    return path


def _lines(form: str, kind: str) -> list[bytes]:
    chance = random.Random(5)
    found: list[bytes] = []
    for number in range(20_000):
        text = bytearray(f"{number:08} the quick brown fox jumps over the lazy dog ".encode())
        text += bytes(chance.choice(b"abcdefghijklmnop ") for _ in range(LINE - 1 - len(text)))
        if kind == "mix":
            dice = chance.random()
            if dice < 0.01:
                text[40:42] = b"\xff\xfe"
            elif dice < 0.11:
                text[40:44] = chance.choice([b"\ta\tb", b"<a> ", "äö".encode()])
            if form == "cri" and dice > 0.95:
                text += b"\r"
            if form == "cri" and number % 5000 == 0:
                text *= 300  # longer than the cap
        found.append(bytes(text) + b"\n")
    return found


def _logged(stage: Stage, source: str, log: str, command: Sequence[str]) -> Sample:
    """One logger that gets the whole file; its CPU is known when it has been waited for."""
    Path(log).unlink(missing_ok=True)
    with _logger(stage, command) as logger:
        assert logger.ready() == b"\0"
        began = time.perf_counter()
        with open(source, "rb") as lines:
            feeder = pinned(stage.other_core, ["dd", "bs=64k", "status=none"])
            subprocess.run(feeder, check=True, stdin=lines, stdout=logger.stdout, timeout=TIMEOUT)
        peak = logger.peak()
        logger.close()
        assert logger.wait() == 0
        seconds = time.perf_counter() - began
    assert os.path.getsize(log) > SIZE
    assert logger.usage is not None
    cpu = logger.usage.ru_utime + logger.usage.ru_stime
    return {"cpu s/GiB": cpu / GIB, "GiB/s": GIB / seconds, "peak MiB": peak}


def _logger(stage: Stage, command: Sequence[str]) -> LogBinary:
    return LogBinary(pinned(stage.pump_core, command), (), Path(stage.path("said")))


def _conmon(stage: Stage, source: str, kind: str) -> Sample:
    """The same lines out of a container, whose core is the other one."""
    copy = make_rootfs(stage) / kind
    if not copy.exists():
        os.link(source, copy)
    cat = ["/bin/taskset", f"{1 << stage.other_core:x}", "/bin/cat", f"/{kind}"]
    log = stage.path("conmon.log")
    Path(log).unlink(missing_ok=True)
    cpu = answer(stage.ours("conmon", make_bundle(stage, kind, cat), log))["cpu"]
    assert os.path.getsize(log) > SIZE
    return {"cpu s/GiB": cpu / GIB}


def starts(stage: Stage) -> Row:
    """From the start of a logger to its byte, beside the barest Python."""
    script = Path(sys.executable).with_name("pyshimio-log")
    log = stage.path("start.log")
    command = (str(script), "driver", "json-file", "log-path", log)
    return Row(
        "logstart",
        f"seconds from the start of pyshimio-log to its ready byte, mean of {STARTS}",
        {
            "pyshimio-log": partial(_ready, stage, command),
            "bare python": partial(_bare, stage),
        },
        (Goal("seconds", "pyshimio-log", "bare python", 4.0),),
    )


def _ready(stage: Stage, command: Sequence[str]) -> Sample:
    total = 0.0
    for _ in range(STARTS):
        began = time.perf_counter()
        with _logger(stage, command) as logger:
            logger.ready()
            total += time.perf_counter() - began
            logger.close()
            logger.wait()
    return {"seconds": total / STARTS}


def _bare(stage: Stage) -> Sample:
    total = 0.0
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run(pinned(stage.pump_core, BARE), check=True)
        total += time.perf_counter() - began
    return {"seconds": total / STARTS}


def rotation(stage: Stage) -> Row:
    """Rotation every 10 MiB, compressed, beside none."""
    parties = {kind: partial(_rotating, stage, kind) for kind in ("plain", "rotated")}
    return Row(
        "rotation",
        "json-file rotated every 10 MiB and compressed: CPU of the writing thread, and the longest"
        " write with 20 MiB/s offered",
        parties,
        (Goal("cpu s/GiB", "rotated", "plain", 1.1), Goal("longest s", "rotated", None, 0.05)),
    )


def _rotating(stage: Stage, kind: str) -> Sample:
    log = stage.path("rotating.log")
    fast, paced = (answer(stage.ours("rotating", kind, log, pace)) for pace in ("0", "20"))
    return {"cpu s/GiB": fast["cpu"], "longest s": paced["longest"]}


def seeking(stage: Stage) -> Row:
    """The last lines of 5 GB."""
    log = str(Path(tempfile.gettempdir()) / f"bench-{os.getpid()}.log")
    write(log, 5 * 10**9)
    atexit.register(os.unlink, log)
    return Row(
        "logseek",
        "bytes read of a 5 GB CRI log for its last ten lines, of 64 KiB * log2(size) + output",
        {what: partial(_seek, stage, log, what) for what in ("tail", "since")},
        tuple(Goal("of allowed", what, None, 1.0) for what in ("tail", "since")),
    )


def _seek(stage: Stage, log: str, what: str) -> Sample:
    return answer(stage.ours("seeking", log, what))
