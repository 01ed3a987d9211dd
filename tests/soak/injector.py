"""Faults at random, through the one module that calls the kernel."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyshimio import _sys

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Generator

OPENING = ("open", "reopen", "pipe", "dup", "epoll_create", "eventfd", "pidfd_open", "openpty")
"""Calls that make descriptors, and fail with EMFILE or ENFILE."""
MOVING = ("write", "writev")
"""Calls that may come back short; a pipe that is read or spliced never does unless it is empty."""


class Injector:
    """Makes calls go wrong, some in a thousand.

    Args:
        rng: Says which.
        opening: How many of a thousand calls that make descriptors fail.
        short: How many of a thousand calls that move bytes come back short.
        full: How many of a thousand writes to regular files find no room.
    """

    def __init__(self, rng: random.Random, *, opening: int, short: int, full: int) -> None:
        self.done: Counter[str] = Counter()
        self._rng = rng
        self._opening, self._short, self._full = opening, short, full
        self._lock = threading.Lock()

    @contextmanager
    def active(self) -> Generator[None]:
        """Faults happen meanwhile."""
        real = {name: getattr(_sys, name) for name in (*OPENING, *MOVING)}
        for name, function in real.items():
            setattr(_sys, name, self._replacement(name, function))
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(_sys, name, function)

    def _replacement(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def opening(*args: Any) -> Any:
            if self._happens(self._opening, name):
                code = errno.EMFILE if name in {"pipe", "dup", "openpty"} else errno.ENFILE
                raise OSError(code, os.strerror(code))
            return function(*args)

        def moving(*args: Any) -> Any:
            if name == "write" and self._full and stat.S_ISREG(os.fstat(args[0]).st_mode):
                if self._happens(self._full, "ENOSPC"):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return function(*args)
            if self._happens(self._short, f"short {name}"):
                return function(*_shorter(name, args))
            return function(*args)

        return opening if name in OPENING else moving

    def _happens(self, thousandths: int, what: str) -> bool:
        if not thousandths:
            return False
        with self._lock:
            happens = self._rng.randrange(1000) < thousandths
            if happens:
                self.done[what] += 1
        return happens


def _shorter(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if name == "write":
        view = memoryview(args[1]).cast("B")
        return args[0], view[: 1 + len(view) // 3]
    views = [memoryview(buffer).cast("B") for buffer in args[1]]
    return args[0], [view[: 1 + len(view) // 3] for view in views if view][:1]
