"""The pytest plugin: the fixtures ``shimio`` and ``shimio_no_leaks``.

pytest loads it in every run of whoever has pyshimio installed, so it loads nothing but pytest, and
what it gives is loaded when a test asks for it.  Fixtures are synchronous, and what they give has
async methods: so they work under anyio's plugin and under pytest-asyncio, whatever its mode.
"""

from __future__ import annotations

import inspect
import sys

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from ._shimio import Shimio

__all__ = ("pytest_runtest_call", "shimio", "shimio_no_leaks")


@pytest.fixture
def shimio(request: pytest.FixtureRequest) -> Generator[Shimio]:
    """Fake runtimes, containers, loggers and clients, and faults; all is ended after the test."""
    _need_linux()
    if "shimio_no_leaks" in request.fixturenames:
        request.getfixturevalue("shimio_no_leaks")  # it looks when we have ended what there is
    from ._shimio import Shimio  # noqa: PLC0415 - see above

    with Shimio(request.getfixturevalue("tmp_path")) as given:
        yield given


@pytest.fixture
def shimio_no_leaks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[None]:
    """Fail a test that leaves a descriptor, a child, a thread, a temporary file or a task.

    What is left is named, and where it was made.  For every test of a module:
    ``pytestmark = pytest.mark.usefixtures("shimio_no_leaks")``.
    """
    _need_linux()
    from ._leaks import no_leaks  # noqa: PLC0415

    tmp_path_factory.getbasetemp()  # not in the directory that goes with the test
    for name in request.fixturenames:
        if name.endswith("_scoped_runner"):  # pytest-asyncio's loop, which may last longer than us
            request.getfixturevalue(name)
    with no_leaks():
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Watch the tasks of an async test that is to leave nothing, whoever runs it."""
    if not (isinstance(item, pytest.Function) and "shimio_no_leaks" in item.fixturenames):
        return (yield)
    # Hypothesis' @given makes an ordinary function of it, and keeps what each example runs.
    given = getattr(item.obj, "hypothesis", None)
    owner, name = (item, "obj") if given is None else (given, "inner_test")
    test = getattr(owner, name)
    if not inspect.iscoroutinefunction(test):
        return (yield)
    from ._running import without_leftover_tasks  # noqa: PLC0415

    setattr(owner, name, without_leftover_tasks(test))
    try:
        return (yield)
    finally:
        setattr(owner, name, test)  # it may be the test of others, who leave what they like


def _need_linux() -> None:
    if sys.platform != "linux":
        pytest.skip("pyshimio needs Linux")
