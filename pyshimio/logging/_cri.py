"""CRI logs: ``<time> <stream> <P or F> <line>``, as containerd and CRI-O write them for kubelet."""

from __future__ import annotations

from ._file_driver import FileDriver
from ._options import Options, absolute_path, flag, line_cap, refuse
from ._times import rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._info import LogInfo
    from ._record import Batch

__all__ = ("Cri",)

NEWLINE = b"\n"
LINE_FEED = ord("\n")


def tag(name: str, value: str) -> bytes:
    """P or F."""
    if value not in {"P", "F"}:
        raise refuse(name, value, "P or F")
    return value.encode()


class Cri(FileDriver):
    r"""``cri``: a file that kubelet rotates.

    A line that is cut has the tag P until its last piece, which has F; what a stream ends with, if
    that is no newline, has P as well (containerd; *final-tag* ``F`` is for readers who take that
    for a line that goes on).  One ``\r`` before a line's end is left out.

    Options: ``log-path``, ``max-line`` (bytes; 0 for no cap), ``final-tag``, ``utc``,
    ``nofollow``.
    """

    options = Options(
        "cri",
        {
            "log-path": absolute_path,
            "max-line": line_cap,
            "final-tag": tag,
            "utc": flag,
            "nofollow": flag,
        },
        required=("log-path",),
    )
    peeks = True

    def __init__(self, info: LogInfo) -> None:
        super().__init__(info)
        values = self.values
        self._final = values.get("final-tag", b"P")
        self._local = not values.get("utc", False)

    def encode(self, batch: Batch) -> bytes:
        """The lines of a batch."""
        head = b"%b %b " % (rfc3339(batch.time, local=self._local).encode(), batch.stream.encode())
        data, partial = batch.data, batch.partial
        if partial is None:
            if b"\r" in data:
                data = _without_returns(data)
            head += b"F "
            data = data[:-1]
            lines = data.replace(NEWLINE, NEWLINE + head)
            batch.count = 1 + (len(lines) - len(data)) // len(head)
            return b"".join((head, lines, NEWLINE))
        if partial.last:
            return b"%bF %b\n" % (head, data.removesuffix(b"\r"))
        final = partial.ended and self._final == b"F"
        return b"%b%b %b\n" % (head, b"F" if final else b"P", data)


def _without_returns(data: bytes) -> bytes:
    """Without those before a newline; of two there the first one stays, as does a lone one."""
    if data.endswith(b"\r\n"):  # as all lines of a terminal do
        return data.replace(b"\r\n", NEWLINE)
    # (Where they are few, to look for one byte is much faster than to look for two.)
    done: list[bytes] = []
    place = 0
    found = data.find(b"\r")
    while found >= 0:
        if data[found + 1] == LINE_FEED:  # (it ends with one)
            done.append(data[place:found])
            place = found + 1
        found = data.find(b"\r", found + 1)
    done.append(data[place:])
    return b"".join(done)
