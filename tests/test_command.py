"""What a child starts with, and what a start that fails leaves behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import Command, _spawn, _sys
from pyshimio.errors import (
    ChildReapedElsewhereError,
    CommandNotExecutableError,
    CommandNotFoundError,
    CommandUsedError,
    InvalidOptionError,
    SigchldIgnoredError,
    SpawnError,
)
from pyshimio.testing._running import running_loop
from support.children import (
    UNPRIVILEGED,
    CancelKind,
    cancelled,
    content,
    identity,
    memory_file,
    probe,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Generator

NOBODY = 65534
WAYS: dict[str, dict[str, Any]] = {
    "posix_spawn": {},
    "popen": {"cwd": "/"},
    "trampoline": {"cwd": "/", "extra_files": [2]},
}
"""Options that ask for each of the three ways to start a child."""

every_way = pytest.mark.parametrize("options", WAYS.values(), ids=WAYS.keys())
with_and_without_files = pytest.mark.parametrize(
    "extra", [{}, {"extra_files": [2]}], ids=["alone", "with extra files"]
)


@contextmanager
def strangers() -> Generator[list[int]]:
    """Inheritable descriptors that no child has asked for, low ones and high ones."""
    source = os.open("/dev/zero", os.O_RDONLY)
    fds = [source, *(_sys.dup(source, lowest) for lowest in (3, 4, 50, 300))]
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


# -- descriptors -------------------------------------------------------------------------


@every_way
async def test_null_by_default(options: dict[str, Any]) -> None:
    """What is not given is /dev/null, and not what this process has there."""
    with memory_file() as out:
        command = Command(["ls", "-l", "/proc/self/fd"], **{**options, "stdout": out})
        async with await command.start() as process:
            assert await process.wait() == 0
        lines = content(out).decode().splitlines()

    entries = {line.split()[-3]: line.split() for line in lines if "->" in line}
    assert entries["0"][-1] == "/dev/null"
    assert entries["2"][-1] == "/dev/null"
    assert entries["0"][0][1] == "r"
    assert entries["2"][0][2] == "w"


@every_way
async def test_null_can_be_used(options: dict[str, Any]) -> None:
    """Reading /dev/null ends at once, and writing to it succeeds."""
    command = Command(["sh", "-c", "cat && echo out && echo err >&2"], **options)
    async with await command.start() as process:
        assert await process.wait() == 0


@every_way
@pytest.mark.parametrize("count", [0, 1, 4])
async def test_extra_files(options: dict[str, Any], count: int) -> None:
    """They arrive as 3, 4, … in their order, and nothing else arrives above 2."""
    options = {name: value for name, value in options.items() if name != "extra_files"}
    files = [os.open(f"/proc/self/{name}", os.O_RDONLY) for name in ("stat", "maps", "io", "comm")]
    try:
        with strangers():
            found = await probe(**options, extra_files=files[:count])
    finally:
        for fd in files:
            os.close(fd)

    fds: dict[str, str] = found["fds"]
    names = [Path(fds[str(number)]).name for number in range(3, 3 + count)]
    assert names == ["stat", "maps", "io", "comm"][:count]
    # The listing's own descriptor is the last; it is closed by the time it is looked at.
    assert sorted(map(int, fds)) == list(range(3 + count))


ROTATED = """
import json, os, sys
import anyio
from pyshimio import _spawn
from support.loops import LOOPS

# The first three that a process opens; each is another one's target.
made = [os.memfd_create(name) for name in "abc"]
assert made == [3, 4, 5], made

async def main():
    plan = _spawn.Plan(
        args=("ls", "-l", "/proc/self/fd"),
        env=os.environ,
        cwd=json.loads(sys.argv[2]),
        fds={1: 1, 3: 5, 4: 3, 5: 4},
    )
    pid = await _spawn.spawn(plan)
    assert os.waitpid(pid, 0) == (pid, 0)

backend, options = LOOPS[sys.argv[1]]
anyio.run(main, backend=backend, backend_options=options)
"""
"""A program that starts a child whose descriptors are its own 3, 4 and 5, rotated."""


@pytest.mark.parametrize("cwd", [None, "/"], ids=["posix_spawn", "trampoline"])
async def test_low_numbers_collide(cwd: str | None) -> None:
    """Descriptors whose numbers are other descriptors' targets arrive where they belong."""
    # In a process of its own: whoever has these numbers here may be using them.
    program = [sys.executable, "-c", ROTATED, running_loop(), json.dumps(cwd)]
    tests = {"PYTHONPATH": os.path.dirname(__file__)}
    done = await run(program, env={**os.environ, **tests})
    assert done.status == 0, done.stderr.decode()
    for line in (" 3 -> /memfd:c", " 4 -> /memfd:a", " 5 -> /memfd:b"):
        assert line in done.stdout.decode()


