"""Containers with the life that :class:`~pyshimio.runc.Container` gives them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from pyshimio.runc import Container, Runc, Subreaper

from .runc import Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

__all__ = ("RUNTIMES", "SLEEP", "Scene", "containers", "running")

SLEEP = ("sleep", "1000")
RUNTIMES = pytest.mark.parametrize(
    "program", ["runc", pytest.param("crun", marks=pytest.mark.runtime("crun"))]
)
"""For what may differ between runtimes."""


@attrs.frozen
class Scene:
    """A bundle, and the client that makes containers of it."""

    runc: Runc
    runtime: Runtime

    async def create(self, **options: Any) -> Container:
        """The container of this scene; the caller deletes it."""
        return await Container.create(self.runc, self.runtime.name, self.runtime.bundle, **options)


@asynccontextmanager
async def containers(
    where: Path, args: Sequence[str] = SLEEP, *, reaped: bool = True, **options: Any
) -> AsyncIterator[Scene]:
    """A bundle whose container runs *args*; whatever is made of it is deleted.

    Args:
        where: For the bundle and the runtime's state.
        args: The program.
        reaped: Whether exit statuses can be had.
        options: Those of :meth:`Runtime.make`.
    """
    runtime = Runtime.make(where, list(args), **options)
    scene = Scene(Runc(program=runtime.program, root=runtime.root), runtime)
    async with runtime.cleaned():
        if reaped:
            async with Subreaper():
                yield scene
        else:
            yield scene


@asynccontextmanager
async def running(
    where: Path, args: Sequence[str] = SLEEP, *, io: Any = None, **options: Any
) -> AsyncIterator[Container]:
    """A container that was started."""
    async with containers(where, args, **options) as scene:
        async with await scene.create(io=io) as container:
            await container.start()
            yield container
