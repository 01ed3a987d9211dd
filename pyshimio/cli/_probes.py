"""What the library asks of the kernel, each tried once, as the library does it."""

from __future__ import annotations

import errno
import os
import platform
import re
import resource
import select
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import TypeAlias

from .. import _sys
from .._fd import OwnedFd
from .._fifo import FifoHandle
from ._finding import Finding, failure

__all__ = ("PROBES", "scratch", "terminals_left")

OLDEST = (5, 10)
SHELL = "/bin/sh"
GUARD = 10.0
WHOLE = 16
"""Pages of a new pipe; past the user's limit it is 2."""
SECCOMP = "allow it in the seccomp profile of the container that this runs in"
PROC = "mount /proc (mount -t proc proc /proc)"

Probe: TypeAlias = Callable[[], Finding]


class _Wrong(Exception):  # noqa: N818 - an answer, not an error of ours
    """The kernel answered, and not as Linux does."""


def _probe(name: str, advice: str) -> Callable[[Callable[[], str]], Probe]:
    """A function that says what works, or raises, as a probe."""

    def decorate(function: Callable[[], str]) -> Probe:
        @wraps(function)
        def run() -> Finding:
            try:
                return Finding(name=name, verdict="ok", detail=function())
            except (OSError, _Wrong) as error:
                return failure(name, error, advice)

        return run

    return decorate


@_probe("kernel", f"{'.'.join(map(str, OLDEST))} or newer is needed; upgrade it")
def probe_kernel() -> str:
    release = os.uname().release
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version < OLDEST:
        raise _Wrong(f"Linux {release}")
    return f"Linux {release} {platform.machine()}"


@_probe("proc", PROC)
def probe_proc() -> str:
    count = len(os.listdir("/proc/self/fd"))
    with _pipe() as (reader, writer):
        again = OwnedFd(_sys.reopen(reader.fileno(), os.O_RDONLY))
        try:
            _sys.write(writer.fileno(), b"x")
            _expect(_sys.read(again.fileno(), 1), b"x")
        finally:
            again.close()
    return f"/proc/self/fd lists {count - 1} descriptors and reopens them"


@_probe("pidfd", f"pidfd_open, waitid(P_PIDFD) and pidfd_send_signal are needed; {SECCOMP}")
def probe_pidfd() -> str:
    if _sys.sigchld_ignored():
        raise _Wrong("SIGCHLD is ignored, so no exit status can be had: start this without that")
    pid = _sys.posix_spawn(SHELL, (SHELL, "-c", "exit 7"), {})
    try:
        pidfd = OwnedFd(_sys.pidfd_open(pid))
        try:
            _sys.pidfd_send_signal(pidfd.fileno(), 0)
            if not _wait_readable(pidfd.fileno()):
                raise _Wrong(f"the pidfd of a child that exits is not readable after {GUARD} s")
            result = _sys.waitid(pidfd.fileno())
            _expect(result and result.si_status, 7)
        finally:
            pidfd.close()
    except BaseException:
        _sys.kill_and_reap(pid)  # no pid is reused within an instant
        raise
    return "pidfd_open, waitid(P_PIDFD), pidfd_send_signal"


@_probe("splice", SECCOMP)
def probe_splice() -> str:
    with _pipe() as (source, writer), _pipe() as (reader, target):
        _sys.write(writer.fileno(), b"spliced")
        _expect(_sys.splice(source.fileno(), target.fileno(), 64), 7)
        _expect(_sys.unread(reader.fileno()), 7)
        _expect(_sys.read(reader.fileno(), 64), b"spliced")
    return "between pipes"


@_probe("fifo", "point TMPDIR at a directory where FIFOs can be made")
def probe_fifo() -> str:
    with ExitStack() as stack:
        path = f"{stack.enter_context(scratch('fifo'))}/fifo"
        os.mkfifo(path)
        handle = FifoHandle(path)
        stack.callback(handle.close)
        if (early := handle.open_writer()) is not None:
            early.close()
            raise _Wrong("a writer can open a FIFO that has no reader")
        reader = handle.open_reader()
        stack.callback(reader.close)
        os.unlink(path)  # from here on only the descriptor leads there
        writer = handle.open_writer()
        if writer is None:
            raise _Wrong("a FIFO with a reader cannot be opened for writing")
        stack.callback(writer.close)
        _sys.write(writer.fileno(), b"x")
        _expect(_sys.read(reader.fileno(), 2), b"x")
        reader.close()
        if not _sys.poll_now(writer.fileno()) & _sys.EPOLLERR:
            raise _Wrong("a writer is not told that the last reader has gone")
    return f"made in {tempfile.gettempdir()}, opened without waiting, and by inode"


@_probe("epoll", SECCOMP)
def probe_epoll() -> str:
    with _pipe() as (reader, writer):
        epoll = _sys.epoll_create()
        wake = -1
        try:
            _sys.epoll_add(epoll, reader.fileno(), _sys.EPOLLIN | _sys.EPOLLET)
            wake = _sys.eventfd()
            _sys.epoll_add(epoll, wake, _sys.EPOLLIN)
            _sys.write(writer.fileno(), b"x")
            _sys.eventfd_set(wake)
            ready = {fd for fd, _ in _sys.epoll_wait(epoll)}
            _expect(ready, {reader.fileno(), wake})
            _expect([fd for fd, _ in _sys.epoll_wait(epoll)], [wake])  # the edge is over
        finally:
            epoll.close()
            if wake >= 0:
                _sys.close(wake)
    return "edge-triggered, with an eventfd"


