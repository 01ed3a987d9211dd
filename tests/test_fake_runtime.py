"""The fake runtime beside the real one: the same tests, and what it does wrong when told to."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from pyshimio import ConsoleIO, ConsoleSocket, FileIO, PipeIO
from pyshimio.errors import ConsoleError, NotATerminalError, RuntimeAnswerError, RuntimeFailedError
from pyshimio.runc import Container, CreateOptions, ExecOptions, Runc, Subreaper
from pyshimio.testing import FakeRuntime
from support.children import GUARD, until
from support.runc import Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BOTH = pytest.mark.parametrize(
    "program", ["fake", pytest.param("runc", marks=pytest.mark.runtime("runc", "busybox"))]
)
SLEEP = ["sleep", "1000"]


@asynccontextmanager
async def made(
    tmp_path: Path, program: str, args: list[str], *, terminal: bool = False
) -> AsyncIterator[tuple[Runc, str, str]]:
    """A client, a name and a bundle; the container is gone afterwards."""
    if program == "fake":
        fake = FakeRuntime.make(tmp_path)
        runc, name = fake.client(), "c1"
        bundle = fake.bundle(tmp_path / "bundle", args, terminal=terminal)
        try:
            yield runc, name, bundle
        finally:
            with anyio.CancelScope(shield=True):
                fake.behave()
                await runc.delete(name, force=True)
    else:
        runtime = Runtime.make(tmp_path, args, terminal=terminal, program=program)
        async with runtime.cleaned():
            yield Runc(program=runtime.program, root=runtime.root), runtime.name, runtime.bundle


@BOTH
async def test_a_life(tmp_path: Path, program: str) -> None:
    """Created, running, stopped, gone; its output is where its IO says."""
    log, pid_file = tmp_path / "out.log", tmp_path / "pid"
    script = ["sh", "-c", "echo out; echo err >&2; exec sleep 1000"]
    async with made(tmp_path, program, script) as (runc, name, bundle):
        async with FileIO(log, log) as io:
            await runc.create(name, bundle, io=io, options=CreateOptions(pid_file=str(pid_file)))
            await io.copy()
            state = await runc.state(name)
            assert (state.id, state.status, state.bundle) == (name, "created", bundle)
            assert state.pid == int(pid_file.read_text())
            assert state.created is not None
            assert not log.read_bytes()
            await runc.start(name)
            await until(lambda: len(log.read_bytes()) == 8)
            assert [one.status for one in await runc.list()] == ["running"]
            assert await runc.ps(name) == (state.pid,)
            assert (await runc.stats(name)).data["pids"]["current"] >= 1
            pidfd = os.pidfd_open(state.pid)
            await runc.kill(name, signal.SIGKILL)
            with anyio.fail_after(GUARD):
                assert (await io.drain(exited=pidfd)).complete
            os.close(pidfd)
        assert (await runc.state(name)).status == "stopped"
        with pytest.raises(RuntimeFailedError, match="not running"):
            await runc.kill(name)
        await runc.delete(name)
        assert await runc.list() == ()


@BOTH
async def test_run(tmp_path: Path, program: str) -> None:
    """To its end, and nothing is left of it."""
    async with made(tmp_path, program, ["sh", "-c", "echo out; exit 3"]) as (runc, name, bundle):
        async with PipeIO(stdin=False) as io:
            assert await runc.run(name, bundle, io=io) == 3
            assert io.stdout is not None
            assert await io.stdout.receive() == b"out\n"
        assert await runc.list() == ()


@BOTH
async def test_exec(tmp_path: Path, program: str) -> None:
    """It has a status and output of its own, and its environment is init's and more."""
    async with made(tmp_path, program, SLEEP) as (runc, name, bundle):
        await runc.create(name, bundle)
        await runc.start(name)
        async with PipeIO(stdin=False) as io:
            options = ExecOptions(env={"WHO": "you"}, cwd="/")
            args = ["sh", "-c", "echo $WHO; pwd; exit 4"]
            assert await runc.exec(name, args, io=io, options=options) == 4
            assert io.stdout is not None
            assert await io.stdout.receive() == b"you\n/\n"
        with pytest.raises(RuntimeFailedError, match="no-such"):
            await runc.exec(name, ["no-such"])
        pid_file = tmp_path / "exec.pid"
        options = ExecOptions(detach=True, pid_file=str(pid_file))
        assert await runc.exec(name, SLEEP, options=options) == 0
        assert int(pid_file.read_text()) in await runc.ps(name)
        await runc.delete(name, force=True)


