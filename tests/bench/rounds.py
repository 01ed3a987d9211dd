"""Parties that take turns, and what the ratios of their rounds say."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Sample: TypeAlias = "Mapping[str, float]"
"""One party in one round: figures by name."""


@attrs.frozen
class Goal:
    """What a figure has to be: a ratio of two parties, or without a peer the figure itself."""

    figure: str
    party: str
    peer: str | None
    limit: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Whether *value* is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{'x' if self.peer else ''}"


@attrs.frozen
class Row:
    """One line of the table: who takes part, and what is to come out."""

    name: str
    title: str
    parties: Mapping[str, Callable[[], Sample]]
    goals: tuple[Goal, ...] = ()
    prepare: Callable[[], None] | None = None
    """Called before each party's turn."""
    check: Callable[[], None] | None = None
    """Called once before the first round: every byte arrives."""


@attrs.define
class Result:
    """All rounds of one row; none is left out."""

    row: Row
    rounds: list[dict[str, Sample]] = attrs.field(factory=list)

    def outcome(self, goal: Goal) -> float:
        """The median of the ratios of all rounds, or of the figure."""
        if goal.peer is None:
            return self.median(goal.party, goal.figure)
        return self.ratio(goal.figure, goal.party, goal.peer)

    def ratio(self, figure: str, party: str, peer: str) -> float:
        """The median of the ratios of all rounds."""
        return statistics.median(
            _part(samples[party][figure], samples[peer][figure]) for samples in self.rounds
        )

    def median(self, party: str, figure: str) -> float:
        """The median of one figure."""
        return statistics.median(samples[party][figure] for samples in self.rounds)


def _part(one: float, other: float) -> float:
    return one / other if other else float("inf")


def take_turns(row: Row, rounds: int, tell: Callable[[int, str, Sample], None]) -> Result:
    """Run every party *rounds* times, each round in another order.

    Args:
        row: Whom to run.
        rounds: How often.
        tell: Gets each sample when it is there: the round, the party, the figures.
    """
    result = Result(row)
    if row.check is not None:
        row.check()
    names = list(row.parties)
    for number in range(rounds):
        samples: dict[str, Sample] = {}
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if row.prepare is not None:
                row.prepare()
            samples[name] = row.parties[name]()
            tell(number, name, samples[name])
        result.rounds.append(samples)
    return result
