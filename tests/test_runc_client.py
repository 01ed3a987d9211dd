"""The runtime's client, with real containers of a real runc."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from pyshimio import ConsoleIO, FileIO, PipeIO
from pyshimio.errors import (
    CommandNotFoundError,
    InvalidOptionError,
    IOStateError,
    RuntimeAnswerError,
    RuntimeFailedError,
)
from pyshimio.runc import (
    CheckpointOptions,
    CreateOptions,
    ExecOptions,
    RestoreOptions,
    Runc,
)
from pyshimio.testing._running import running_loop
from support.children import GUARD, CancelKind, until
from support.runc import Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.runtime("runc", "busybox")

SLEEP = ["sleep", "1000"]


@asynccontextmanager
async def containers(
    tmp_path: Path, args: list[str] = SLEEP, **options: Any
) -> AsyncIterator[tuple[Runc, Runtime]]:
    """A client, and a bundle whose container runs *args*; whatever is made is deleted."""
    runtime = Runtime.make(tmp_path, args, **options)
    async with runtime.cleaned():
        yield Runc(program=runtime.program, root=runtime.root), runtime


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[tuple[Runc, Runtime]]:
    """A container that sleeps."""
    async with containers(tmp_path) as (runc, runtime):
        await runc.create(runtime.name, runtime.bundle)
        await runc.start(runtime.name)
        yield runc, runtime


async def test_life_of_a_container(tmp_path: Path) -> None:
    """Created, running, stopped, gone; its output is where its IO says."""
    log = tmp_path / "out.log"
    async with containers(tmp_path, ["sh", "-c", "echo out; echo err >&2; sleep 1000"]) as (
        runc,
        runtime,
    ):
        name = runtime.name
        async with FileIO(log, log) as io:
            options = CreateOptions(pid_file=runtime.pid_file, no_new_keyring=True)
            await runc.create(name, runtime.bundle, io=io, options=options)
            await io.copy()
            state = await runc.state(name)
            assert (state.id, state.status, state.bundle) == (name, "created", runtime.bundle)
            assert state.created is not None
            assert state.pid == int((tmp_path / "pid").read_text())
            assert not log.read_bytes()

            await runc.start(name)

            await until(lambda: len(log.read_bytes()) == 8)
            assert [one.status for one in await runc.list()] == ["running"]
            pidfd = runtime.pidfd()
            await runc.kill(name, signal.SIGKILL, all=True)
            with anyio.fail_after(GUARD):
                assert (await io.drain(exited=pidfd)).complete
            os.close(pidfd)
            assert (await runc.state(name)).status == "stopped"
        await runc.delete(name)
        assert await runc.list() == ()
    assert sorted(log.read_bytes().splitlines()) == [b"err", b"out"]


async def test_run_to_the_end(tmp_path: Path) -> None:
    """run() returns the container's status, and no end of its output is held here."""
    async with containers(tmp_path, ["sh", "-c", "echo out; exit 3"]) as (runc, runtime):
        async with PipeIO(stdin=False) as io:
            assert await runc.run(runtime.name, runtime.bundle, io=io) == 3
            assert io.stdout is not None
            assert await io.stdout.receive() == b"out\n"
            with anyio.fail_after(GUARD), pytest.raises(anyio.EndOfStream):
                await io.stdout.receive()
        assert await runc.list() == ()


async def test_run_detached(tmp_path: Path) -> None:
    """With detach it returns when the container runs."""
    async with containers(tmp_path) as (runc, runtime):
        assert await runc.run(runtime.name, runtime.bundle, detach=True) == 0
        assert (await runc.state(runtime.name)).status == "running"
        await runc.delete(runtime.name, force=True)


async def test_a_container_without_an_io_holds_nobody_up(tmp_path: Path) -> None:
    """create() returns although the container lives, and what it has is /dev/null alone."""
    async with containers(tmp_path) as (runc, runtime):
        with anyio.fail_after(GUARD):
            await runc.create(runtime.name, runtime.bundle)
        await runc.start(runtime.name)
        (pid,) = await runc.ps(runtime.name)
        links = {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)}
        assert links == {"/dev/null"}
        assert len(os.listdir(f"/proc/{pid}/fd")) == 3


@pytest.mark.parametrize("logged", [False, True])
async def test_a_runtime_that_fails(tmp_path: Path, logged: bool) -> None:
    """The error has the status, what the runtime wrote, and its log; nothing is left."""
    async with containers(tmp_path) as (runc, runtime):
        log = tmp_path / "runc.log"
        log.write_text('{"level": "error", "msg": "of an earlier call"}\n')
        client = attrs.evolve(runc, log=str(log) if logged else None)
        with pytest.raises(RuntimeFailedError, match=r"not exist|no such file") as caught:
            await client.create(runtime.name, f"{runtime.bundle}/missing")
        assert caught.value.status == 1
        assert caught.value.args_[0] == runtime.program
        assert [entry.level for entry in caught.value.entries] == ["error"]
        assert "no such file" in caught.value.entries[0].message
        for call in (client.start, client.state, client.delete, client.pause, client.ps):
            with pytest.raises(RuntimeFailedError, match="does not exist"):
                await call("missing")