@BOTH
async def test_pause(tmp_path: Path, program: str) -> None:
    """Nothing runs meanwhile, and nothing can be begun."""
    async with made(tmp_path, program, SLEEP) as (runc, name, bundle):
        await runc.create(name, bundle)
        with pytest.raises(RuntimeFailedError):
            await runc.resume(name)
        await runc.start(name)
        with pytest.raises(RuntimeFailedError, match="running"):
            await runc.start(name)
        await runc.pause(name)
        assert (await runc.state(name)).status == "paused"
        with pytest.raises(RuntimeFailedError, match="paused"):
            await runc.exec(name, ["true"])
        await runc.update(name, {"pids": {"limit": 100}})
        await runc.resume(name)
        assert (await runc.state(name)).status == "running"
        with pytest.raises(RuntimeFailedError, match="not stopped"):
            await runc.delete(name)


@BOTH
async def test_a_terminal(tmp_path: Path, program: str) -> None:
    """A real one, whose master comes over the console socket."""
    script = ["sh", "-c", "stty size; read line; echo got $line"]
    async with made(tmp_path, program, script, terminal=True) as (runc, name, bundle):
        async with ConsoleIO(size=(33, 44)) as io:
            await runc.create(name, bundle, io=io)
            await io.copy()
            pidfd = os.pidfd_open((await runc.state(name)).pid)
            await runc.start(name)
            assert io.stdin is not None
            assert io.stdout is not None
            await io.stdin.send(b"hello\n")
            said = b""
            with anyio.fail_after(GUARD):
                while b"got hello" not in said:
                    said += await io.stdout.receive()
                assert (await io.drain(exited=pidfd)).complete
            os.close(pidfd)
        assert b"33 44" in said


@BOTH
async def test_what_it_refuses(tmp_path: Path, program: str) -> None:
    """In runc's words, on stderr and in its log."""
    async with made(tmp_path, program, ["no-such-program"]) as (runc, name, bundle):
        with pytest.raises(RuntimeFailedError, match="not found in") as caught:
            await runc.create(name, bundle)
        assert [entry.level for entry in caught.value.entries] == ["error"]
        for call in (runc.start, runc.state, runc.delete, runc.pause, runc.ps):
            with pytest.raises(RuntimeFailedError, match="does not exist"):
                await call("missing")
        with pytest.raises(RuntimeFailedError, match="no such file"):
            await runc.create(name, f"{bundle}/missing")
    assert (await runc.version()).program == "runc"


@BOTH
async def test_a_container_with_an_exec(tmp_path: Path, program: str) -> None:
    """The whole of what a shim does with one."""
    log = tmp_path / "log"
    async with Subreaper():
        async with made(tmp_path, program, ["sh", "-c", "echo init; exec sleep 1000"]) as (
            runc,
            name,
            bundle,
        ):
            async with await Container.create(runc, name, bundle, io=f"file://{log}") as container:
                await container.start()
                probe = f"file://{tmp_path}/probe"
                async with await container.exec("probe", ["echo", "probe"], io=probe) as process:
                    await process.start()
                    assert await process.wait(io=True) == 0
                await container.kill(signal.SIGTERM if program == "fake" else signal.SIGKILL)
                assert await container.wait(io=True) in {128 + 15, 128 + 9}
                result = await container.delete()
            assert result is not None
            assert result.complete
    assert log.read_text() == "init\n"
    assert (tmp_path / "probe").read_text() == "probe\n"


# -- mischief ----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_it_crashes(tmp_path: Path, moment: str) -> None:
    """Whoever creates a container by it leaves none."""
    fake = FakeRuntime.make(tmp_path)
    bundle = fake.bundle(tmp_path / "bundle", SLEEP)
    fake.misbehave("create", crash="before" if moment == "before" else "after")
    runc = fake.client()
    async with Subreaper():
        with pytest.raises(RuntimeFailedError):
            await Container.create(runc, "c1", bundle)
    assert await runc.list() == ()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_it_hangs(tmp_path: Path, moment: str) -> None:
    """A cancelled create leaves no container, and no runtime that waits."""
    fake = FakeRuntime.make(tmp_path)
    bundle = fake.bundle(tmp_path / "bundle", SLEEP)
    fake.misbehave("create", hang="before" if moment == "before" else "after")
    runc = fake.client()
    async with Subreaper():
        with anyio.move_on_after(0.5) as scope:
            await Container.create(runc, "c1", bundle)
    assert scope.cancelled_caught
    assert await runc.list() == ()


