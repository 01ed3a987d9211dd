"""``pyshimio bundle``: a directory that a runtime can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ShimIOError
from ..runc import Bundle
from . import FAILED
from ._say import say

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("make",)


def make(
    directory: str,
    command: tuple[str, ...],
    *,
    rootfs: str,
    terminal: bool,
    env: Mapping[str, str],
    cwd: str,
    user: str,
) -> int:
    """Write it and return the exit status."""
    try:
        uid, _, gid = user.partition(":")
        Bundle.write(
            directory,
            command,
            rootfs=rootfs,
            terminal=terminal,
            env=env,
            cwd=cwd,
            uid=int(uid),
            gid=int(gid or uid),
        )
    except FileExistsError as error:
        say(f"there is a bundle already: {error.filename}")
    except (ShimIOError, OSError) as error:
        say(str(error))
    except ValueError:
        say(f"--user takes numbers, UID or UID:GID, not {user!r}")
    else:
        return 0
    return FAILED
