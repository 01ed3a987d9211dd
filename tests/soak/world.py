"""What the scenes of one round share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import attrs

from .records import SIZE, kept, missing, stream

if TYPE_CHECKING:
    import random
    from collections import Counter
    from pathlib import Path

OUTPUTS = ("stdout", "stderr")


@attrs.define(eq=False)
class World:
    """One scene's place, tools and choices.

    Attributes:
        exact: No fault is injected that may lose anything.
        lines: What loses bytes here loses lines (a full file, a ring).
    """

    name: str
    directory: Path
    child: list[str]
    logger: str
    rng: random.Random
    done: Counter[str]
    exact: bool = True
    lines: bool = False
    choices: dict[str, Any] = attrs.field(factory=dict[str, Any])
    wholes: dict[str, bytes] = attrs.field(factory=dict[str, bytes])
    marks: dict[str, int] = attrs.field(factory=dict[str, int])

    def choose(self, name: str, *values: Any) -> Any:
        """One of *values*, remembered for the history."""
        value = self.choices[name] = self.rng.choice(values)
        return value

    def path(self, name: str) -> str:
        """A path in this scene's directory."""
        return str(self.directory / name)

    def plan(
        self, streams: tuple[str, ...] = OUTPUTS, *, background: bool = True, most: int = 40_000
    ) -> tuple[list[str], int]:
        """A child that writes to *streams*: how to start it, and the status it ends with."""
        rng = self.rng
        writes: list[list[tuple[Any, ...]]] = []
        for number, name in enumerate(OUTPUTS, 1):
            if name not in streams:
                continue
            mark = self.marks[name] = rng.getrandbits(32)
            count = min(most, int(self.choose(f"{name} records", 0, 1, 20, 300, 2500, 40_000)))
            count -= rng.randrange(1 + count // 2)
            self.wholes[name] = stream(mark, count)
            self.done["bytes"] += len(self.wholes[name])
            chunk = max(rng.choice((7, 100, 4096, 5000, 65536, 1 << 20)), count * 32 // 1000)
            edges = sorted({0, count, *(rng.randrange(count + 1) for _ in range(rng.randrange(4)))})
            writes.append(
                [
                    ("write", number, mark, first, last - first, chunk)
                    for first, last in itertools.pairwise(edges)
                ]
            )
        steps: list[tuple[Any, ...]] = []
        while any(writes):
            steps.append(rng.choice([some for some in writes if some]).pop(0))
            if rng.random() < 0.3:
                steps.append(("sleep", round(rng.uniform(0, 0.05), 3)))
        end = self.choose("end", "exit", "exit", "kill")
        behind = background and self.choose("background", None, None, "holds", "writes")
        if behind == "writes" and steps:
            # The last lines come after the exit, as with `exec > >(tee log)`.
            steps[-1:] = [("background", 0.05, steps[-1])]
        elif behind == "holds":
            steps.append(("background", 0.2))
        number = rng.choice((0, 1, 7, 255)) if end == "exit" else rng.choice((9, 10, 15))
        steps.append((end, number))
        self.choices["steps"] = len(steps)
        return [*self.child, repr(steps)], number if end == "exit" else 128 + number

    def account(self, name: str, got: bytes, lost: int, *, abandoned: int = 0) -> None:
        """Check one stream: in order, and what is missing is what was said to be lost.

        Args:
            name: The stream.
            got: All that has arrived.
            lost: Bytes that were said to be lost on the way.
            abandoned: Bytes that were said to be in a FIFO when it died; where lines are lost,
                some may be newlines that ended a line that was cut.
        """
        whole = self.wholes[name]
        where = f"{self.name} {name}"
        if self.lines:
            count, doubtful = kept(self.marks[name], got)
            gone = len(whole) - count
        else:
            gone, doubtful = missing(whole, got), 0
        if self.lines and abandoned:
            doubtful += abandoned // SIZE + 1
        lost += abandoned
        right = gone <= lost <= gone + doubtful
        assert right or not self.exact, f"{where}: {gone} missing, {lost} said to be"
        self.done["bytes arrived"] += len(got)
        self.done["bytes said to be lost"] += lost

    def in_order(self, name: str, got: bytes) -> None:
        """Check what there is of a stream that was cut off."""
        if name in self.wholes and not self.lines:
            missing(self.wholes[name], got)


def check(condition: object, what: str) -> None:
    """Like assert, with -O too."""
    if not condition:
        raise AssertionError(what)
