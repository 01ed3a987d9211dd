"""How many containers this process may have, measured on real ones."""

from __future__ import annotations

import os
import resource
import stat
import sys
from contextlib import AsyncExitStack, suppress
from typing import Any

import attrs

from .. import _sys
from .._command import Command
from .._fd import OwnedFd
from .._stdio import Stdio, StdioURI
from ..errors import ShimIOError
from ..io.create import create_io
from ._finding import Finding, failure
from ._probes import scratch, terminals_left

__all__ = ("Capacity", "check_spawn", "measure")

GUARD = 20.0
STREAMS = ("stdin", "stdout", "stderr")
CLIENT = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
FEW = 100
"""Containers; a limit that admits less deserves a word."""


@attrs.frozen(kw_only=True)
class Capacity:
    """What one more container of a kind takes."""

    descriptors: int
    """While it lives."""
    pipe_pages: int
    """Of its pipes and FIFOs, each at its first size."""
    shared: int
    """Descriptors of the process and its loop, whatever the number of containers."""
    starting: int
    """Descriptors that one takes while it is being started."""

    def within(self, limit: int) -> int:
        """How many containers fit into a limit of open files."""
        if limit == resource.RLIM_INFINITY:
            limit = 1 << 30  # what the kernel itself allows (fs.nr_open)
        return max(0, (limit - self.shared - self.starting) // self.descriptors + 1)


async def check_spawn() -> list[Finding]:
    """Start a child in both ways that the library has of its own."""
    fd = OwnedFd(_sys.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    try:
        return [
            await _spawn(
                "posix_spawn",
                "fds 0 to 2, and the exit status",
                "no child can be started without it; see what fails above",
            ),
            await _spawn(
                "trampoline",
                "a working directory with fd 3, and the exit status",
                f"this user has to be able to execute {sys.executable}",
                cwd="/",
                extra_files=(fd,),
            ),
        ]
    finally:
        fd.close()


async def _spawn(name: str, what: str, advice: str, **options: Any) -> Finding:
    try:
        command = Command(("/bin/sh", "-c", "exit 7"), **options)
        async with await command.start() as process:
            try:
                status = await process.wait(GUARD)
            finally:
                process.kill()
    except (ShimIOError, OSError) as error:
        return failure(name, error, advice)
    if status != 7:
        detail = f"a child that exits with 7 is said to have exited with {status}"
        return Finding(name=name, verdict="fail", detail=detail, advice=advice)
    return Finding(name=name, verdict="ok", detail=what)


async def measure(pages_left: int | None) -> list[Finding]:
    """Open two containers of each kind and say how many of them the limits admit.

    Args:
        pages_left: Of the user's pipe budget; None when nothing limits it.
    """
    found: list[Finding] = []
    for kind in ("files", "fifos", "console"):
        name = f"containers, {kind}"
        try:
            with scratch(
                *(f"{stream}-{number}" for stream in STREAMS for number in range(2))
            ) as directory:
                capacity = await _measure(kind, directory)
        except (ShimIOError, OSError) as error:
            found.append(failure(name, error, "see what fails above"))
        else:
            most = terminals_left() if kind == "console" else None
            found.append(_judge(name, capacity, pages_left, most))
    return found


def _judge(name: str, capacity: Capacity, pages_left: int | None, most: int | None) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    now, could = (
        count if most is None else min(count, most)
        for count in (capacity.within(soft), capacity.within(hard))
    )
    whole = now if pages_left is None else min(now, pages_left // capacity.pipe_pages)
    detail = f"{now:,} with {capacity.descriptors} descriptors and {capacity.pipe_pages} pipe pages"
    finding = Finding(
        name=name,
        verdict="ok",
        detail=f"{detail} each" if whole == now else f"{detail} each, {whole:,} with whole pipes",
        facts={
            "containers": now,
            "at_hard_limit": could,
            "with_whole_pipes": whole,
            "descriptors": capacity.descriptors,
            "pipe_pages": capacity.pipe_pages,
        },
    )
    if now >= FEW:
        return finding
    return attrs.evolve(
        finding,
        verdict="warn" if now else "fail",
        advice="raise kernel.pty.max"
        if now == most
        else f"raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=); the hard limit allows {could:,}",
    )


async def _measure(kind: str, directory: str) -> Capacity:
    starting: list[int] = []
    open_fds: list[int] = []
    pages: list[int] = []
    async with AsyncExitStack() as stack:
        for number in range(2):
            stdio, clients = _stdio(kind, directory, number)
            stack.callback(_close, clients)
            # What the clients have open is theirs, not ours.
            theirs = len(clients) * (number + 1)
            io = await stack.enter_async_context(await create_io(stdio, runtime=False))
            command = Command(["sleep", "60"])
            io.set(command)
            await io.copy()
            process = await command.start()
            stack.push_async_callback(process.stop, GUARD)
            stack.callback(process.close)
            starting.append(_descriptors() - theirs)
            io.close_after_start()
            open_fds.append(_descriptors() - theirs)
            pages.append(_pipe_pages())
    each = open_fds[1] - open_fds[0]
    return Capacity(
        descriptors=each,
        pipe_pages=pages[1] - pages[0],
        shared=open_fds[0] - each,
        # One more for the list of descriptors that a child must not inherit.
        starting=starting[1] - open_fds[0] + 1,
    )


def _stdio(kind: str, directory: str, number: int) -> tuple[Stdio, list[OwnedFd]]:
    """The stdio of one container, and the clients that have its FIFOs open."""
    paths = {stream: f"{directory}/{stream}-{number}" for stream in STREAMS}
    if kind == "files":
        out, err = (StdioURI.build("file", paths[stream]) for stream in STREAMS[1:])
        return Stdio(stdout=out, stderr=err), []
    if kind == "console":
        del paths["stderr"]
    clients: list[OwnedFd] = []
    try:
        for name, path in paths.items():
            os.mkfifo(path)
            if name != "stdin":
                clients.append(OwnedFd(_sys.open(path, CLIENT)))
    except BaseException:
        _close(clients)
        raise
    return Stdio(**paths, terminal=kind == "console"), clients


def _close(fds: list[OwnedFd]) -> None:
    for fd in fds:
        fd.close()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # one of them is the listing's own


def _pipe_pages() -> int:
    """Pages of all pipes and FIFOs that this process has open."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            status = _sys.fstat(int(name))
            if stat.S_ISFIFO(status.st_mode):
                found[status.st_ino] = _sys.pipe_size(int(name)) // _sys.PAGE
    return sum(found.values())
