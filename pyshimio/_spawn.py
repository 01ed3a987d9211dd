"""The three ways to start a child, and which one a command needs.

``posix_spawn`` puts descriptors where they belong and knows nothing of cwd, user or umask;
``subprocess.Popen`` knows those and renumbers nothing above 2; the trampoline does both for
the price of one more interpreter.  ``preexec_fn`` is not safe with threads and not used.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import attrs

from . import _sys
from ._children import Children
from ._fd import OwnedFd
from .errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    InvalidOptionError,
    SpawnError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("Plan", "check_ids", "spawn", "spawn_now")

# Python ignores them, and children would inherit that.
DEFAULTED = (signal.SIGPIPE, signal.SIGXFSZ)
MAX_ID = 0xFFFFFFFE
TRAMPOLINE = str(Path(__file__).with_name("_trampoline.py"))


@attrs.frozen(kw_only=True)
class Plan:
    """All that a start needs; *fds* maps the child's numbers to ours."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    user: int | str | None = None
    group: int | str | None = None
    extra_groups: Sequence[int | str] | None = None
    umask: int | None = None
    process_group: int | None = None
    new_session: bool = False
    terminal: bool = False
    fds: Mapping[int, int] = attrs.field(factory=dict[int, int])

    @property
    def has_identity(self) -> bool:
        """Whether anything is asked that posix_spawn cannot do."""
        asked = (self.cwd, self.user, self.group, self.extra_groups, self.umask)
        return any(value is not None for value in asked)

    @property
    def extra(self) -> int:
        """How many descriptors above 2 the child gets."""
        return sum(number > 2 for number in self.fds)


async def spawn(plan: Plan) -> int:
    """Start *plan* and return the pid; see :meth:`Command.start` for the errors."""
    program = _check(plan)
    if not plan.has_identity:
        return _posix_spawn(program, plan.args, plan)
    # Popen's children keep the signal mask of the thread that starts them.
    if not plan.extra and not plan.terminal and not signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        return _popen(program, plan)
    with Children.current().expecting():
        return await _trampoline(program, plan)


def spawn_now(plan: Plan) -> int:
    """The same without waiting, so a failure between fork and exec is an exit with 127."""
    program = _check(plan)
    if not plan.has_identity:
        return _posix_spawn(program, plan.args, plan)
    python = _trampoline_args(program, plan, report=None)
    return _posix_spawn(python[0], python, plan)


def _check(plan: Plan) -> str:
    if set(plan.fds) - {0, 1, 2} != set(range(3, 3 + plan.extra)):
        raise InvalidOptionError("descriptors above 2 must follow each other", option="extra_files")
    # Popen changes the directory before it looks for a relative program; so do we.
    return find_program(plan.args[0], plan.env, plan.cwd)


def find_program(name: str, env: Mapping[str, str], cwd: str | None = None) -> str:
    """The path that the kernel is to execute."""
    if "/" in name:
        candidates = [name]
    else:
        path = env.get("PATH", os.defpath)
        candidates = [os.path.join(part or ".", name) for part in path.split(":")]
    denied = False
    for candidate in candidates:
        there = os.path.join(cwd, candidate) if cwd is not None else candidate
        if os.path.isfile(there):
            if os.access(there, os.X_OK):
                return candidate
            denied = True
        denied = denied or ("/" in name and os.path.exists(there))
    return _refuse(name, errno.EACCES if denied else errno.ENOENT)


def _refuse(program: str, code: int) -> NoReturn:
    reason = os.strerror(code)
    if code in {errno.ENOENT, errno.ENOTDIR}:
        raise CommandNotFoundError(
            f"cannot find the program {program!r}", program=program, errno=code
        )
    if code in {errno.EACCES, errno.ENOEXEC, errno.EPERM}:
        raise CommandNotExecutableError(
            f"cannot execute {program!r}: {reason}", program=program, errno=code
        )
    raise SpawnError(f"cannot start {program!r}: {reason}", program=program, errno=code)


def _posix_spawn(program: str, args: tuple[str, ...], plan: Plan) -> int:
    targets = {number: plan.fds[number] for number in sorted(plan.fds)}
    # A source with a number below the highest target could be overwritten before its turn.
    lowest = 3 + plan.extra
    moved = {n: OwnedFd(_sys.dup(fd, lowest)) for n, fd in targets.items() if fd < lowest}
    try:
        actions: list[tuple[Any, ...]] = []
        if plan.terminal:
            # A session leader without a terminal gets the first one that it opens.
            slave = moved[0].fileno() if 0 in moved else targets[0]
            actions.append((os.POSIX_SPAWN_OPEN, 0, f"/proc/self/fd/{slave}", os.O_RDWR, 0))
            actions += [(os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)]
        else:
            for number in range(3):
                if number not in targets:
                    flags = os.O_RDONLY if number == 0 else os.O_WRONLY
                    actions.append((os.POSIX_SPAWN_OPEN, number, "/dev/null", flags, 0))
        for number, fd in targets.items():
            if not plan.terminal or number > 2:
                source = moved[number].fileno() if number in moved else fd
                actions.append((os.POSIX_SPAWN_DUP2, source, number))
        actions += _sys.close_strangers(lowest)
        options: dict[str, Any] = {}
        if plan.process_group is not None:
            options["setpgroup"] = plan.process_group
        if plan.new_session:
            options["setsid"] = True
        try:
            return _sys.posix_spawn(
                program,
                args,
                # The same as bytes, as the kernel wants them: decoded and encoded for nothing.
                os.environb if plan.env is os.environ else plan.env,
                file_actions=actions,
                setsigdef=DEFAULTED,
                setsigmask=(),
                **options,
            )
        except OSError as error:
            code = error.errno or 0
            # Between us and the command there may be a trampoline, which may be missing too.
            missing = code in {errno.ENOENT, errno.EACCES}
            _refuse(args[0] if missing else plan.args[0], code)
    finally:
        for owned in moved.values():
            owned.close()


