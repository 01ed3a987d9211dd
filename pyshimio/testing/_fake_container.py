"""A container's process that does what a script says."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import zlib
from typing import Literal

import attrs

from . import _container_program
from ._ending import kill
from ._eventually import GUARD, eventually

__all__ = ("FakeContainer", "numbered")

Output = Literal["stdout", "stderr"]
Step = tuple[object, ...]
SAID = frozenset({"stdin", "signals", "unmet"})
LONGEST = 1 << 15
"""Bytes of one write."""
LONGEST_SCRIPT = (1 << 17) - 1
"""Bytes of one argument (MAX_ARG_STRLEN, with its NUL)."""


def numbered(count: int) -> bytes:
    """*count* bytes of lines with their numbers, as :meth:`FakeContainer.numbered` writes them."""
    return b"".join(_container_program.numbered(count))


def _as_text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


@attrs.frozen
class FakeContainer:
    r"""A process that does one thing after the other: what stands in a script.

    Each method gives another container, with a step more.  It is a real process: start it as a
    :class:`~pyshimio.Command`, or put it into a bundle for a runtime that does not change the root.

    Args:
        directory: Where it says what it has seen, and where it is held; it has to be there.  None:
            it can do all but :meth:`reach` and :meth:`hold`, and says nothing.
        steps: The script.

    Example:
        ::

            container = (
                FakeContainer(tmp_path)
                .write(b"name? ")
                .expect(b"ada\n")
                .ignore("SIGTERM")
                .reach("ready")
                .hold("go")
                .exit(3)
            )
            async with PipeIO() as io:
                process = await io.spawn(container.args)
                await io.stdin.send(b"ada\n")
                await container.reached("ready")
                container.release("go")
                assert await process.wait() == 3
            container.check()
    """

    UNMET = _container_program.UNMET
    """Its exit status when an expectation was not met."""

    directory: str | None = attrs.field(default=None, converter=_as_text)
    steps: tuple[Step, ...] = ()

    @property
    def args(self) -> list[str]:
        """The program and its arguments, for whoever starts it.

        Raises:
            ValueError: The script is too long for an argument.
        """
        script = json.dumps(self.steps, separators=(",", ":")).encode()
        text = base64.b85encode(zlib.compress(script)).decode()
        if len(text) > LONGEST_SCRIPT:
            raise ValueError(
                f"the script has {len(text)} bytes, and an argument may have {LONGEST_SCRIPT};"
                " use times=, or numbered() for bytes that can be told from each other"
            )
        program = os.path.abspath(_container_program.__file__)
        return [sys.executable, "-I", "-S", program, self.directory or "", text]

    # -- output ---------------------------------------------------------------------------

    def write(self, data: bytes, *, to: Output = "stdout", times: int = 1) -> FakeContainer:
        """Write *data*, so many times.

        Raises:
            ValueError: It is more than 32 KiB, which is no script any more; *times* and
                :meth:`numbered` are for that.
        """
        if len(data) > LONGEST:
            raise ValueError(
                f"a step writes up to {LONGEST} bytes, not {len(data)};"
                " use times=, or numbered() for bytes that can be told from each other"
            )
        if times < 0:
            raise ValueError(f"times= counts from 0, not {times}; flood() goes on for ever")
        return self._then("write", to, data.decode("latin-1"), times)

    def numbered(self, count: int, *, to: Output = "stdout") -> FakeContainer:
        """Write *count* bytes of lines with their numbers, :func:`numbered` of them."""
        return self._then("numbered", to, count)

    def flood(self, data: bytes = b"y\n", *, to: Output = "stdout") -> FakeContainer:
        """Write *data* for ever."""
        return self._then("write", to, data.decode("latin-1"), -1)

    def copy(self, *, to: Output = "stdout") -> FakeContainer:
        """Write what comes on stdin, until its end (``cat``)."""
        return self._then("copy", to)

    def close(self, stream: Literal["stdin", "stdout", "stderr"]) -> FakeContainer:
        """Close a stream and go on, as a daemon does."""
        return self._then("close", stream)

    # -- input ----------------------------------------------------------------------------

    def expect(self, data: bytes) -> FakeContainer:
        """Read as many bytes from stdin; it ends with :data:`UNMET` if they are others."""
        return self._then("expect", data.decode("latin-1"))

    def expect_eof(self) -> FakeContainer:
        """Wait for the end of stdin; it ends with :data:`UNMET` if there is anything before."""
        return self._then("expect_eof")

    def expect_size(self, rows: int, columns: int) -> FakeContainer:
        """Wait until its terminal is so large; it ends with :data:`UNMET` if it has none."""
        return self._then("expect_size", rows, columns)

    # -- life -----------------------------------------------------------------------------

    def ignore(self, name: str) -> FakeContainer:
        """Go on when this signal (``"SIGTERM"``) comes, and remember it."""
        return self._then("ignore", _signal(name))

    def exit_on(self, name: str, status: int = 0) -> FakeContainer:
        """End with *status* when this signal comes."""
        return self._then("exit_on", _signal(name), status)

    def fork(self, script: FakeContainer, *, new_session: bool = False) -> FakeContainer:
        """Start another process with the same streams, which does what *script* says.

        It is not waited for: so it keeps stdout when the container has exited
        (``fork(FakeContainer().stay())``), or floods it.
        """
        session = "new" if new_session else "same"
        return self._then("fork", script.directory or "", script.steps, session)

    def pause(self, seconds: float) -> FakeContainer:
        """Do nothing for a while."""
        return self._then("pause", seconds)

    def stay(self) -> FakeContainer:
        """Do nothing for ever."""
        return self._then("stay")

    def exit(self, status: int) -> FakeContainer:
        """End with *status*; after the last step it ends with 0."""
        return self._then("exit", status)

    def die(self, name: str = "SIGKILL") -> FakeContainer:
        """End by a signal."""
        return self._then("die", _signal(name))

    def reach(self, name: str) -> FakeContainer:
        """Say that this point is reached: :meth:`reached` waits for it."""
        return self._in_directory("reach", name)

    def hold(self, name: str) -> FakeContainer:
        """Wait for :meth:`release` of this name."""
        return self._in_directory("hold", name)

    # -- what a test asks -----------------------------------------------------------------

    async def reached(self, name: str, timeout: float = GUARD) -> None:
        """Wait until it has reached this point.

        Raises:
            AssertionError: It has not, for so many seconds; what was not met is said.
        """
        path = self._path(f"{name}.reached")
        await eventually(
            lambda: os.path.exists(path),
            lambda: f"the container has not reached {name!r}: {', '.join(self.unmet) or 'silent'}",
            timeout,
        )

    def release(self, name: str) -> None:
        """Let it go on from where it is held."""
        with open(self._path(f"{name}.released"), "w", encoding="utf-8"):
            pass

    @property
    def received(self) -> bytes:
        """What it has read from its stdin."""
        return self._told("stdin")

    @property
    def signals(self) -> tuple[str, ...]:
        """The names of those that have come, of those that it was told to handle."""
        return tuple(self._told("signals").decode().splitlines())

    @property
    def unmet(self) -> tuple[str, ...]:
        """What was expected and did not come, in words."""
        return tuple(self._told("unmet").decode().splitlines())

    def check(self) -> None:
        """Hold it to its expectations.

        Raises:
            AssertionError: One was not met.
        """
        assert not self.unmet, "; ".join(self.unmet)

    def forget(self) -> None:
        """Take back all that it has said, and what was released, before it is started again.

        It has to have ended; what it has started (:meth:`fork`) keeps its own.
        """
        for name in os.listdir(self._path("")):
            if name in SAID or name.endswith((".reached", ".released")):
                os.unlink(self._path(name))

    def end(self) -> None:
        """Kill what is left of it, whatever it has started; the fixture does so after the test.

        Only one with a directory can be told from strangers.
        """
        for line in self._told("processes").decode().splitlines():
            pid, start = map(int, line.split())
            kill(pid, start)

    def _then(self, *step: object) -> FakeContainer:
        return attrs.evolve(self, steps=(*self.steps, step))

    def _in_directory(self, *step: object) -> FakeContainer:
        self._path("")
        return self._then(*step)

    def _path(self, name: str) -> str:
        if self.directory is None:
            raise ValueError(
                "a container without a directory can neither be held nor asked;"
                " make it with FakeContainer(directory)"
            )
        return os.path.join(self.directory, name)

    def _told(self, name: str) -> bytes:
        path = self._path(name)
        if not os.path.exists(path):
            return b""
        with open(path, "rb") as file:
            return file.read()


def _signal(name: str) -> str:
    return signal.Signals[name].name