async def test_swapped_stdio() -> None:
    """Our own 1 and 2 can be the child's 2 and 1."""
    done = await run(["sh", "-c", "ls -l /proc/self/fd >&3"], stdout=2, stderr=1, extra_files=[1])
    assert done.status == 0
    with memory_file() as out:
        async with await Command(
            ["readlink", "/proc/self/fd/0"], stdin=out, stdout=out
        ).start() as process:
            assert await process.wait() == 0
        assert b"memfd" in content(out)


async def test_descriptors_are_duplicated() -> None:
    """The caller may close at once what was given; the child gets it all the same."""
    with memory_file() as out:
        other = os.dup(out)
        with Command(["echo", "hello"], stdout=other) as command:
            os.close(other)
            async with await command.start() as process:
                assert await process.wait() == 0
        assert content(out) == b"hello\n"


async def test_set_fd_replaces() -> None:
    """The last descriptor given for a number counts; the ones before are given back."""
    with memory_file() as first, memory_file() as second:
        command = Command(["echo", "hello"], stdout=first)
        command.set_fd(1, second)
        assert command.has_fd(1)
        assert not command.has_fd(2)
        async with await command.start() as process:
            assert await process.wait() == 0
        assert (content(first), content(second)) == (b"", b"hello\n")


async def test_gap() -> None:
    """A descriptor above 2 without its predecessor is refused before anything starts."""
    with Command(["true"]) as command:
        command.set_fd(4, 2)
        with pytest.raises(InvalidOptionError, match="follow each other"):
            await command.start()


async def test_terminal() -> None:
    """A terminal is 0, 1 and 2, and controls the child's new session."""
    for options in ({}, {"cwd": "/"}, {"extra_files": [2]}):
        master, slave = _sys.openpty()
        try:
            with Command(["sh", "-c", "exec ps -o tty= -p $$"], **options) as command:
                command.set_terminal(slave)
                name = os.ttyname(slave).removeprefix("/dev/")
                async with await command.start() as process:
                    assert await process.wait() == 0
            assert os.read(master, 100).decode().strip() == name
        finally:
            os.close(master)
            os.close(slave)


# -- environment, directory, identity ----------------------------------------------------


@every_way
@pytest.mark.parametrize(
    "env",
    [
        {"PATH": "/usr/bin:/bin"},
        {"PATH": "/usr/bin:/bin", "LC_CTYPE": "C"},
        {"PATH": "/usr/bin:/bin", "LC_CTYPE": "-", "X": "a b\nc", "LC_ALL": "C"},
        {"PATH": "/usr/bin:/bin", "BYTES": "\udcff", "EMPTY": ""},
    ],
)
async def test_env_is_exact(options: dict[str, Any], env: dict[str, str]) -> None:
    """The child has the variables it was given and no other, whichever way it starts."""
    done = await run(["env", "-0"], env=env, **options)

    got = {item.partition(b"=")[::2] for item in done.stdout.split(b"\0") if item}
    assert got == {(os.fsencode(name), os.fsencode(value)) for name, value in env.items()}


@every_way
async def test_env_is_ours_by_default(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without env the child has this process's variables of the moment it starts."""
    command_env = "PYSHIMIO_TEST_VARIABLE"
    monkeypatch.setenv(command_env, "there")
    done = await run(["printenv", command_env], **options)
    assert done.stdout == b"there\n"


async def test_empty_env() -> None:
    """An empty environment is empty."""
    assert (await run(["/usr/bin/env"], env={})).stdout == b""


@with_and_without_files
@pytest.mark.parametrize("name", ["work", "-", "=x"])
async def test_cwd(tmp_path: Path, extra: dict[str, Any], name: str) -> None:
    """The child starts in the directory, whatever its name; we stay where we are."""
    (tmp_path / name).mkdir()
    here = os.getcwd()

    found = await probe(cwd=tmp_path / name, **extra)

    assert found["cwd"] == str(tmp_path / name)
    assert os.getcwd() == here


@with_and_without_files
async def test_program_relative_to_cwd(tmp_path: Path, extra: dict[str, Any]) -> None:
    """A relative program is looked for in the child's directory, not in ours."""
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)

    assert (await run(["./tool"], cwd=tmp_path, **extra)).stdout == b"found\n"


