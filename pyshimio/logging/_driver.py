"""What a log driver is: five steps, of which most drivers need one or two."""

from __future__ import annotations

from ._copier import CAP
from ._options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ._info import LogInfo
    from ._record import Batch

__all__ = ("Driver",)


class Driver:
    """Where a container's lines go; the base of all drivers, which by itself keeps nothing.

    Made from a :class:`LogInfo`, and then used by one thread at a time: :meth:`open`, any number of
    :meth:`write`, :meth:`flush` and :meth:`reopen`, :meth:`close`.

    Attributes:
        options: What it accepts; checked before it is made.
        cap: Bytes of the longest line that it gets whole; 0 for no cap.
        report: For what goes wrong without a record being lost; a logger says it on its stderr.
        peeks: Whether a line of exactly the cap is whole (:class:`~pyshimio.logging.Copier`).

    Example:
        A whole log driver, at the other end of ``binary:///path/to/this?path=/var/log/loud``::

            from pyshimio.logging import Driver, LogFile, Options, absolute_path, run


            class Loud(Driver):
                options = Options("loud", {"path": absolute_path}, required=("path",))

                def open(self):
                    self.file = LogFile(self.values["path"], repair=False)
                    self.file.open()

                def write(self, batch):
                    self.file.write(batch.as_written.upper())

                def flush(self):
                    self.file.flush()


            run(Loud)
    """

    options: Options = Options("none", {})
    cap: int = CAP
    peeks: bool = False

    def __init__(self, info: LogInfo) -> None:
        self.report: Callable[[str], None] = say_nothing
        self.info = info
        self.values: Mapping[str, Any] = self.options.read(info.options)

    def open(self) -> None:
        """Open what it writes to; the container waits for this, and does not start if it fails."""

    def write(self, batch: Batch) -> None:
        """Take what one read has brought; whatever it raises is counted and said.

        Raises:
            OSError: With ENOSPC or EDQUOT, from a driver that has a :meth:`flush` of its own: the
                batch was taken all the same, and that is to be called until there is room.
        """

    def flush(self) -> None:
        """Hand on what is kept back.  Raises as :meth:`write`."""

    def reopen(self) -> None:
        """Open files anew, after somebody has renamed them."""

    def close(self) -> None:
        """Give everything back, and wait for what is under way (a compression).  Idempotent."""

    def abandon(self) -> None:
        """Give everything back at once: whoever calls this cannot wait."""
        self.close()

    @property
    def stats(self) -> dict[str, int]:
        """Counters of its own, by name."""
        return {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {dict(self.values)}>"


def say_nothing(_text: str) -> None:
    """Nobody listens."""
