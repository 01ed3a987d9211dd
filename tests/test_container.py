"""The life of containers and of processes in them, with real runtimes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from pyshimio import ConsoleIO, FileIO, PipeIO, Stdio, _sys, create_io
from pyshimio._children import Children
from pyshimio.client import FifoSet
from pyshimio.errors import (
    ChildReapedElsewhereError,
    ContainerStateError,
    ExitTimeoutError,
    FifoTimeoutError,
    InvalidOptionError,
    IOStateError,
    NotSubreaperError,
    RuntimeFailedError,
    StreamFailedError,
    UnmountError,
)
from pyshimio.runc import Container, ExecOptions, Exits, Subreaper
from pyshimio.testing import FakeClient
from pyshimio.testing._running import running_loop
from pyshimio.testing.faults import fail_syscall
from support.children import GUARD, CancelKind, exists, until
from support.containers import RUNTIMES, SLEEP, Scene, containers, running
from support.loggers import shell_logger, uri_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyshimio.runc import Exec, ExitEvent, Runc

pytestmark = pytest.mark.runtime("runc", "busybox")


async def refused(operation: Callable[[], Awaitable[object]], state: str) -> None:
    """*operation* is one that *state* does not have."""
    with pytest.raises(ContainerStateError, match=state) as caught:
        await operation()
    assert caught.value.state == state


# -- a life ----------------------------------------------------------------------------------


@RUNTIMES
async def test_life(tmp_path: Path, program: str) -> None:
    """Created, running, stopped, deleted: each step in its turn, and no other."""
    log = tmp_path / "log"
    args = ["sh", "-c", "echo out; echo err >&2; read line; exit 3"]
    async with containers(tmp_path, args, program=program) as scene:
        fifos = FifoSet.create("c", directory=tmp_path / "fifos")
        stdio = Stdio(stdin=fifos.stdio.stdin, stdout=f"file://{log}", stderr=f"file://{log}")
        async with await scene.create(io=stdio) as container:
            assert container.state == "created"
            assert exists(container.pid)
            await refused(container.pause, "created")
            await refused(container.resume, "created")
            assert not log.read_bytes()

            await container.start()
            assert container.state == "running"
            await refused(container.start, "running")
            await refused(container.resume, "running")
            await refused(container.delete, "running")
            await until(lambda: len(log.read_bytes()) == 8)

            container.close_stdin()
            assert await container.wait(timeout=GUARD) == 3
            assert container.state == "stopped"
            assert container.status == 3
            for operation in (container.start, container.pause, container.resume, container.kill):
                await refused(operation, "stopped")
            await refused(container.pids, "stopped")

            result = await container.delete()
            assert result is not None
            assert result.complete
            assert container.state == "deleted"
            assert await container.delete() is result
            await refused(container.start, "deleted")
            await refused(lambda: container.kill(all=True), "deleted")
            with pytest.raises(ContainerStateError):
                _ = container.pidfd
        fifos.remove()
        assert await scene.runc.list() == ()
    assert sorted(log.read_bytes().splitlines()) == [b"err", b"out"]


@RUNTIMES
async def test_pause(tmp_path: Path, program: str) -> None:
    """A paused container stands still, runs on, and can be ended while it is paused."""
    async with running(tmp_path, program=program) as container:
        await container.pause()
        assert container.state == "paused"
        await refused(container.pause, "paused")
        await refused(container.start, "paused")
        await container.resume()
        assert container.state == "running"
        await container.pause()
        await container.delete(force=True)
        assert container.status == 128 + signal.SIGKILL


@RUNTIMES
async def test_exec(tmp_path: Path, program: str) -> None:
    """Another process has stdio, status and states of its own."""
    async with running(tmp_path, program=program) as container:
        log = tmp_path / "exec.log"
        async with await container.exec(
            "e1",
            ["sh", "-c", "echo $NAME; exit 4"],
            io=f"file://{log}",
            options=ExecOptions(env={"NAME": "exec", "PATH": "/bin"}),
        ) as process:
            assert process.state == "created"
            await refused(process.wait, "created")
            await refused(process.kill, "created")
            await process.start()
            await refused(process.start, process.state)
            assert await process.wait(io=True, timeout=GUARD) == 4
            assert log.read_bytes() == b"exec\n"
            assert process.state == "stopped"
            await refused(process.kill, "stopped")
            result = await process.delete()
            assert result is not None
            assert result.complete
            assert process.state == "deleted"
        assert container.state == "running"


async def test_two_processes_of_one_name(tmp_path: Path) -> None:
    """A name is free again when its process is deleted; the container's own is never free."""
    async with running(tmp_path) as container:
        async with await container.exec("e", ["true"]):
            for name in ("e", container.id):
                with pytest.raises(ContainerStateError, match="two processes"):
                    await container.exec(name, ["true"])
        async with await container.exec("e", ["true"]) as process:
            await process.start()
            assert await process.wait(timeout=GUARD) == 0


