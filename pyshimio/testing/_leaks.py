"""What a process holds on to, so that a test can be asked what it left behind, and where from."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ._origins import Origins, with_origin

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("GRACE", "Child", "Descriptor", "Snapshot", "Temporary", "no_leaks", "own_temporary")

SHORT = "/tmp"  # noqa: S108 - what is made there has a name that nobody can know
"""A path that leaves room for that of a socket."""
WORKERS = ("Trio thread ", "AnyIO worker thread", "asyncio_")
GRACE = 1.0
"""Seconds for threads to end and for dying children to be reaped by whoever waits for them."""


class Descriptor(NamedTuple):
    """A number and what it stood for: a number alone may have been closed and reused."""

    number: int
    device: int
    inode: int
    link: str

    def __str__(self) -> str:
        return f"descriptor {self.number} -> {self.link}"


class Child(NamedTuple):
    """A process and when it began: a pid alone may have been reaped and reused."""

    pid: int
    start: str
    state: str
    name: str

    def __str__(self) -> str:
        kind = "zombie" if self.state == "Z" else f"live child (state {self.state})"
        return f"{kind} {self.pid} ({self.name})"

    def remove(self) -> None:
        """Kill and reap it."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


class Temporary(NamedTuple):
    """Something in the directory for temporary files."""

    path: str

    def __str__(self) -> str:
        return f"temporary {self.path}"


Leak: TypeAlias = Descriptor | Child | threading.Thread | Temporary


class Snapshot(NamedTuple):
    """Everything of one moment."""

    descriptors: frozenset[Descriptor]
    children: dict[tuple[int, str], Child]
    threads: frozenset[threading.Thread]
    temporary: frozenset[Temporary]

    @classmethod
    def take(cls) -> Snapshot:
        """Look now."""
        return cls(_descriptors(), _children(), _threads(), _temporary())

    def left_behind(self, *, grace: float = GRACE) -> list[Leak]:
        """What is there now and was not then, after waiting up to *grace* seconds for it to go."""
        deadline = time.monotonic() + grace
        while True:
            now = Snapshot.take()
            left: list[Leak] = [
                *sorted(now.descriptors - self.descriptors),
                *(now.children[key] for key in now.children.keys() - self.children.keys()),
                *(now.threads - self.threads),
                *sorted(now.temporary - self.temporary),
            ]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.01)


@contextlib.contextmanager
def no_leaks(*, grace: float = GRACE) -> Generator[None]:
    """Hold the block to leaving no descriptor, child, zombie, thread or temporary file.

    The garbage collector is off meanwhile: it must not close in time what the code forgot.  What
    :mod:`tempfile` makes is made in a directory of the block's own.  Children that are left are
    killed and reaped, so that one leak is not the next test's trouble.

    Args:
        grace: Seconds for threads to end and for dying children to be reaped.

    Raises:
        AssertionError: Something is left; the message names it, and says where it was made.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with own_temporary(), Origins() as origins:
            before = Snapshot.take()
            yield
            left = before.left_behind(grace=grace)
    finally:
        if collects:
            gc.enable()
    # Whoever warns when it is collected unclosed does so within the test that made it.
    gc.collect()
    for thing in left:
        if isinstance(thing, Child):
            thing.remove()
    assert not left, "left behind: " + "; ".join(_told(thing, origins) for thing in left)


@contextlib.contextmanager
def own_temporary() -> Generator[None]:
    """What :mod:`tempfile` makes meanwhile is this process's; a short path, for sockets."""
    before = tempfile.tempdir
    where = SHORT if os.access(SHORT, os.W_OK) else None
    directory = tempfile.mkdtemp(prefix="own-", dir=where)
    os.chmod(directory, 0o1777)  # as /tmp is
    tempfile.tempdir = directory
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(directory, ignore_errors=True)


def _told(thing: Leak, origins: Origins) -> str:
    match thing:
        case Descriptor():
            origin = origins.of((thing.number, thing.device, thing.inode))
        case Child():
            origin = origins.of(("pid", thing.pid))
        case Temporary():
            origin = origins.of(thing.path)
        case _:
            origin = origins.of(thing)
    return with_origin(str(thing), origin)


def _descriptors() -> frozenset[Descriptor]:
    found: set[Descriptor] = set()
    for name in os.listdir("/proc/self/fd"):
        # The directory that is being listed has a descriptor too; it is closed by now.
        with contextlib.suppress(OSError):
            status = os.fstat(int(name))
            link = os.readlink(f"/proc/self/fd/{name}")
            found.add(Descriptor(int(name), status.st_dev, status.st_ino, link))
    return frozenset(found)


def _children() -> dict[tuple[int, str], Child]:
    try:
        # Almost always the answer is that there are none, and then /proc need not be read.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}
    found: dict[tuple[int, str], Child] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            # The name stands in parentheses and may itself hold any byte.
            head, _, tail = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")
            fields = tail.decode().split()
            if int(fields[1]) == os.getpid():
                command = head.partition(b"(")[2].decode(errors="replace")
                child = Child(int(name), fields[19], fields[0], command)
                found[child.pid, child.start] = child
    return found


def _threads() -> frozenset[threading.Thread]:
    # A loop keeps its idle workers for a while (trio ten seconds; while one works there, it bears
    # another name), or until it ends; they are its own.
    return frozenset(
        thread for thread in threading.enumerate() if not thread.name.startswith(WORKERS)
    )


def _temporary() -> frozenset[Temporary]:
    where = tempfile.gettempdir()
    return frozenset(Temporary(f"{where}/{name}") for name in os.listdir(where))
