"""The kernel refuses, and not our own module: the same faults, injected by a tracer."""

from __future__ import annotations

import errno
import json
import select
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

LINES = b"".join(b"%07d\n" % number for number in range(3000))  # 24,000 bytes
PROGRAM = str(Path(__file__).parent / "support" / "traced.py")
GUARD = 10.0
MOST = 60

pytestmark = [pytest.mark.runtime("strace"), pytest.mark.slow, pytest.mark.thorough]

SCENES = [
    # What is injected, whether threads are traced too, and how many calls there are at least.
    # (A thread's write may be an eventfd's, which the kernel never refuses; so threads are
    # not traced where writes fail.)
    ("openat:error=EMFILE", True, 10),
    ("openat:error=ENOMEM", False, 5),
    ("pipe2:error=EMFILE", False, 2),
    ("pidfd_open:error=EMFILE", False, 1),
    ("eventfd2:error=EMFILE", False, 1),
    ("epoll_create1:error=ENFILE", False, 1),
    ("epoll_ctl:error=ENOMEM", False, 2),
    ("epoll_ctl:error=ENOSPC", False, 2),
    ("clone3:error=EAGAIN", False, 2),
    ("write:error=EINTR", False, 2),
    ("write:error=ENOSPC", False, 2),
    ("write:error=EPIPE", False, 2),
    ("readv:error=EIO", True, 1),
    ("fcntl:error=EPERM", False, 4),
    ("close:error=EIO", True, 8),
    ("close:error=EINTR", False, 8),
]


class Traced:
    """The program, and a tracer for each round."""

    def __init__(self, loop: str, directory: Path) -> None:
        self.log = directory / "trace"
        self._args = [sys.executable, PROGRAM, loop, str(directory)]
        self.start()

    def start(self) -> None:
        """Start it, and see that it works."""
        self.process = subprocess.Popen(
            self._args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        result = self.round()
        assert result["complete"], result
        assert (result["bytes"], result["crc"]) == (len(LINES), zlib.crc32(LINES))

    def round(self) -> dict[str, Any]:
        """One round."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        line = b""
        while not line.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], GUARD)[0], "the program hangs"
            chunk = self.process.stdout.read(65536)
            assert chunk, f"the program died: {self.process.wait(GUARD)}"
            line += chunk
        result: dict[str, Any] = json.loads(line)
        return result

    def injected(self, what: str, *, threads: bool) -> tuple[str | None, dict[str, Any]]:
        """One round under ``-e inject=``; the call that failed, if it was reached."""
        pid = self.process.pid
        follow = ["-f"] if threads else []
        syscall = what.partition(":")[0]
        self.log.unlink(missing_ok=True)
        tracer = subprocess.Popen(
            [
                *("strace", *follow, "-qq", "-p", str(pid), "-o", str(self.log)),
                *("-e", f"trace={syscall}", "-e", f"inject={what}"),
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + GUARD
            while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{pid}/status").read_text():
                assert time.monotonic() < deadline, "strace does not attach"
                assert tracer.poll() is None, "strace cannot attach"
                time.sleep(0.002)
            result = self.round()
        finally:
            tracer.terminate()
            tracer.wait(GUARD)
        injected = [line for line in self.log.read_text().splitlines() if "(INJECTED)" in line]
        return injected[0] if injected else None, result

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.kill()
        self.process.wait(GUARD)
        self.process.stdout.close()


@pytest.fixture
def traced(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Traced]:
    """The program on a loop."""
    (tmp_path / "source").write_bytes(LINES)
    program = Traced(request.param, tmp_path)
    try:
        yield program
    finally:
        program.close()


# libuv aborts when epoll_ctl refuses it anything, and trio forgets what it waited for.
@pytest.mark.parametrize(
    "traced, what, threads, floor",
    [
        pytest.param(loop, *scene, id=f"{loop}-{scene[0]}")
        for loop in ("asyncio", "uvloop", "trio")
        for scene in SCENES
        if loop == "asyncio" or not scene[0].startswith("epoll_ctl")
    ],
    indirect=["traced"],
)
def test_injected_by_a_tracer(traced: Traced, what: str, threads: bool, floor: int) -> None:
    """For every k: all bytes, or an error that says why not; and nothing is left behind."""
    calls = _every(traced, what, threads=threads)
    print(f"{what}: {calls} calls")
    assert calls >= floor


def _every(traced: Traced, what: str, *, threads: bool) -> int:
    code = getattr(errno, what.rpartition("=")[2])
    for k in range(1, MOST):
        call, result = traced.injected(f"{what}:when={k}", threads=threads)
        if call is not None and ("EPOLL_CTL_DEL" in call or "EPOLL_CTL_MOD" in call):
            # The kernel never refuses these; who is refused all the same may have lost track.
            traced.close()
            traced.start()
            continue
        where = f"{call}: {result}"
        assert not result["stray"], where
        assert not result["children"], where
        # The tracer skips a close that it lets fail, so one descriptor stays open for that.
        assert len(result["left"]) <= what.startswith("close"), where
        if result["error"] is None:
            whole = result["crc"] == result["logged"] == zlib.crc32(LINES)
            # A tracer that follows threads follows the child, too, and its calls fail as well.
            assert whole or not result["complete"] or result["status"], where
        else:
            ours = any(kind.startswith(("pyshimio.", "anyio.")) for kind in result["kinds"])
            assert ours or result["errno"] == code, where
        if call is None:
            return k - 1
    raise AssertionError(f"{what} is reached more than {MOST} times")
