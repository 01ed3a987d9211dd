"""What a suite tests is made anew for each of its tests."""

from __future__ import annotations

import inspect
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ("Make", "is_open", "made", "promise")

T = TypeVar("T")
Make: TypeAlias = "Callable[[], T | Awaitable[T] | AbstractAsyncContextManager[T]]"
"""Gives one, or an awaitable of one, or an async context manager with one."""


@asynccontextmanager
async def made(make: Callable[[], Any], is_one: Callable[[Any], bool]) -> AsyncGenerator[Any]:
    """One of them, and the end of whatever *make* has put around it."""
    given = make()
    if inspect.isawaitable(given):
        given = await given
    if is_one(given):
        yield given
        return
    assert hasattr(given, "__aenter__"), f"{make!r} gave {given!r}, which is not what is tested"
    async with given as one:
        assert is_one(one), f"{make!r} gave {one!r}, which does not satisfy the protocol"
        yield one


def is_open(fd: int) -> bool:
    """Whether the number stands for something."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def promise(holds: object, what: str) -> None:
    """Assert it, in words that need no traceback (and with ``python -O``, too)."""
    if not holds:
        raise AssertionError(what)
