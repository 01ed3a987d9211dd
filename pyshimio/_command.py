"""What to run and with which descriptors: Go's ``exec.Cmd``, without its goroutines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import _spawn, _sys
from ._fd import Descriptor, OwnedFd, duplicate
from ._process import Process, refuse_ignored_sigchld
from .errors import ChildReapedElsewhereError, CommandUsedError, InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

__all__ = ("Command", "check_env")


def check_env(env: Mapping[str, str]) -> None:
    """Raise for what no environment can hold.

    Raises:
        InvalidOptionError: A name or a value is none.
    """
    for name, value in env.items():
        texts = all(isinstance(text, str) for text in (name, value))
        if not texts or not name or "=" in name or "\0" in name + value:
            raise InvalidOptionError(
                f"no environment holds the variable {name!r} with the value {value!r}: both are"
                " strings without a NUL byte, and a name has at least one character and no '='",
                option="env",
            )


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
        new_session: The child calls ``setsid``, which makes a new process group too.
        stdin, stdout, stderr: Descriptors, duplicated here and now; the caller's stay the
            caller's.  None is ``/dev/null``, as in Go, and not ours.
        extra_files: ``extra_files[i]`` becomes descriptor ``3 + i``; no other is inherited.

    SIGPIPE and SIGXFSZ, which Python ignores, are at their defaults in the child, and no
    signal is blocked.  A Command that is not started after all has to be closed.

    Example:
        >>> from pyshimio import Command
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
        self.args: list[str] = [os.fspath(arg) for arg in args]
        if any("\0" in arg for arg in self.args):
            raise InvalidOptionError("an argument contains a NUL byte", option="args")
        self.env: dict[str, str] | None = None if env is None else dict(env)
        check_env(self.env or {})
        self.cwd: str | None = None if cwd is None else os.fsdecode(cwd)
        if self.cwd is not None and (not self.cwd or "\0" in self.cwd):
            raise InvalidOptionError(f"cwd is no path: {self.cwd!r}", option="cwd")
        if umask is not None and not 0 <= umask <= 0o777:
            raise InvalidOptionError(f"umask is 0 to 0o777, not {umask!r}", option="umask")
        if process_group is not None and process_group < 0:
            raise InvalidOptionError(
                f"process_group is 0 for a new one or a number, not {process_group!r}",
                option="process_group",
            )
        self.user = user
        self.group = group
        self.extra_groups: list[int | str] | None = (
            None if extra_groups is None else list(extra_groups)
        )
        self.umask = umask
        self.process_group = process_group
        self.new_session: bool = new_session
        self._refuse_group_in_session()
        _spawn.check_ids(user, group, self.extra_groups)
        self._fds: dict[int, OwnedFd] = {}
        self._terminal = False
        self._used = False
        self._pid = 0  # of the child, whatever has become of it
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

        Raises:
            CommandUsedError: It was started or closed before.
        """
        if self._used:
            raise CommandUsedError("this Command was started or closed; make another one")
        if number < 0:
            raise InvalidOptionError(
                f"a child's descriptor is 0 or more, not {number!r}", option="number"
            )
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
        self._refuse_group_in_session()

    def _refuse_group_in_session(self) -> None:
        if self.new_session and self.process_group is not None:
            raise InvalidOptionError(
                "the leader of a new session leads a process group already and cannot change it;"
                " leave process_group out",
                option="process_group",
            )

    def check(self) -> None:
        """Raise what :meth:`start` would, as far as it can be known before anything is opened.

        Raises:
            InvalidOptionError: There is no such user or group.
            SigchldIgnoredError: Its exit status could not be had.
            CommandUsedError: It was started or closed before.
        """
        if self._used:
            raise CommandUsedError("a Command starts once; make another one")
        refuse_ignored_sigchld()
        _spawn.identity(self._plan())

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
        self._used = True
        try:
            refuse_ignored_sigchld()
            self._pid = pid = await _spawn.spawn(self._plan())
            try:
                return Process(pid, tuple(self.args))
            except ChildReapedElsewhereError:
                raise  # the pid may be anybody's by now
            except BaseException:
                _sys.kill_and_reap(pid)
                raise
        finally:
            self.close()

    def _plan(self) -> _spawn.Plan:
        return _spawn.Plan(
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
