"""Which files belong to one log, and in which order."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from ..errors import LogFileError
from . import _kernel
from ._rotation import GZ, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ("Part", "names_of", "parts_of", "written_of")

DOCKER = "-json.log"
KUBELET = ".log"
STAMP = 15
"""Characters of ``20261126-101112``, which kubelet hangs on the name of a file that it renames."""
DATE = 8
"""Characters of ``20261126``, with which logrotate's ``dateext`` begins; more may follow."""


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

    @property
    def compressed(self) -> bool:
        """Whether it has to be read from its beginning."""
        return self.path.endswith(GZ)


def parts_of(path: str) -> list[Part]:
    """All files of a log, the oldest first, and last the one that is written.

    Args:
        path: The one that is written; or a directory, docker's of a container or kubelet's, whose
            restarts then follow each other.

    Raises:
        LogFileError: There is no log.
    """
    found: list[Part] = []
    try:
        for log in _logs_in(path) if os.path.isdir(path) else [path]:
            # Asked first: when it is renamed meanwhile, it is among the old ones.
            there = os.path.lexists(log)
            old = (*_beside(log, ".", _is_stamp), *_beside(log, "-", _is_date), *numbered(log))
            found += [Part(path, log) for path in (*old, *([log] if there else []))]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _none(path) from error
    if not found:
        raise _none(path)
    return found


def _none(path: str) -> LogFileError:
    return LogFileError(f"there is no log at {path}", path=path, errno=errno.ENOENT)


def written_of(path: str) -> str:
    """The file of a log that is written; it may be missing for a moment.

    Raises:
        LogFileError: The directory has no log.
    """
    return _logs_in(path)[-1] if os.path.isdir(path) else path


def names_of(path: str) -> list[tuple[str, int]]:
    """What tells whether a log was rotated between two looks: its files, and who they are."""
    found: list[tuple[str, int]] = []
    for part in parts_of(path):
        with suppress(FileNotFoundError):
            found.append((part.path, _kernel.stat(part.path).st_ino))
    return found


def _logs_in(directory: str) -> Sequence[str]:
    names = _kernel.listdir(directory)
    docker = [name for name in names if name.endswith(DOCKER)]
    restarts = {
        int(name.removesuffix(KUBELET)): name
        for name in names
        if name.endswith(KUBELET) and name.removesuffix(KUBELET).isdecimal()
    }
    if len(docker) == 1:
        return [os.path.join(directory, docker[0])]
    if restarts:
        return [os.path.join(directory, restarts[number]) for number in sorted(restarts)]
    raise LogFileError(
        f"{directory} is no directory of one container's logs: there is neither <id>-json.log"
        " nor <restart>.log",
        path=directory,
        errno=errno.ENOENT,
    )


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
