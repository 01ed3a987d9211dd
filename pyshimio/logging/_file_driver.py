"""What every driver has in common that keeps one file."""

from __future__ import annotations

from ._driver import Driver
from ._log_file import LogFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._info import LogInfo
    from ._record import Batch
    from ._rotation import Rotation

__all__ = ("FileDriver",)


class FileDriver(Driver):
    """Lines into the file that ``log-path`` names; a driver says how they are spelled there.

    Attributes:
        repair: As for :class:`LogFile`.
    """

    repair = True

    def __init__(self, info: LogInfo) -> None:
        super().__init__(info)
        self.cap = self.values.get("max-line", self.cap)
        self._file = LogFile(
            self.values["log-path"],
            rotation=self.rotation(),
            nofollow=self.values.get("nofollow", False),
            repair=self.repair,
            failed=self._failed,
        )

    def _failed(self, error: Exception) -> None:
        self.report(str(error))

    def rotation(self) -> Rotation | None:
        """What becomes of a full file; None where there is none."""
        return None

    def encode(self, batch: Batch) -> bytes:
        """A batch, as it is to stand in the file."""
        raise NotImplementedError

    def open(self) -> None:
        self._file.open()

    def write(self, batch: Batch) -> None:
        self._file.write(self.encode(batch))

    def flush(self) -> None:
        self._file.flush()

    def reopen(self) -> None:
        self._file.reopen()

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.abandon()

    @property
    def stats(self) -> dict[str, int]:
        return self._file.stats
