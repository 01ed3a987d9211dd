"""The two simplest drivers: the bytes as they are, and nothing."""

from __future__ import annotations

from ._driver import Driver
from ._file_driver import FileDriver
from ._options import Options, absolute_path, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._record import Batch

__all__ = ("Nothing", "Raw")


class Nothing(Driver):
    """``none``: nothing is kept, and the container never waits."""

    options = Options("none", {})

    def write(self, batch: Batch) -> None:
        pass


class Raw(FileDriver):
    """``raw``: both streams into one file, byte for byte.

    Options: ``log-path``, ``nofollow``.
    """

    options = Options("raw", {"log-path": absolute_path, "nofollow": flag}, required=("log-path",))
    repair = False  # what a stream ends with need not be a newline

    def encode(self, batch: Batch) -> bytes:
        return batch.as_written
