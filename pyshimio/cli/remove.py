"""``pyshimio rm``: what is left of a container whose supervisor was killed."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import anyio

from .._stdio import Stdio
from ..client import FifoSet
from ..errors import InvalidOptionError, RuntimeFailedError, ShimIOError
from ..runc import Container, Runc
from ..runc._client import missing
from ..runc._orphans import end_orphans, lives, log_path
from . import FAILED
from ._record import Record
from ._say import say
from ._trouble import Refusal, say_what_goes_wrong
from .container import clear

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("remove",)

PATIENCE = 10.0
"""Seconds for what the dead one had begun to be gone."""
STREAMS = ("stdin", "stdout", "stderr")


def remove(id: str, *, runtime: str, root: str | None, force: bool) -> int:  # noqa: A002
    """Kill and delete the container, remove its FIFOs and all that is known of it."""
    say_what_goes_wrong()
    try:
        anyio.run(_remove, id, runtime, root, force)
    except (ShimIOError, OSError, Refusal) as error:
        say(str(error))
        return FAILED
    return 0


async def _remove(id: str, runtime: str, root: str | None, force: bool) -> None:  # noqa: A002, FBT001
    with Record.of(runtime, root, id) as record:
        facts = record.take_over()
        known = record.exists()
        if isinstance(supervisor := facts.get("pid"), int):
            await _end_what_it_began(supervisor, id, root)
        try:
            there = await _delete(Runc(program=runtime, root=root), id, force=force or known)
        except BaseException:
            if not known:
                record.remove()
            raise
        if not (known or there):
            record.remove()
            raise Refusal(f"nothing is known of a container {id!r}")
        if (directory := cast("str | None", facts.get("directory"))) is not None:
            clear(directory)
            stdin, stdout, stderr = (os.path.join(directory, f"{id}-{name}") for name in STREAMS)
            FifoSet.load(Stdio(stdin, stdout, stderr)).remove()
        record.remove()


async def _end_what_it_began(supervisor: int, id: str, root: str | None) -> None:  # noqa: A002
    """A command of the runtime that was under way would go on, and make the container after all.

    Raises:
        Refusal: One cannot be killed.
    """
    if lives(supervisor):
        return  # somebody else is called so by now, and what has its name is that one's
    logs = log_path(supervisor)

    def begun(args: Sequence[str]) -> bool:
        ours = id in args and (root is None or root in args)
        return ours and any(arg.startswith(logs) for arg in args)

    with anyio.move_on_after(PATIENCE) as scope:
        await end_orphans(begun, with_groups=True)
    if scope.cancelled_caught:
        raise Refusal(f"a command of the runtime for {id!r} goes on, and cannot be killed")


async def _delete(runc: Runc, id: str, *, force: bool) -> bool:  # noqa: A002
    """Whether there was one.

    Raises:
        Refusal: It lives, and nothing says that it is one of those that may be ended.
    """
    try:
        container = await Container.load(runc, id)
    except InvalidOptionError:  # its bundle is gone
        if not force and (await runc.state(id)).status != "stopped":
            raise Refusal(_foreign(id)) from None
        await runc.delete(id, force=True)
        return True
    except RuntimeFailedError as error:
        if not missing(error, id):
            raise
        with suppress(RuntimeFailedError):  # one that was half made has a directory at most
            await runc.delete(id, force=True)
        return False
    if not force and container.state != "stopped":
        container.close()
        raise Refusal(_foreign(id))
    await container.delete(force=True)
    return True


def _foreign(id: str) -> str:  # noqa: A002
    return f"{id} lives, and it is not one that `pyshimio run` has left; --force ends it"
