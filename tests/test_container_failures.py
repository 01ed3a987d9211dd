"""A container's life, cancelled at each of its suspensions and failed at each of its calls."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import Stdio, _sys
from pyshimio.runc import Container, Subreaper
from pyshimio.testing.faults import cancel_everywhere, every_failure
from support.children import GUARD, exists
from support.containers import RUNTIMES, SLEEP, Scene, containers, running
from support.loggers import shell_logger, uri_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

pytestmark = [pytest.mark.runtime("runc", "busybox"), pytest.mark.thorough]

SUSPENSIONS: dict[str, int] = {
    "create null": 2,
    "create file": 5,
    "create terminal": 4,
    "create binary": 3,
    "start": 2,
    "exec": 12,
    "wait": 3,
    "delete": 9,
    "life": 18,
    "kill": 1,
    "pause": 4,
    "subreaper": 3,
}
"""At how many each operation is cancelled, at least, on each loop and in each mode."""
CALLS: dict[str, int] = {
    "life": 70,
    "exec": 34,
    "exec start": 22,
    "load": 52,
}
"""Calls of each operation that are made to fail, at least, on whichever loop."""


async def cancelled(
    name: str,
    operation: Callable[[Any], Awaitable[object]],
    around: Callable[[], AbstractAsyncContextManager[Any]],
    **options: Any,
) -> None:
    """Cancel *operation* everywhere and hold it to its floor."""
    report = await cancel_everywhere(operation, name=name, around=around, **options)
    assert report.suspensions >= SUSPENSIONS[name], str(report)


async def failed(name: str, operation: Callable[[], Awaitable[object]], **options: Any) -> None:
    """Fail *operation* everywhere and hold it to its floor."""
    report = await every_failure(operation, name=name, **options)
    assert report.calls >= CALLS[name], str(report)


def nobody(scene: Scene) -> None:
    """The runtime knows no container, and there is no process of one."""
    root = scene.runtime.root
    assert not os.path.exists(root) or os.listdir(root) == []
    assert _sys.children() == []


# -- cancellations ---------------------------------------------------------------------------


def _destinations(tmp_path: Path) -> dict[str, Any]:
    logger = shell_logger(tmp_path, "exec 5>&-; exec cat <&3 >/dev/null")
    return {
        "null": None,
        "file": f"file://{tmp_path}/log",
        "terminal": Stdio(stdout=f"file://{tmp_path}/screen", terminal=True),
        "binary": Stdio(stdout=uri_of(logger)),
    }


@pytest.mark.parametrize("scheme", ["null", "file", "terminal", "binary"])
async def test_create_is_cancelled(tmp_path: Path, scheme: str) -> None:
    """A cancelled create() leaves no container, no process of one, and no logger."""
    io = _destinations(tmp_path)[scheme]
    async with containers(tmp_path, terminal=scheme == "terminal") as scene:

        @asynccontextmanager
        async def around() -> AsyncGenerator[list[Container]]:
            got: list[Container] = []
            yield got
            for container in got:
                assert container.state == "created"
                await container.delete()
            nobody(scene)

        async def operation(got: list[Container]) -> None:
            got.append(await scene.create(io=io))

        await cancelled(f"create {scheme}", operation, around)


async def test_start_is_cancelled(tmp_path: Path) -> None:
    """After a cancelled start() the container says what the runtime says, and can be deleted."""
    async with containers(tmp_path) as scene:

        @asynccontextmanager
        async def around() -> AsyncGenerator[Container]:
            async with await scene.create() as container:
                yield container
                assert (await scene.runc.state(container.id)).status == container.state
            nobody(scene)

        await cancelled("start", Container.start, around)


@RUNTIMES
async def test_exec_is_cancelled(tmp_path: Path, program: str) -> None:
    """A process whose start was cancelled is none, wherever that was."""
    async with running(tmp_path, program=program) as container:

        @asynccontextmanager
        async def around() -> AsyncGenerator[None]:
            yield
            assert _sys.children() == [container.pid]
            assert await container.pids() == (container.pid,)

        async def operation(_: None) -> None:
            process = await container.exec("e", SLEEP, io=f"file://{tmp_path}/log")
            async with process:
                await process.start()
                await anyio.lowlevel.checkpoint()

        await cancelled("exec", operation, around)


async def test_wait_is_cancelled(tmp_path: Path) -> None:
    """After a cancelled wait() the next one has the status and every byte."""
    log = tmp_path / "log"
    async with containers(tmp_path, ["seq", "20000"]) as scene:

        @asynccontextmanager
        async def around() -> AsyncGenerator[Container]:
            log.unlink(missing_ok=True)
            async with await scene.create(io=Stdio(stdout=f"file://{log}")) as container:
                await container.start()
                yield container
                assert await container.wait(io=True, timeout=GUARD) == 0
                assert container.result is not None
                assert container.result.complete
            assert log.read_bytes() == b"".join(b"%d\n" % number for number in range(1, 20_001))

        async def operation(container: Container) -> None:
            await container.wait(io=True)

        await cancelled("wait", operation, around)


async def test_delete_is_cancelled(tmp_path: Path) -> None:
    """However delete() is cancelled, all of it is done when it returns."""
    async with containers(tmp_path) as scene:

        @asynccontextmanager
        async def around() -> AsyncGenerator[Container]:
            async with await scene.create() as container:
                await container.start()
                process = await container.exec("e", SLEEP)
                await process.start()
                yield container
                assert (container.state, process.state) == ("deleted", "deleted")
                nobody(scene)

        async def operation(container: Container) -> None:
            await container.delete(force=True)

        await cancelled("delete", operation, around)


@RUNTIMES
async def test_life_is_cancelled(tmp_path: Path, program: str) -> None:
    """Whoever is cancelled in the block of a container leaves none."""
    async with containers(tmp_path, ["true"], program=program) as scene:

        @asynccontextmanager
        async def around() -> AsyncGenerator[None]:
            yield
            nobody(scene)

        async def operation(_: None) -> None:
            async with await scene.create(io=f"file://{tmp_path}/log") as container:
                await container.start()
                assert await container.wait(io=True) == 0

        await cancelled("life", operation, around)


async def test_signals_and_pauses_are_cancelled(tmp_path: Path) -> None:
    """After a cancelled kill(), pause() or resume() the container is as it says."""
    async with running(tmp_path) as container:

        @asynccontextmanager
        async def around() -> AsyncGenerator[None]:
            yield
            assert (await container.runc.state(container.id)).status == container.state
            if container.state == "paused":
                await container.resume()
            assert exists(container.pid)
            assert _sys.children() == [container.pid]

        async def kill(_: None) -> None:
            await container.kill(signal.SIGCONT)

        async def pause(_: None) -> None:
            await container.pause()
            await container.resume()

        await cancelled("kill", kill, around)
        await cancelled("pause", pause, around)


async def test_subreaper_is_cancelled() -> None:
    """Whoever is cancelled in the block leaves the process as it was, and nobody who reaps."""

    @asynccontextmanager
    async def around() -> AsyncGenerator[None]:
        yield
        assert not _sys.is_subreaper()

    async def operation(_: None) -> None:
        async with Subreaper(orphans=True):
            await anyio.lowlevel.checkpoint()

    await cancelled("subreaper", operation, around)


# -- failures --------------------------------------------------------------------------------


@RUNTIMES
async def test_life_fails(tmp_path: Path, program: str) -> None:
    """Whichever call fails on the way, it is said, and nothing of the container is left."""
    log = tmp_path / "log"
    async with containers(tmp_path, ["echo", "out"], program=program) as scene:

        async def life() -> None:
            log.unlink(missing_ok=True)
            try:
                async with await scene.create(io=f"file://{log}") as container:
                    await container.start()
                    assert await container.wait(io=True, timeout=GUARD) == 0
                    result = await container.delete()
                    assert result is not None
                    assert not result.complete or log.read_bytes() == b"out\n"
            finally:
                nobody(scene)

        await failed("life", life, sample=None if program == "runc" else 1)


async def test_exec_fails(tmp_path: Path) -> None:
    """The same for a process beside init, which lives on."""
    log = tmp_path / "log"
    async with running(tmp_path) as container:

        async def exec_life() -> None:
            log.unlink(missing_ok=True)
            try:
                process = await container.exec("e", ["echo", "out"], io=f"file://{log}")
                async with process:
                    await process.start()
                    assert await process.wait(io=True, timeout=GUARD) == 0
                    result = await process.delete()
                    assert result is not None
                    assert not result.complete or log.read_bytes() == b"out\n"
            finally:
                assert _sys.children() == [container.pid]
                assert container.state == "running"

        await failed("exec", exec_life)


async def test_exec_that_would_live_on_fails(tmp_path: Path) -> None:
    """A process that nobody can follow does not run on in the container."""
    async with running(tmp_path) as container:

        async def exec_start() -> None:
            process = await container.exec("e", SLEEP)
            try:
                async with process:
                    await process.start()
            finally:
                await process.delete(force=True)
                assert _sys.children() == [container.pid]

        await failed("exec start", exec_start)


async def test_load_fails(tmp_path: Path) -> None:
    """Whoever cannot take a container over leaves it as it is; then it is deleted."""
    async with containers(tmp_path) as scene:
        program, name = scene.runtime.program, scene.runtime.name
        head = [program, "--root", scene.runtime.root]

        async def load() -> None:
            subprocess.run(  # not by us, so that it cannot fail
                [*head, "create", "--bundle", scene.runtime.bundle, name],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            container: Container | None = None
            try:
                container = await Container.load(scene.runc, name)
                await container.start()
                await container.delete(force=True)
            finally:
                if container is None:
                    container = await Container.load(scene.runc, name)
                await container.delete(force=True)
                nobody(scene)

        await failed("load", load)