async def test_a_pid_file_of_the_callers(tmp_path: Path) -> None:
    """What an earlier process left in it is nobody whom a failing start would end."""
    async with running(tmp_path) as container:
        options = ExecOptions(pid_file=str(tmp_path / "pid"))
        async with await container.exec("e1", SLEEP, options=options) as process:
            await process.start()
            assert (tmp_path / "pid").read_text() == str(process.pid)
            second = await container.exec("e2", ["no-such-program"], options=options)
            with pytest.raises(RuntimeFailedError):
                await second.start()
            assert process.state == "running"
            await process.kill()


async def test_processes_leave_no_files(tmp_path: Path) -> None:
    """A container that lives long does not gather files of the processes that were in it."""
    async with running(tmp_path) as container:
        for arg in ("true", "no-such-program"):
            process = await container.exec("e", [arg])
            with suppress(RuntimeFailedError):
                await process.start()
            await process.delete(force=True)
        temporary = Path(tempfile.gettempdir())
        assert [path for path in temporary.rglob("*") if not path.is_dir()] == []


async def test_users_are_numbers(tmp_path: Path) -> None:
    """The runtime takes no names, and neither is one taken here."""
    async with running(tmp_path) as container:
        for user in ("nobody", "1:", "1:x", "-1"):
            with pytest.raises(InvalidOptionError, match="uid"):
                await container.exec("e", ["true"], options=ExecOptions(user=user))


async def test_exec_beside_the_end(tmp_path: Path) -> None:
    """A container that ends while a process is being prepared has none afterwards."""
    async with running(tmp_path) as container:
        script = "while [ ! -e $2 ]; do sleep 0.01; done; exec 5>&-; exec cat <&3"
        uri = uri_of(shell_logger(tmp_path, script), ("go", str(tmp_path / "go")))
        made: list[Exec] = []

        async def prepare() -> None:
            with pytest.raises(ContainerStateError, match="deleted"):
                made.append(await container.exec("e", ["true"], io=uri))

        async with anyio.create_task_group() as group:
            group.start_soon(prepare)
            await anyio.wait_all_tasks_blocked()
            await container.delete(force=True)
            (tmp_path / "go").touch()
        assert not made


async def test_an_exec_that_refuses_to_die(tmp_path: Path) -> None:
    """It is not deleted before it has ended, and delete() may be called again."""
    async with running(tmp_path) as container:
        process = await container.exec("e", SLEEP)
        await process.start()
        with fail_syscall("pidfd_send_signal", error=errno.EPERM), anyio.fail_after(5):
            with pytest.raises(PermissionError):
                await process.delete(force=True)
        assert process.state == "running"
        await process.delete(force=True)
        assert (process.state, process.status) == ("deleted", 128 + signal.SIGKILL)


async def test_an_init_that_refuses_to_die(tmp_path: Path) -> None:
    """The runtime ends it then, and what it and its processes have written is delivered."""
    log = tmp_path / "log"
    script = "echo out; exec sleep 1000"
    async with running(tmp_path, ["sh", "-c", script], io=f"file://{log}") as container:
        await until(log.read_bytes)
        process = await container.exec("e", SLEEP)
        await process.start()
        with fail_syscall("pidfd_send_signal", error=errno.EPERM), anyio.fail_after(5):
            with pytest.raises(PermissionError):
                await container.delete(force=True)
        assert (container.state, process.state) == ("deleted", "deleted")
        assert container.result is not None
        assert container.result.complete
    assert log.read_bytes() == b"out\n"


async def test_an_exec_that_comes_after_the_end(tmp_path: Path) -> None:
    """Where pids are shared, one that starts while init ends does not live on."""
    async with containers(tmp_path) as scene:
        change(scene, lambda config: config["linux"]["namespaces"].pop(0))
        async with await scene.create() as container:
            await container.start()
            container.runc, done = slowly(container.runc, "exec", tmp_path)
            events = container.exits.events()
            process = await container.exec("e", SLEEP)
            async with anyio.create_task_group() as group:
                group.start_soon(process.start)
                await until(done.exists)
                await container.kill(signal.SIGKILL)
                await container.gone()
            with anyio.fail_after(GUARD):
                assert [event.id async for event in events] == ["e", container.id]


