"""What shims, supervisors and log drivers are tested with, by us and by others.

Fakes that are real programs: :class:`FakeRuntime` needs neither root nor namespaces, a
:class:`FakeContainer` does what a script says, a :class:`FakeLogger` is good or bad at the other
end of ``binary://``, :class:`FakeFifos` are a manager's side.  :mod:`pyshimio.testing.faults` lets
everything go wrong, :mod:`pyshimio.testing.conformance` holds what claims a protocol to it,
:mod:`pyshimio.testing.strategies` is for Hypothesis.  The pytest plugin gives all of it to a test.

Nothing here is loaded before it is used: the fake runtime is started for each of its commands.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._fake_client import FakeClient as FakeClient
    from ._fake_client import FakeFifos as FakeFifos
    from ._fake_client import FakeInput as FakeInput
    from ._fake_container import FakeContainer as FakeContainer
    from ._fake_container import numbered as numbered
    from ._fake_logger import FakeLogger as FakeLogger
    from ._fake_runtime import FakeRuntime as FakeRuntime
    from ._leaks import no_leaks as no_leaks
    from ._recorder import Recorder as Recorder
    from ._shimio import Shimio as Shimio

_WHERE = {
    "FakeClient": "._fake_client",
    "FakeContainer": "._fake_container",
    "FakeFifos": "._fake_client",
    "FakeInput": "._fake_client",
    "FakeLogger": "._fake_logger",
    "FakeRuntime": "._fake_runtime",
    "Recorder": "._recorder",
    "Shimio": "._shimio",
    "no_leaks": "._leaks",
    "numbered": "._fake_container",
}

__all__ = (
    "FakeClient",
    "FakeContainer",
    "FakeFifos",
    "FakeInput",
    "FakeLogger",
    "FakeRuntime",
    "Recorder",
    "Shimio",
    "no_leaks",
    "numbered",
)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - for whoever needs it

    value = getattr(import_module(_WHERE[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
