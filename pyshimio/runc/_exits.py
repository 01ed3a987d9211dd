"""Who has exited, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

import attrs

from .._events import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

__all__ = ("ExitEvent", "Exits")


@attrs.frozen(kw_only=True)
class ExitEvent:
    """The end of a process (containerd's ``TaskExit``)."""

    container_id: str
    id: str
    """Of the process; the container's for its init."""
    pid: int
    exit_status: int | None
    """128+n after a death by signal n; None when it is not to be had (see :class:`Subreaper`)."""
    exited_at: datetime
    """In UTC."""


class Exits:
    """Exit events of one container, or of several that were made with the same one.

    A container's last event is its init's: those of its execs come before it, as containerd
    has it.

    Example:
        ::

            exits = Exits()
            container = await Container.create(runc, "c1", bundle, exits=exits)
            async for event in exits.events():
                print(event.id, event.exit_status)
    """

    def __init__(self) -> None:
        # A reader that nobody has any more needs nothing.
        self._readers: WeakSet[Reader[ExitEvent]] = WeakSet()
        self.closed: bool = False

    def events(self) -> AsyncIterator[ExitEvent]:
        """Every exit from this call on, until :meth:`close`.

        A reader that falls more than 1,024 events behind loses the oldest ones.
        """
        reader: Reader[ExitEvent] = Reader(closed=self.closed)
        self._readers.add(reader)
        return reader

    def publish(self, event: ExitEvent) -> None:
        """Tell all readers."""
        for reader in self._readers:
            reader.put(event)

    def close(self) -> None:
        """End all iterators once they have read what is there.  Idempotent."""
        self.closed = True
        for reader in self._readers:
            reader.close()

    def __repr__(self) -> str:
        return f"<Exits {'closed' if self.closed else 'open'}>"