async def test_create_is_cancelled_twice(tmp_path: Path) -> None:
    """Whoever cancels again while a half-made container is being removed does not keep it."""
    async with containers(tmp_path) as scene:
        runc, done = slowly(scene.runc, "create", tmp_path, GUARD)

        async def create() -> None:
            await Container.create(runc, scene.runtime.name, scene.runtime.bundle)

        if running_loop() == "trio":
            async with anyio.create_task_group() as group:
                group.start_soon(create)
                await until(done.exists)
                group.cancel_scope.cancel()
        else:
            task = asyncio.ensure_future(create())
            await until(done.exists)
            for _ in range(10):
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([task])
            assert task.cancelled()
        assert await scene.runc.list() == ()


async def test_somebody_else_pauses(tmp_path: Path) -> None:
    """What is killed while somebody else has frozen it dies all the same."""
    async with running(tmp_path) as container:
        await container.runc.pause(container.id)
        with anyio.fail_after(5):
            await container.delete(force=True)
        assert container.status == 128 + signal.SIGKILL


def slowly(runc: Runc, verb: str, where: Path, seconds: float = 0.3) -> tuple[Runc, Path]:
    """The same runtime, which takes its time when it has done *verb*; a file says that it has."""
    slow, done = where / "slow", where / "done"
    slow.write_text(
        f'#!/bin/sh\n{runc.program} "$@"; status=$?\n'
        f'case " $* " in *" {verb} "*) >{done}; exec sleep {seconds};; esac; exit $status\n'
    )
    slow.chmod(0o755)
    return attrs.evolve(runc, program=str(slow)), done


@pytest.mark.parametrize("verb", ["start", "pause"])
async def test_deleted_while_it_changes(tmp_path: Path, verb: str) -> None:
    """A change that ends after the container does not bring it back."""
    async with containers(tmp_path) as scene:
        async with await scene.create() as container:
            if verb == "pause":
                await container.start()
            container.runc, done = slowly(container.runc, verb, tmp_path)

            async def change_it() -> None:
                await getattr(container, verb)()

            async with anyio.create_task_group() as group:
                group.start_soon(change_it)
                await until(done.exists)
                with anyio.fail_after(5):
                    await container.delete(force=True)
                assert container.state == "deleted"
            assert container.state == "deleted"


@RUNTIMES
async def test_exec_that_cannot_start(tmp_path: Path, program: str) -> None:
    """No such program: the runtime's error, and nothing is left that would keep init alive."""
    async with running(tmp_path, ["sh", "-c", "read line"], program=program, io=PipeIO()) as (
        container
    ):
        process = await container.exec("e", ["no-such-program"], io=f"file://{tmp_path}/log")
        with pytest.raises(RuntimeFailedError, match="no-such-program"):
            await process.start()
        assert process.state == "deleted"
        assert await process.delete() is None
        container.close_stdin()
        assert await container.wait(timeout=GUARD) == 1


@RUNTIMES
async def test_execs_that_cannot_start_side_by_side(tmp_path: Path, program: str) -> None:
    """None of them leaves a zombie, although others are just being started."""
    async with running(tmp_path, program=program) as container:

        async def start(number: int) -> None:
            process = await container.exec(f"e{number}", ["no-such-program"])
            with pytest.raises(RuntimeFailedError, match="no-such-program"):
                await process.start()

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(start, number)
        assert _sys.children() == [container.pid]


async def test_exec_with_a_fifo_set(tmp_path: Path) -> None:
    """A process reads and writes the FIFOs of its client."""
    async with running(tmp_path) as container:
        with FifoSet.create("e", directory=tmp_path / "fifos") as fifos:
            with FakeClient(fifos.stdio.stdout) as out, FakeClient(fifos.stdio.stderr) as err:
                process = await container.exec(
                    "e", ["sh", "-c", "cat; echo end >&2"], io=fifos.stdio
                )
                async with process:
                    await process.start()
                    writer = os.open(fifos.stdio.stdin, os.O_WRONLY | os.O_NONBLOCK)
                    os.write(writer, b"typed")
                    os.close(writer)
                    process.close_stdin()
                    assert await process.wait(io=True, timeout=GUARD) == 0
                    assert await out.read(100) == b"typed"
                    assert await err.read(100) == b"end\n"


