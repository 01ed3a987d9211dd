r"""Bytes of a stream into lines, a read at a time.

A line ends with ``\n`` and with nothing else.  What is longer than the cap is cut into pieces of
exactly the cap, and so the same bytes give the same records however the reads fall.
"""

from __future__ import annotations

import os

from ._record import Batch, Partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("CAP", "Copier")

CAP = 16384
"""Bytes of the longest line that is not cut: docker's and containerd's."""


class Copier:
    """One stream's lines.

    Args:
        stream: ``"stdout"`` or ``"stderr"``.
        cap: Bytes of a piece; 0 for no cap.
        peeks: What to do with a line of exactly the cap: True waits for the byte behind it, and
            a newline there makes it a whole line, as containerd's CRI logger has it; False cuts
            it off at once, and an empty last piece follows, as moby has it.

    Attributes:
        waiting: Bytes of a line that has no end yet.
    """

    def __init__(self, stream: str, *, cap: int = CAP, peeks: bool = False) -> None:
        self.stream: str = stream
        self._cap = cap
        self._peeks = peeks
        self._most = cap + 1 if peeks else cap
        self._parts: list[bytes] = []
        self.waiting: int = 0
        self._pieces = 0
        self._id = ""
        self._begun = 0  # when the first piece of the line came

    def feed(self, data: bytes, time: int) -> Iterator[Batch]:
        """What one read has brought.

        Args:
            data: Any bytes.
            time: Nanoseconds since 1970.
        """
        if self.waiting or self._pieces:
            end = data.find(b"\n") + 1
            if not end:
                yield from self._collect(data, time)
                return
            if self._pieces:
                yield from self._collect(data[: end - 1], time)
                yield self._line(time)
                data = data[end:]
            else:  # all of it is one batch, then
                data = b"".join((*self._parts, data))
                self._parts, self.waiting = [], 0
        cap = self._cap
        start = place = 0
        size = len(data)
        # Every stretch of the cap has a newline in it, or there is a line that is too long.
        while cap and size - place > cap:
            newline = data.rfind(b"\n", place, place + self._most)
            if newline < 0 and self._returns(data, place):
                place += cap + 2
            elif newline < 0:
                if start < place:
                    yield Batch(self.stream, time, data[start:place])
                end = data.find(b"\n", place)
                if end < 0:
                    break
                yield from self._collect(data[place:end], time)
                yield self._line(time)
                start = place = end + 1
            else:
                place = newline + 1
        else:
            end = data.rfind(b"\n", place) + 1
            place = max(place, end)
            if start < place:
                yield Batch(self.stream, time, data[start:place])
        if place < size:
            yield from self._collect(data[place:], time)

    def _returns(self, data: bytes, place: int) -> bool:
        """Whether a line of exactly the cap ends here with CR LF, which is no part of it."""
        return self._peeks and data[place + self._cap : place + self._cap + 2] == b"\r\n"

    def _may_return(self, data: bytes, cut: int) -> bool:
        """Whether a newline behind *data* would make it such a line."""
        return self._peeks and len(data) - cut == self._most and data.endswith(b"\r")

    def _collect(self, data: bytes, time: int) -> Iterator[Batch]:
        """More of a line whose end has not come; pieces of it as soon as they are long enough."""
        if data:
            self._parts.append(data)
            self.waiting += len(data)
        if not self._cap or self.waiting < self._most:
            return
        data = b"".join(self._parts)
        cut = 0
        while len(data) - cut >= self._most and not self._may_return(data, cut):
            yield self._piece(data[cut : cut + self._cap], time, last=False)
            cut += self._cap
        self._parts = [data[cut:]] if cut < len(data) else []
        self.waiting = len(data) - cut

    def _line(self, time: int) -> Batch:
        """The end of a line has come."""
        data = b"".join(self._parts)
        self._parts, self.waiting = [], 0
        if not self._pieces:
            return Batch(self.stream, time, data + b"\n")
        batch = self._piece(data, time, last=True)
        self._pieces = 0
        return batch

    def _piece(self, data: bytes, time: int, *, last: bool, ended: bool = False) -> Batch:
        if not self._pieces:
            self._id = os.urandom(32).hex()
            self._begun = time
        self._pieces += 1
        partial = Partial(self._id, self._pieces, last=last, begun=self._begun, ended=ended)
        return Batch(self.stream, time, data, partial)

    def finish(self, time: int) -> Iterator[Batch]:
        """The stream has ended: what it ended with, if that was no newline."""
        if self.waiting:
            data = b"".join(self._parts)
            self._parts, self.waiting = [], 0
            if self._cap and len(data) > self._cap:  # a carriage return whose newline never came
                yield self._piece(data[: self._cap], time, last=False)
                data = data[self._cap :]
            yield self._piece(data, time, last=False, ended=True)
        self._pieces = 0
