"""One owner for each descriptor."""

from __future__ import annotations

import gc
import os
import threading
import warnings

import pytest
from anyio import ClosedResourceError

from pyshimio import _sys
from pyshimio._fd import OwnedFd, duplicate
from pyshimio.testing.faults import count_syscalls


def null() -> OwnedFd:
    """Some descriptor."""
    return OwnedFd(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))


def test_close_closes() -> None:
    """The number is given back, and the object forgets it."""
    fd = null()
    number = fd.fileno()
    before = fd.closed

    fd.close()

    assert (before, fd.closed) == (False, True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    with pytest.raises(ClosedResourceError):
        fd.fileno()


def test_close_twice() -> None:
    """A second close does not hit whoever has the number by then."""
    fd = null()
    number = fd.fileno()
    fd.close()
    stranger = os.open("/dev/zero", os.O_RDONLY)
    assert stranger == number

    fd.close()

    assert os.readlink(f"/proc/self/fd/{stranger}") == "/dev/zero"
    os.close(stranger)


def test_close_of_what_is_closed_already() -> None:
    """An error of close(2) is nobody's: the number is gone either way."""
    fd = null()
    os.close(fd.fileno())

    fd.close()

    assert fd.closed


@pytest.mark.parametrize("gone", ["closed", "detached", "given back"])
def test_a_number_that_is_gone_is_nobody_s(gone: str) -> None:
    """What reads the number without asking, for speed, finds -1, which the kernel refuses."""
    fd = null()
    if gone == "detached":
        os.close(fd.detach())
    elif gone == "given back":
        with fd.lend():
            fd.close()
    else:
        fd.close()

    assert fd._fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(fd._fd, 1)


def test_number_zero() -> None:
    """A process without a stdin gets its number for something else, which is closed as well."""
    saved = os.dup(0)
    os.close(0)
    try:
        fd = null()
        assert fd.fileno() == 0
        fd.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(0)
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def test_detach() -> None:
    """A detached number lives on, and is the caller's to close."""
    fd = null()
    number = fd.detach()
    assert fd.closed

    fd.close()

    os.close(number)
    with pytest.raises(ClosedResourceError):
        fd.detach()


def test_detach_while_lent() -> None:
    """A number that is given away while a call has it is not closed behind the call."""
    fd = null()

    with count_syscalls() as calls, fd.lend():
        number = fd.detach()

    assert calls.names == []
    os.close(number)


def test_lend() -> None:
    """A close while calls have the number takes effect when the last one has returned."""
    fd = null()

    with fd.lend() as number:
        with fd.lend() as same:
            assert number == same
            fd.close()
            assert fd.closed
        os.fstat(number)

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_lend_after_close() -> None:
    """A closed number cannot be borrowed."""
    fd = null()
    fd.close()

    with pytest.raises(ClosedResourceError), fd.lend():
        pass


def test_lend_leaves_it_open() -> None:
    """Borrowing alone closes nothing."""
    fd = null()

    with fd.lend() as number:
        pass

    os.fstat(number)
    fd.close()


def test_closes_from_many_threads() -> None:
    """Of many closes at once exactly one reaches the kernel."""
    for _ in range(50):
        fd = null()
        start = threading.Barrier(4)

        def close(fd: OwnedFd = fd, start: threading.Barrier = start) -> None:
            start.wait()
            fd.close()

        threads = [threading.Thread(target=close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fd.closed


def test_forgotten() -> None:
    """A descriptor that nobody closed is closed when collected, with a warning."""
    fd = null()
    number = fd.fileno()

    with pytest.warns(ResourceWarning, match=r"unclosed <OwnedFd open\(\d+\)>") as caught:  # noqa: PT031
        del fd
        gc.collect()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    # What the warning keeps says what it is, and where it was made if memory is traced.
    assert repr(caught[0].source) == "<OwnedFd closed>"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_forgotten_where_warnings_are_errors() -> None:
    """A descriptor that nobody closed is closed although its warning is raised."""
    fd = null()
    number = fd.fileno()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del fd
        gc.collect()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_duplicate() -> None:
    """A duplicate has a close-on-exec number of its own, above 2, for the same description."""
    with open("/dev/null") as file:
        for given in (file, file.fileno()):
            fd = duplicate(given)
            assert fd.fileno() not in {0, 1, 2, file.fileno()}
            assert not os.get_inheritable(fd.fileno())
            fd.close()
        os.fstat(file.fileno())


def test_duplicate_lowest() -> None:
    """A duplicate can be had from a number on."""
    fd = OwnedFd(_sys.dup(0, 200))
    assert fd.fileno() >= 200
    fd.close()


def test_repr() -> None:
    """The state in words."""
    fd = null()
    assert repr(fd) == f"<OwnedFd open({fd.fileno()})>"
    fd.close()
    assert repr(fd) == "<OwnedFd closed>"