@RUNTIMES
async def test_terminal(tmp_path: Path, program: str) -> None:
    """A terminal is asked for by the bundle, sent by the runtime, and can be resized."""
    screen = tmp_path / "screen"
    args = ["sh", "-c", "read line; stty size; exit 5"]
    async with containers(tmp_path, args, program=program, terminal=True) as scene:
        io = ConsoleIO(runtime=True)
        async with await scene.create(io=io) as container:
            assert container.io is io
            container.resize(31, 47)
            await container.start()
            assert io.stdin is not None
            assert io.stdout is not None
            await io.stdin.send(b"\n")
            with anyio.fail_after(GUARD):
                text = b""
                while b"31 47" not in text:
                    text += await io.stdout.receive()
            assert await container.wait(timeout=GUARD) == 5
        with pytest.raises(IOStateError, match="no terminal"):
            container.resize(1, 1)
    (tmp_path / "second").mkdir()
    async with containers(tmp_path / "second", args, program=program, terminal=True) as scene:
        async with await scene.create(io=f"file://{screen}") as container:
            container.resize(10, 20)
            container.close_stdin()
            await container.start()
            await container.wait(io=True, timeout=GUARD)
        assert b"10 20" in screen.read_bytes()


async def test_exec_with_a_terminal(tmp_path: Path) -> None:
    """A process may have a terminal where its container has none."""
    async with running(tmp_path) as container:
        with pytest.raises(IOStateError, match="no terminal"):
            container.resize(1, 1)
        stdio = Stdio(stdout=f"file://{tmp_path}/screen", terminal=True)
        async with await container.exec("e", ["tty"], io=stdio) as process:
            await process.start()
            assert await process.wait(io=True, timeout=GUARD) == 0
        assert (tmp_path / "screen").read_bytes() == b"/dev/pts/0\r\n"


async def test_signals_and_pids(tmp_path: Path) -> None:
    """kill() reaches init, or all; pids() says who there is."""
    script = "trap 'exit 7' TERM; sleep 1000 & echo up; wait"
    log = tmp_path / "log"
    async with running(tmp_path, ["sh", "-c", script], io=f"file://{log}") as container:
        await until(lambda: log.read_bytes() == b"up\n")
        pids = await container.pids()
        assert container.pid in pids
        assert len(pids) == 2
        await container.kill()
        assert await container.wait(timeout=GUARD) == 7
        await refused(container.kill, "stopped")
        await container.delete()


async def test_kill_of_all(tmp_path: Path) -> None:
    """Every process gets the signal."""
    async with running(tmp_path, ["sh", "-c", "sleep 1000 & wait"]) as container:
        async with await container.exec("e", SLEEP) as process:
            await process.start()
            await container.kill(signal.SIGKILL, all=True)
            assert await process.wait(timeout=GUARD) == 128 + signal.SIGKILL
            assert await container.wait(timeout=GUARD) == 128 + signal.SIGKILL


async def test_wait_that_is_too_long(tmp_path: Path) -> None:
    """A timeout ends the waiting, and nothing else."""
    async with running(tmp_path) as container:
        with pytest.raises(ExitTimeoutError, match="still runs"):
            await container.wait(timeout=0.01)
        assert container.state == "running"


async def test_leaving_the_block(tmp_path: Path) -> None:
    """What still runs is killed and deleted, processes beside init too."""
    async with containers(tmp_path) as scene:
        with pytest.raises(ZeroDivisionError):
            async with await scene.create() as container:
                await container.start()
                process = await container.exec("e", SLEEP)
                await process.start()
                raise ZeroDivisionError
        assert (container.state, process.state) == ("deleted", "deleted")
        assert not exists(container.pid)
        assert not exists(process.pid)
        assert await scene.runc.list() == ()


async def test_a_created_container_is_deleted(tmp_path: Path) -> None:
    """One that was never started can be deleted without force."""
    async with containers(tmp_path) as scene:
        async with await scene.create() as container:
            await container.delete()
            assert container.state == "deleted"


async def test_repr(tmp_path: Path) -> None:
    """It says its state in words."""
    async with running(tmp_path) as container:
        process = await container.exec("e", ["true"])
        assert repr(process) == f"<Exec 'e' of {container.id!r} created>"
        assert repr(container) == f"<Container {container.id!r} running pid {container.pid}>"
        assert repr(container.exits) == "<Exits open>"
        assert repr(Subreaper()) == "<Subreaper not active>"
        await process.delete()
        assert repr(process) == f"<Exec 'e' of {container.id!r} deleted>"


