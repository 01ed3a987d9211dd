"""What the fixture ``shimio`` gives: one of each, in the test's directory."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from . import faults
from ._fake_client import FakeFifos
from ._fake_container import FakeContainer
from ._fake_logger import FakeLogger
from ._fake_runtime import FakeRuntime
from ._recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

__all__ = ("Shimio",)


class Faults:
    """The functions of :mod:`pyshimio.testing.faults`."""

    cancel_everywhere: Final = staticmethod(faults.cancel_everywhere)
    clogged: Final = staticmethod(faults.clogged)
    count_syscalls: Final = staticmethod(faults.count_syscalls)
    dying_peer: Final = staticmethod(faults.dying_peer)
    every_failure: Final = staticmethod(faults.every_failure)
    fail_syscall: Final = staticmethod(faults.fail_syscall)
    full_disk: Final = staticmethod(faults.full_disk)
    tiny_pipe: Final = staticmethod(faults.tiny_pipe)


class Shimio:
    """Fakes for one test, which are ended when it has.

    Args:
        directory: Everything is made in it.

    Attributes:
        faults: The functions of :mod:`pyshimio.testing.faults`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.faults: Faults = Faults()
        self._directory = os.path.join(directory, "shimio")
        self._runtime: FakeRuntime | None = None
        self._ends = ExitStack()
        self._counts: dict[str, int] = {}

    @property
    def runtime(self) -> FakeRuntime:
        """A runtime; its containers are deleted after the test."""
        if self._runtime is None:
            self._runtime = FakeRuntime.make(self._new("runtime"))
            self._ends.callback(_delete_all, self._runtime)
        return self._runtime

    def bundle(self, container: FakeContainer | Sequence[str], **options: Any) -> str:
        """A new bundle that runs *container*, or a program with its arguments.

        Args:
            container: What is to run.
            options: As for :meth:`pyshimio.runc.Bundle.write`.
        """
        args = container.args if isinstance(container, FakeContainer) else container
        return self.runtime.bundle(os.path.join(self._new("bundle"), "bundle"), args, **options)

    def container(self) -> FakeContainer:
        """The beginning of a new script."""
        container = FakeContainer(self._new("container"))
        self._ends.callback(container.end)
        return container

    def logger(self, **options: Any) -> FakeLogger:
        """A new logging binary; *options* as for :meth:`FakeLogger.make`."""
        logger = FakeLogger.make(os.path.join(self._new("logger"), "logger"), **options)
        self._ends.callback(logger.end)
        return logger

    def fifos(self, *, terminal: bool = False) -> FakeFifos:
        """New FIFOs with a client for each; those are away until they are told to come."""
        fifos = FakeFifos.make(os.path.join(self._new("fifos"), "fifos"), terminal=terminal)
        self._ends.callback(fifos.detach)
        return fifos

    def recorder(self, **options: Any) -> Recorder:
        """A new sink that keeps what it is given; *options* as for :class:`Recorder`."""
        recorder = Recorder(**options)
        self._ends.callback(recorder.close)
        return recorder

    def _new(self, kind: str) -> str:
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        path = os.path.join(self._directory, f"{kind}-{count}")
        os.makedirs(path)
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.close()

    def __repr__(self) -> str:
        made = ", ".join(f"{count} {kind}" for kind, count in self._counts.items())
        return f"<Shimio with {made or 'nothing'}>"


def _delete_all(runtime: FakeRuntime) -> None:
    runtime.behave()
    listed = [runtime.program, "--root", runtime.root, "list", "-q"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        subprocess.run(
            [runtime.program, "--root", runtime.root, "delete", "--force", name], check=False
        )
