"""What stands between the reads and a driver: what is dropped is counted, and said."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from pyshimio.errors import DriverConflictError, UnknownDriverError
from pyshimio.logging import (
    Batch,
    Block,
    Copier,
    Driver,
    LogInfo,
    Options,
    Ring,
    Tee,
    driver_names,
    find_driver,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Kept(Driver):
    """Keeps what it gets; waits, or fails, when told to."""

    options = Options("kept", {})

    def __init__(self) -> None:
        super().__init__(LogInfo("c"))
        self.lines: list[bytes] = []
        self.go = threading.Event()
        self.go.set()
        self.taken = threading.Semaphore(0)
        self.errors: list[Exception] = []
        self.closed = self.reopened = self.flushed = self.abandoned = 0
        self.got: list[Batch] = []

    def write(self, batch: Batch) -> None:
        """As told."""
        self.taken.release()
        assert self.go.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        self.got.append(batch)
        self.lines += batch.data.splitlines()

    def flush(self) -> None:
        """As told."""
        self.flushed += 1
        if self.errors:
            raise self.errors.pop(0)

    def reopen(self) -> None:
        """Counted."""
        self.reopened += 1

    def close(self) -> None:
        """Counted."""
        self.closed += 1

    def abandon(self) -> None:
        """Counted."""
        self.abandoned += 1

    @property
    def stats(self) -> dict[str, int]:
        """One of its own."""
        return {"own": 1}


WEIGHT = 10 + 300
"""What one line's batch counts in a ring."""


def batch(*numbers: int, stream: str = "stdout") -> Batch:
    """A line for each."""
    return Batch(stream, 1, b"".join(b"%09d\n" % number for number in numbers))


def no_room() -> OSError:
    """What passes."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_block() -> None:
    """Each batch at once; counters of everything."""
    driver = Kept()
    block = Block(driver)
    block.put(batch(1, 2))
    block.reopen()
    driver.errors = [ValueError("no")]
    block.put(batch(3))
    block.finish()
    assert driver.lines == [b"%09d" % 1, b"%09d" % 2]
    assert (driver.reopened, driver.closed) == (1, 1)
    assert block.stats == {"records": 2, "bytes": 20, "failed": 1, "dropped": 0, "own": 1}
    assert str(block.error) == "no"


def test_block_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that found none was taken, and flush() is asked until there is some."""
    monkeypatch.setattr("pyshimio.logging._delivery.RETRY", 0.001)
    driver = Kept()
    block = Block(driver)
    driver.errors = [no_room(), no_room(), no_room()]
    block.put(batch(1))
    assert driver.flushed == 3
    assert block.stats["records"] == 1
    assert block.stats["failed"] == 0


def test_block_does_not_wait_for_ever() -> None:
    """When the time is up what found no room is lost, and counted."""
    driver = Kept()
    block = Block(driver, over=lambda: True)
    driver.errors = [no_room(), no_room()]
    block.put(batch(1))
    block.finish()
    assert block.stats["failed"] == 1
    assert driver.abandoned == 1


@pytest.mark.parametrize("drop", ["oldest", "newest"])
def test_a_ring_drops(drop: str) -> None:
    """What does not fit, from the end that was asked for, with a record that says so."""
    driver = Kept()
    driver.go.clear()
    ring = Ring(driver, size=3 * WEIGHT, drop="oldest" if drop == "oldest" else "newest")
    ring.put(batch(0))
    assert driver.taken.acquire(timeout=10)  # it is in the driver's hands, and not in the ring
    for number in range(1, 8):
        ring.put(batch(number))
    driver.go.set()
    ring.finish()
    kept = [5, 6, 7] if drop == "oldest" else [1, 2, 3]
    lines = [b"%09d" % number for number in kept]
    marker = [b"pyshimio dropped 4 records here"]
    behind = [*marker, *lines] if drop == "oldest" else [*lines, *marker]
    assert driver.lines == [b"%09d" % 0, *behind]
    assert ring.dropped == 4
    assert driver.closed == 1