async def test_a_bundle_that_cannot_be_written(tmp_path: Path) -> None:
    """A pid file goes elsewhere then, and nothing is left of it."""
    async with containers(tmp_path, ["true"]) as scene:
        bundle = scene.runtime.bundle
        _mount("--bind", bundle, bundle)
        try:
            _mount("-o", "remount,bind,ro", bundle)
            before = sorted(os.listdir(bundle))
            async with await scene.create() as container:
                await container.start()
                assert await container.wait(timeout=GUARD) == 0
            assert sorted(os.listdir(bundle)) == before
        finally:
            subprocess.run(["umount", bundle], check=True)


# -- statuses --------------------------------------------------------------------------------


async def test_without_a_subreaper(tmp_path: Path) -> None:
    """wait() says what is missing; all else works."""
    async with containers(tmp_path, ["sh", "-c", "echo out"], reaped=False) as scene:
        async with await scene.create(io=f"file://{tmp_path}/log") as container:
            with pytest.raises(NotSubreaperError, match="Subreaper"):
                await container.wait()
            process = await container.exec("e", ["true"])
            await process.start()
            with pytest.raises(NotSubreaperError, match="Subreaper"):
                await process.wait(io=True)
            await container.start()
            with anyio.fail_after(GUARD):
                await process.gone()
                await container.gone()
            assert (container.state, container.status) == ("stopped", None)
            result = await container.delete()
            assert result is not None
            assert result.complete
    assert (tmp_path / "log").read_bytes() == b"out\n"


async def test_somebody_else_waits(tmp_path: Path) -> None:
    """A foreign waitpid(-1) takes the status, and not the output, nor the rest of the life."""
    async with running(tmp_path, ["sh", "-c", "echo out; read line"], io=PipeIO()) as container:
        container.close_stdin()
        # No turn of the loop between the exit and the theft.
        assert os.waitpid(-1, 0)[0] == container.pid
        with pytest.raises(ChildReapedElsewhereError, match="waitpid"):
            await container.wait(timeout=GUARD)
        assert container.state == "stopped"
        assert container.status is None
        stdout = container.io.stdout
        assert stdout is not None
        assert await stdout.receive() == b"out\n"
        await container.delete()
        assert container.state == "deleted"


async def test_exit_events(tmp_path: Path) -> None:
    """Everybody's end is told, init's at the end, also when it was the first to go."""
    async with running(tmp_path) as container:
        events = container.exits.events()
        for number in (3, 4):
            process = await container.exec(f"e{number}", ["sh", "-c", f"exit {number}"])
            await process.start()
            await process.wait(timeout=GUARD)
            await process.delete()
        last = await container.exec("last", SLEEP)
        await last.start()
        await container.kill(signal.SIGKILL)
        with anyio.fail_after(GUARD):
            told: list[ExitEvent] = [event async for event in events]
        assert [(event.id, event.exit_status) for event in told] == [
            *(("e3", 3), ("e4", 4)),
            *(("last", 137), (container.id, 137)),
        ]
        assert told[-1].exited_at == container.exited_at
        assert {event.container_id for event in told} == {container.id}
        assert told[0].pid


async def test_events_of_several_containers(tmp_path: Path) -> None:
    """One iterator may serve many, and goes on until it is closed."""
    exits = Exits()
    events = exits.events()
    async with containers(tmp_path, ["true"]) as scene:
        for _ in range(2):
            async with await scene.create(exits=exits) as container:
                await container.start()
                await container.wait(timeout=GUARD)
    exits.close()
    assert [event.exit_status async for event in events] == [0, 0]
    assert [event async for event in exits.events()] == []


async def test_shared_pids(tmp_path: Path) -> None:
    """Where init does not take all with it, its execs are ended after it."""
    async with containers(tmp_path) as scene:
        change(scene, lambda config: config["linux"]["namespaces"].pop(0))
        async with await scene.create() as container:
            assert not container.bundle.private_pids
            events = container.exits.events()
            await container.start()
            process = await container.exec("e", SLEEP)
            await process.start()
            os.kill(container.pid, signal.SIGKILL)
            with anyio.fail_after(GUARD):
                assert [event.id async for event in events] == ["e", container.id]
            assert process.status == 137


async def test_orphans_are_reaped(tmp_path: Path) -> None:
    """Only for whoever asks for it; then strangers go, and nobody's status with them."""
    async with Subreaper(orphans=True):
        async with containers(tmp_path, reaped=False) as scene:
            async with await scene.create() as container:
                await container.start()
                orphan = _orphan("sleep 0.01")
                statuses = []
                for number in range(5):
                    process = await container.exec("e", ["sh", "-c", f"exit {number}"])
                    async with process:
                        await process.start()
                        statuses.append(await process.wait(timeout=GUARD))
                assert statuses == [0, 1, 2, 3, 4]
                await until(lambda: not exists(orphan))


