"""Every test, on every loop, leaving nothing behind.

An async test is a plain ``async def test_…``: anyio's plugin runs it on asyncio, on
asyncio with uvloop and on trio, and ``nox -s coverage`` runs the same files a second time
under pytest-asyncio, where ``anyio_backend`` does not exist.  So no test asks for it
(:func:`pyshimio.testing._running.running_loop` says where a test is), and no fixture is async.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import settings

from support.loops import LOOPS, warm_up

if TYPE_CHECKING:
    from collections.abc import Generator

collect_ignore = ["outside"]  # somebody else's, see test_outside.py

CI = bool(os.environ.get("CI"))
RUNTIME_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"

# Machines differ and are busy: how long an example took says nothing.  In CI the examples
# are the same each time, so that a failure there is one of the change that is tested.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if CI else "default")


# -- which loops, which plugin ----------------------------------------------------------


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options of this suite."""
    if not pluginmanager.has_plugin("anyio"):
        # Under pytest-asyncio nobody owns this key, and --strict-config would refuse it.
        parser.addini("anyio_mode", "the mode of a plugin that is not loaded")
    group = parser.getgroup("pyshimio")
    group.addoption(
        "--loops",
        default=",".join(LOOPS),
        help="comma-separated event loops to run on under anyio's plugin (default: %(default)s)",
    )
    group.addoption(
        "--list-functions",
        metavar="FILE",
        help="write the names of the selected test functions into FILE, one a line",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what anyio's plugin runs on each loop that was asked for."""
    if "anyio_backend" in metafunc.fixturenames:
        loops = metafunc.config.getoption("loops").split(",")
        metafunc.parametrize("anyio_backend", loops, indirect=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Tell anyio's plugin which loop to run the test on."""
    return LOOPS[request.param]


def pytest_configure() -> None:
    """Undo what ``nohup``, a shell's ``&`` or a service did: our children would inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """List the functions; noxfile.py compares what both plugins were given to run.

    Of the workers of pytest-xdist, which all collect the same, one writes.
    """
    target: str | None = config.getoption("list_functions")
    if target is not None and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        names = sorted({item.nodeid.partition("[")[0] for item in items})
        with open(target, "w", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in names)


# -- what a test needs, what it leaves --------------------------------------------------


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here, by the name of what is missing."""
    if _needs_root(item) and os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [name for name in _programs(item) if shutil.which(name, path=RUNTIME_PATH) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test of a real runtime into a failed one in CI.

    crun refuses hosts with hybrid cgroups; a test that needs crun alone may be skipped.
    """
    report = yield
    if report.skipped and CI and not hasattr(report, "wasxfail"):
        programs = _programs(item)
        if _needs_root(item) and programs != {"crun"}:
            report.outcome = "failed"
            report.longrepr = f"must not be skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _settled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have what lasts as long as the process made before the first look at it."""
    tmp_path_factory.getbasetemp()  # stays where it can be looked at afterwards
    warm_up()
    # The heap of pytest itself is not looked through again after each test.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_left_behind(_settled: None, shimio_no_leaks: None) -> None:
    """Hold every test to it.

    The loop of an async test is made and closed inside (anyio) or lasts longer (pytest-asyncio),
    so neither counts.
    """


def _needs_root(item: pytest.Item) -> bool:
    return any(item.iter_markers("root")) or any(item.iter_markers("runtime"))


def _programs(item: pytest.Item) -> set[str]:
    return {cast("str", program) for mark in item.iter_markers("runtime") for program in mark.args}
