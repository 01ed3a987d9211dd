"""What goes wrong, in lines on stderr and in an exit status."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from .._events import IOEvent, SinkFailed
from ..errors import CommandNotExecutableError, CommandNotFoundError, ShimIOError
from . import FAILED
from ._say import say

if TYPE_CHECKING:
    from ..io._base import BaseIO
    from ..io._result import DrainResult

__all__ = ("Refusal", "complain", "reopen", "say_bugs", "say_what_goes_wrong", "status_for")

NOT_EXECUTABLE = 126
NOT_FOUND = 127


class Refusal(Exception):  # noqa: N818 - no error of ours, but an answer
    """What a command says instead of doing what it was asked to."""


def say_what_goes_wrong() -> None:
    """Say what the library logs."""
    logging.getLogger("pyshimio").addHandler(_Say())


class _Say(logging.Handler):
    """What goes wrong while the child runs, as the library's logger has it."""

    def emit(self, record: logging.LogRecord) -> None:
        event = record.args[0] if isinstance(record.args, tuple) and record.args else None
        if isinstance(event, SinkFailed):
            if not event.final:  # else the drain says it
                say(f"{event.stream}: {event.error}; its output is dropped until that is over")
        elif isinstance(event, IOEvent):
            facts = attrs.asdict(event)
            del facts["stream"]
            what = ", ".join(f"{name} {value}" for name, value in facts.items())
            say(f"{event.stream}: {type(event).__name__} ({what})")
        else:
            say(record.getMessage())


def say_bugs() -> None:
    """Say what the running loop would print a traceback of."""
    asyncio.get_running_loop().set_exception_handler(_say_bug)


def _say_bug(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # (A task of anyio's that waits for a socket, and is cancelled in the turn in which that is
    # ready: its future is told both.  Nothing is lost by it.)
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        say(f"internal error: {context['message']}: {context.get('exception')!r}")


async def reopen(io: BaseIO | None) -> None:
    """Open its log files anew, and say what goes wrong."""
    try:
        if io is not None:
            await io.reopen()
    except anyio.ClosedResourceError:
        pass  # the files have been closed meanwhile, so there is nothing to reopen
    except (ShimIOError, OSError) as error:
        say(f"cannot reopen: {error}")


def status_for(error: Exception) -> int:
    """The exit status that stands for an error of ours."""
    if isinstance(error, CommandNotFoundError):
        return NOT_FOUND
    return NOT_EXECUTABLE if isinstance(error, CommandNotExecutableError) else FAILED


def complain(result: DrainResult | None) -> None:
    """Say what of the output has not arrived."""
    if result is None or result.complete:
        return
    for stream in ("stdout", "stderr"):
        one = getattr(result, stream)
        if one is not None and one.dropped:
            say(f"{stream}: {one.dropped} bytes were dropped")
        elif one is not None and not one.finished:
            say(f"{stream}: its destination was not ready for all of it in time")
    if result.logger_stopped:
        say("the logger did not end by itself, and was ended")
    elif result.logger_ended is False:
        say("the logger has not ended in time")
    elif result.logger_status:
        say(f"the logger ended with status {result.logger_status}")
