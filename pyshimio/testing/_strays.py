"""Exceptions that were raised where nobody could catch them."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ._running import running_loop

if TYPE_CHECKING:
    from collections.abc import Generator

LOGGERS = ("pyshimio", "asyncio", "trio")


@contextmanager
def strays() -> Generator[list[str]]:
    """Collect them: the loop's exception handler, errors that are logged, unraisable ones."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            found.append(f"{record.getMessage()} ({error!r})")

    def on_loop(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        found.append(f"{context.get('message')} ({context.get('exception')!r})")

    def on_unraisable(info: sys.UnraisableHookArgs) -> None:
        found.append(f"{info.err_msg or 'unraisable'}: {info.exc_value!r} in {info.object!r}")

    loop = None if running_loop() == "trio" else asyncio.get_running_loop()
    handler = Handler(logging.ERROR)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    handlers = None if loop is None else loop.get_exception_handler()
    hook = sys.unraisablehook
    for logger in loggers:
        logger.addHandler(handler)
    if loop is not None:
        loop.set_exception_handler(on_loop)
    sys.unraisablehook = on_unraisable
    try:
        yield found
    finally:
        sys.unraisablehook = hook
        if loop is not None:
            loop.set_exception_handler(handlers)
        for logger in loggers:
            logger.removeHandler(handler)
