"""Which files belong to one log, and in which order."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING

import attrs

from ..errors import LogFileError
from . import _kernel
from ._rotation import DATE, GZ, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ("Part", "names_of", "older_than", "parts_of", "written_of")

DOCKER = "-json.log"
KUBELET = ".log"
STAMP = 15
"""Characters of ``20261126-101112``, which kubelet hangs on the name of a file that it renames."""
LINKS = 10
"""Links that are followed: kubelet's leads to docker's, which leads to a file."""


@attrs.frozen
class Part:
    """One file of a log.

    Args:
        path: Where it is.
        log: The file that is written, of which this is an old one, or which it is; each restart of
            a container has one.
    """

    path: str
    log: str


def parts_of(path: str) -> list[Part]:
    """All files of a log, the oldest first, and last the one that is written.

    Args:
        path: The one that is written, or a link to it; or a directory, docker's of a container or
            kubelet's, whose restarts then follow each other.

    Raises:
        LogFileError: There is no log.
    """
    found: list[Part] = []
    try:
        for log in _logs_in(path) if os.path.isdir(path) else [path]:
            # Asked first: when it is renamed meanwhile, it is among the old ones.
            there = os.path.exists(log)
            found += [Part(old, log) for old in _old(log)]
            found += [Part(log, log)] if there else []
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _none(path) from error
    except OSError as error:
        raise LogFileError(
            f"cannot look for the log {path}: {error.strerror}",
            path=path,
            errno=error.errno or errno.EIO,
        ) from error
    if not found:
        raise _none(path)
    return found


def _none(path: str) -> LogFileError:
    return LogFileError(f"there is no log at {path}", path=path, errno=errno.ENOENT)


def _old(log: str) -> list[str]:
    """The old files of a log, which are beside what a link leads to."""
    found: dict[str, str] = {}
    for name in _chain(log):
        dated = (*_beside(name, ".", _is_stamp), *_beside(name, ".", _is_date))
        for old in (*dated, *_beside(name, "-", _is_date), *numbered(name)):
            found.setdefault(os.path.realpath(old), old)
    return list(found.values())


def _chain(log: str) -> list[str]:
    """A log, and where its links lead."""
    found = [log]
    while os.path.islink(found[-1]) and len(found) < LINKS:
        target = os.path.join(os.path.dirname(found[-1]), os.readlink(found[-1]))
        if not os.path.isdir(os.path.dirname(target)):
            break
        found.append(target)
    return found


def written_of(path: str) -> str:
    """The file of a log that is written; it may be missing for a moment.

    Raises:
        LogFileError: The directory has no log.
    """
    return _logs_in(path)[-1] if os.path.isdir(path) else path


def older_than(log: str, path: str) -> list[Part]:
    """Those of a log's files that are older than the one that is written; none if there is none.

    Args:
        log: That one; the container's next life may have begun meanwhile.
        path: As for :func:`parts_of`.
    """
    try:
        return list(takewhile(lambda part: part.path != log, parts_of(path)))
    except LogFileError:
        return []


def names_of(path: str) -> list[tuple[str, int]]:
    """What tells whether a log was rotated between two looks: its files, and who they are."""
    found: list[tuple[str, int]] = []
    with suppress(LogFileError):
        for part in parts_of(path):
            with suppress(OSError):
                found.append((part.path, _kernel.stat(part.path).st_ino))
    return found


def _logs_in(directory: str) -> Sequence[str]:
    """The files that are written, by docker or kubelet; also while one is being rotated."""
    names = _kernel.listdir(directory)
    docker = {name.partition(DOCKER)[0] for name in names if _is_log(name, DOCKER)}
    restarts = {
        int(name.partition(KUBELET)[0])
        for name in names
        if _is_log(name, KUBELET) and name.partition(KUBELET)[0].isdecimal()
    }
    if len(docker) == 1:
        return [os.path.join(directory, docker.pop() + DOCKER)]
    if restarts:
        return [os.path.join(directory, f"{number}{KUBELET}") for number in sorted(restarts)]
    raise LogFileError(
        f"{directory} is no directory of one container's logs: there is neither <id>-json.log"
        " nor <restart>.log",
        path=directory,
        errno=errno.ENOENT,
    )


def _is_log(name: str, suffix: str) -> bool:
    """Whether it is the log that is called so, or an old file of it."""
    _, found, rest = name.partition(suffix)
    return bool(found) and rest[:1] in {"", ".", "-"}


def _beside(log: str, sign: str, fits: Callable[[str], bool]) -> list[str]:
    """Old files that have a time behind their name, the oldest first."""
    directory, base = os.path.split(log)
    found: dict[str, str] = {}
    for name in sorted(_kernel.listdir(directory or ".")):
        time = name.removeprefix(f"{base}{sign}").removesuffix(GZ)
        if name.startswith(f"{base}{sign}") and fits(time):
            # (Sorted: the plain one comes first.)
            found.setdefault(time, os.path.join(directory, name))
    return [found[time] for time in sorted(found)]


def _is_stamp(text: str) -> bool:
    """Kubelet's."""
    return len(text) == STAMP and text.replace("-", "", 1).isdecimal()


def _is_date(text: str) -> bool:
    """Logrotate's."""
    return text[:DATE].isdecimal() and len(text) >= DATE and text.replace("-", "").isdecimal()