async def test_orphans_are_left_alone(tmp_path: Path) -> None:
    """By default a stranger is nobody's business."""
    async with Subreaper():
        orphan = _orphan("sleep 0.05; exit 9")
        await until(lambda: os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT | os.WNOHANG))
    assert os.waitstatus_to_exitcode(os.waitpid(orphan, 0)[1]) == 9


async def test_errors_pass_the_subreaper() -> None:
    """What the block raises comes out as it is, and the switch is put back."""
    for orphans in (False, True):
        with pytest.raises(ZeroDivisionError):
            async with Subreaper(orphans=orphans):
                raise ZeroDivisionError


async def test_one_subreaper_in_another(tmp_path: Path) -> None:
    """The outer one goes on reaping when the inner one is over."""
    async with Subreaper(orphans=True), running(tmp_path, reaped=False):
        async with Subreaper(orphans=True):
            pass
        before = Children.current().when_free
        assert before is not None


def _orphan(script: str) -> int:
    """A process that somebody else has started and left to us."""
    done = subprocess.run(
        ["sh", "-c", f"sh -c '{script}' >/dev/null & echo $!"], capture_output=True, check=True
    )
    return int(done.stdout)


async def test_the_switch_is_put_back() -> None:
    """Who was no subreaper before is none afterwards; who was, stays one."""
    async with Subreaper() as reaper:
        assert "active" in repr(reaper)
        async with Subreaper():
            pass
        orphan = _orphan("sleep 0.05")
        assert os.waitpid(orphan, 0)[0] == orphan
    orphan = _orphan("sleep 0.01")
    with pytest.raises(ChildProcessError):
        os.waitpid(orphan, 0)
    await until(lambda: not exists(orphan))


# -- output ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", ["sleep 1000 & echo hi", "while :; do echo flood; done & echo hi"]
)
async def test_a_background_child_of_an_exec(tmp_path: Path, script: str) -> None:
    """What it wrote is delivered, and nobody waits for who holds its pipes or floods them."""
    async with running(tmp_path) as container:
        log = tmp_path / "log"
        process = await container.exec("e", ["sh", "-c", script], io=f"file://{log}")
        await process.start()
        assert await process.wait(timeout=GUARD) == 0
        with anyio.fail_after(GUARD):
            result = await process.delete()
        assert result is not None
        assert result.holders_left
        assert b"hi\n" in log.read_bytes()


async def test_a_client_that_never_comes(tmp_path: Path) -> None:
    """A FIFO that nobody opens is an error in time, and leaves no container."""
    async with containers(tmp_path) as scene:
        with FifoSet.create("c", directory=tmp_path / "fifos", stdin=False) as fifos:
            io = await _with_timeout(fifos.stdio, 0.05)
            with pytest.raises(FifoTimeoutError):
                await scene.create(io=io)
        assert await scene.runc.list() == ()


async def _with_timeout(stdio: Stdio, seconds: float) -> Any:
    return await create_io(stdio, client_timeout=seconds)


async def test_a_sink_that_failed(tmp_path: Path) -> None:
    """wait(io=True) and delete() say so, once; the container is deleted all the same."""
    async with containers(tmp_path, ["sh", "-c", "echo out"]) as scene:
        io = FileIO("/dev/full", on_error="fail")
        async with await scene.create(io=io) as container:
            await container.start()
            with pytest.raises(StreamFailedError):
                await container.wait(io=True, timeout=GUARD)
            await container.delete()
            assert container.state == "deleted"


async def test_stdio_belongs_to_the_process(tmp_path: Path) -> None:
    """A user of the container opens /dev/stdout by name, init as well as an exec's."""
    async with running(
        tmp_path,
        ["sh", "-c", "echo init >/dev/stdout; exec sleep 1000"],
        uid=1000,
        io=f"file://{tmp_path}/init",
    ) as container:
        await until(lambda: (tmp_path / "init").read_bytes() == b"init\n")
        for number, user in enumerate(("1000", "7:8")):
            log = tmp_path / f"{number}"
            async with await container.exec(
                "e",
                ["sh", "-c", "echo named >/dev/stdout; echo $(id -u) >/dev/stderr"],
                io=f"file://{log}",
                options=ExecOptions(user=user),
            ) as process:
                await process.start()
                assert await process.wait(io=True, timeout=GUARD) == 0
            assert b"named\n" in log.read_bytes()