def _popen(program: str, plan: Plan) -> int:
    who = identity(plan)
    try:
        child = subprocess.Popen(  # noqa: S603, TID251 - what the caller asked to run
            plan.args,
            executable=program,
            env=plan.env,
            stdin=plan.fds.get(0, subprocess.DEVNULL),
            stdout=plan.fds.get(1, subprocess.DEVNULL),
            stderr=plan.fds.get(2, subprocess.DEVNULL),
            cwd=plan.cwd,
            user=who.uid,
            group=who.gid,
            extra_groups=who.groups,
            umask=-1 if plan.umask is None else plan.umask,
            process_group=plan.process_group,
            start_new_session=plan.new_session,
        )
    except OSError as error:
        # Popen names the program when exec failed, and the directory for what came before.
        if error.filename == program:
            _refuse(plan.args[0], error.errno or 0)
        raise SpawnError(
            f"cannot start {plan.args[0]!r} as asked (cwd {plan.cwd!r}, user {plan.user!r}):"
            f" {error.strerror}",
            program=plan.args[0],
            errno=error.errno,
        ) from error
    # The child is ours to wait for; Popen would do it behind our back when collected.
    child.returncode = 0
    return child.pid


def _trampoline_args(program: str, plan: Plan, report: int | None) -> tuple[str, ...]:
    who = identity(plan)
    return (
        sys.executable,
        "-I",
        "-S",
        TRAMPOLINE,
        "-" if report is None else str(report),
        # Python itself may set LC_CTYPE on its way up (PEP 538).
        _given(plan.env.get("LC_CTYPE")),
        _given(plan.cwd),
        "-" if plan.umask is None else f"{plan.umask:o}",
        "-" if who.groups is None else ",".join(map(str, who.groups)),
        "-" if who.gid is None else str(who.gid),
        "-" if who.uid is None else str(who.uid),
        program,
        *plan.args,
    )


def _given(text: str | None) -> str:
    return "-" if text is None else f"={text}"


async def _trampoline(program: str, plan: Plan) -> int:
    report = 3 + plan.extra
    python = _trampoline_args(program, plan, report)
    reader, writer = (OwnedFd(fd) for fd in _sys.pipe())
    try:
        fds = {**plan.fds, report: writer.fileno()}
        pid = _posix_spawn(python[0], python, attrs.evolve(plan, fds=fds))
        writer.close()
        try:
            _sys.set_nonblocking(reader.fileno())
            await anyio.wait_readable(reader.fileno())
            answer = _sys.read(reader.fileno(), 64)
        except BaseException:
            _sys.kill_and_reap(pid)
            raise
    finally:
        reader.close()
        writer.close()
    if not answer:
        return pid
    _sys.kill_and_reap(pid)
    step, _, code = answer.decode().partition(" ")
    if step == "exec":
        _refuse(plan.args[0], int(code))
    raise SpawnError(
        f"cannot start {plan.args[0]!r} as asked: {step}: {os.strerror(int(code))}",
        program=plan.args[0],
        errno=int(code),
    )


@attrs.frozen
class Identity:
    """Numbers for a child that is to be somebody else; None leaves as is."""

    uid: int | None
    gid: int | None
    groups: list[int] | None


def identity(plan: Plan) -> Identity:
    """Look up who the child is to be, before anything is started.

    Raises:
        InvalidOptionError: There is no such user or group, or a bare uid has no entry in
            the user database and no *group* says what its primary group is.
    """
    uid = gid = None
    groups = None
    option = "user"
    try:
        if isinstance(plan.user, str):
            entry = pwd.getpwnam(plan.user)
            uid, gid, groups = entry.pw_uid, entry.pw_gid, list[int]()
        elif plan.user is not None:
            uid, groups = plan.user, []
            gid = pwd.getpwuid(uid).pw_gid if plan.group is None else None
        option = "group"
        if plan.group is not None:
            gid = _gid(plan.group)
        option = "extra_groups"
        if plan.extra_groups is not None:
            groups = [_gid(group) for group in plan.extra_groups]
    except KeyError as error:
        raise InvalidOptionError(
            f"unknown user or group: {error.args[0]}; for a uid without an entry in the user"
            " database give group= as well",
            option=option,
        ) from error
    return Identity(uid, gid, groups)


def _gid(group: int | str) -> int:
    return grp.getgrnam(group).gr_gid if isinstance(group, str) else group


def check_ids(
    user: int | str | None, group: int | str | None, extra_groups: Sequence[int | str] | None
) -> None:
    """Refuse numbers that are no ids, before anything is opened for the child.

    Raises:
        InvalidOptionError: A number is negative or too large.
    """
    ids = [("user", user), ("group", group)]
    ids += [("extra_groups", number) for number in extra_groups or ()]
    for option, value in ids:
        if isinstance(value, int) and not 0 <= value <= MAX_ID:
            raise InvalidOptionError(f"{option}: {value} is no user or group id", option=option)
