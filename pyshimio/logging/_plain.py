"""The two simplest drivers: the bytes as they are, and nothing."""

from __future__ import annotations

from ._driver import Driver
from ._log_file import LogFile
from ._options import Options, absolute_path, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._info import LogInfo
    from ._record import Batch

__all__ = ("Nothing", "Raw")


class Nothing(Driver):
    """``none``: nothing is kept, and the container never waits."""

    options = Options("none", {})

    def write(self, batch: Batch) -> None:
        pass


class Raw(Driver):
    """``raw``: both streams into one file, byte for byte.

    Options: ``log-path``, ``nofollow``.
    """

    options = Options("raw", {"log-path": absolute_path, "nofollow": flag}, required=("log-path",))

    def __init__(self, info: LogInfo) -> None:
        super().__init__(info)
        path, nofollow = str(self.values["log-path"]), bool(self.values.get("nofollow", False))
        # What a stream ends with need not be a newline, so nothing is repaired.
        self._file = LogFile(path, nofollow=nofollow, repair=False)

    def open(self) -> None:
        self._file.open()

    def write(self, batch: Batch) -> None:
        last = batch.partial is not None and batch.partial.last
        self._file.write(batch.data + (b"\n" if last else b""))

    def flush(self) -> None:
        self._file.flush()

    def reopen(self) -> None:
        self._file.reopen()

    def close(self) -> None:
        self._file.close()

    @property
    def stats(self) -> dict[str, int]:
        return self._file.stats
