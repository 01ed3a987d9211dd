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
"""Seconds for each turn, on average, of a stream that may be worth a trial."""
TRIAL_FIRST, TRIAL_LAST = 32, 4096
"""Turns before a trial; twice as many after each that did not pay."""
GAIN = 2
"""How many times the bytes of a usual turn must be gathered."""
PAUSES = 4
"""How many make an average: writer, pump and reader may take turns on one core."""


class Pace:
    """One stream's rhythm; tell it of each turn, or count :attr:`left` down."""

    __slots__ = ("_gathered", "_pauses", "_since", "_total", "_trial", "_usual", "left", "paused")

    def __init__(self) -> None:
        self.paused = False
        """Whether the last turn was told to wait for the next one."""
        self.left = TRIAL_FIRST
        """Turns before the next trial."""
        self._trial = TRIAL_FIRST
        self._total = 0
        self._since = 0.0
        self._usual = 0.0  # bytes of a turn without a pause before it
        self._gathered = 0.0  # and with one
        self._pauses = 1

    def pays(self, total: int, now: float) -> bool:
        """Whether to pause now, before the next turn.

        Args:
            total: Bytes that the stream has moved so far.
            now: Seconds.
        """
        if self.paused:
            return self._go_on(total, now)
        self.left -= 1
        if self.left > 0:
            return False
        moved = total - self._total
        rapid = now - self._since < self._trial * RAPID
        if moved and rapid:
            self._usual = moved / self._trial
            self._gathered = 0.0
            self._pauses = 1
            self.paused = True
        self._begin(total, now)
        return self.paused

    def _go_on(self, total: int, now: float) -> bool:
        self._gathered += (total - self._total - self._gathered) / self._pauses
        self._pauses = min(self._pauses + 1, PAUSES)
        self._total = total
        if self._gathered >= GAIN * self._usual:
            self._trial = TRIAL_FIRST
            return True
        self.paused = False
        self._trial = min(2 * self._trial, TRIAL_LAST)
        self._begin(total, now)
        return False

    def _begin(self, total: int, now: float) -> None:
        self.left = self._trial
        self._total = total
        self._since = now
