"""When a busy stream is looked at a moment later."""

from __future__ import annotations

from itertools import pairwise

from pyshimio._pace import GAIN, PAUSES, RAPID, TRIAL_FIRST, TRIAL_LAST, Pace

BYTES = 100
"""Moved in a usual turn here."""


class Stream:
    """A stream that is turned again and again, and its pace."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.total = 0
        self.now = 1000.0

    def turn(self, moved: int = BYTES, seconds: float = RAPID / 2) -> bool:
        """One turn; whether it is told to pause before the next."""
        self.total += moved
        self.now += seconds
        told = self.pace.pays(self.total, self.now)
        assert told is self.pace.paused
        return told

    def until_trial(self, moved: int = BYTES, seconds: float = RAPID / 2) -> int:
        """Turns, the last of them the first that is told to pause."""
        for count in range(1, 3 * TRIAL_LAST):
            if self.turn(moved, seconds):
                return count
        raise AssertionError("never tried")

    def settle(self) -> None:
        """Have a whole trial's count of turns behind, the first of them with a time before."""
        for _ in range(TRIAL_FIRST):
            self.turn(0)


def test_a_stream_is_tried_after_many_rapid_turns() -> None:
    """The first trial comes after so many turns, and not one earlier."""
    stream = Stream()
    stream.now = 0.0
    assert stream.until_trial() == TRIAL_FIRST


def test_a_slow_stream_is_never_tried() -> None:
    """Turns with as much time between them as RAPID says are no reason to pause."""
    stream = Stream()
    stream.now = 0.0
    assert not any(stream.turn(seconds=2 * RAPID) for _ in range(10 * TRIAL_FIRST))


def test_how_rapid_is_rapid() -> None:
    """What counts is the average of the turns since the last look."""
    for seconds, tried in ((RAPID * 0.99, True), (RAPID * 1.01, False)):
        stream = Stream()
        stream.settle()
        assert any(stream.turn(seconds=seconds) for _ in range(TRIAL_FIRST)) is tried
        assert stream.pace.left == TRIAL_FIRST


def test_exactly_rapid_is_not_rapid() -> None:
    """A stream right at the limit is left alone."""
    stream = Stream()
    stream.now = 0.0
    for _ in range(TRIAL_FIRST - 1):
        stream.turn(seconds=0.0)
    assert not stream.turn(seconds=TRIAL_FIRST * RAPID)


def test_turns_that_move_nothing_are_no_reason_to_pause() -> None:
    """A stream that moves nothing, though its turns are rapid, is not tried."""
    stream = Stream()
    stream.now = 0.0
    assert not any(stream.turn(moved=0) for _ in range(10 * TRIAL_FIRST))
    assert stream.until_trial(moved=1) <= TRIAL_FIRST


def test_it_goes_on_while_it_pays() -> None:
    """Pauses that gather the gain go on for ever."""
    stream = Stream()
    stream.now = 0.0
    stream.until_trial()
    assert all(stream.turn(GAIN * BYTES) for _ in range(1000))


def test_it_ends_when_it_does_not_pay() -> None:
    """One byte short of the gain is no gain."""
    stream = Stream()
    stream.now = 0.0
    stream.until_trial()
    assert not stream.turn(GAIN * BYTES - 1)


def test_trials_that_do_not_pay_get_seldom() -> None:
    """Each trial that gathers nothing doubles the turns to the next one, up to a limit."""
    stream = Stream()
    stream.now = 0.0
    gaps: list[int] = []
    while gaps[-2:] != [TRIAL_LAST, TRIAL_LAST]:
        gaps.append(stream.until_trial())
        assert not stream.turn()
    assert gaps[0] == TRIAL_FIRST
    assert all(after == min(2 * before, TRIAL_LAST) for before, after in pairwise(gaps))


def test_a_trial_that_pays_makes_the_next_one_early() -> None:
    """What has paid once is tried again as soon as a new stream is."""
    stream = Stream()
    stream.now = 0.0
    for _ in range(3):
        stream.until_trial()
        stream.turn()
    stream.until_trial()
    assert stream.turn(GAIN * BYTES)
    while stream.turn():  # it ends to pay
        pass
    assert stream.until_trial() == 2 * TRIAL_FIRST


def test_a_rare_trial_is_compared_with_one_turn() -> None:
    """The usual turn is the average of all turns since the last trial."""
    stream = Stream()
    stream.now = 0.0
    stream.until_trial()
    stream.turn()
    assert stream.until_trial() == 2 * TRIAL_FIRST
    assert stream.turn(GAIN * BYTES)
    assert not Stream.turn(stream, 0)


def test_an_average_of_some_pauses_counts() -> None:
    """One lean pause among fat ones ends nothing: writer and reader may share one core."""
    stream = Stream()
    stream.now = 0.0
    stream.until_trial()
    for _ in range(10):
        assert stream.turn(2 * GAIN * BYTES)
        assert stream.turn(GAIN * BYTES // 2)


def test_the_average_forgets() -> None:
    """However much was gathered once, some lean pauses in a row end it."""
    for before in (PAUSES, 100):
        stream = Stream()
        stream.now = 0.0
        stream.until_trial()
        for _ in range(before):
            assert stream.turn(2 * GAIN * BYTES)
        lean = 0
        while stream.turn(0):
            lean += 1
        # What is left after n of them is (1 - 1/PAUSES)**n, so the third goes below a half.
        assert lean == 2


def test_the_first_pauses_count_alike() -> None:
    """As long as they are few, the average is that of all pauses."""
    stream = Stream()
    stream.now = 0.0
    stream.until_trial()
    gathered = [stream.turn(3 * GAIN * BYTES), stream.turn(0), stream.turn(0), stream.turn(0)]
    assert gathered == [True, True, True, False]


def test_the_first_pause_stands_alone() -> None:
    """Nothing of an earlier trial is mixed into the first pause of the next one."""
    stream = Stream()
    stream.now = 0.0
    stream.until_trial()
    for _ in range(2 * PAUSES):
        assert stream.turn(10 * GAIN * BYTES)
    while stream.turn(0):
        pass
    stream.until_trial()
    assert not stream.turn(GAIN * BYTES - 1)


def test_turns_may_be_counted_elsewhere() -> None:
    """Whoever counts ``left`` down has the bytes of those turns counted all the same."""
    stream = Stream()
    stream.now = 0.0
    while stream.pace.left > 1:
        stream.pace.left -= 1
        stream.total += BYTES
        stream.now += RAPID / 2
    assert stream.turn()
    assert stream.turn(GAIN * BYTES)
    assert stream.turn(GAIN * BYTES)