@_probe("pty", "mount devpts on /dev/pts and make /dev/ptmx lead to /dev/pts/ptmx")
def probe_pty() -> str:
    master, slave = (OwnedFd(fd) for fd in _sys.openpty())
    try:
        _sys.set_raw(slave.fileno())
        _sys.set_window_size(master.fileno(), 24, 80)
        _expect(_sys.get_window_size(slave.fileno()), (24, 80))
        _sys.write(slave.fileno(), b"x")
        _expect(_sys.read(master.fileno(), 2), b"x")
    finally:
        slave.close()
        master.close()
    left = terminals_left()
    return "openpty, TIOCGPTPEER" + ("" if left is None else f"; {left:,} more can be made")


def terminals_left() -> int | None:
    """How many more terminals there may be on this machine; None if it does not say."""
    most, used = _setting("kernel/pty/max"), _setting("kernel/pty/nr")
    return None if most is None or used is None else max(0, most - used)


def probe_pipes() -> Finding:
    """How much pipe buffer this user may have, and what is left of it."""
    name = "pipe budget"
    soft, largest = _setting("fs/pipe-user-pages-soft"), _setting("fs/pipe-max-size")
    if soft is None or largest is None:
        return Finding(name=name, verdict="warn", detail="/proc/sys/fs is not there", advice=PROC)
    facts: dict[str, object] = {"soft_pages": soft, "max_size": largest}
    try:
        left, exact = _pipe_pages(soft, largest)
    except OSError as error:
        advice = "raise fs.pipe-user-pages-hard, or have less pipes open"
        return failure(name, error, advice if error.errno == errno.ENFILE else SECCOMP)
    facts["left_pages"] = left
    most = f"{largest:,} bytes at most for one pipe"
    if left is None:
        limit = f"{soft:,} pages, which do not bind this user" if soft else "no limit"
        return Finding(name=name, verdict="ok", detail=f"{limit}; {most}", facts=facts)
    about = "" if exact else "at least "
    detail = f"{about}{left:,} of {soft:,} pages left for uid {os.getuid()}; {most}"
    if left * 4 >= soft or not exact:
        return Finding(name=name, verdict="ok", detail=detail, facts=facts)
    return Finding(
        name=name,
        verdict="warn",
        detail=detail,
        advice="past it new pipes have 2 pages instead of 16: raise fs.pipe-user-pages-soft",
        facts=facts,
    )


def _pipe_pages(soft: int, largest: int) -> tuple[int | None, bool]:
    """Pages that this user's pipes may still have together, and whether it is exact.

    The kernel tells nobody what it has counted, so pipes are made and enlarged, empty as
    they are, until it refuses; a millisecond later they are gone.  The answer is exact to
    the size of a pipe; None when nothing limits this user.
    """
    taken = 0
    step = largest // _sys.PAGE
    with ExitStack() as stack:
        while soft and taken <= soft:
            try:
                ends = [OwnedFd(fd) for fd in _sys.pipe()]
            except OSError as error:
                if taken and error.errno in {errno.EMFILE, errno.ENFILE}:
                    return taken, error.errno == errno.ENFILE
                raise
            for end in ends:
                stack.callback(end.close)
            first = size = _sys.pipe_size(ends[0].fileno()) // _sys.PAGE
            while step > size:
                try:
                    size = _sys.set_pipe_size(ends[0].fileno(), step * _sys.PAGE) // _sys.PAGE
                except PermissionError:
                    step //= 2
            if first < min(WHOLE, largest // _sys.PAGE):
                return taken, True
            taken += size
            if step < WHOLE * 2 <= largest // _sys.PAGE:
                return taken, True
    return None, True


def probe_rlimit() -> Finding:
    """How many descriptors this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Finding(
        name="RLIMIT_NOFILE",
        verdict="ok",
        detail=f"soft {_limit(soft)}, hard {_limit(hard)}",
        facts={"soft": soft, "hard": hard},
    )


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value:,}"


@contextmanager
def scratch(*names: str) -> Generator[str]:
    """A directory of our own; it and the *names* in it are removed without a descriptor."""
    directory = tempfile.mkdtemp(prefix="pyshimio-")
    try:
        yield directory
    finally:
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(f"{directory}/{name}")
        os.rmdir(directory)


@contextmanager
def _pipe() -> Generator[tuple[OwnedFd, OwnedFd]]:
    reader, writer = (OwnedFd(fd) for fd in _sys.pipe())
    try:
        yield reader, writer
    finally:
        reader.close()
        writer.close()


def _expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise _Wrong(f"{found!r} came where {wanted!r} was due")


def _wait_readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(GUARD * 1000))


def _setting(name: str) -> int | None:
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


PROBES: tuple[Probe, ...] = (
    probe_kernel,
    probe_proc,
    probe_pidfd,
    probe_splice,
    probe_fifo,
    probe_epoll,
    probe_pty,
    probe_pipes,
    probe_rlimit,
)
"""In the order of the report."""
