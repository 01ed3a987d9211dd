"""``pyshimio rm``: what is left of a container whose supervisor was killed."""

from __future__ import annotations

from typing import cast

import anyio

from .._stdio import Stdio
from ..client import FifoSet
from ..errors import InvalidOptionError, RuntimeFailedError, ShimIOError
from ..runc import Container, Runc
from . import FAILED
from ._record import Record
from ._say import say
from ._trouble import Refusal, say_what_goes_wrong
from .container import clear

__all__ = ("remove",)

STREAMS = ("stdin", "stdout", "stderr")


def remove(id: str, *, runtime: str, root: str | None) -> int:  # noqa: A002 - the runtime's word
    """Kill and delete the container, remove its FIFOs and all that is known of it."""
    say_what_goes_wrong()
    try:
        anyio.run(_remove, id, runtime, root)
    except (ShimIOError, OSError, Refusal) as error:
        say(str(error))
        return FAILED
    return 0


async def _remove(id: str, runtime: str, root: str | None) -> None:  # noqa: A002
    with Record.of(runtime, root, id) as record:
        known = record.exists()
        facts = record.take_over()
        there = await _delete(Runc(program=runtime, root=root), id)
        if not (known or there):
            record.remove()
            raise Refusal(f"nothing is known of a container {id!r}")
        if (directory := cast("str | None", facts.get("directory"))) is not None:
            clear(directory)
            stdin, stdout, stderr = (f"{directory}/{id}-{stream}" for stream in STREAMS)
            FifoSet.load(Stdio(stdin, stdout, stderr)).remove()
        record.remove()


async def _delete(runc: Runc, id: str) -> bool:  # noqa: A002
    """Whether there was one."""
    try:
        container = await Container.load(runc, id)
    except InvalidOptionError:  # its bundle is gone
        await runc.delete(id, force=True)
        return True
    except RuntimeFailedError as error:
        if "does not exist" not in str(error):
            raise
        return False
    await container.delete(force=True)
    return True
