"""Who is to own what a child gets: pipes, and a terminal's slave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from .. import _sys
from ..errors import ChownError, InvalidOptionError

if TYPE_CHECKING:
    from .._fd import OwnedFd

__all__ = ("Chown", "Owner")

Chown = Literal["strict", "try"]
NO_ID = 0xFFFFFFFF
"""The kernel's own -1."""


def _check_id(_: Owner, attribute: attrs.Attribute[int], number: int) -> None:
    if not -1 <= number < NO_ID:
        option = attribute.name
        raise InvalidOptionError(
            f"{option} is a number from 0 on, or -1 for no change, not {number!r}", option=option
        )


def _check_policy(_: Owner, _attribute: attrs.Attribute[Chown], policy: Chown) -> None:
    if policy not in {"strict", "try"}:
        raise InvalidOptionError(f'chown is "strict" or "try", not {policy!r}', option="chown")


@attrs.frozen
class Owner:
    """A user and a group, independent of each other; -1 leaves either as it is.

    Args:
        uid, gid: Numbers.
        policy: ``"try"`` goes on when the kernel refuses.

    Raises:
        InvalidOptionError: A number is no id, or there is no such policy.
    """

    uid: int = attrs.field(default=-1, validator=_check_id)
    gid: int = attrs.field(default=-1, validator=_check_id)
    policy: Chown = attrs.field(default="strict", validator=_check_policy)

    def give(self, fd: OwnedFd, what: str) -> None:
        """Let them own what is behind *fd*.

        Raises:
            ChownError: The kernel refuses.
        """
        if self.uid == self.gid == -1:
            return
        try:
            _sys.fchown(fd.fileno(), self.uid, self.gid)
        except OSError as error:
            if self.policy == "strict":
                raise ChownError(
                    f"cannot give {what} to {self.uid}:{self.gid}: {error.strerror};"
                    ' run as root, or pass chown="try" to go on without',
                    uid=self.uid,
                    gid=self.gid,
                    errno=error.errno,
                ) from error
