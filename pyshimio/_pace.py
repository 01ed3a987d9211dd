"""When to look at a busy stream a moment later: if waiting gathers more for each look.

A writer that is as fast as the pump wakes it for every single write, and the wake-up costs
more than the bytes do.  After a pause of 150 µs there are ten writes to move at once.  For
a conversation the same pause gathers nothing and costs latency, and nothing but trying
tells the two apart.  So a stream with many turns in a row is tried, seldom and seldomer as
long as it does not pay.
"""

from __future__ import annotations

__all__ = ("Pace",)

RAPID = 0.0003
"""Seconds between two turns of a stream that may be worth a trial."""
TRIAL_FIRST, TRIAL_LAST = 16, 4096
"""Rapid turns in a row before a trial; twice as many after each that did not pay."""
GAIN = 2
"""How many times the bytes of a usual turn must be gathered."""
TURNS, PAUSES = 8, 4
"""How many of each make an average: writer, pump and reader may take turns on one core."""


class Pace:
    """One stream's rhythm; tell it of each turn."""

    def __init__(self) -> None:
        self.paused = False
        """Whether the last turn was told to wait for the next one."""
        self._usual = 0  # bytes of a turn without a pause before it
        self._gathered = 0  # and with one
        self._pauses = 1
        self._begun = 0.0
        self._trial = self._left = TRIAL_FIRST

    def pays(self, moved: int, begun: float) -> bool:
        """Whether to pause now, before the next turn.

        Args:
            moved: Bytes that the turn which ends here has moved.
            begun: When it began, seconds.
        """
        since, self._begun = begun - self._begun, begun
        if self.paused:
            self._gathered += (moved - self._gathered) // self._pauses
            self._pauses = min(self._pauses + 1, PAUSES)
            if self._gathered >= GAIN * self._usual:
                self._trial = TRIAL_FIRST
                return True
            self.paused = False
            self._left = self._trial = min(2 * self._trial, TRIAL_LAST)
            return False
        if moved:
            self._usual += (moved - self._usual) // TURNS
            self._left = self._left - 1 if since < RAPID else self._trial
        if self._left > 0:
            return False
        self._left = self._trial
        self._gathered = 0
        self._pauses = 1
        self.paused = True
        return True