@with_and_without_files
@pytest.mark.parametrize("name", ["-", "relative"])
async def test_relative_cwd(
    tmp_path: Path, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A relative directory is relative to ours."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert (await probe(cwd=name, **extra))["cwd"] == str(tmp_path / name)


@pytest.mark.root
@with_and_without_files
@pytest.mark.parametrize("user", ["nobody", NOBODY])
async def test_user(extra: dict[str, Any], user: int | str) -> None:
    """A user brings its primary group, and every other group goes."""
    ours = os.getgroups()
    os.setgroups([7, 8])
    try:
        found = await identity(user=user, **extra)
    finally:
        os.setgroups(ours)

    assert found["Uid"] == found["Gid"] == [NOBODY] * 4
    assert found["Groups"] in ([], [NOBODY])


@pytest.mark.root
@with_and_without_files
async def test_group(extra: dict[str, Any]) -> None:
    """A group alone leaves the user and the other groups."""
    for group in ("nogroup", NOBODY):
        found = await identity(group=group, **extra)
        assert (found["Uid"], found["Gid"]) == ([0] * 4, [NOBODY] * 4)
        assert found["Groups"] == os.getgroups()


@pytest.mark.root
@with_and_without_files
async def test_user_with_groups(extra: dict[str, Any]) -> None:
    """A uid without an entry needs a group; extra groups replace what there is."""
    found = await identity(user=4242, group=4343, extra_groups=[7, "nogroup"], **extra)

    assert (found["Uid"], found["Gid"]) == ([4242] * 4, [4343] * 4)
    assert sorted(found["Groups"]) == [7, NOBODY]


@pytest.mark.root
@with_and_without_files
async def test_extra_groups_alone(extra: dict[str, Any]) -> None:
    """Supplementary groups can be had without being somebody else."""
    found = await identity(extra_groups=[7], **extra)

    assert (found["Uid"], found["Gid"], found["Groups"]) == ([0] * 4, [0] * 4, [7])


@with_and_without_files
async def test_umask(extra: dict[str, Any]) -> None:
    """The child has the umask; ours is what it was."""
    ours = os.umask(0o022)
    try:
        assert (await probe(umask=0o027, **extra))["umask"] == 0o027
        assert (await probe(umask=0, **extra))["umask"] == 0
        assert (await probe(**extra))["umask"] == 0o022
    finally:
        assert os.umask(ours) == 0o022


@every_way
async def test_process_group(options: dict[str, Any]) -> None:
    """0 makes a new group, a number joins one, and None stays in ours."""
    found = await probe(**options, process_group=0)
    assert found["pgid"] == found["pid"]
    assert found["sid"] == os.getsid(0)

    async with await Command(["sleep", "60"], process_group=0).start() as leader:
        found = await probe(**options, process_group=leader.pid)
        assert found["pgid"] == leader.pid
        await leader.stop(0)

    assert (await probe(**options))["pgid"] == os.getpgid(0)


@every_way
async def test_new_session(options: dict[str, Any]) -> None:
    """The child leads a session and a process group of its own."""
    found = await probe(**options, new_session=True)
    assert found["sid"] == found["pgid"] == found["pid"]


# -- signals -----------------------------------------------------------------------------


@every_way
async def test_signals(options: dict[str, Any]) -> None:
    """SIGPIPE and SIGXFSZ are at their defaults, and no signal is blocked."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    try:
        done = await run(["grep", "^Sig", "/proc/self/status"], **options)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    masks = {
        name: int(value, 16)
        for name, value in (line.split(":") for line in done.stdout.decode().splitlines())
        if name != "SigQ"
    }
    assert masks["SigBlk"] == 0
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not masks["SigIgn"] >> (number - 1) & 1


@every_way
async def test_broken_pipe_kills(options: dict[str, Any]) -> None:
    """A child that writes to nobody dies of it, as it would from a shell."""
    reader, writer = _sys.pipe()
    os.close(reader)
    with Command(["yes"], **{**options, "stdout": writer}) as command:
        os.close(writer)
        async with await command.start() as process:
            assert await process.wait() == 128 + signal.SIGPIPE


# -- what cannot be started --------------------------------------------------------------


@every_way
@pytest.mark.parametrize("name", ["no-such-program", "/no/such/program", "./no-such", ""])
async def test_not_found(options: dict[str, Any], name: str) -> None:
    """A program that is not there (what a shell makes 127)."""
    with pytest.raises(CommandNotFoundError, match="cannot find the program") as caught:
        await Command([name], **options).start()
    assert (caught.value.program, caught.value.errno) == (name, errno.ENOENT)


@every_way
async def test_interpreter_not_found(options: dict[str, Any], tmp_path: Path) -> None:
    """A script whose interpreter is not there cannot be started either."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(CommandNotFoundError):
        await Command([script], **options).start()


@every_way
async def test_not_executable(options: dict[str, Any], tmp_path: Path) -> None:
    """A file without the x bit, named or found in PATH (what a shell makes 126)."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    for name in (str(script), "script"):
        with pytest.raises(CommandNotExecutableError, match="Permission denied") as caught:
            await Command([name], env={"PATH": str(tmp_path)}, **options).start()
        assert (caught.value.program, caught.value.errno) == (name, errno.EACCES)


@every_way
async def test_directory(options: dict[str, Any], tmp_path: Path) -> None:
    """A directory is no program; in PATH it is passed over."""
    (tmp_path / "echo").mkdir()
    with pytest.raises(CommandNotExecutableError):
        await Command([tmp_path / "echo"], **options).start()

    done = await run(["echo", "x"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, **options)
    assert done.stdout == b"x\n"


@every_way
async def test_no_program_format(options: dict[str, Any], tmp_path: Path) -> None:
    """An executable file that is no program is not given to a shell."""
    script = tmp_path / "script"
    script.write_text("echo a shell ran this\n")
    script.chmod(0o755)
    with pytest.raises(CommandNotExecutableError, match="Exec format error") as caught:
        await Command([script], **options).start()
    assert caught.value.errno == errno.ENOEXEC


@every_way
async def test_too_many_arguments(options: dict[str, Any]) -> None:
    """Whatever else the kernel says is a SpawnError that names it."""
    with pytest.raises(SpawnError) as caught:
        await Command(["true", "x" * 200_000], **options).start()
    assert (caught.value.errno, caught.value.program) == (errno.E2BIG, "true")


@with_and_without_files
async def test_no_such_cwd(extra: dict[str, Any]) -> None:
    """A directory that is not there is said to be the reason, not the program."""
    with pytest.raises(SpawnError, match="cwd") as caught:
        await Command(["true"], cwd="/no/such/dir", **extra).start()
    assert caught.value.errno == errno.ENOENT


@pytest.mark.root
@pytest.mark.parametrize("extra", ["", "extra_files=[2],"], ids=["alone", "with extra files"])
async def test_identity_refused(extra: str) -> None:
    """A user that this process may not become is an error of the start."""
    program = f"""
import anyio
from pyshimio import Command
from pyshimio.errors import SpawnError

async def main():
    for options in ({{"user": "nobody"}}, {{"group": 7}}, {{"extra_groups": [7]}}):
        try:
            await Command(["true"], {extra} **options).start()
        except SpawnError as error:
            print(error.errno)

anyio.run(main)
"""
    done = await run([*UNPRIVILEGED, sys.executable, "-c", program])
    assert (done.stdout.split(), done.stderr) == ([b"1"] * 3, b"")


@every_way
async def test_trampolined_user_cannot_execute(options: dict[str, Any], tmp_path: Path) -> None:
    """A program that only we may execute is refused to the user, by exec itself."""
    if os.geteuid():
        pytest.skip("needs root")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    options = {**options, "user": "nobody"}
    with pytest.raises(CommandNotExecutableError):
        await Command([script], **options).start()


@every_way
async def test_used_twice(options: dict[str, Any]) -> None:
    """A Command starts once, whether that worked or not."""
    command = Command(["true"], **options)
    async with await command.start() as process:
        assert await process.wait() == 0
    failed = Command(["/no/such/program"], **options)
    with pytest.raises(CommandNotFoundError):
        await failed.start()

    for used in (command, failed):
        with pytest.raises(CommandUsedError):
            await used.start()
        with pytest.raises(CommandUsedError):
            used.set_fd(1, 2)


async def test_closed() -> None:
    """A closed Command does not start, and gives its descriptors back; twice is once."""
    with Command(["true"], stdout=2) as command:
        pass
    command.close()
    with pytest.raises(CommandUsedError):
        await command.start()


async def test_sigchld_ignored() -> None:
    """Where no exit status can be had nothing is started."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(SigchldIgnoredError, match="SIG_DFL"):
            await Command(["true"], stdout=2).start()
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_cancelled_trampoline(tmp_path: Path, kind: CancelKind) -> None:
    """A start that is cancelled half-way leaves no child and no descriptor."""
    command = Command(["true"], cwd=tmp_path, extra_files=[2])

    async def slow() -> None:
        await command.start()

    # Cancelled while the interpreter of the trampoline comes up, tens of milliseconds.
    await cancelled(kind, slow)
    with pytest.raises(CommandUsedError):
        await command.start()


async def test_reaped_before_we_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that somebody else reaps before it has a pidfd is a typed error."""
    spawn = _sys.posix_spawn

    def stolen(*args: Any, **kwargs: Any) -> int:
        pid = spawn(*args, **kwargs)
        os.waitpid(pid, 0)
        return pid

    monkeypatch.setattr(_sys, "posix_spawn", stolen)
    with pytest.raises(ChildReapedElsewhereError, match="waited for process"):
        await Command(["true"]).start()


async def test_no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that cannot be followed is killed and reaped at once."""

    def refused(_pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(_sys, "pidfd_open", refused)
    with pytest.raises(OSError, match="Too many"):
        await Command(["sleep", "60"]).start()


# -- bad options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args, options, option",
    [
        ([], {}, "args"),
        ("ls -l", {}, "args"),
        (b"ls", {}, "args"),
        (["ls", "a\0b"], {}, "args"),
        (["ls"], {"env": {"": "x"}}, "env"),
        (["ls"], {"env": {"A=B": "x"}}, "env"),
        (["ls"], {"env": {"A": "\0"}}, "env"),
        (["ls"], {"cwd": ""}, "cwd"),
        (["ls"], {"cwd": "a\0b"}, "cwd"),
        (["ls"], {"umask": -1}, "umask"),
        (["ls"], {"umask": 0o1000}, "umask"),
        (["ls"], {"process_group": -1}, "process_group"),
        (["ls"], {"process_group": 0, "new_session": True}, "process_group"),
        (["ls"], {"user": -1}, "user"),
        (["ls"], {"user": 1 << 32}, "user"),
        (["ls"], {"group": -2}, "group"),
        (["ls"], {"extra_groups": [1, -1]}, "extra_groups"),
    ],
)
def test_bad_options(args: Any, options: dict[str, Any], option: str) -> None:
    """What cannot mean anything is refused when the Command is made, by its name."""
    with pytest.raises(InvalidOptionError) as caught:
        Command(args, **options)
    assert caught.value.option == option


@with_and_without_files
@pytest.mark.parametrize(
    "options, option",
    [
        ({"user": "no-such-user"}, "user"),
        ({"user": 424242}, "user"),
        ({"group": "no-such-group"}, "group"),
        ({"extra_groups": ["no-such-group"]}, "extra_groups"),
    ],
)
async def test_unknown_names(options: dict[str, Any], extra: dict[str, Any], option: str) -> None:
    """Users and groups that there are not are found out before anything starts."""
    with pytest.raises(InvalidOptionError, match="unknown user or group") as caught:
        await Command(["true"], **options, **extra).start()
    assert caught.value.option == option


def test_bad_descriptor() -> None:
    """A descriptor that is not open is found out at once, and the others are given back."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        Command(["ls"], stdout=2, stderr=987654)
    with Command(["ls"]) as command, pytest.raises(InvalidOptionError):
        command.set_fd(-1, 2)


def test_terminal_with_process_group() -> None:
    """A terminal needs a session, whose leader cannot have another process group."""
    with Command(["ls"], process_group=0) as command:
        with pytest.raises(InvalidOptionError, match="process_group"):
            command.set_terminal(2)


def test_repr() -> None:
    """The state in words."""
    command = Command(["ls", "-l"])
    assert repr(command) == "<Command 'ls -l' not started>"
    command.close()
    assert repr(command) == "<Command 'ls -l' used>"


# -- without waiting ---------------------------------------------------------------------


async def test_spawn_now(tmp_path: Path) -> None:
    """The start that never waits takes the same plan; a step that fails is an exit with 127."""
    with memory_file() as out:
        fds = {1: out, 3: out}
        for cwd, status in ((None, 0), (str(tmp_path), 0), ("/no/such/dir", 127)):
            args = ("sh", "-c", "pwd")
            plan = _spawn.Plan(args=args, env={"PATH": "/bin"}, cwd=cwd, fds=fds)
            pid = _spawn.spawn_now(plan)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
        assert content(out).decode().split() == [os.getcwd(), str(tmp_path)]


async def test_many_at_once() -> None:
    """Children that start side by side do not get each other's descriptors."""

    async def one(number: int) -> None:
        done = await run(["sh", "-c", f"ls /proc/self/fd; echo {number}"])
        assert done.stdout == b"0\n1\n2\n3\n%d\n" % number

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, number)
