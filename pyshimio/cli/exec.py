"""``pyshimio exec``: another process in a container, whoever runs that."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import attrs

from ..runc import Container, ExecOptions, Runc, Subreaper
from ._foreground import in_foreground

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._foreground import Foreground, Options

__all__ = ("ExecCommand", "execute")


@attrs.frozen(kw_only=True)
class ExecCommand:
    """The command line."""

    id: str
    command: tuple[str, ...]
    runtime: str
    root: str | None
    user: str | None
    cwd: str | None
    env: Mapping[str, str]
    foreground: Options


def execute(options: ExecCommand) -> int:
    """Run it and return the exit status of ``pyshimio exec``."""
    return in_foreground(options.foreground, partial(_live, options))


async def _live(options: ExecCommand, foreground: Foreground) -> int:
    async with Subreaper(orphans=True):
        runc = Runc(program=options.runtime, root=options.root)
        container = await Container.load(runc, options.id)
        try:
            chosen = ExecOptions(user=options.user, cwd=options.cwd, env=options.env)
            io = await foreground.stdio(
                None,
                owner=container.owner_of(options.command, chosen),
                id=options.id,
            )
            name = f"exec-{os.getpid()}"
            prepare = partial(container.exec, name, options.command, io=io, options=chosen)
            return await foreground.follow(prepare, io)
        finally:
            container.close()
