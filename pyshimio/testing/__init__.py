"""What shims and supervisors are tested with, by us and by others.

:class:`FakeRuntime` is a runtime that needs neither root nor namespaces.  Nothing here is loaded
before it is used: the fake runtime is started for each of its commands.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._fake_runtime import FakeRuntime as FakeRuntime

__all__ = ("FakeRuntime",)


def __getattr__(name: str) -> object:
    if name != "FakeRuntime":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._fake_runtime import FakeRuntime  # noqa: PLC0415 - for whoever needs it

    globals()[name] = FakeRuntime
    return FakeRuntime


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
