"""One tree of exceptions: every leaf is a builtin too, and survives a trip."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle

import pytest

import pyshimio
from pyshimio import errors
from pyshimio.errors import ShimIOError

BUILTINS: dict[str, type[BaseException]] = {
    "ChildReapedElsewhereError": ChildProcessError,
    "ChownError": PermissionError,
    "CommandNotExecutableError": PermissionError,
    "CommandNotFoundError": FileNotFoundError,
    "CommandUsedError": RuntimeError,
    "ConsoleDescriptorCountError": ValueError,
    "ConsoleError": OSError,
    "ConsoleMessageError": ValueError,
    "ConsoleMessageTooLongError": ValueError,
    "ConsolePeerClosedError": ConnectionError,
    "ConsoleRuntimeExitedError": ChildProcessError,
    "ConsoleTimeoutError": TimeoutError,
    "ConsoleTruncatedError": OSError,
    "ContainerStateError": RuntimeError,
    "DestinationError": OSError,
    "DriverConflictError": ValueError,
    "ExitTimeoutError": TimeoutError,
    "FifoExistsError": FileExistsError,
    "FifoNotFoundError": FileNotFoundError,
    "FifoTimeoutError": TimeoutError,
    "FileAccessError": PermissionError,
    "FileOpenError": OSError,
    "IOStateError": RuntimeError,
    "InvalidOptionError": ValueError,
    "LogFileError": OSError,
    "LogOptionError": ValueError,
    "UnknownDriverError": ValueError,
    "LoggerDiedError": BrokenPipeError,
    "LoggerError": Exception,
    "LoggerExitedError": ChildProcessError,
    "LoggerIsDirectoryError": IsADirectoryError,
    "LoggerNotExecutableError": PermissionError,
    "LoggerNotFoundError": FileNotFoundError,
    "LoggerNotReadyError": RuntimeError,
    "LoggerTimeoutError": TimeoutError,
    "MissingNamespaceError": ValueError,
    "NotAFifoError": OSError,
    "NotAFileError": OSError,
    "NotARuntimeCommandError": ValueError,
    "NotSubreaperError": ChildProcessError,
    "UnmountError": OSError,
    "NotATerminalError": OSError,
    "ProcessError": Exception,
    "RelativePathError": ValueError,
    "RuntimeAnswerError": ValueError,
    "RuntimeFailedError": ChildProcessError,
    "SchemeConflictError": ValueError,
    "ShimIOError": Exception,
    "SigchldIgnoredError": RuntimeError,
    "SocketPathError": OSError,
    "SpawnError": OSError,
    "StreamFailedError": OSError,
    "URIAuthorityError": ValueError,
    "URIError": ValueError,
    "URIEscapeError": ValueError,
    "URINulError": ValueError,
    "URISyntaxError": ValueError,
    "UnknownSchemeError": ValueError,
    "UnsupportedPlatformError": NotImplementedError,
}

EVERY = sorted(errors.__all__)


def make(name: str) -> ShimIOError:
    """An error of this kind, with a value for each fact that it declares."""
    kind: type[ShimIOError] = getattr(errors, name)
    facts: dict[str, object] = {}
    for ancestor in kind.__mro__:
        facts |= {fact: f"the {fact}" for fact in inspect.get_annotations(ancestor)}
    if issubclass(kind, OSError):
        facts["errno"] = errno.EXDEV
    return kind("what was wrong", **facts)


def test_all_of_them() -> None:
    """Every class of the module is in ``__all__``, in the table of this test, and public."""
    classes = {
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, ShimIOError)
    }
    assert classes == set(EVERY) == set(BUILTINS)
    assert pyshimio.ShimIOError is ShimIOError


@pytest.mark.parametrize("name", EVERY)
def test_caught_as_both(name: str) -> None:
    """Whoever catches the root or the builtin catches the leaf."""
    error = make(name)
    assert isinstance(error, ShimIOError)
    assert isinstance(error, BUILTINS[name])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
def test_survives(name: str, how: str) -> None:
    """The text, the facts, notes and errno survive pickle and copy."""
    error = make(name)
    error.add_note("a note")
    twin = pickle.loads(pickle.dumps(error)) if how == "pickle" else getattr(copy, how)(error)

    assert type(twin) is type(error)
    assert str(twin) == str(error) == "what was wrong"
    assert vars(twin) == vars(error)
    assert twin.__notes__ == ["a note"]
    assert getattr(twin, "errno", None) == getattr(error, "errno", None)


@pytest.mark.parametrize("name", EVERY)
def test_facts_are_attributes(name: str) -> None:
    """Each fact is an attribute; errno is where OSError has it."""
    error = make(name)
    for ancestor in type(error).__mro__:
        for fact in inspect.get_annotations(ancestor):
            assert getattr(error, fact) == f"the {fact}"
    if isinstance(error, OSError):
        assert error.errno == errno.EXDEV
        assert "errno" not in vars(error)


@pytest.mark.parametrize("name", EVERY)
def test_documented(name: str) -> None:
    """Each class says what it stands for."""
    kind = getattr(errors, name)
    assert kind.__doc__
    assert kind.__doc__ is not BUILTINS[name].__doc__


def test_without_errno() -> None:
    """An OSError that no system call stands behind has none."""
    error = errors.ConsolePeerClosedError("went away")
    assert error.errno is None
    assert repr(error) == "ConsolePeerClosedError('went away')"