async def test_it_answers_nonsense_once(tmp_path: Path) -> None:
    """And then it is right again."""
    fake = FakeRuntime.make(tmp_path)
    runc = fake.client()
    await runc.create("c1", fake.bundle(tmp_path / "bundle", SLEEP))
    fake.misbehave("state", garbage='{"id": ', times=1)
    with pytest.raises(RuntimeAnswerError):
        await runc.state("c1")
    assert (await runc.state("c1")).status == "created"
    fake.misbehave("delete", error="device or resource busy", times=1)
    with pytest.raises(RuntimeFailedError, match="device or resource busy"):
        await runc.delete("c1", force=True)
    fake.misbehave("start", exit=7)
    with pytest.raises(RuntimeFailedError) as caught:
        await runc.start("c1")
    assert caught.value.status == 7
    await runc.delete("c1", force=True)


@pytest.mark.parametrize("descriptors", [-1, 0, 2])
async def test_its_message_is_wrong(tmp_path: Path, descriptors: int) -> None:
    """No message, one without a descriptor, one with two: an error, and nothing is left."""
    fake = FakeRuntime.make(tmp_path)
    bundle = fake.bundle(tmp_path / "bundle", SLEEP, terminal=True)
    fake.misbehave("create", descriptors=descriptors)
    runc = fake.client()
    # (A terminal that nobody has hangs up, which may end init before it is known.)
    with pytest.raises((ConsoleError, RuntimeFailedError)), anyio.fail_after(GUARD):
        async with ConsoleIO(size=(24, 80)) as io:
            await runc.create("c1", bundle, io=io)
            await io.copy()
    await runc.delete("c1", force=True)


async def test_a_pidfd_over_a_socket(tmp_path: Path) -> None:
    """As newer versions of runc send it."""
    fake = FakeRuntime.make(tmp_path)
    runc = fake.client()
    async with ConsoleSocket.temp() as socket:
        options = CreateOptions(pidfd_socket=str(socket.path))
        await runc.create("c1", fake.bundle(tmp_path / "bundle", SLEEP), options=options)
        with pytest.raises(NotATerminalError):  # (It is no terminal, and so this end refuses it.)
            await socket.receive()
    await runc.delete("c1", force=True)


# -- its command line --------------------------------------------------------------------------


def said(fake: FakeRuntime, *args: str) -> subprocess.CompletedProcess[str]:
    """What it says to a command line; into files, which a container may keep open."""
    command = [fake.program, "--root", fake.root, *args]
    out, err = Path(fake.root, "out.txt"), Path(fake.root, "err.txt")
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            check=False,
            timeout=GUARD,
        )
    return subprocess.CompletedProcess(args, done.returncode, out.read_text(), err.read_text())


def test_lines_that_are_wrong(tmp_path: Path) -> None:
    """Status 1, and one line on stderr and in the log, in the format that was asked for."""
    fake = FakeRuntime.make(tmp_path)
    bundle = fake.bundle(tmp_path / "bundle", SLEEP)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for args, word in (
        (("state",), "id"),
        (("state", "--what", "c1"), "--what"),
        (("create", "--bundle", bundle, "a/b"), "invalid container ID"),
        (("delete", "--force", ".."), "invalid container ID"),
        (("create", "--bundle", str(tmp_path / "broken"), "c1"), "config.json"),
        (("create", "--bundle", bundle, "--console-socket", "/x", "c1"), "console socket"),
        (("create", "--bundle", bundle, "--pidfd-socket", "/no/such", "c1"), "/no/such"),
        (("create", "--bundle", bundle, "--pid-file", "/no/such/x", "c1"), "/no/such"),
        (("exec", "c1", "true"), "does not exist"),
        (("exec", "--console-socket", "/x", "c1", "true"), "does not exist"),
    ):
        done = said(fake, "--log", str(tmp_path / "log"), *args)
        assert (done.returncode, done.stdout) == (255 if args[0] == "exec" else 1, "")
        assert word in done.stderr
        assert "level=" not in done.stderr  # which is for the log
        assert "level=error" in (tmp_path / "log").read_text().splitlines()[-1]
    assert said(fake, "delete", "--force", "never-there").returncode == 0
    assert said(fake, "frobnicate").returncode == 3
    assert "level=error" in said(fake, "frobnicate").stderr
    assert sorted(os.listdir(fake.root)) == ["err.txt", "out.txt"]
    assert said(fake, "--version").stdout.startswith("runc version 1.1.5")