def test_a_ring_takes_one_that_is_too_large() -> None:
    """When there is nothing else in it; else a line that is larger than the ring never came."""
    driver = Kept()
    ring = Ring(driver, size=5)
    ring.put(batch(1))
    ring.finish()
    assert driver.lines == [b"%09d" % 1]
    assert ring.dropped == 0


def test_a_ring_says_what_is_missing_where_it_is() -> None:
    """Behind what was taken before, and before what was taken later; each stream for itself."""
    driver = Kept()
    driver.go.clear()
    ring = Ring(driver, size=WEIGHT, drop="newest")
    ring.put(batch(0))
    assert driver.taken.acquire(timeout=10)
    for number, stream in ((1, "stdout"), (2, "stdout"), (3, "stderr"), (4, "stdout")):
        ring.put(batch(number, stream=stream))
    driver.go.set()
    for _ in range(3):
        assert driver.taken.acquire(timeout=10)  # what was there, and what is said
    ring.put(batch(5))
    ring.finish()
    lost = [b"pyshimio dropped 2 records here", b"pyshimio dropped 1 record here"]
    assert driver.lines == [b"%09d" % 0, b"%09d" % 1, *lost, b"%09d" % 5]
    assert ring.dropped == 3


def test_a_ring_says_so_on_a_line_of_its_own() -> None:
    """Where the driver has a part of a line, that ends first."""
    driver = Kept()
    driver.go.clear()
    ring = Ring(driver, size=2 * (16 + 300), drop="newest")
    copier = Copier("stdout", cap=16)
    batches = [*copier.feed(b"x" * 80, 7), *copier.feed(b"\nnext\n", 8)]
    ring.put(batches[0])
    assert driver.taken.acquire(timeout=10)
    for one in batches[1:]:
        ring.put(one)
    driver.go.set()
    ring.finish()
    whole = b"".join(
        one.data + b"\n" * bool(one.partial and one.partial.last) for one in driver.got
    )
    *_, marker = whole.splitlines()
    assert whole.splitlines()[0] == b"x" * 48
    assert marker == b"pyshimio dropped 4 records here"
    assert driver.got[-1].time == 8


def test_a_driver_is_not_waited_for_when_the_time_is_up() -> None:
    """Nor is a compression that its close() would wait for."""
    driver = Kept()
    block = Block(driver, over=lambda: True)
    block.finish()
    assert (driver.closed, driver.abandoned) == (0, 1)


