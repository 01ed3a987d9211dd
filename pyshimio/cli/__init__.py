"""The ``pyshimio`` command.

Exit status of ``pyshimio run``: the child's, 128+n when signal n killed it; 125 when pyshimio
itself failed, 126 when the program cannot be executed, 127 when there is none.
``pyshimio doctor``: 1 when something that is needed does not work.  What goes wrong is said
on stderr, a line at a time, and is never a traceback.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("main",)

FAILED = 125


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: What follows the program's name; None takes it from ``sys.argv``.

    Returns:
        The exit status.
    """
    # Nothing but the interpreter's own modules up to here, so that this can be said.
    from ._say import say  # noqa: PLC0415

    try:
        from ._app import invoke  # noqa: PLC0415

        return invoke(sys.argv[1:] if args is None else args)
    except ModuleNotFoundError as error:
        if error.name != "click":
            say(f"{error}")
        else:
            say("this command needs click: pip install 'pyshimio[cli]'")
        return FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody on a command line
        say(f"internal error: {_first(error)!r}")
        return FAILED


def _first(error: BaseException) -> BaseException:
    """An error that a task group has wrapped, without the wrapping."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        error = group.exceptions[0]
    return error