def test_tables_and_signals(tmp_path: Path) -> None:
    """For people; signals by name, with or without SIG, and by number."""
    fake = FakeRuntime.make(tmp_path)
    bundle = fake.bundle(tmp_path / "bundle", SLEEP)
    assert said(fake, "list", "--format", "json").stdout == "null\n"
    assert said(fake, "run", "--detach", "-b", bundle, "c1").returncode == 0
    assert said(fake, "list").stdout.split()[::2] == ["c1", "running"]
    pid = int(said(fake, "ps", "c1").stdout)
    assert "ociVersionMax" in said(fake, "features").stdout
    assert "unknown signal" in said(fake, "kill", "c1", "NONE").stderr
    assert said(fake, "create", "-b", bundle, "c1").stderr.endswith('already exists"\n')
    for name in ("0", "cont", "SIGCONT", "SIGKILL"):
        pidfd = os.pidfd_open(pid)
        assert said(fake, "kill", "c1", name).returncode == 0
        if name == "SIGKILL":
            assert select.select([pidfd], [], [], GUARD)[0]
        os.close(pidfd)
    assert "not running" in said(fake, "kill", "c1").stderr
    assert "stopped" in said(fake, "start", "c1").stderr
    assert "stopped" in said(fake, "exec", "c1", "true").stderr
    assert "not running" in said(fake, "update", "-r", "-", "c1").stderr
    assert "not running" in said(fake, "events", "c1").stderr
    assert said(fake, "delete", "c1").returncode == 0


async def test_side_by_side(tmp_path: Path) -> None:
    """Many execs at once are all known, and gone with the container."""
    fake = FakeRuntime.make(tmp_path)
    runc = fake.client()
    await runc.create("c1", fake.bundle(tmp_path / "bundle", SLEEP))
    await runc.start("c1")
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(partial(runc.exec, "c1", SLEEP, options=ExecOptions(detach=True)))
    pids = await runc.ps("c1")
    assert len(pids) == 9
    await runc.delete("c1", force=True)
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")]


async def test_start_of_one_that_was_killed(tmp_path: Path) -> None:
    """It is said, as the real one does."""
    fake = FakeRuntime.make(tmp_path)
    runc = fake.client()
    await runc.create("c1", fake.bundle(tmp_path / "bundle", SLEEP))
    await runc.kill("c1", signal.SIGKILL)
    with pytest.raises(RuntimeFailedError, match=r"stopped|dead"):
        await runc.start("c1")
    await runc.delete("c1")


async def test_what_it_tells_again_and_again(tmp_path: Path) -> None:
    """``events`` until the container has ended."""
    fake = FakeRuntime.make(tmp_path)
    runc = fake.client()
    await runc.create("c1", fake.bundle(tmp_path / "bundle", SLEEP))
    found = []
    async with runc.events("c1", interval=0.01) as events:
        with anyio.fail_after(GUARD):
            async for event in events:
                found.append(event)
                if len(found) == 2:
                    await runc.kill("c1", signal.SIGKILL)
    assert {event.kind for event in found} == {"stats"}
    await runc.delete("c1")


async def test_a_signal_for_who_waits(tmp_path: Path) -> None:
    """``run`` in the foreground passes it on."""
    fake = FakeRuntime.make(tmp_path)
    script = ["sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done"]
    bundle = fake.bundle(tmp_path / "bundle", script)
    command = [fake.program, "--root", fake.root, "run", "--bundle", bundle, "c1"]
    async with PipeIO(stdin=False) as io:
        process = await io.spawn(command)
        assert io.stdout is not None
        with anyio.fail_after(GUARD):
            assert await io.stdout.receive() == b"up\n"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 9
    assert await fake.client().list() == ()


def test_a_state_of_somebody_else(tmp_path: Path) -> None:
    """What others could have written is not believed: it would say whom to kill."""
    fake = FakeRuntime.make(tmp_path)
    os.chmod(fake.root, 0o777)
    done = subprocess.run(
        [fake.program, "--root", fake.root, "list"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "others may write it" in done.stderr
