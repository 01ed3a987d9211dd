"""``pyshimio run --bundle``: a container from its creation to the last thing cleared away."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs

from .._fd import OwnedFd
from .._fifo import FifoHandle
from ..client import FifoSet
from ..runc import Bundle, Container, Runc, Subreaper
from ._control import SOCKET, UNFINISHED, Control, socket_path
from ._foreground import in_foreground
from ._lock import locked
from ._record import Record, check_private
from ._trouble import Refusal

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractAsyncContextManager

    from .._stdio import Stdio
    from ..io._base import BaseIO
    from ._foreground import Foreground, Options

__all__ = ("ATTACHED", "ContainerOptions", "clear", "run_container")

ATTACHED = "attached.lock"
"""Held by the one client of a directory of FIFOs."""


@attrs.frozen(kw_only=True)
class ContainerOptions:
    """The command line."""

    id: str
    bundle: str
    runtime: str
    root: str | None
    log: Stdio | None
    fifo_dir: str | None
    linger: float
    foreground: Options


def run_container(options: ContainerOptions) -> int:
    """Run it and return the exit status of ``pyshimio run``."""
    run = _Run(options)
    return in_foreground(run.foreground_options, run.live)


class _Run:
    def __init__(self, options: ContainerOptions) -> None:
        self._options = options
        self._directory = None if options.fifo_dir is None else os.path.abspath(options.fifo_dir)
        fifos = self._directory is not None
        # Where its stdio is a client's, ours is not asked for.
        self.foreground_options = attrs.evolve(
            options.foreground,
            interactive=options.foreground.interactive and not fifos,
            behind_fifos=fifos,
        )

    async def live(self, foreground: Foreground) -> int:
        """The whole of it."""
        options = self._options
        bundle = Bundle.read(options.bundle)
        if bundle.terminal != options.foreground.tty:
            raise Refusal(
                f"the bundle {bundle.path} has a terminal; say -t"
                if bundle.terminal
                else f"-t needs a bundle whose process has a terminal, and {bundle.path} has none"
            )
        with Record.of(options.runtime, options.root, options.id) as record:
            record.take(
                id=options.id,
                bundle=bundle.path,
                runtime=options.runtime,
                root=options.root,
                directory=self._directory,
            )
            try:
                async with Subreaper(orphans=True):
                    if self._directory is None:
                        return await self._in_front(foreground, bundle)
                    return await self._behind_fifos(foreground, bundle, self._directory)
            finally:
                record.remove()

    async def _in_front(self, foreground: Foreground, bundle: Bundle) -> int:
        options = self._options
        io = await foreground.stdio(
            options.log,
            owner=bundle.outside(bundle.uid, bundle.gid),
            id=options.id,
        )
        return await foreground.follow(partial(self._create, io), io)

    async def _behind_fifos(self, foreground: Foreground, bundle: Bundle, directory: str) -> int:
        options = self._options
        socket_path(directory)  # or a refusal, before there is anything
        with (
            _ours_alone(directory),
            FifoSet.create(
                options.id,
                terminal=bundle.terminal,
                directory=directory,
                stdin=options.foreground.interactive,
            ) as fifos,
        ):
            io = await foreground.stdio(
                fifos.stdio,
                owner=bundle.outside(bundle.uid, bundle.gid),
                id=options.id,
            )
            made: list[Container] = []

            async def create() -> Container:
                # No client is waited for: what it writes stays in its FIFOs until one comes.
                with _reading(fifos.stdio):
                    made.append(await self._create(io))
                return made[0]

            def control() -> AbstractAsyncContextManager[None]:
                return Control(directory, made[0], fifos.stdio, foreground.drained).served()

            return await foreground.follow(create, io, beside=control, linger=options.linger)

    async def _create(self, io: BaseIO) -> Container:
        options = self._options
        runc = Runc(program=options.runtime, root=options.root)
        return await Container.create(runc, options.id, options.bundle, io=io)


@contextmanager
def _ours_alone(directory: str) -> Generator[None]:
    """Have the directory, with the lock for its client; what is beside the FIFOs goes in the end.

    Raises:
        Refusal: Somebody else has it, or could get in.
    """
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    check_private(directory)
    held = locked(directory, os.O_RDONLY | os.O_DIRECTORY)
    if held is None:
        raise Refusal(f"{directory} has another container's FIFOs")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        OwnedFd(os.open(os.path.join(directory, ATTACHED), flags, 0o600)).close()
        try:
            yield
        finally:
            clear(directory)
            with suppress(OSError):  # something of somebody else's is there
                os.rmdir(directory)
    finally:
        held.close()


@contextmanager
def _reading(stdio: Stdio) -> Generator[None]:
    """Have the outputs' FIFOs open for reading, as a client has."""
    with ExitStack() as stack:
        for path in filter(None, (stdio.stdout, stdio.stderr)):
            handle = FifoHandle(path)
            try:
                stack.callback(handle.open_reader().close)
            finally:
                handle.close()
        yield


def clear(directory: str) -> None:
    """Remove what is beside the FIFOs."""
    for name in (SOCKET, f"{SOCKET}{UNFINISHED}", ATTACHED):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))