async def test_a_user_namespace(tmp_path: Path) -> None:
    """Its root is somebody else outside, and that one owns its stdio."""

    def edit(config: dict[str, Any]) -> None:
        linux = config["linux"]
        linux["namespaces"].append({"type": "user"})
        for name in ("uidMappings", "gidMappings"):
            linux[name] = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]

    args = ["sh", "-c", "echo $(id -u) >/dev/stdout"]
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where anybody may go
        os.chmod(name, 0o711)
        async with containers(Path(name), args, uid=1000) as scene:
            change(scene, edit)
            async with await scene.create(io=f"file://{tmp_path}/log") as container:
                assert container.bundle.outside(1000, 1000) == (101_000, 101_000)
                await container.start()
                assert await container.wait(io=True, timeout=GUARD) == 0
    assert (tmp_path / "log").read_bytes() == b"1000\n"


def change(scene: Scene, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the bundle's configuration."""
    path = Path(scene.runtime.bundle) / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


# -- the end ---------------------------------------------------------------------------------


async def test_each_phase_has_its_time(tmp_path: Path) -> None:
    """A client that reads nothing costs the drain its time, and nobody else anything."""
    async with containers(tmp_path, ["seq", "10000000"]) as scene:
        with FifoSet.create("c", directory=tmp_path / "fifos", stdin=False) as fifos:
            with FakeClient(fifos.stdio.stdout) as client, FakeClient(fifos.stdio.stderr):
                async with await scene.create(io=fifos.stdio) as container:
                    await container.start()
                    await stuck(client)
                    with anyio.fail_after(GUARD):
                        await container.delete(force=True, drain_timeout=0.2)
                    assert container.state == "deleted"
                    assert container.result is not None
                    assert not container.result.complete
        assert await scene.runc.list() == ()


async def stuck(client: FakeClient) -> None:
    """Wait until all that can be has been written for a client that does not read."""
    before = -1
    while client.unread < 1 << 16 or client.unread != before:
        before = client.unread
        await anyio.sleep(0.1)


async def test_unmount(tmp_path: Path) -> None:
    """What is mounted for it goes; what is in use is an error, and can be tried again."""
    root = tmp_path / "bundle" / "rootfs"
    async with containers(tmp_path, ["true"]) as scene:
        _mount("--bind", str(root), str(root))
        inner = root / "a b"
        inner.mkdir()
        _mount("-t", "tmpfs", "none", str(inner))
        busy = open(inner / "file", "w")
        async with await scene.create(rootfs=str(root)) as container:
            await container.start()
            await container.wait(timeout=GUARD)
            with pytest.raises(UnmountError, match="a b"):
                await container.delete(unmount_timeout=0.1)
            assert await scene.runc.list() == ()
            assert container.state == "stopped"
            busy.close()
            await container.delete()
            assert container.state == "deleted"
        assert str(root) not in Path("/proc/self/mountinfo").read_text()


def _mount(*args: str) -> None:
    subprocess.run(["mount", *args], check=True)


async def test_a_runtime_that_fails_to_delete(tmp_path: Path) -> None:
    """The error is the runtime's, and when it works again so does delete()."""
    async with containers(tmp_path, ["true"]) as scene:
        async with await scene.create() as container:
            await container.start()
            await container.wait(timeout=GUARD)
            broken = tmp_path / "broken"
            broken.write_text("#!/bin/sh\necho no >&2; exit 9\n")
            broken.chmod(0o755)
            real, container.runc = container.runc, type(container.runc)(program=str(broken))
            with pytest.raises(RuntimeFailedError, match="no"):
                await container.delete()
            assert container.state == "stopped"
            broken.write_text("#!/bin/sh\nexec sleep 1000\n")
            with pytest.raises(ExitTimeoutError, match="the runtime's delete took more"):
                await container.delete(runtime_timeout=0.1)
            container.runc = real
            await container.delete()
            assert container.state == "deleted"


@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_a_cancelled_end_is_an_end(tmp_path: Path, kind: CancelKind) -> None:
    """However delete() is cancelled, all of it has been done when it returns."""
    async with containers(tmp_path) as scene:
        async with await scene.create() as container:
            await container.start()
            slow, begun = tmp_path / "slow", tmp_path / "begun"
            real = container.runc
            slow.write_text(f'#!/bin/sh\n>{begun}\nsleep 0.3\nexec {real.program} "$@"\n')
            slow.chmod(0o755)
            container.runc = attrs.evolve(real, program=str(slow))

            async def delete() -> None:
                await container.delete(force=True)

            if kind == "native" and running_loop() != "trio":
                task = asyncio.ensure_future(delete())
                await until(begun.exists)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(delete)
                    await until(begun.exists)
                    group.cancel_scope.cancel()
            assert container.state == "deleted"
        assert await scene.runc.list() == ()


async def test_every_phase_happens(tmp_path: Path) -> None:
    """An IO of somebody else's that raises what it likes keeps nobody from the rest."""

    class Broken(PipeIO):
        async def drain(self, **_options: Any) -> Any:
            raise ZeroDivisionError

    async with running(tmp_path, ["true"], io=Broken()) as container:
        await container.gone()
        with pytest.raises(ZeroDivisionError):
            await container.delete()
        assert container.state == "deleted"
        assert await container.runc.list() == ()


@RUNTIMES
async def test_somebody_else_deletes(tmp_path: Path, program: str) -> None:
    """A container that has been deleted by hand is deleted here, too."""
    async with running(tmp_path, program=program) as container:
        await container.runc.delete(container.id, force=True)
        assert await container.wait(timeout=GUARD) == 137
        await container.delete()
        assert container.state == "deleted"


async def test_load(tmp_path: Path) -> None:
    """Who comes later takes a container over, by name, with whatever state it has."""
    async with containers(tmp_path) as scene:
        async with await scene.create() as container:
            for state, change_it in (
                *(("created", container.start), ("running", container.pause)),
                *(("paused", container.resume), ("running", None)),
            ):
                loaded = await Container.load(scene.runc, container.id)
                assert loaded.state == state
                assert loaded.pid == container.pid
                loaded.close()
                assert loaded.state == "deleted"
                if change_it is not None:
                    await change_it()
            loaded = await Container.load(scene.runc, container.id)
            await loaded.delete(force=True)
            assert loaded.state == "deleted"
            with pytest.raises(RuntimeFailedError, match="does not exist"):
                await Container.load(scene.runc, container.id)


async def test_a_load_that_fails(tmp_path: Path) -> None:
    """It leaves nothing, and the container as it was."""
    async with running(tmp_path) as container:
        with fail_syscall("pidfd_open", 2, error=errno.EMFILE) as calls:
            with pytest.raises(OSError, match="Too many open files"):
                await Container.load(container.runc, container.id)
        assert calls.failed == "pidfd_open"
        assert list(Path(tempfile.gettempdir()).iterdir()) == []
        assert exists(container.pid)


async def test_load_of_one_that_has_ended(tmp_path: Path) -> None:
    """Its status is not to be had, and it can be deleted."""
    async with containers(tmp_path, ["true"]) as scene:
        async with await scene.create() as container:
            await container.start()
            await container.wait(timeout=GUARD)
            loaded = await Container.load(scene.runc, container.id)
            assert loaded.state == "stopped"
            with pytest.raises(NotSubreaperError, match="ended before"):
                await loaded.wait()
            await loaded.delete()


# -- what goes wrong on the way --------------------------------------------------------------


async def test_no_bundle(tmp_path: Path) -> None:
    """A wrong directory is an error before there is anything, and the IO is closed."""
    async with containers(tmp_path) as scene:
        io = PipeIO()
        with pytest.raises(InvalidOptionError, match="no bundle"):
            await Container.create(scene.runc, "c", tmp_path / "missing", io=io)
        assert "closed" in repr(io)


async def test_a_runtime_that_refuses(tmp_path: Path) -> None:
    """Its error comes out, and nothing is left."""
    async with containers(tmp_path) as scene:
        change(scene, lambda config: config["process"].update(cwd="relative"))
        with pytest.raises(RuntimeFailedError, match="absolute"):
            await scene.create(io=PipeIO())
        assert await scene.runc.list() == ()


async def test_the_runtime_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the runtime during create: an error, and no half-made container."""
    async with containers(tmp_path) as scene:
        script = tmp_path / "killed"
        # The runtime is killed once it has made what it is to make.
        script.write_text(
            f'#!/bin/sh\ncase "$*" in *create*)\n{scene.runtime.program} "$@"; kill -9 $$;; esac\n'
            f'exec {scene.runtime.program} "$@"\n'
        )
        script.chmod(0o755)
        runc = type(scene.runc)(program=str(script), root=scene.runtime.root)
        with pytest.raises(RuntimeFailedError):
            await Container.create(runc, scene.runtime.name, scene.runtime.bundle)
        assert await scene.runc.list() == ()
