"""What shims and supervisors are tested with, by us and by others.

:class:`FakeRuntime` is a runtime that needs neither root nor namespaces.
"""

from __future__ import annotations

from ._fake_runtime import FakeRuntime as FakeRuntime

__all__ = ("FakeRuntime",)
