"""What ``--stats`` and ``--json`` show at the end."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from ._say import write_stderr

if TYPE_CHECKING:
    from .._stats import IOStats
    from ..io._result import DrainResult

__all__ = ("Form", "Report")

Form: TypeAlias = Literal["table", "json"]

STREAMS = ("stdin", "stdout", "stderr")


@attrs.frozen(kw_only=True)
class Report:
    """One run, when it is over."""

    id: str
    namespace: str
    pid: int
    status: int
    seconds: float
    stats: IOStats
    result: DrainResult | None
    """None when the drain was interrupted."""

    def show(self, form: Form) -> None:
        """Print it on stderr."""
        write_stderr(self.as_table() if form == "table" else f"{self.as_json()}\n")

    def as_json(self) -> str:
        """One JSON object in one line."""
        result = self.result
        return json.dumps(
            {
                "id": self.id,
                "namespace": self.namespace,
                "pid": self.pid,
                "status": self.status,
                "seconds": round(self.seconds, 6),
                "complete": result is not None and result.complete,
                "streams": {stream: self._stream(stream) for stream in STREAMS},
            },
        )

    def _stream(self, stream: str) -> dict[str, Any] | None:
        """None for a stream whose bytes pyshimio did not move."""
        stats = getattr(self.stats, stream)
        if stats is None:
            return None
        answer = attrs.asdict(stats)
        if (result := getattr(self.result, stream, None)) is not None:
            answer |= {
                "finished": result.finished,
                "holders_left": result.holders_left,
                "unread": result.unread,
                "abandoned": result.abandoned,
            }
        return answer

    def as_table(self) -> str:
        """A table with a row for each stream; ``-`` is what pyshimio did not move."""
        from rich import box  # noqa: PLC0415 - for whoever asked for a table
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("stream")
        for title in ("bytes in", "bytes out", "dropped", "writes", "blocked"):
            table.add_column(title, justify="right")
        table.add_column("path")
        for stream in STREAMS:
            stats = getattr(self.stats, stream)
            if stats is None:
                table.add_row(stream, *"------")
            else:
                table.add_row(
                    stream,
                    f"{stats.bytes_in:,}",
                    f"{stats.bytes_out:,}",
                    f"{stats.dropped:,}",
                    f"{stats.writes:,}",
                    f"{stats.blocked:.3f} s",
                    stats.path,
                )
        text = io.StringIO()
        # A fixed width: the table is read by programs and people, and none of it may be cut.
        Console(file=text, width=100, color_system=None).print(table)
        return "".join(
            f"{line.rstrip()}\n" for line in text.getvalue().splitlines() if line.strip()
        )
