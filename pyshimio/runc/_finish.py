"""What has to be brought to its end, however often its caller is cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from anyio import CancelScope

from .._events import logger
from .._poller import on_trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("finish",)

T = TypeVar("T")


async def finish(step: Callable[[], Awaitable[T]]) -> T:
    """Run *step* to its end, and raise a cancellation that came meanwhile after it.

    *step* sees no cancellation, so it has to have a deadline of its own.  A shielded scope alone
    does not stop ``task.cancel()``.
    """
    if on_trio():
        result: T | None = None
        with CancelScope(shield=True):
            result = await step()
        return cast("T", result)
    import asyncio  # noqa: PLC0415 - not loaded on trio

    task = asyncio.ensure_future(_as_coroutine(step))
    cancelled: asyncio.CancelledError | None = None
    with CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.warning("%s", failure)  # the cancellation is what the caller hears of
        raise cancelled
    return task.result()


async def _as_coroutine(step: Callable[[], Awaitable[T]]) -> T:
    return await step()
