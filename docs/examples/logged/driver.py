#!/usr/bin/env python3
"""The logger: each line into one file, behind the container's name, the stream and a number."""

from pyshimio.logging import Batch, Driver, LogFile, LogInfo, Options, absolute_path, run


class Numbered(Driver):
    """``driver.py path /var/log/x.log``."""

    options = Options("numbered", {"path": absolute_path}, required=("path",))

    def __init__(self, info: LogInfo) -> None:
        super().__init__(info)
        self._count = 0
        self._file = LogFile(self.values["path"])

    def open(self) -> None:
        self._file.open()

    def write(self, batch: Batch) -> None:
        lines: list[bytes] = []
        for record in batch.records():
            self._count += 1
            head = f"{self.info.id} {record.stream} {self._count}: "
            whole = record.partial is None or record.partial.last
            lines.append(head.encode() + record.line + (b"\n" if whole else b" (no newline)\n"))
        self._file.write(b"".join(lines))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


if __name__ == "__main__":
    run(Numbered)
