"""What the fake runtime does wrong, when a test has told it to.

``mischief.json`` in its root has, for a command, what is to happen: ``{"create": {"crash":
"before"}}``.  See :meth:`pyshimio.testing.FakeRuntime.misbehave` for what there is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from ._store import Failure, locked, write_whole

__all__ = ("FILE", "Mischief")

FILE = "mischief.json"


class Mischief:
    """What is to go wrong with one command."""

    def __init__(self, root: str, command: str) -> None:
        path = os.path.join(root, FILE)
        self._told: dict[str, Any] = {}
        if not os.path.exists(path):
            return
        with locked(f"{path}.lock"):
            with open(path, encoding="utf-8") as file:
                plan: dict[str, dict[str, Any]] = json.load(file)
            self._told = plan.get(command, {})
            times = self._told.get("times")
            if times is not None:
                self._told["times"] = times - 1
                if times <= 1:
                    del plan[command]
                write_whole(path, plan)

    def before(self) -> None:
        """Before the command has done anything."""
        time.sleep(self._told.get("slow", 0))
        self._at("before")
        if "error" in self._told:
            raise Failure(self._told["error"])

    def after(self) -> int | None:
        """When it has done everything; the status to end with, if it is another than it has."""
        self._at("after")
        if "garbage" in self._told:
            sys.stdout.write(self._told["garbage"])
            sys.stdout.flush()
        status: int | None = self._told.get("exit")
        return status

    def _at(self, moment: str) -> None:
        if self._told.get("crash") == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._told.get("hang") == moment:
            while True:
                signal.pause()

    @property
    def silent(self) -> bool:
        """Whether what it prints is left out, for garbage comes in its place."""
        return "garbage" in self._told

    @property
    def descriptors(self) -> int:
        """How many it sends with one message over a console socket; -1 for no message."""
        found: int = self._told.get("descriptors", 1)
        return found
