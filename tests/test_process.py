"""A child's exit: its status, who may wait for it, and what others can do to it."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import ClosedResourceError

from pyshimio import Command, Process, _sys
from pyshimio.errors import ChildReapedElsewhereError, ExitTimeoutError, SigchldIgnoredError
from support.children import GUARD, CancelKind, cancelled, exists, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

KINDS: list[CancelKind] = ["scope", "native"]
STUBBORN = 'trap "" TERM; echo ready; exec sleep 60'
POLITE = 'trap "exit 5" TERM; echo ready; while :; do sleep 0.05; done'


async def start(*args: str, **options: Any) -> Process:
    """Start a Command."""
    return await Command(args, **options).start()


@asynccontextmanager
async def held(status: str = "exit 0") -> AsyncGenerator[tuple[Process, int]]:
    """A child that exits when its stdin is closed, and the descriptor to close."""
    reader, writer = _sys.pipe()
    try:
        command = Command(["sh", "-c", f"cat; {status}"], stdin=reader)
        os.close(reader)
        async with await command.start() as process:
            yield process, writer
            await process.stop(0)
    finally:
        os.close(writer)


async def ready(script: str) -> Process:
    """A child that has written its first line."""
    reader, writer = _sys.pipe()
    try:
        process = await start("sh", "-c", script, stdout=writer)
        with anyio.fail_after(GUARD):
            await anyio.wait_readable(reader)
    finally:
        os.close(reader)
        os.close(writer)
    return process


# -- the status --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 127, 137, 255])
async def test_status(status: int) -> None:
    """The exit status is what the child said."""
    async with await start("sh", "-c", f"exit {status}") as process:
        with anyio.fail_after(GUARD):
            assert await process.wait() == status
        assert (process.status, process.exited) == (status, True)
        raw = process.raw_status
        assert raw is not None
        assert (raw.si_pid, raw.si_status, raw.si_code) == (process.pid, status, os.CLD_EXITED)
        assert repr(process).endswith(f" exited with status {status}>")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT])
async def test_signalled(number: signal.Signals) -> None:
    """Death by signal n is 128 + n, and the raw status tells it from an exit."""
    async with held() as (process, _):
        process.send_signal(number)
        with anyio.fail_after(GUARD):
            assert await process.wait() == 128 + number
        raw = process.raw_status
        assert raw is not None
        assert raw.si_status == number
        assert raw.si_code in {os.CLD_KILLED, os.CLD_DUMPED}
        assert repr(process).endswith(f" killed by signal {int(number)}>")


async def test_running() -> None:
    """While the child runs there is no status."""
    async with held() as (process, _):
        assert (process.status, process.raw_status, process.exited) == (None, None, False)
        assert repr(process) == f"<Process {process.pid} 'sh -c cat; exit 0' running>"
        assert process.pidfd == process.fileno()
        assert f"Pid:\t{process.pid}" in Path(f"/proc/self/fdinfo/{process.pidfd}").read_text()
        assert not os.get_inheritable(process.pidfd)


async def test_stopped_is_not_exited() -> None:
    """A child that is stopped by a signal still runs."""
    async with held("exit 4") as (process, _):
        process.send_signal(signal.SIGSTOP)
        await until(lambda: " T " in Path(f"/proc/{process.pid}/stat").read_text())
        assert not process.exited
        process.send_signal(signal.SIGCONT)
        process.kill()
        with anyio.fail_after(GUARD):
            assert await process.wait() == 137


# -- waiting -----------------------------------------------------------------------------


async def test_many_waiters() -> None:
    """Any number of tasks may wait, and all get the status; so does who asks later."""
    got: list[int] = []
    reader, writer = _sys.pipe()
    command = Command(["sh", "-c", "cat; exit 3"], stdin=reader)
    os.close(reader)

    async def wait(process: Process) -> None:
        got.append(await process.wait())

    async with await command.start() as process:
        with anyio.fail_after(GUARD):
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(wait, process)
                await anyio.wait_all_tasks_blocked()
                os.close(writer)
        assert got == [3] * 10
        assert await process.wait() == 3
        assert await process.wait(timeout=0) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_wait(kind: CancelKind) -> None:
    """A cancelled wait can be repeated, and loses nothing."""
    async with held() as (process, _):
        for _ in range(3):
            await cancelled(kind, process.wait)
        process.terminate()
        with anyio.fail_after(GUARD):
            assert await process.wait() == 143


async def test_timeout() -> None:
    """Who waits with a timeout is told when the child still runs then, and can wait again."""
    async with held() as (process, _):
        for timeout in (0, 0.01):
            with pytest.raises(ExitTimeoutError, match="still runs after") as caught:
                await process.wait(timeout=timeout)
            assert isinstance(caught.value, TimeoutError)
            assert caught.value.timeout == timeout
        process.kill()
        assert await process.wait(timeout=GUARD) == 137


async def test_reaped_without_a_waiter() -> None:
    """The zombie goes although nobody waits."""
    async with await start("true") as process:
        await until(lambda: process.exited)
        assert not exists(process.pid)
        assert process.status == 0


async def test_when_exited() -> None:
    """A callback comes once, at the exit; at once when that was before."""
    calls: list[str] = []
    async with held() as (process, _):
        process.when_exited(lambda: calls.append("first"))
        process.when_exited(lambda: calls.append("second"))
        assert calls == []
        process.kill()
        await process.wait()
        assert calls == ["first", "second"]
        process.when_exited(lambda: calls.append("late"))
        assert calls == ["first", "second", "late"]


# -- others who wait ---------------------------------------------------------------------


@pytest.mark.parametrize("whom", ["any", "this one"])
async def test_reaped_elsewhere(whom: str) -> None:
    """Somebody else's waitpid takes the status: each waiter gets a typed error, not a number."""
    async with held("exit 7") as (process, _):
        process.kill()
        os.waitpid(-1 if whom == "any" else process.pid, 0)

        errors = []
        for _ in range(2):
            with anyio.fail_after(GUARD):
                with pytest.raises(ChildReapedElsewhereError, match=r"waitpid\(-1\)") as caught:
                    await process.wait()
            assert caught.value.pid == process.pid
            assert isinstance(caught.value, ChildProcessError)
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        assert (process.exited, process.status, process.raw_status) == (True, None, None)
        assert repr(process).endswith(" reaped elsewhere>")
        process.terminate()


