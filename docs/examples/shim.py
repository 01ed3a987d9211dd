"""A shim for one container: shim.py ROOT BUNDLE ID STDIN STDOUT STDERR, as containerd says them."""

import json
import sys
from collections.abc import AsyncIterator

import anyio

from pyshimio import Stdio
from pyshimio.runc import Container, ExitEvent, Exits, Runc, Subreaper


async def publish(events: AsyncIterator[ExitEvent]) -> None:
    """Tell the manager who has exited, execs before init."""
    async for event in events:
        print(json.dumps({"id": event.id, "status": event.exit_status}), flush=True)


async def main(root: str, bundle: str, name: str, *stdio: str) -> int:
    """Create, start, wait, delete: the life of a task."""
    exits = Exits()
    async with Subreaper(orphans=True), anyio.create_task_group() as group:
        runc = Runc(root=root)
        # Opens the FIFOs, starts the logger, or both; a failure leaves no container.
        async with await Container.create(
            runc, name, bundle, io=Stdio(*stdio), exits=exits
        ) as container:
            group.start_soon(publish, exits.events())
            await container.start()
            # An exec of the manager's: stdio of its own, and a status of its own.
            async with await container.exec("probe", ["/bin/true"]) as probe:
                await probe.start()
                await probe.wait()
            status = await container.wait(io=True)  # its last byte has arrived
            await container.delete()
        exits.close()
    return status


if __name__ == "__main__":
    sys.exit(anyio.run(main, *sys.argv[1:]))
