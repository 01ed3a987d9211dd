"""What is lost at the very end, while a drain or a close already waits, is said all the same."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import BytesAbandoned, DrainResult, SinkFailed, Stdio, create_io
from pyshimio.testing import FakeClient
from pyshimio.testing.faults import fail_syscall
from support.children import GUARD
from support.fifos import make_fifo
from support.loggers import shell_logger, uri_of

if TYPE_CHECKING:
    from pathlib import Path

LATE = """
exec 5>&-
while [ ! -e "$2" ]; do sleep 0.01; done
kill -9 $$
"""
"""A logger that reads nothing and dies as soon as the file that it is told of exists."""


@pytest.mark.parametrize("handover", [False, True])
async def test_logger_dies_under_the_drain(tmp_path: Path, *, handover: bool) -> None:
    """A logger that dies while the drain waits for it: what it has not read counts as dropped,
    and so does what a background child writes after that.
    """
    go = tmp_path / "go"
    uri = uri_of(shell_logger(tmp_path, LATE), ("go", str(go)))
    found: list[DrainResult] = []
    io = await create_io(
        Stdio(stdout=uri), id="x", namespace="x", on_death="drain", handover=handover
    )
    with anyio.fail_after(GUARD):
        async with io, anyio.create_task_group() as group:
            late = f"while [ ! -e {go}2 ]; do sleep 0.01; done; echo later"
            process = await io.spawn(["sh", "-c", f"({late}) & printf %100d 0"])
            assert await process.wait() == 0

            async def drain() -> None:
                found.append(await io.drain(linger=GUARD if handover else 0, sink_timeout=GUARD))

            group.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            go.touch()
            if handover:
                while io.stats.stdout is None or io.stats.stdout.dropped < 100:
                    await anyio.sleep(0.005)
                (tmp_path / "go2").touch()
    (tmp_path / "go2").touch()
    (result,) = found
    assert result.stdout is not None
    assert result.stdout.dropped == (106 if handover else 100)
    assert result.stdout.finished
    assert not result.complete


async def test_client_leaves_under_the_close(tmp_path: Path) -> None:
    """A client that leaves a FIFO while the close still waits for a logger: what it has not
    read is said to be abandoned.
    """
    go = tmp_path / "go"
    uri = uri_of(shell_logger(tmp_path, LATE), ("go", str(go)))
    path = make_fifo(tmp_path)
    with FakeClient(path) as client:
        io = await create_io(Stdio(stdout=path, stderr=uri), id="x", namespace="x")
        events = io.events()
        with anyio.fail_after(GUARD):
            await io.spawn(["sh", "-c", "printf %50d 0"])
            await io.drain(sink_timeout=0.1)
            async with anyio.create_task_group() as group:
                group.start_soon(io.aclose)
                await anyio.wait_all_tasks_blocked()
                assert len(os.read(client.fileno(), 10)) == 10
                client.detach()
                go.touch()
    abandoned = [event async for event in events if isinstance(event, BytesAbandoned)]
    assert abandoned == [BytesAbandoned("stdout", 40)]


@pytest.mark.parametrize("call", ["reopen", "epoll_add"])
async def test_no_descriptor_to_stand_in_for_a_logger(tmp_path: Path, call: str) -> None:
    """When a logger that had the child's own pipe dies and nothing can be opened to read in its
    place, the child gets EPIPE and an event says so; nobody waits for ever.
    """
    go = tmp_path / "go"
    uri = uri_of(shell_logger(tmp_path, LATE), ("go", str(go)))
    io = await create_io(Stdio(stdout=uri), id="x", namespace="x", on_death="drain", handover=True)
    events = io.events()
    with anyio.fail_after(GUARD):
        async with io:
            process = await io.spawn(["yes"])
            with fail_syscall(call, error=errno.EMFILE) as calls:
                go.touch()
                assert await process.wait() == 128 + signal.SIGPIPE
            assert calls.failed == call
    failed = [event async for event in events if isinstance(event, SinkFailed)]
    assert [(one.stream, one.final) for one in failed] == [("stdout", True)]
