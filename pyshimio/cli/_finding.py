"""What ``pyshimio doctor`` finds: one thing, whether it works, and what to do if not."""

from __future__ import annotations

import errno
import os
from typing import Any, Literal, TypeAlias

import attrs

__all__ = ("Finding", "Verdict", "failure", "reason")

Verdict: TypeAlias = Literal["ok", "warn", "fail"]


@attrs.frozen(kw_only=True)
class Finding:
    """One line of the report."""

    name: str
    verdict: Verdict
    detail: str
    """What there is, or what is wrong."""
    advice: str = ""
    """What to do about it; empty when nothing is to be done."""
    facts: dict[str, Any] = attrs.field(factory=dict[str, Any])
    """The same in figures, for ``--json``."""

    def as_line(self) -> str:
        """The line without its verdict."""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.name:<24} {self.detail}{advice}"


def failure(name: str, error: Exception, advice: str) -> Finding:
    """*name* does not work because of *error*."""
    code = getattr(error, "errno", None)
    if code == errno.EMFILE:
        advice = "raise the limit of open files (ulimit -n, LimitNOFILE= of the service)"
    return Finding(name=name, verdict="fail", detail=reason(error), advice=advice)


def reason(error: Exception) -> str:
    """An error in words, with the kernel's name for it where it has one."""
    code = getattr(error, "errno", None)
    if type(error).__module__ == "builtins" and code is not None:
        where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return f"{os.strerror(code)} ({errno.errorcode.get(code, code)}){where}"
    return str(error) or type(error).__name__
