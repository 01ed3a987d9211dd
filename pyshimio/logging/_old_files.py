"""Which files belong to one log, and in which order."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from ..errors import LogFileError
from . import _kernel
from ._rotation import GZ, NEW, numbered

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("Part", "names_of", "parts_of", "written_of")

DOCKER = "-json.log"
KUBELET = ".log"
STAMP = 15
"""Characters of ``20261126-101112``, which kubelet hangs on the name of a file that it renames."""


@attrs.frozen
class Part:
    """One file of a log."""

    path: str

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
            found += [Part(old) for old in (*_stamped(log), *numbered(log))]
            found += [Part(log)] if there else []
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


def _stamped(log: str) -> list[str]:
    """Kubelet's old files, which have a time behind their name."""
    directory, base = os.path.split(log)
    found: dict[str, str] = {}
    for name in sorted(_kernel.listdir(directory or ".")):
        if not name.startswith(f"{base}.") or name.endswith(NEW):
            continue
        stamp = name.removeprefix(f"{base}.").removesuffix(GZ)
        if len(stamp) == STAMP and stamp.replace("-", "", 1).isdecimal():
            # (Sorted: the plain one comes first.)
            found.setdefault(stamp, os.path.join(directory, name))
    return [found[stamp] for stamp in sorted(found)]