async def test_exec(tmp_path: Path) -> None:
    """A second process has its own stdio and status; a failing runtime is an error of ours."""
    async with running(tmp_path) as (runc, runtime):
        async with PipeIO(stdin=False) as io:
            options = ExecOptions(cwd="/bin", env={"NAME": "a b"}, user="7:8")
            script = 'echo "$NAME $(pwd) $(id -u):$(id -g)"; exit 5'
            assert await runc.exec(runtime.name, ["sh", "-c", script], io=io, options=options) == 5
            assert io.stdout is not None
            assert await io.stdout.receive() == b"a b /bin 7:8\n"
        with pytest.raises(RuntimeFailedError, match="no-such-program"):
            await runc.exec(runtime.name, ["no-such-program"])
        wrongs: tuple[Sequence[str], ...] = ("ls -l", [])
        for wrong in wrongs:
            with pytest.raises(InvalidOptionError):
                await runc.exec(runtime.name, wrong)


async def test_exec_that_says_much(tmp_path: Path) -> None:
    """With copy() before it, a process that fills its pipe many times over holds nothing up."""
    async with running(tmp_path) as (runc, runtime):
        async with FileIO(tmp_path / "log") as io:
            await io.copy()
            with anyio.fail_after(GUARD):
                assert await runc.exec(runtime.name, ["seq", "100000"], io=io) == 0
            assert (await io.drain(exited=anyio.lowlevel.checkpoint())).complete
        assert (tmp_path / "log").read_bytes() == b"".join(b"%d\n" % n for n in range(1, 100_001))


async def test_exec_of_what_is_no_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What JSON cannot hold is an error before there is a file."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(TypeError):
        await Runc().exec("c", {"args": [b"bytes"]})
    assert list(tmp_path.iterdir()) == []


