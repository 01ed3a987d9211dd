"""A container's lines through conmon: ``python -m bench.conmon BUNDLE LOG``.

Prints the CPU seconds of the conmon that logs them, without those of the runtime it starts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pyshimio import _sys

from .party import cpu_of


def main(bundle: str, log: str) -> dict[str, float]:
    """Create the container, start it, and wait for its conmon."""
    name = f"bench-conmon-{os.getpid()}"
    runc = shutil.which("runc")
    assert runc is not None
    _sys.set_subreaper(on=True)  # it daemonizes, and then is our child
    with tempfile.TemporaryDirectory(prefix="bench-conmon-") as directory:
        base = Path(directory)
        root = f"--root={base / 'runc'}"
        command = ["conmon", "--cid", name, "--cuuid", name, "--bundle", bundle]
        command += ["--runtime", runc, "--runtime-arg", root, "--log-path", f"k8s-file:{log}"]
        command += ["--container-pidfile", str(base / "pid"), "--conmon-pidfile", str(base / "mon")]
        command += ["--exit-dir", directory, "--socket-dir-path", directory]
        try:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            monitor = int((base / "mon").read_text(encoding="ascii"))
            while not (base / "pid").exists():
                time.sleep(0.01)
            subprocess.run([runc, root, "start", name], check=True)
            os.waitid(os.P_PID, monitor, os.WEXITED | os.WNOWAIT)
            return {"cpu": cpu_of(monitor)}  # before anybody has waited for it
        finally:
            subprocess.run(
                [runc, root, "delete", "--force", name], check=False, stderr=subprocess.DEVNULL
            )


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