def test_what_goes_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each kind, and when it is over."""
    monkeypatch.setattr("pyshimio.logging._delivery.RETRY", 0.001)
    driver = Kept()
    block = Block(driver)
    said: list[str] = []
    block.report = said.append
    driver.errors = [no_room(), no_room(), no_room()]
    block.put(batch(1))
    assert said == [str(no_room()), "there is room again"]
    driver.errors = [ValueError("no"), ValueError("no")]
    block.put(batch(1))
    block.put(batch(1))
    driver.report("cannot rotate")
    assert said[2:] == ["no", "cannot rotate"]


def test_many_small_reads_do_not_outgrow_a_ring() -> None:
    """It counts what holds the lines, too: an empty one is not for nothing."""
    driver = Kept()
    driver.go.clear()
    ring = Ring(driver, size=10_000)
    for _ in range(1000):
        ring.put(Batch("stdout", 1, b"\n"))
    assert len(ring._queue) < 40
    driver.go.set()
    ring.finish()
    assert ring.dropped > 900


@pytest.mark.parametrize("make", [Block, Ring])
def test_what_fails_in_the_end_is_a_failure(make: Callable[[Driver], Block | Ring]) -> None:
    """Neither flush() nor close() ends a logger, and both make it say that something is lost."""

    class Broken(Kept):
        def close(self) -> None:
            super().close()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    driver = Broken()
    delivery = make(driver)
    delivery.put(batch(1))
    delivery.finish()
    assert (delivery.failed, driver.closed) == (1, 1)
    assert isinstance(delivery.error, OSError)


def test_what_a_ring_says_is_none_of_the_containers() -> None:
    """If the driver refuses that, too, no more is lost than came."""
    driver = Kept()
    driver.go.clear()
    ring = Ring(driver, size=WEIGHT, drop="newest")
    ring.put(batch(0))
    assert driver.taken.acquire(timeout=10)
    for number in range(1, 5):
        ring.put(batch(number))
    driver.errors = [ValueError(str(number)) for number in range(9)]
    driver.go.set()
    ring.finish()
    assert (ring.failed, ring.dropped, ring.records) == (2, 3, 0)
    assert ring.lost == {"stdout": 50}


def test_a_driver_that_keeps_nothing_back() -> None:
    """A full disk costs it that batch, which is counted: nothing would write it later."""

    class Simple(Driver):
        def write(self, _batch: Batch) -> None:
            raise no_room()

    block = Block(Simple(LogInfo("c")))
    block.put(batch(1, 2))
    assert (block.failed, block.records) == (2, 0)


def test_a_ring_has_no_time_left() -> None:
    """What the driver has not taken when the time is up is counted."""
    driver = Kept()
    driver.go.clear()
    over = False
    ring = Ring(driver, size=1000, over=lambda: over)
    ring.put(batch(0))
    assert driver.taken.acquire(timeout=10)
    ring.put(batch(1, 2))
    over = True
    ring.finish()
    assert ring.dropped == 3  # with the one that the driver has not given back
    driver.go.set()
    ring._thread.join(10)


def test_a_ring_says_what_it_dropped_last() -> None:
    """Also when nothing comes behind it."""
    driver = Kept()
    driver.go.clear()
    ring = Ring(driver, size=WEIGHT, drop="newest")
    ring.put(batch(0))
    assert driver.taken.acquire(timeout=10)
    ring.put(batch(1))
    ring.put(batch(2, stream="stderr"))
    ring.reopen()
    driver.go.set()
    ring.finish()
    assert b"pyshimio dropped 1 record here" in driver.lines
    assert driver.reopened == 1


def test_a_tee() -> None:
    """All get everything; the slow one loses some, the first one holds up."""
    must, quick, slow = Kept(), Kept(), Kept()
    slow.go.clear()
    tee = Tee(must, [quick, slow], size=2 * WEIGHT)
    tee.put(batch(0))
    assert slow.taken.acquire(timeout=10)
    for number in range(1, 6):
        assert quick.taken.acquire(timeout=10)
        tee.put(batch(number))
    tee.reopen()
    slow.go.set()
    tee.finish()
    lines = [b"%09d" % number for number in range(6)]
    assert must.lines == quick.lines == lines
    assert slow.lines == [lines[0], b"pyshimio dropped 3 records here", *lines[4:]]
    assert tee.dropped == 3
    assert tee.failed == 0
    assert tee.error is None
    assert tee.stats["records"] == 6
    assert tee.stats["leg2.dropped"] == 3
    assert (must.closed, quick.closed, slow.closed) == (1, 1, 1)
    assert must.reopened == 1


# -- other packages' drivers -------------------------------------------------------------------


def _install(where: Path, package: str, entry: str) -> None:
    info = where / f"{package}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[pyshimio.log_drivers]\n{entry}\n")


def test_another_package_has_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its entry point; and a name that is registered twice is refused."""
    monkeypatch.syspath_prepend(str(tmp_path))
    _install(tmp_path, "one", "nowhere = pyshimio.logging._plain:Nothing")
    assert find_driver("nowhere").__name__ == "Nothing"
    assert "nowhere" in driver_names()
    with pytest.raises(UnknownDriverError, match="nowhere"):
        find_driver("no-such")
    _install(tmp_path, "two", "nowhere = pyshimio.logging._plain:Raw")
    with pytest.raises(DriverConflictError, match="2 times"):
        find_driver("nowhere")
    _install(tmp_path, "three", "raw = pyshimio.logging._plain:Nothing")
    with pytest.raises(DriverConflictError, match="one of ours"):
        driver_names()
    assert find_driver("raw").__name__ == "Raw"
