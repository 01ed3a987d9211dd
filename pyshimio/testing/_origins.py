"""Where descriptors, children, threads, tasks and temporary files were made."""

from __future__ import annotations

import builtins
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import _sys
from ..logging import _kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType, FrameType, TracebackType
    from typing import Self

__all__ = ("Origins", "of_task", "with_origin")

DEEP = 60
"""Frames that are remembered of each stack."""
SHALLOW = 20
"""The same of each coroutine, of which there are many; whoever starts a task is near."""
PASSED_OVER = sys.stdlib_module_names | {
    *{"_pytest", "anyio", "outcome", "pluggy", "pytest", "pytest_asyncio", "trio", "uvloop"},
}
"""Whoever stands on the stack for these only passes a call on."""

Frame = tuple["CodeType", int, str]


def of_task(task: Any) -> str:
    """In words, where a task's coroutine was made while there were :class:`Origins`, or ``""``.

    Args:
        task: Of asyncio or of trio.
    """
    coroutine = task.get_coro() if hasattr(task, "get_coro") else task.coro
    # (In the dictionary: some modules are loaded when they are asked for anything.)
    modules = {
        vars(module).get("__file__"): name
        for name, module in sys.modules.copy().items()
        if type(module) is ModuleType  # others may be anything
    }
    return _in_words(
        (path, line, name, modules.get(path, ""))
        for path, line, name in getattr(coroutine, "cr_origin", None) or ()
    )


class Origins:
    """Remembers the stack of whoever makes something, as long as the block lasts.

    It stands in front of the functions that make descriptors and children, those of the standard
    library, those of :mod:`pyshimio._sys` and those of log drivers; what a C library opens by
    itself has no origin.  Coroutines remember it by themselves, those of the block's thread.
    """

    def __init__(self) -> None:
        self._stacks: dict[object, list[Frame]] = {}
        self._real: list[tuple[Any, str, object]] = []
        self._depth = 0

    def of(self, *keys: object) -> str:
        """In words, for a thread, a path, a process (``("pid", number)``), or a descriptor.

        That is its number, and the device and the inode that it stands for.

        Args:
            keys: The first that is known is taken.
        """
        for key in keys:
            if (stack := self._stacks.get(key)) is not None:
                return _in_words(
                    (code.co_filename, line, code.co_qualname, module)
                    for code, line, module in stack
                )
        return ""

    def __enter__(self) -> Self:
        self._depth = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(max(self._depth, SHALLOW))
        fd: Callable[[Any], Iterable[object]] = lambda made: [made]  # noqa: E731
        object_: Callable[[Any], Iterable[object]] = lambda made: [made.fileno()]  # noqa: E731
        both: Callable[[Any], Iterable[object]] = lambda made: made  # noqa: E731
        pid: Callable[[Any], Iterable[object]] = lambda made: [("pid", made)]  # noqa: E731
        for owner, name, keys in (
            *((os, name, fd) for name in ("open", "dup", "dup2", "memfd_create", "eventfd")),
            *((os, name, fd) for name in ("pidfd_open", "timerfd_create")),
            *((os, name, both) for name in ("pipe", "pipe2", "openpty")),
            *((os, name, pid) for name in ("fork", "posix_spawn", "posix_spawnp")),
            *((_sys, name, fd) for name in ("open", "reopen", "dup", "epoll_create", "eventfd")),
            *((_sys, name, fd) for name in ("timerfd", "pidfd_open", "memory_file")),
            *((_sys, name, both) for name in ("pipe", "openpty")),
            (_sys, "posix_spawn", pid),
            (_kernel, "open", fd),
            (_kernel, "pipe", both),
            (builtins, "open", object_),
            (io, "open", object_),
            (tempfile, "mkdtemp", fd),
            (tempfile, "mkstemp", both),
        ):
            if hasattr(owner, name):
                self._stand_before(owner, name, keys)
        self._follow(socket.socket, "__init__", lambda made: made.fileno())
        self._follow(subprocess.Popen, "__init__", lambda made: ("pid", made.pid))
        self._follow(threading.Thread, "start", lambda made: made)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for owner, name, function in reversed(self._real):
            setattr(owner, name, function)
        self._real.clear()
        sys.set_coroutine_origin_tracking_depth(self._depth)

    def _stand_before(self, owner: Any, name: str, keys: Callable[[Any], Iterable[object]]) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            made = function(*args, **options)
            stack = _stack()
            for key in keys(made):
                self._stacks[_whole(key)] = stack
            return made

        self._real.append((owner, name, function))
        setattr(owner, name, call)

    def _follow(self, owner: Any, name: str, key: Callable[[Any], object]) -> None:
        function = getattr(owner, name)

        def method(made: Any, *args: Any, **options: Any) -> Any:
            result = function(made, *args, **options)
            self._stacks[_whole(key(made))] = _stack()
            return result

        self._real.append((owner, name, function))
        setattr(owner, name, method)


def _whole(key: object) -> object:
    """For a descriptor's number also what it stands for: the number alone may be reused."""
    if isinstance(key, int):
        try:
            status = os.fstat(key)
        except OSError:
            return key
        return (key, status.st_dev, status.st_ino)
    return key


def _stack() -> list[Frame]:
    frames: list[Frame] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and len(frames) < DEEP:
        frames.append((frame.f_code, frame.f_lineno, frame.f_globals.get("__name__", "")))
        frame = frame.f_back
    return frames


def with_origin(thing: str, origin: str) -> str:
    """*thing*, and where it was made if that is known."""
    return f"{thing}, made at {origin}" if origin else thing


def _in_words(stack: Iterable[tuple[str, int, str, str]]) -> str:
    """The nearest of pyshimio's frames, if that is who made it, and the nearest of the user's.

    Args:
        stack: Of each frame the file, the line, the function and the module.
    """
    told: list[str] = []
    for path, line, function, module in stack:
        top = module.partition(".")[0]
        if top in PASSED_OVER or module.startswith("pyshimio.testing"):
            continue
        if path.endswith("/pytest/__main__.py") or path.startswith("<"):
            continue
        if top == "pyshimio" and (told or module in {_sys.__name__, _kernel.__name__}):
            continue
        told.append(f"{_short(path)}:{line} in {function}")
        if top != "pyshimio":
            break
    return ", for ".join(told)


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
