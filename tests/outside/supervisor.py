"""Keep one program running; its output goes where a URI says."""

from __future__ import annotations

import sys

import anyio

from pyshimio import DrainResult, Process, create_io
from pyshimio.errors import LoggerError, StreamFailedError


class GaveUpError(Exception):
    """The program has ended too often."""


class Supervisor:
    """A program that is started again when it fails, at most *restarts* times."""

    def __init__(
        self, args: list[str], log: str, *, restarts: int = 3, pause: float = 0.01, grace: float = 1
    ) -> None:
        self.args, self.log = args, log
        self.restarts, self.pause, self.grace = restarts, pause, grace
        self.statuses: list[int] = []
        self.result: DrainResult | None = None
        self.process: Process | None = None
        self._stopping = False

    async def run(self) -> int:
        """Until it ends well, or is told to stop; its status."""
        while True:
            status = await self._once()
            self.statuses.append(status)
            if status == 0 or self._stopping:
                return status
            if len(self.statuses) > self.restarts:
                raise GaveUpError(f"ended {len(self.statuses)} times, with {self.statuses}")
            await anyio.sleep(self.pause)

    async def _once(self) -> int:
        async with await create_io(
            self.log, id="supervised", namespace="here", grace=self.grace, ready_timeout=1
        ) as io:
            self.process = await io.spawn(self.args)
            status = await self.process.wait()
            try:
                self.result = await io.drain(policy="exited", sink_timeout=1)
            except StreamFailedError as error:
                print(f"output was lost: {error}", file=sys.stderr)
            return status

    def stop(self) -> None:
        """Have it end."""
        self._stopping = True
        if self.process is not None:
            self.process.terminate()


if __name__ == "__main__":
    try:
        sys.exit(anyio.run(Supervisor(sys.argv[2:], sys.argv[1]).run))
    except (GaveUpError, LoggerError) as failure:
        sys.exit(f"supervisor: {failure}")
