"""Signals with their origin: typed at a terminal, or sent by somebody.

A handler in Python is not told who sent a signal; ``sigwaitinfo`` is, and that is the
difference between a Ctrl-C, which the terminal has sent to the child as well, and a
``kill -INT``, which has reached this process alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("HANDLED", "from_kernel", "hold_back", "listen")

HANDLED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    }
)
SI_KERNEL = 0x80


def hold_back(numbers: frozenset[signal.Signals]) -> frozenset[signal.Signals]:
    """Block *numbers* until :func:`listen` asks for them, and return which they are.

    Called before there is a second thread, which would have to block them too.  Signals
    that are ignored (``nohup``, a shell's ``&``) are so for a reason, and stay ignored.
    """
    chosen = frozenset(
        number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, chosen)
    return chosen


def from_kernel(info: signal.struct_siginfo) -> bool:
    """Whether a terminal sent this signal, and not a process."""
    return info.si_code == SI_KERNEL


def listen(
    numbers: frozenset[signal.Signals], handle: Callable[[signal.struct_siginfo], None]
) -> None:
    """Call *handle* on the running asyncio loop for each of the held back signals."""
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()  # a new thread's says nothing of the loop

    def wait() -> None:
        # The loop is closed when the process is about to end anyway.
        with contextlib.suppress(RuntimeError):
            while True:
                info = signal.sigwaitinfo(numbers)
                loop.call_soon_threadsafe(handle, info, context=context)

    threading.Thread(target=wait, name="pyshimio signals", daemon=True).start()
