"""The checks of this suite find what they look for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import anyio
import pytest
import trio

from pyshimio.testing._leaks import Child, Descriptor, Snapshot
from pyshimio.testing._running import running_loop, without_leftover_tasks

TESTS = Path(__file__).parent


def test_descriptor_left_behind() -> None:
    """An open descriptor is found, with what it stands for."""
    before = Snapshot.take()
    fd = os.open("/dev/null", os.O_RDONLY)

    left = before.left_behind(grace=0)

    os.close(fd)
    assert [Descriptor(fd, 0, 0, "/dev/null").link] == [
        thing.link for thing in left if isinstance(thing, Descriptor)
    ]
    assert before.left_behind(grace=0) == []


def test_descriptor_that_changed_hands() -> None:
    """A number that was closed and opened for something else is found too."""
    fd = os.open("/dev/null", os.O_RDONLY)
    before = Snapshot.take()
    other = os.open("/dev/zero", os.O_RDONLY)
    os.dup2(other, fd)
    os.close(other)

    left = before.left_behind(grace=0)

    os.close(fd)
    assert [str(thing) for thing in left] == [f"descriptor {fd} -> /dev/zero"]


def test_zombie_left_behind() -> None:
    """A child that nobody waited for is found, and removed."""
    before = Snapshot.take()
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    left = before.left_behind(grace=0)

    assert [str(thing) for thing in left] == [f"zombie {pid} (true)"]
    for thing in left:
        assert isinstance(thing, Child)
        thing.remove()
    assert before.left_behind(grace=0) == []


def test_live_child_left_behind() -> None:
    """A child that still runs is found, and removed."""
    before = Snapshot.take()
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})

    left = before.left_behind(grace=0)

    assert [thing.pid for thing in left if isinstance(thing, Child)] == [pid]
    for thing in left:
        assert isinstance(thing, Child)
        thing.remove()
    assert before.left_behind(grace=0) == []


def test_thread_left_behind() -> None:
    """A thread that still runs is found; one that ends meanwhile is waited for."""
    before = Snapshot.take()
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()

    assert before.left_behind(grace=0) == [thread]
    threading.Timer(0.05, end.set).start()
    assert before.left_behind() == []


def test_temporary_directory_left_behind() -> None:
    """A directory for a socket that nobody removed is found."""
    before = Snapshot.take()
    directory = tempfile.mkdtemp(prefix="pty")

    assert [str(thing) for thing in before.left_behind(grace=0)] == [f"temporary {directory}"]
    os.rmdir(directory)
    assert before.left_behind(grace=0) == []


async def test_task_left_behind() -> None:
    """A task that outlives the coroutine that started it is found, on every loop."""
    started: list[asyncio.Task[None]] = []
    scope = trio.CancelScope()

    async def forgetful() -> None:
        if running_loop() == "trio":
            trio.lowlevel.spawn_system_task(_linger, scope)
        else:
            started.append(asyncio.create_task(asyncio.sleep(60)))

    with pytest.raises(AssertionError, match=r"left behind: .*(sleep|_linger)"):
        await without_leftover_tasks(forgetful)()
    scope.cancel()
    for task in started:
        task.cancel()


async def _linger(scope: trio.CancelScope) -> None:
    with scope:
        await trio.sleep(60)


async def test_task_that_ends_in_time() -> None:
    """Tasks of a task group are not left behind."""

    async def tidy() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)

    await without_leftover_tasks(tidy)()


async def test_loops_may_use_threads() -> None:
    """A worker thread of the loop itself is nobody's leak."""
    assert await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident()


LEAKY = '''
import os
import pytest

async def test_clean() -> None:
    """Leaves nothing."""

async def test_leaky() -> None:
    """Leaves a descriptor."""
    os.open("/dev/null", os.O_RDONLY)

@pytest.mark.runtime("no-such-runtime")
def test_runtime() -> None:
    """Cannot run here."""
'''

ANYIO = ["--loops=asyncio"]
ASYNCIO = ["-p", "no:anyio", "-p", "asyncio", "-o", "asyncio_mode=auto"]
ASYNCIO += ["-o", "asyncio_default_fixture_loop_scope=function"]


@pytest.mark.slow
@pytest.mark.parametrize(
    # What CI changes has nothing to do with the plugin, and a run takes seconds.
    "plugin, ci",
    [(ANYIO, "true"), (ASYNCIO, "")],
    ids=["anyio-ci", "pytest-asyncio-here"],
)
def test_suite_fails_for_a_leak(tmp_path: Path, plugin: list[str], ci: str) -> None:
    """A leak fails its test and no other; in CI so does the lack of a runtime."""
    if plugin is ASYNCIO:
        pytest.importorskip("pytest_asyncio")
    (tmp_path / "conftest.py").write_bytes((TESTS / "conftest.py").read_bytes())
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    options = ["-c", f"{TESTS.parent}/pyproject.toml", "-p", "no:cacheprovider", *plugin]

    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *options, "."],
        cwd=tmp_path,
        env={**os.environ, "CI": ci},
        check=False,
        capture_output=True,
        text=True,
    )

    assert "left behind: descriptor" in done.stdout
    assert "-> /dev/null" in done.stdout
    expected = "2 passed, 2 errors" if ci else "2 passed, 1 skipped, 1 error"
    assert expected in done.stdout.splitlines()[-1]
