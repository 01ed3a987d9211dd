"""The pytest plugin: what it gives, under which plugins, on which systems, and at which price."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.price import milliseconds, python

if TYPE_CHECKING:
    from pyshimio.testing import Shimio

PAGE = Path(__file__).parent.parent / "docs" / "testing.md"
ANYIO = ("-p", "no:asyncio", "-o", "anyio_mode=auto")
PLUGINS = {
    "anyio": ANYIO,
    "asyncio-auto": ("-p", "no:anyio", "-o", "asyncio_mode=auto"),
    "asyncio-strict": ("-p", "no:anyio", "-o", "asyncio_mode=strict"),
}


BOTH_LOOPS = """
import pytest

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param
"""


def run_pytest(where: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with the plugins that are installed and nothing of this suite."""
    (where / "pytest.ini").write_text("[pytest]\n")
    # (Measured, each of its processes would take twice as long.)
    ours = ("PYTEST_", "COVERAGE_", "COV_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            *options,
        ],
        cwd=where,
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tests passed, when no other thing happened."""
    summary = done.stdout.splitlines()[-1] if done.stdout else done.stderr
    found = re.fullmatch(r"=* ?(\d+) passed in .*", summary)
    assert found is not None, done.stdout + done.stderr
    return int(found[1])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_recipes_run(tmp_path: Path, plugin: str) -> None:
    """Each block of the page is a module of tests, under each plugin and in each of its modes."""
    if not PAGE.exists():
        pytest.skip("needs the documentation's sources")
    if plugin != "anyio":
        pytest.importorskip("pytest_asyncio")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 10
    for number, block in enumerate(blocks):
        mark = "import pytest\npytestmark = pytest.mark.asyncio\n"
        strict = plugin == "asyncio-strict" and "async def test" in block
        text = block.replace("\n\n\n", f"\n{mark}\n\n", 1) if strict else block
        (tmp_path / f"test_recipe_{number}.py").write_text(text)
    expected = sum(
        len(re.findall(r"^(?:async )?def test_", block, re.MULTILINE)) for block in blocks
    )
    if plugin == "anyio":
        (tmp_path / "conftest.py").write_text(BOTH_LOOPS)
        expected += sum(
            len(re.findall(r"^async def test_", block, re.MULTILINE)) for block in blocks
        )
    done = run_pytest(tmp_path, *PLUGINS[plugin])
    assert passed(done) == expected


LEAKY = """
import asyncio, os, socket, subprocess, tempfile, threading
import anyio, pytest, trio
from hypothesis import HealthCheck, given, settings, strategies
from pyshimio import PipeIO
from pyshimio.testing import no_leaks

kept = []

def make():
    kept.append(os.open("/dev/null", os.O_RDONLY))

def test_descriptor(shimio_no_leaks):
    make()

def test_file(shimio_no_leaks):
    kept.append(open("/dev/zero", "rb"))

def test_socket(shimio_no_leaks):
    kept.append(socket.socket())

def test_child(shimio_no_leaks):
    kept.append(subprocess.Popen(["sleep", "60"]))

def test_temporary(shimio_no_leaks):
    tempfile.mkdtemp(prefix="leak-")

def test_thread(shimio_no_leaks):
    event = threading.Event()
    kept.append(event)
    threading.Thread(target=event.wait, daemon=True).start()

async def test_io(shimio_no_leaks):
    kept.append(PipeIO())

def test_log(shimio_no_leaks, tmp_path):
    from pyshimio.logging import LogFile
    kept.append(LogFile(str(tmp_path / "log")))
    kept[-1].open()

async def test_task(shimio_no_leaks):
    kept.append(asyncio.create_task(asyncio.sleep(60)))

@given(strategies.just(60))
@settings(suppress_health_check=list(HealthCheck))
async def test_given(shimio_no_leaks, seconds):
    kept.append(asyncio.create_task(asyncio.sleep(seconds)))

async def test_nursery(shimio_no_leaks):
    trio.lowlevel.spawn_system_task(trio.sleep, 60)

@pytest.mark.usefixtures("shimio_no_leaks")
class TestTidy:
    def test_sync(self):
        with no_leaks():
            with open("/dev/null"):
                pass

    async def test_async(self):
        async with PipeIO() as io:
            await (await io.spawn(["true"])).wait()
