"""What to run and with which descriptors: Go's ``exec.Cmd``, without its goroutines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from . import _spawn, _sys
from ._fd import Descriptor, OwnedFd, duplicate
from ._process import Process, refuse_ignored_sigchld
from .errors import CommandUsedError, InvalidOptionError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ("Command",)


class Command:
    """A program with its arguments and everything it is to start with; starts once.

    Args:
        args: The program and its arguments.  Without a slash the program is looked for in
            ``PATH`` of *env*.
        env: Exactly this environment; None hands down ours.
        cwd: Working directory.
        user: A uid or a name; its primary group comes with it and every other group goes,
            unless *group* or *extra_groups* say otherwise.
        group: A gid or a name.
        extra_groups: Supplementary groups, instead of none (with *user*) or ours.
        umask: For the child alone.
        process_group: 0 makes the child the leader of a new one; a number has it join.
        new_session: The child calls ``setsid``.
        stdin, stdout, stderr: Descriptors, duplicated here and now; the caller's stay the
            caller's.  None is ``/dev/null``, as in Go, and not ours.
        extra_files: ``extra_files[i]`` becomes descriptor ``3 + i``; no other is inherited.

    SIGPIPE and SIGXFSZ, which Python ignores, are at their defaults in the child, and no
    signal is blocked.  A Command that is not started after all has to be closed.

    Example:
        >>> Command(["ls", "-l", "/proc/self/fd"])
        <Command 'ls -l /proc/self/fd' not started>
    """

    def __init__(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: int | str | None = None,
        group: int | str | None = None,
        extra_groups: Sequence[int | str] | None = None,
        umask: int | None = None,
        process_group: int | None = None,
        new_session: bool = False,
        stdin: Descriptor | None = None,
        stdout: Descriptor | None = None,
        stderr: Descriptor | None = None,
        extra_files: Sequence[Descriptor] = (),
    ) -> None:
        if isinstance(args, (str, bytes)) or not args:
            raise InvalidOptionError(
                'args must be a sequence of at least one string, such as ["ls", "-l"];'
                ' for a shell command line write ["sh", "-c", line]',
                option="args",
            )
        self.args = [os.fspath(arg) for arg in args]
        if any("\0" in arg for arg in self.args):
            raise InvalidOptionError("an argument contains a NUL byte", option="args")
        self.env = None if env is None else dict(env)
        self.cwd = None if cwd is None else os.fspath(cwd)
        self.user = user
        self.group = group
        self.extra_groups = None if extra_groups is None else list(extra_groups)
        self.umask = umask
        self.process_group = process_group
        self.new_session = new_session
        self._fds: dict[int, OwnedFd] = {}
        self._terminal = False
        self._used = False
        try:
            for number, fd in enumerate((stdin, stdout, stderr, *extra_files)):
                if fd is not None:
                    self.set_fd(number, fd)
        except BaseException:
            self.close()
            raise

    def set_fd(self, number: int, fd: Descriptor) -> None:
        """Give the child a duplicate of *fd* as descriptor *number*.

        Args:
            number: 0, 1, 2, or 3 and up without a gap.
            fd: Stays the caller's.
        """
        owned = duplicate(fd)
        if number in self._fds:
            self._fds[number].close()
        self._fds[number] = owned

    def has_fd(self, number: int) -> bool:
        """Whether the child gets something else than /dev/null (or nothing) there."""
        return number in self._fds

    def set_terminal(self, slave: Descriptor) -> None:
        """Give the child a terminal as 0, 1 and 2 that also controls its new session."""
        for number in range(3):
            self.set_fd(number, slave)
        self.new_session = True
        self._terminal = True

    async def start(self) -> Process:
        """Start the program.

        The child belongs to the caller: nothing here kills it.

        Raises:
            CommandNotFoundError: No such program.
            CommandNotExecutableError: It cannot be executed.
            SigchldIgnoredError: Its exit status could not be had.
            CommandUsedError: It was started or closed before.
            SpawnError: The kernel has another reason.
        """
        if self._used:
            raise CommandUsedError("a Command starts once; make another one")
        refuse_ignored_sigchld()
        self._used = True
        try:
            pid = await _spawn.spawn(
                _spawn.Plan(
                    args=tuple(self.args),
                    env=os.environ if self.env is None else self.env,
                    cwd=self.cwd,
                    user=self.user,
                    group=self.group,
                    extra_groups=self.extra_groups,
                    umask=self.umask,
                    process_group=self.process_group,
                    new_session=self.new_session,
                    terminal=self._terminal,
                    fds={number: fd.fileno() for number, fd in self._fds.items()},
                )
            )
            try:
                return Process(pid, tuple(self.args))
            except BaseException:
                _sys.kill_and_reap(pid)
                raise
        finally:
            self.close()

    def close(self) -> None:
        """Close the duplicates; :meth:`start` does it too.  Idempotent."""
        self._used = True
        for fd in self._fds.values():
            fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Command {' '.join(self.args)!r} {'used' if self._used else 'not started'}>"