async def test_exec_of_a_specification(tmp_path: Path) -> None:
    """A process specification goes through a file that is gone afterwards."""
    process = {
        "args": ["sh", "-c", "echo $A"],
        "env": ["A=spec", "PATH=/bin"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
    }
    async with running(tmp_path) as (runc, runtime):
        async with PipeIO(stdin=False) as io:
            assert await runc.exec(runtime.name, process, io=io) == 0
            assert io.stdout is not None
            assert await io.stdout.receive() == b"spec\n"


async def test_exec_detached(tmp_path: Path) -> None:
    """With detach it returns at once; the process goes on, with our descriptors."""
    pid_file = tmp_path / "exec-pid"
    async with running(tmp_path) as (runc, runtime):
        with open(tmp_path / "given", "w+") as given:
            options = ExecOptions(detach=True, pid_file=str(pid_file), preserve_fds=(given,))
            script = "echo kept >&3; exec sleep 1000"
            assert await runc.exec(runtime.name, ["sh", "-c", script], options=options) == 0
        await until(lambda: (tmp_path / "given").read_bytes() == b"kept\n")
        assert int(pid_file.read_text()) in await runc.ps(runtime.name)


async def test_exec_with_a_terminal(tmp_path: Path) -> None:
    """A console is asked for by itself, and its master arrives."""
    async with running(tmp_path) as (runc, runtime), ConsoleIO(runtime=True) as io:
        options = ExecOptions(detach=True)
        await runc.exec(runtime.name, ["sh", "-c", "tty; read x"], io=io, options=options)
        await io.copy()
        assert io.stdout is not None
        with anyio.fail_after(GUARD):
            assert (await io.stdout.receive()).startswith(b"/dev/pts/")


async def test_pause_update_and_statistics(tmp_path: Path) -> None:
    """It can be frozen, limited and looked at."""
    async with running(tmp_path) as (runc, runtime):
        name = runtime.name
        await runc.pause(name)
        assert (await runc.state(name)).status == "paused"
        await runc.resume(name)
        assert (await runc.state(name)).status == "running"
        await runc.update(name, {"pids": {"limit": 77}})
        event = await runc.stats(name)
        assert (event.kind, event.id) == ("stats", name)
        assert event.data["pids"]["limit"] == 77


async def test_events(tmp_path: Path) -> None:
    """Events come as they happen, and leaving them leaves no runtime behind."""
    async with running(tmp_path) as (runc, runtime):
        events = runc.events(runtime.name, interval=0.05)
        with pytest.raises(IOStateError):
            await anext(events)
        async with events:
            seen = [await anext(events) for _ in range(3)]
        assert [event.kind for event in seen] == ["stats"] * 3
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        with pytest.raises(IOStateError):
            await events.__aenter__()
        async with runc.events("missing") as missing:
            with pytest.raises(RuntimeFailedError, match="does not exist"):
                await anext(missing)


def fake(tmp_path: Path, script: str) -> Runc:
    """A program in a runtime's place, for what a real one does not do on demand."""
    path = tmp_path / "fake"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Runc(program=str(path))


async def test_events_end_at_a_line_that_cannot_be_read(tmp_path: Path) -> None:
    """A garbled line is one error and the end, not an error for ever (go-runc)."""
    line = json.dumps({"type": "oom", "id": "c"})
    async with fake(tmp_path, f"echo '{line}'; echo '{{'; echo '{line}'; exec sleep 1000").events(
        "c"
    ) as events:
        assert (await anext(events)).kind == "oom"
        with pytest.raises(RuntimeAnswerError):
            await anext(events)
        with pytest.raises(StopAsyncIteration):
            await anext(events)


@pytest.mark.parametrize("answer", ["", "nonsense", "[1]", "{}", '{"id": 1}'])
async def test_answers_that_cannot_be_read(tmp_path: Path, answer: str) -> None:
    """What is no state is an error that says what was answered."""
    with pytest.raises(RuntimeAnswerError) as caught:
        await fake(tmp_path, f"printf '%s' '{answer}'").state("c")
    assert caught.value.answer == answer.encode()


async def test_events_end_with_a_line_that_was_cut(tmp_path: Path) -> None:
    """What a runtime began to say when it ended is an error, too."""
    async with fake(tmp_path, "printf '{'; yes error | head -c 300000 >&2").events("c") as events:
        with pytest.raises(RuntimeAnswerError):
            await anext(events)


async def test_a_runtime_that_is_killed_has_no_status(tmp_path: Path) -> None:
    """A signal that ends the runtime says nothing of the container."""
    runc = fake(tmp_path, "kill -9 $$")
    for call in (runc.run("c", "/b"), runc.restore("c", "/b"), runc.exec("c", ["true"])):
        with pytest.raises(RuntimeFailedError, match="status 137"):
            await call


@pytest.mark.parametrize("form", ["json", "text"])
async def test_a_log_that_others_write_to(tmp_path: Path, form: Any) -> None:
    """What others log meanwhile is theirs; what this call logs is added when it ends."""
    log = tmp_path / "log"
    entry = {
        "json": '{"level": "error", "msg": "of a neighbour"}',
        "text": 'time="1" level=error msg="of a neighbour"',
    }[form]
    own = entry.replace("a neighbour", "our own")
    script = f"""
        case "$*" in
            *" run "*) echo '{entry}' >> {log}; exit 3;;
            *) while ! [ "$1" = --log ]; do shift; done; echo '{own}' >> "$2"; exit 4;;
        esac
    """
    runc = attrs.evolve(fake(tmp_path, script), log=str(log), log_format=form)
    assert await runc.run("c", "/b") == 3
    with pytest.raises(RuntimeFailedError, match="of our own") as caught:
        await runc.exec("c", ["x"])
    assert [one.message for one in caught.value.entries] == ["of our own"]
    assert log.read_text() == f"{entry}\n{own}\n"


async def test_a_failure_without_a_word(tmp_path: Path) -> None:
    """A runtime that says nothing fails with its status all the same, or with what it wrote."""
    with pytest.raises(RuntimeFailedError, match="status 9; it said nothing"):
        await fake(tmp_path, "exit 9").start("c")
    with pytest.raises(RuntimeFailedError, match="status 8: last words") as caught:
        await fake(tmp_path, "echo first >&2; echo last words >&2; exit 8").start("c")
    assert caught.value.stderr == "first\nlast words\n"
    with pytest.raises(CommandNotFoundError):
        await Runc(program="no-such-runtime").start("c")


async def test_command_lines(tmp_path: Path) -> None:
    """Global options, the runtime's own names, and a clean environment."""
    runc = fake(tmp_path, f'echo "$@" > {tmp_path}/line; env > {tmp_path}/env')
    runc = Runc(
        program=runc.program,
        root="/r",
        log=str(tmp_path / "log"),
        debug=True,
        systemd_cgroup=True,
        rootless=True,
        env={"MORE": "yes"},
        extra_args=("--criu", "/criu"),
    )
    head = "--root /r --debug --systemd-cgroup --rootless=true --criu /criu"
    head += " --log LOG --log-format json"

    def line() -> str:
        said = (tmp_path / "line").read_text()
        return re.sub(f"/proc/{os.getpid()}/fd/[0-9]+", "LOG", said)

    os.environ["NOTIFY_SOCKET"] = "/notify"
    try:
        options = CheckpointOptions(image_path="/i", leave_running=True, empty_ns=("net", "ipc"))
        await runc.checkpoint("c", options=options)
    finally:
        del os.environ["NOTIFY_SOCKET"]
    more = "--image-path /i --leave-running --empty-ns net --empty-ns ipc c"
    assert line() == f"{head} checkpoint {more}\n"
    env = (tmp_path / "env").read_text().splitlines()
    assert "MORE=yes" in env
    assert not any(line.startswith("NOTIFY_SOCKET") for line in env)

    await runc.restore("c", "/b", options=RestoreOptions(detach=True, no_subreaper=True))
    assert line() == f"{head} restore --bundle /b --detach --no-subreaper c\n"


async def test_version_and_features(tmp_path: Path) -> None:
    """What the runtime is."""
    async with containers(tmp_path) as (runc, _):
        version = await runc.version()
        assert version.program == "runc"
        assert version.version[0].isdigit()
        assert version.spec
        assert "ociVersionMin" in await runc.features()


# -- cancelled, killed ------------------------------------------------------------------------


def left(runtime: Runtime) -> list[str]:
    """Processes that know the container's bundle or name, and its state."""
    found = list(os.listdir(runtime.root)) if os.path.isdir(runtime.root) else []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                line = file.read()
        except OSError:
            continue
        if runtime.root.encode() in line and int(name) != os.getpid():
            found.append(line.replace(b"\0", b" ").decode())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_cancelled_create(tmp_path: Path, kind: CancelKind) -> None:
    """Cancelled at any moment, create() leaves no runtime and no half-made container."""
    if kind == "native" and running_loop() == "trio":
        return
    async with containers(tmp_path) as (runc, runtime):
        for step in range(12):
            delay = step * 0.006
            if kind == "scope":
                with anyio.move_on_after(delay):
                    await runc.create(runtime.name, runtime.bundle)
            else:
                task = asyncio.ensure_future(runc.create(runtime.name, runtime.bundle))
                await asyncio.wait([task], timeout=delay)
                task.cancel()
                await asyncio.wait([task])
            if any(state.status == "created" for state in await runc.list()):
                await runc.delete(runtime.name, force=True)  # it was quicker
            await until(lambda: not left(runtime))


@pytest.mark.parametrize("answer", ["echo nonsense", "exit 1", "echo '{}'"])
async def test_removal_that_cannot_be_sure(tmp_path: Path, answer: str) -> None:
    """What may be somebody else's is left, and a cancellation stays one."""
    script = f"""
        case "$*" in
            *" state "*) {answer};;
            *" create "*) touch {tmp_path}/there; exec sleep 1000;;
            *) touch {tmp_path}/deleted;;
        esac
    """
    runc = fake(tmp_path, script)
    async with anyio.create_task_group() as group:
        group.start_soon(runc.create, "c", "/b")
        await until((tmp_path / "there").exists)
        group.cancel_scope.cancel()
    assert not (tmp_path / "deleted").exists()


async def test_cancelled_create_of_a_name_that_is_taken(tmp_path: Path) -> None:
    """Who is cancelled while the name is somebody else's leaves that container alone."""
    async with running(tmp_path) as (runc, runtime):
        for step in range(8):
            with anyio.move_on_after(step * 0.004):
                with pytest.raises(RuntimeFailedError, match=r"exists|already"):
                    await runc.create(runtime.name, runtime.bundle)
            assert (await runc.state(runtime.name)).status == "running"


@pytest.mark.slow
async def test_killed_create(tmp_path: Path) -> None:
    """When somebody kills the runtime, at any moment, what it has half made is removed."""
    async with containers(tmp_path) as (runc, runtime):
        for step in range(10):
            script = tmp_path / f"mortal-{step}"
            script.write_text(
                f'#!/bin/sh\ncase "$*" in *" create "*) ;; *) exec {runtime.program} "$@";; esac\n'
                f'{runtime.program} "$@" & sleep {step * 0.006}; kill -9 $!; kill -9 $$\n'
            )
            script.chmod(0o755)
            mortal = attrs.evolve(runc, program=str(script))
            with pytest.raises(RuntimeFailedError, match="status 137"):
                await mortal.create(runtime.name, runtime.bundle)
            await until(lambda: not left(runtime))


@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_cancelled_run(tmp_path: Path, kind: CancelKind) -> None:
    """A cancelled run() ends its container, and nothing of it is left."""
    async with containers(tmp_path) as (runc, runtime):
        started = anyio.Event()

        async def run() -> None:
            await runc.run(runtime.name, runtime.bundle)

        async def watch() -> None:
            while not any(state.status == "running" for state in await runc.list()):
                await anyio.sleep(0.01)
            started.set()

        if kind == "native" and running_loop() != "trio":
            task = asyncio.ensure_future(run())
            await watch()
            task.cancel()
            await asyncio.wait([task])
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await watch()
                group.cancel_scope.cancel()
        await until(lambda: not left(runtime))
