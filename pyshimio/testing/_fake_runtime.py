"""The fake runtime, as an object of a test."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

import attrs

from ..runc import Bundle, Runc
from .fake_runc._commands import COMMANDS
from .fake_runc._mischief import FILE
from .fake_runc._store import locked, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

__all__ = ("FakeRuntime",)


@attrs.frozen
class FakeRuntime:
    """A runtime for tests (``pyshimio-fake-runc``) with a state directory of its own.

    It understands runc's command line, and starts real processes with real pipes, terminals and
    pidfds; it isolates nothing, and so needs no root.

    Args:
        program: Its path, for whoever wants to be told of a runtime.
        root: Its state directory (``--root``).

    Example:
        ::

            runtime = FakeRuntime.make(tmp_path)
            bundle = runtime.bundle(tmp_path / "bundle", ["sh", "-c", "echo hello; exit 3"])
            async with PipeIO() as io:
                assert await runtime.client().run("c1", bundle, io=io) == 3
    """

    program: str
    root: str

    @classmethod
    def make(cls, directory: str | os.PathLike[str]) -> FakeRuntime:
        """One whose program and state are in *directory*, which has to be there."""
        program = os.path.join(directory, "pyshimio-fake-runc")
        with open(program, "w", encoding="utf-8") as file:
            # (-P: a test's working directory is no place to find modules in.)
            python = shlex.quote(sys.executable)
            file.write(f'#!/bin/sh\nexec {python} -P -m {__package__}.fake_runc "$@"\n')
        os.chmod(program, 0o755)
        root = os.path.join(directory, "fake-runc-root")
        os.makedirs(root, exist_ok=True)
        return cls(program, root)

    def client(self, **options: Any) -> Runc:
        """A client of it; *options* as for :class:`~pyshimio.runc.Runc`."""
        return Runc(program=self.program, root=self.root, **options)

    def bundle(self, path: str | os.PathLike[str], args: Sequence[str], **options: Any) -> str:
        """A bundle that runs *args*; its root directory is not looked at.

        Args:
            path: Where it is to be; made.
            args: The program and its arguments, as the host has them.
            options: As for :meth:`pyshimio.runc.Bundle.write`.
        """
        rootfs = os.path.join(path, "rootfs")
        os.makedirs(rootfs, exist_ok=True)
        Bundle.write(path, args, rootfs=rootfs, **options)
        return os.fspath(path)

    def misbehave(
        self,
        command: str,
        *,
        crash: Literal["before", "after"] | None = None,
        hang: Literal["before", "after"] | None = None,
        slow: float | None = None,
        error: str | None = None,
        exit: int | None = None,  # noqa: A002 - what it is
        garbage: str | None = None,
        descriptors: int | None = None,
        times: int | None = None,
    ) -> None:
        """Have a command go wrong from now on.

        Args:
            command: ``create``, ``exec``, ``state`` and so on.
            crash: It dies of SIGKILL, ``before`` it has done anything or ``after`` all of it.
            hang: It never ends; the same.
            slow: Seconds that it takes longer.
            error: It fails with this message, and does nothing.
            exit: It ends with this status, when it has done everything.
            garbage: It prints this instead of its answer in JSON.
            descriptors: How many it sends over a console socket, in one message; -1 for no message
                at all, 0 for one without any.
            times: How often; None for ever.

        Raises:
            ValueError: There is no such command, or no such moment.
        """
        if command not in COMMANDS:
            raise ValueError(f"the fake runtime has no {command!r}, but {', '.join(COMMANDS)}")
        for when in (crash, hang):
            if when not in {None, "before", "after"}:
                raise ValueError(f"it goes wrong before or after, not {when!r}")
        told = {
            "crash": crash,
            "hang": hang,
            "slow": slow,
            "error": error,
            "exit": exit,
            "garbage": garbage,
            "descriptors": descriptors,
            "times": times,
        }
        path = os.path.join(self.root, FILE)
        with locked(f"{path}.lock"):
            plan: dict[str, Any] = {}
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    plan = json.load(file)
            plan[command] = {name: value for name, value in told.items() if value is not None}
            write_whole(path, plan)

    def behave(self) -> None:
        """Have all commands go right again."""
        path = os.path.join(self.root, FILE)
        with locked(f"{path}.lock"):
            if os.path.exists(path):
                os.unlink(path)