"""


@pytest.mark.slow
def test_leaks_are_named(tmp_path: Path) -> None:
    """What is left, of which kind, and where it was made: by whom of us, and for whom."""
    (tmp_path / "test_leaky.py").write_text(LEAKY.lstrip())
    chosen = "test_nursery and trio or not test_nursery and not trio"
    done = run_pytest(tmp_path, *ANYIO, "-W", "ignore", "-k", chosen)
    told = {
        "descriptor": r"descriptor \d+ -> /dev/null, made at test_leaky.py:10 in make",
        "file": r"descriptor \d+ -> /dev/zero, made at test_leaky.py:16 in test_file",
        "socket": r"descriptor \d+ -> socket:\[\d+\], made at test_leaky.py:19 in test_socket",
        "child": r"live child \(state \w\) \d+ \(\w+\), made at test_leaky.py:22 in test_child",
        "temporary": r"temporary /tmp/.*/leak-\w+, made at test_leaky.py:25 in test_temporary",
        "thread": r"Thread\(.*\)>, made at test_leaky.py:30 in test_thread",
        "io": r"pipe:\[\d+\], made at .*io/pipe.py:\d+ in .*, for test_leaky.py:33 in test_io",
        "log": r"/log, made at .*_log_file.py:\d+ in .*, for test_leaky.py:38 in test_log",
        "task": r"left behind: <Task pending .*sleep.*, made at test_leaky.py:41 in test_task",
        "given": r"left behind: <Task pending .*sleep.*, made at test_leaky.py:46 in test_given",
        "nursery": r"left behind: <Task .*sleep.*, made at test_leaky.py:49 in test_nursery",
    }
    for name, pattern in told.items():
        assert re.search(pattern, done.stdout), f"{name}:\n{done.stdout}"
    # (The body of a test that leaves something passes: but for a task, that is seen afterwards.)
    assert "3 failed, 10 passed, 5 deselected, 8 errors" in done.stdout.splitlines()[-1]


def test_attributes(shimio: Shimio) -> None:
    """One fixture, of which each attribute is made when it is asked for."""
    assert repr(shimio) == "<Shimio with nothing>"
    assert shimio.runtime is shimio.runtime
    assert shimio.logger().directory != shimio.logger().directory
    assert shimio.recorder().data == b""
    assert repr(shimio) == "<Shimio with 1 runtime, 2 logger>"


LOADED = """
import sys, pytest
before = set(sys.modules)
import pyshimio.testing.plugin
print(sorted(set(sys.modules) - before))
"""


def test_it_costs_nothing() -> None:
    """Beside pytest it loads three modules, which have next to nothing in them."""
    expected = "['pyshimio', 'pyshimio.testing', 'pyshimio.testing.plugin']"
    assert python(LOADED).strip() == expected
    price = milliseconds("pyshimio.testing.plugin", before="import pytest")
    assert price < milliseconds("pytest") / 10


ELSEWHERE = """
import sys

def pytest_configure():
    sys.platform = "darwin"
"""
ASKING = """
def test_shimio(shimio):
    raise AssertionError

def test_no_leaks(shimio_no_leaks):
    raise AssertionError
"""
LASTING = """
import asyncio, pytest

pytestmark = pytest.mark.usefixtures("shimio_no_leaks")

async def test_first():
    await asyncio.to_thread(int)

async def test_second():
    await asyncio.sleep(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_loops_that_last(tmp_path: Path, scope: str) -> None:
    """A loop that lasts longer than a test is nobody's leak, also beside anyio's plugin."""
    pytest.importorskip("pytest_asyncio")
    (tmp_path / "test_lasting.py").write_text(LASTING)
    options = (f"asyncio_default_{kind}_loop_scope={scope}" for kind in ("test", "fixture"))
    done = run_pytest(
        tmp_path, "-o", "asyncio_mode=auto", *(part for o in options for part in ("-o", o))
    )
    assert passed(done) == 2


def test_it_is_silent_elsewhere(tmp_path: Path) -> None:
    """On another system it is loaded without a word, and skips what asks for it."""
    (tmp_path / "conftest.py").write_text(ELSEWHERE)
    (tmp_path / "test_asking.py").write_text(ASKING)
    done = run_pytest(tmp_path, "-p", "no:anyio", "-rs")
    assert done.stdout.count("SKIPPED [1] test_asking.py") == 2, done.stdout
    assert "AssertionError" not in done.stdout
