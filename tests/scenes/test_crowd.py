"""As many streams as make the kernel stingy: pipes of two pages for an unprivileged user."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile

import anyio
import pytest

PROGRAM = r"""
import fcntl, json, os, resource, sys
import anyio, pyshimio, pyshimio._filepool, pyshimio._filepump, pyshimio._spawn
from anyio._backends import _asyncio, _trio  # no longer to be read as another user
from pyshimio import Command, PipeIO, Stdio, create_io
import uvloop

where, loop, streams, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), 20_000
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)

def text(number):
    return (b"%07d\n" % number) * (size // 8)

class Quiet(Exception):
    pass

async def main():
    smallest, exact, complete, beats, longest = 1 << 30, 0, 0, 0, 0.0
    over = False

    async def beat():
        nonlocal beats, longest
        while not over:
            before = anyio.current_time()
            await anyio.sleep(0.01)
            longest = max(longest, anyio.current_time() - before)
            beats += 1

    # Each child writes both of its streams at once, and more than two pages of each.
    program = "yes %07d | head -c {0} & yes %07d | head -c {0} >&2; wait".format(size)
    ios = []
    for number in range(0, streams, 2):
        names = [f"file://{where}/{number + one}" for one in (0, 1)]
        ios.append(await create_io(Stdio(stdout=names[0], stderr=names[1])))
        smallest = min(smallest, *(fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
                                   for fd in list(ios[-1].child_fds().values())[1:]))
    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        for number, io in enumerate(ios):
            await io.spawn(["sh", "-c", program % (2 * number, 2 * number + 1)])
            await anyio.sleep(0)
        for io in ios:
            complete += (await io.drain(linger=30)).complete
            await io.aclose()
        over = True
    for number in range(streams):
        with open(f"{where}/{number}", "rb") as file:
            exact += file.read() == text(number)
    print(json.dumps({"uid": os.getuid(), "smallest": smallest, "exact": exact,
                      "complete": complete, "beats": beats, "longest": longest}))

options = {"use_uvloop": loop == "uvloop"} if loop != "trio" else {}
anyio.run(main, backend="trio" if loop == "trio" else "asyncio", backend_options=options)
"""
STREAMS = 1100
DESCRIPTORS = 4


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(180)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_more_streams_than_full_pipes(loop: str) -> None:
    """1,100 streams of one unprivileged user are exact, though the last have pipes of 8 KiB.

    The loop goes on meanwhile: its other tasks get their turns.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard >= STREAMS * DESCRIPTORS, "RLIMIT_NOFILE is too low for this test"

    async def main() -> None:
        # Not below pytest's directory, into which nobody else may look.
        with tempfile.TemporaryDirectory() as where, anyio.fail_after(170):
            os.chmod(where, 0o777)
            done = await anyio.run_process(
                [sys.executable, "-c", PROGRAM, where, loop, str(STREAMS)], check=False
            )
        assert (done.returncode, done.stderr) == (0, b"")
        found = json.loads(done.stdout)
        assert found["uid"] == 65534
        assert found["exact"] == STREAMS
        assert found["complete"] == STREAMS // 2
        assert found["beats"] > 20
        assert found["longest"] < 10
        with open("/proc/sys/fs/pipe-user-pages-soft") as file:
            if 0 < int(file.read()) <= 16384:
                assert found["smallest"] == 8192

    anyio.run(main)