async def test_sigchld_ignored_later() -> None:
    """SIGCHLD ignored while the child runs: the error says so."""
    async with held() as (process, _):
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            process.kill()
            with anyio.fail_after(GUARD):
                with pytest.raises(ChildReapedElsewhereError, match="SIGCHLD was ignored"):
                    await process.wait()
        finally:
            signal.signal(signal.SIGCHLD, before)


async def test_sigchld_ignored() -> None:
    """SIGCHLD ignored from the beginning: nothing is started."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(SigchldIgnoredError):
            await start("true")
    finally:
        signal.signal(signal.SIGCHLD, before)


async def test_pid_of_nobody() -> None:
    """A number without a process cannot be followed."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    with pytest.raises(ChildReapedElsewhereError) as caught:
        Process(pid)
    assert caught.value.pid == pid


async def test_foreign_child_of_ours() -> None:
    """A child that was started in another way can be followed too."""
    async with Process(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 9"], {})) as process:
        assert await process.wait() == 9


# -- signals -----------------------------------------------------------------------------


async def test_signals_after_the_exit() -> None:
    """A signal for a child that has exited goes to nobody, not to who has its pid now."""
    async with await start("true") as process:
        await process.wait()
        process.send_signal(signal.SIGTERM)
        process.terminate()
        process.kill()
    process.kill()


async def test_stop_with_grace() -> None:
    """A child that heeds SIGTERM ends by itself."""
    async with await ready(POLITE) as process:
        with anyio.fail_after(GUARD):
            await process.stop(3600)
        assert process.status == 5


async def test_stop_without_mercy() -> None:
    """A child that ignores SIGTERM gets SIGKILL when its grace is over."""
    async with await ready(STUBBORN) as process:
        with anyio.fail_after(GUARD):
            await process.stop(0.05)
        assert process.status == 137


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_stop(kind: CancelKind) -> None:
    """A cancelled stop gives no grace: the child is killed and reaped before it returns."""
    async with await ready(STUBBORN) as process:
        await cancelled(kind, lambda: process.stop(3600))
        assert process.status == 137
        assert not exists(process.pid)


async def test_stop_twice() -> None:
    """Stopping what has stopped does nothing."""
    async with held() as (process, _):
        await process.stop(1)
        status = process.status
        await process.stop(1)
        assert process.status == status == 143


# -- closing -----------------------------------------------------------------------------


async def test_context_manager_never_kills() -> None:
    """Leaving the block closes the pidfd of an exited child and leaves a live one alone."""
    reader, writer = _sys.pipe()
    command = Command(["sh", "-c", "cat; exit 6"], stdin=reader)
    os.close(reader)
    async with await command.start() as process:
        pass

    assert not process.exited
    os.kill(process.pid, 0)
    os.close(writer)
    with anyio.fail_after(GUARD):
        assert await process.wait() == 6
    with pytest.raises(ClosedResourceError):
        process.fileno()


async def test_close_of_a_live_one() -> None:
    """A live child that nobody wants any more is reaped when it exits, by us."""
    process = await ready(STUBBORN)
    process.close()
    await process.aclose()
    assert exists(process.pid)
    process.kill()

    await until(lambda: not exists(process.pid))
    await until(lambda: process.exited)
    assert process.status == 137


async def test_close_of_an_exited_one() -> None:
    """Closing gives the pidfd back, and the status stays; twice is once."""
    process = await start("true")
    await process.wait()
    fd = process.fileno()
    for _ in range(2):
        process.close()
        await process.aclose()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert await process.wait() == 0
    with pytest.raises(ClosedResourceError):
        _ = process.pidfd


async def test_many_children() -> None:
    """Children that exit at the same time are all told apart."""
    statuses: dict[int, int] = {}

    async def one(number: int) -> None:
        async with await start("sh", "-c", f"exit {number}") as process:
            statuses[number] = await process.wait()

    with anyio.fail_after(GUARD):
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(one, number)
    assert statuses == {number: number for number in range(40)}
