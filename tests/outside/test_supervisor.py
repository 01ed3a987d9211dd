"""A dozen tests of a supervisor, of which none needs root, and none sleeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from supervisor import GaveUpError, Supervisor

from pyshimio.errors import LoggerError, LoggerTimeoutError
from pyshimio.testing import numbered

pytestmark = pytest.mark.usefixtures("shimio_no_leaks")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def test_nobody_is_root():
    assert os.geteuid() != 0 or "CapEff:\t0000000000000000" in Path("/proc/self/status").read_text()


async def test_a_good_program(shimio, log):
    supervisor = Supervisor(shimio.container().numbered(100_000).args, f"file://{log}")
    assert await supervisor.run() == 0
    assert supervisor.result.complete
    assert log.read_bytes() == numbered(100_000)


async def test_a_program_that_fails_twice(shimio, log, tmp_path):
    mark = tmp_path / "again"
    script = f"echo x >> {mark}; test $(wc -l < {mark}) -ge 3"
    supervisor = Supervisor(["sh", "-c", script], f"file://{log}")
    assert await supervisor.run() == 0
    assert supervisor.statuses == [1, 1, 0]


async def test_it_gives_up(shimio, log):
    supervisor = Supervisor(shimio.container().write(b"no\n").exit(3).args, f"file://{log}")
    with pytest.raises(GaveUpError, match="4 times"):
        await supervisor.run()
    assert log.read_text() == "no\n" * 4


async def test_it_stops(shimio, log):
    container = shimio.container().exit_on("SIGTERM", 5).reach("up").stay()
    supervisor = Supervisor(container.args, f"file://{log}")
    async with anyio.create_task_group() as group:
        group.start_soon(supervisor.run)
        await container.reached("up")
        supervisor.stop()
    assert supervisor.statuses == [5]
    assert container.signals == ("SIGTERM",)


async def test_a_program_that_does_not_listen(shimio, log):
    container = shimio.container().ignore("SIGTERM").reach("up").stay()
    supervisor = Supervisor(container.args, f"file://{log}", grace=0.1)
    async with anyio.create_task_group() as group:
        group.start_soon(supervisor.run)
        await container.reached("up")
        group.cancel_scope.cancel()
    assert supervisor.process.status == 128 + signal.SIGKILL


async def test_a_child_that_is_left_behind(shimio, log):
    child = shimio.container().reach("child").hold("end").reach("ended")
    container = shimio.container().write(b"early\n").fork(child).hold("leave")
    supervisor = Supervisor(container.args, f"file://{log}")
    async with anyio.create_task_group() as group:
        group.start_soon(supervisor.run)
        await child.reached("child")
        container.release("leave")
    assert supervisor.result.holders_left
    assert log.read_text() == "early\n"
    child.release("end")
    await child.reached("ended")


async def test_a_logger(shimio):
    logger = shimio.logger()
    supervisor = Supervisor(shimio.container().numbered(5000).args, logger.uri({"tag": "x"}))
    assert await supervisor.run() == 0
    assert logger.stdout == numbered(5000)
    assert logger.env["CONTAINER_ID"] == "supervised"
    logger.check()


async def test_a_logger_that_dies(shimio, capsys):
    logger = shimio.logger(dies_after=500)
    container = shimio.container().ignore("SIGPIPE").numbered(3_000_000)
    with pytest.raises(GaveUpError):
        await Supervisor(container.args, logger.uri(), restarts=0).run()
    assert "output was lost" in capsys.readouterr().err
    assert len(logger.stdout) == 500


async def test_a_logger_that_is_never_ready(shimio):
    with pytest.raises(LoggerTimeoutError):
        await Supervisor(["true"], shimio.logger(ready="never").uri()).run()


async def test_a_disk_that_is_full(shimio, log, tmp_path):
    supervisor = Supervisor(shimio.container().numbered(20_000).args, f"file://{log}")
    with shimio.faults.full_disk(tmp_path, room=4096):
        assert await supervisor.run() == 0
    assert supervisor.result.stdout.dropped == 20_000 - 4096


async def test_everything_that_can_go_wrong(shimio, log):
    async def supervise():
        await Supervisor(["true"], f"file://{log}", restarts=0).run()

    report = await shimio.faults.every_failure(supervise, allowed=(GaveUpError,), sample=1)
    assert report.calls > 10
    assert (await shimio.faults.cancel_everywhere(supervise)).suspensions > 2


def test_the_program(shimio):
    command = [sys.executable, "supervisor.py", shimio.logger(ready="exit").uri(), "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "supervisor: the logger" in done.stderr
    assert LoggerError.__name__ not in done.stderr
