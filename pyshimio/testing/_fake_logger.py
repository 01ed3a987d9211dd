"""A logging binary that does what it was told to, and keeps what it got."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, Literal

import attrs

from .._stdio import StdioURI
from . import _logger_program
from ._ending import kill
from ._eventually import GUARD, eventually

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ("FakeLogger",)

LONGEST = 200
"""Characters of an interpreter that fit into a script's first line, and some to spare."""
Ready = Literal["byte", "close", "keep", "never", "exit", "crash"]


@attrs.frozen
class FakeLogger:
    """A logger for ``binary://`` and ``binary-v2://``: a real program.

    It keeps what it reads, and looks whether whoever has started it keeps to the contract:
    descriptors 0 to 5 and no others, 3 and 4 blocking pipes that it reads, 5 one that it writes;
    ``CONTAINER_ID`` and ``CONTAINER_NAMESPACE``; arguments in pairs; no signal blocked; and no
    SIGTERM before the end of both streams.

    Args:
        directory: Its own.

    Example:
        ::

            logger = FakeLogger.make(tmp_path / "logger", dies_after=100)
            async with await create_io(logger.uri(), id="c1", namespace="ns") as io:
                await io.spawn(["seq", "1000"])
                with pytest.raises(StreamFailedError):
                    await io.drain()
            assert len(logger.stdout) == 100
    """

    directory: str

    @classmethod
    def make(
        cls,
        directory: str | os.PathLike[str],
        *,
        ready: Ready = "byte",
        dies_after: int | None = None,
        stalls_after: int | None = None,
        ends: bool = True,
        ignores: Collection[str] = (),
        status: int = 0,
    ) -> FakeLogger:
        """One that does this.

        Args:
            directory: For its program and for what it keeps; made.
            ready: It writes a ``byte`` to descriptor 5 and closes it, or only does ``close`` it,
                or writes and does ``keep`` it; it is ``never`` ready; it does ``exit`` before that
                (with *status*, or 1), or is killed (``crash``).
            dies_after: Bytes, of both streams together, after which SIGKILL ends it.
            stalls_after: Bytes after which it reads no more, and lives.
            ends: Whether it ends when both streams have.
            ignores: Signals that it does not end by: ``{"SIGTERM"}``.
            status: Its exit status.
        """
        where = os.path.abspath(directory)
        os.makedirs(where)
        plan = {
            "ready": ready,
            "dies_after": dies_after,
            "stalls_after": stalls_after,
            "ends": ends,
            "ignores": sorted(ignores),
            "status": status,
        }
        with open(os.path.join(where, "plan.json"), "w", encoding="utf-8") as file:
            json.dump(plan, file)
        with open(_logger_program.__file__, encoding="utf-8") as file:
            source = file.read()
        made = cls(where)
        with open(made.path, "w", encoding="utf-8") as file:
            file.write(f"{_first_lines(sys.executable)}\n{source}")
        os.chmod(made.path, 0o755)
        return made

    @property
    def path(self) -> str:
        """The program."""
        return os.path.join(self.directory, "logger")

    def uri(
        self,
        args: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        *,
        scheme: Literal["binary", "binary-v2"] = "binary",
    ) -> str:
        """Its URI, with these arguments."""
        return StdioURI.build(scheme, self.path, args)

    # -- what a test asks -----------------------------------------------------------------

    @property
    def starts(self) -> int:
        """How often it has been started."""
        return len([name for name in os.listdir(self.directory) if name.startswith("start-")])

    @property
    def stdout(self) -> bytes:
        """What it got on descriptor 3, of all starts."""
        return self._all("stdout")

    @property
    def parts(self) -> list[bytes]:
        """What each start got on descriptor 3."""
        return [_content(os.path.join(start, "stdout")) for start in self._names()]

    @property
    def stderr(self) -> bytes:
        """What it got on descriptor 4, of all starts."""
        return self._all("stderr")

    @property
    def ended(self) -> bool:
        """Whether the last start has seen the end of both streams."""
        return self._last("end") == b"eof"

    @property
    def signals(self) -> tuple[str, ...]:
        """Those that have come, of SIGTERM, SIGHUP, SIGINT and SIGQUIT."""
        return tuple(self._all("signals").decode().splitlines())

    @property
    def args(self) -> tuple[str, ...]:
        """The arguments of the last start."""
        return tuple(self.about["args"])

    @property
    def env(self) -> dict[str, str]:
        """The environment of the last start."""
        return dict(self.about["env"])

    @property
    def about(self) -> dict[str, Any]:
        """The last start's ``args``, ``env``, ``cwd``, ``pid``, ``group`` and ``session``."""
        found: dict[str, Any] = json.loads(self._last("about.json") or "{}")
        return found

    @property
    def wrong(self) -> tuple[str, ...]:
        """What its starter has done against the contract, in words."""
        return tuple(self._all("wrong").decode().splitlines())

    def check(self) -> None:
        """Hold its starter to the contract, and itself to its plan.

        Raises:
            AssertionError: Something was wrong, or it was ended before it had done what it was to
                do; the message says what.
        """
        assert self.starts, "the logger was not started"
        assert not self.wrong, "; ".join(self.wrong)
        plan = json.loads(_content(os.path.join(self.directory, "plan.json")))
        if plan["ready"] in {"byte", "close", "keep"}:
            for number, start in enumerate(self._names(), 1):
                ended = _content(os.path.join(start, "end"))
                assert ended, f"start {number} was ended before the end of both streams"

    async def got(self, count: int, timeout: float = GUARD) -> None:
        """Wait until it has so many bytes.

        Raises:
            AssertionError: It has not, for so many seconds.
        """
        await eventually(
            lambda: len(self.stdout) + len(self.stderr) >= count,
            lambda: f"the logger has {len(self.stdout)} and {len(self.stderr)} of {count} bytes",
            timeout,
        )

    def end(self) -> None:
        """Kill what still runs of it; the fixture does so after the test."""
        for start in self._names():
            if about := json.loads(_content(os.path.join(start, "about.json")) or "{}"):
                kill(about["pid"], about["start"])

    def _names(self) -> list[str]:
        return [os.path.join(self.directory, f"start-{n + 1}") for n in range(self.starts)]

    def _all(self, name: str) -> bytes:
        return b"".join(_content(os.path.join(start, name)) for start in self._names())

    def _last(self, name: str) -> bytes:
        return _content(os.path.join(self._names()[-1], name)) if self.starts else b""


def _first_lines(python: str) -> str:
    """What has the kernel start *python* with the script."""
    if " " not in python and len(python) < LONGEST:
        return f"#!{python} -IS"
    # By a shell, for which the second line is a command; for Python it begins the docstring.
    return f"#!/bin/sh\n'''exec' {shlex.quote(python)} -IS \"$0\" \"$@\"\n' ''' \\"


def _content(path: str) -> bytes:
    if not os.path.exists(path):
        return b""
    with open(path, "rb") as file:
        return file.read()
