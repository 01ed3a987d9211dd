"""``pyshimio doctor``: a real run on this machine, and on machines that lack something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pyshimio

if TYPE_CHECKING:
    from collections.abc import Sequence

GUARD = 60.0
NEEDED = (
    *("python", "kernel", "proc", "pidfd", "splice", "fifo", "epoll", "pty", "pipe budget"),
    *("RLIMIT_NOFILE", "posix_spawn", "trampoline"),
    *("containers, files", "containers, fifos", "containers, console"),
)
OPTIONAL = ("uvloop", "runc", "crun", "containerd-shim-runc-v2", "ctr", "conmon")
STRANGER = 61234
"""A uid that nothing else here uses, so its pipe budget is this test's alone."""
# The interpreter may be where nobody but root can read it; that is all it may do as root.
CAPABILITIES = "-all,+dac_override"
SOMEBODY = (
    *("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"),
    *(f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}"),
)
"""In front of a command: it runs as an unprivileged user."""

DOCTOR = """
import sys
from pyshimio.cli import main
sys.exit(main(["doctor", "--json"]))
"""

FILL = """
import errno, os, sys
import anyio
from contextlib import AsyncExitStack
from pyshimio import ShimIOError, Stdio, create_io

kind, where = sys.argv[1:]

async def fill():
    count = 0
    async with AsyncExitStack() as stack:
        while True:
            names = {"stdout": f"{where}/{count}-out", "stderr": f"{where}/{count}-err"}
            if kind == "files":
                stdio = Stdio(**{name: f"file://{path}" for name, path in names.items()})
            else:
                names["stdin"] = f"{where}/{count}-in"
                if kind == "console":
                    del names["stderr"]
                for path in names.values():
                    os.mkfifo(path)
                stdio = Stdio(**names, terminal=kind == "console")
                for name, path in names.items():
                    if name != "stdin":
                        sys.stdout.write(path + "\\n")
                sys.stdout.flush()
            try:
                io = await create_io(stdio, runtime=False)
                await stack.enter_async_context(io)
                await io.spawn(["sleep", "60"])
            except (ShimIOError, OSError) as error:
                assert error.errno == errno.EMFILE, error
                break
            count += 1
    print(f"count {count}")

anyio.run(fill)
"""
"""Starts containers until there is no descriptor left for another, and says how many."""


class Report:
    """What ``doctor --json`` said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1, done.stdout
        self.status = done.returncode
        said = json.loads(done.stdout)
        self.ok: bool = said["ok"]
        self.findings: dict[str, dict[str, Any]] = {one["name"]: one for one in said["findings"]}

    def failed(self) -> set[str]:
        """The names of what does not work."""
        return {name for name, one in self.findings.items() if one["verdict"] == "fail"}

    def check(self, name: str, *words: str, verdict: str = "fail") -> None:
        """Check that *name* has this verdict, says all *words*, and says what to do."""
        one = self.findings[name]
        assert one["verdict"] == verdict, one
        assert one["advice"], one
        for word in words:
            assert word in f"{one['detail']}; {one['advice']}"
        assert self.ok == (not self.failed())
        assert self.status == (0 if self.ok else 1)


def python(source: str, *args: str, before: Sequence[str] = (), **options: Any) -> Any:
    """Run a program in this interpreter."""
    return subprocess.run(
        [*before, sys.executable, "-c", source, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
        **options,
    )


def doctor(first: str = "", **options: Any) -> Report:
    """Run the doctor, after some lines of Python of the test's own."""
    return Report(python(first + DOCTOR, **options))


def limited(count: int) -> str:
    """Lines of Python that lower the limit of open files."""
    return f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({count}, {count}))\n"


def injected(name: str, code: str) -> str:
    """Lines of Python that make a call of ours fail."""
    return f"""
import errno, os
from pyshimio import _sys
def fail(*args, **options):
    raise OSError(errno.{code}, os.strerror(errno.{code}))
_sys.{name} = fail
"""


def namespace(*commands: str) -> list[str]:
    """In front of a command: mounts of its own, changed by *commands*."""
    return ["unshare", "-m", "sh", "-ec", f'{"; ".join(commands)}; exec "$@"', "sh"]


def test_lines(tmp_path: Path) -> None:
    """One line each, on a machine that has what is needed; nothing is left behind."""
    done = subprocess.run(
        [sys.executable, "-m", "pyshimio", "doctor"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    *lines, conclusion = done.stdout.splitlines()
    assert conclusion.startswith("pyshimio has what it needs")
    assert len(lines) == len(NEEDED) + len(OPTIONAL)
    for line, name in zip(lines, (*NEEDED, *OPTIONAL), strict=True):
        assert line[6:].startswith(f"{name} "), line
        assert line[:6].strip() in ({"ok"} if name in NEEDED[:12] else {"ok", "warn"}), line
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_json() -> None:
    """``--json`` says the same in one object, with figures."""
    report = doctor()
    assert (report.status, report.ok) == (0, True)
    assert tuple(report.findings) == (*NEEDED, *OPTIONAL)
    files = report.findings["containers, files"]["facts"]
    fifos = report.findings["containers, fifos"]["facts"]
    assert files["descriptors"] == 5  # two pipes, two files, one pidfd
    assert fifos["descriptors"] > files["descriptors"]
    assert (files["pipe_pages"], fifos["pipe_pages"]) == (2 * 16, 6 * 16)
    assert report.findings["RLIMIT_NOFILE"]["facts"]["soft"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "fifos", "console"])
def test_number_of_containers_is_true(tmp_path: Path, kind: str) -> None:
    """As many containers as the doctor says fit into the limit, and one more does not."""
    limit = 100
    said = doctor(limited(limit)).findings[f"containers, {kind}"]["facts"]["containers"]
    clients: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-c", limited(limit) + FILL, kind, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("/"):  # a FIFO that wants a client
                    clients.append(os.open(line.strip(), os.O_RDONLY | os.O_NONBLOCK))
                else:
                    assert int(line.split()[1]) == said
        finally:
            for client in clients:
                os.close(client)
    assert process.returncode == 0


def test_low_limit() -> None:
    """A limit that admits few containers is a warning, with what the hard limit would allow."""
    report = doctor("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))\n")
    report.check("containers, fifos", "RLIMIT_NOFILE", "hard limit allows 1", verdict="warn")
    assert report.findings["RLIMIT_NOFILE"]["facts"] == {"soft": 64, "hard": 128}
    assert not report.failed()


@pytest.mark.parametrize("limit", [8, 11, 18])
def test_no_descriptors(tmp_path: Path, limit: int) -> None:
    """A limit that admits nothing is a failure, and even then nothing is left behind."""
    report = doctor(limited(limit), env={**os.environ, "TMPDIR": str(tmp_path)})
    report.check("containers, fifos", "limit of open files")
    assert report.findings["kernel"]["verdict"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_old_kernel() -> None:
    """A kernel that is older than 5.10 is refused."""
    report = doctor(before=["setarch", os.uname().machine, "--uname-2.6"])
    report.check("kernel", "2.6.", "5.10")
    assert report.failed() == {"kernel"}


@pytest.mark.parametrize(
    "call,code,names",
    [
        ("pidfd_open", "ENOSYS", {"pidfd", "children"}),
        ("waitid", "EINVAL", {"pidfd", "children"}),
        ("pidfd_send_signal", "EPERM", {"pidfd", "children"}),
        ("posix_spawn", "EPERM", {"pidfd", "children"}),
        ("dup", "EMFILE", {"trampoline"}),
        ("splice", "EPERM", {"splice"}),
        ("reopen", "ENOENT", {"proc", "fifo", "containers, fifos"}),
        ("epoll_create", "ENFILE", {"epoll"}),
        ("eventfd", "ENOSYS", {"epoll"}),
        ("openpty", "ENOENT", {"pty", "containers, console"}),
        ("pipe", "ENFILE", {"proc", "splice", "epoll", "pipe budget"}),
    ],
)
def test_call_fails(call: str, code: str, names: set[str]) -> None:
    """A call that does not work is said by its error, and by what to do."""
    report = doctor(injected(call, code))
    assert names <= report.failed()
    for name in names:
        report.check(name)
    assert any(code in report.findings[name]["detail"] for name in names)


def test_wrong_answer() -> None:
    """A call that works and answers something else than Linux is a failure too."""
    report = doctor("from pyshimio import _sys\n_sys.poll_now = lambda *_: 0\n")
    report.check("fifo", "last reader has gone")


def test_sigchld_ignored() -> None:
    """An ignored SIGCHLD, which a parent may hand down, is said in words."""
    report = doctor("import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n")
    report.check("pidfd", "SIGCHLD")


@pytest.mark.root
def test_no_proc() -> None:
    """Without /proc it says that it has to be mounted."""
    report = doctor(before=namespace("umount -l /proc"))
    report.check("proc", "mount /proc")


@pytest.mark.root
def test_no_terminals() -> None:
    """A /dev/ptmx that is none is named."""
    report = doctor(before=namespace("mount --bind /dev/null /dev/ptmx"))
    report.check("pty", "ENOTTY", "/dev/ptmx")
    report.check("containers, console")
    assert report.failed() == {"pty", "containers, console"}


@pytest.mark.root
def test_no_temporary_directory() -> None:
    """Without a directory that can be written to, it says which variable names one."""
    mounts: list[str] = []
    for path in ("/tmp", "/var/tmp"):
        mounts += [f"mount -t tmpfs none {path}", f"mount -o remount,ro {path}"]
    ours = Path(sys.prefix)
    source = Path(pyshimio.__file__).parents[1]
    if ours.is_relative_to(source):
        ours = source
    if ours.is_relative_to("/tmp"):  # then it is put back, under the new /tmp
        mounts[:0] = [f"mount --bind {ours} /mnt"]
        mounts[2:2] = [f"mkdir -p {ours}", f"mount --move /mnt {ours}"]
    environment = {k: v for k, v in os.environ.items() if k not in {"TMPDIR", "TEMP", "TMP"}}
    report = doctor(before=namespace(*mounts), cwd="/proc", env=environment)
    report.check("fifo", "TMPDIR")


@pytest.mark.root
@pytest.mark.parametrize("taken,verdict", [(0, "ok"), (40, "ok"), (56, "warn")])
def test_pipe_budget(taken: int, verdict: str) -> None:
    """For an unprivileged user it tells what is left, to within two pipes."""
    soft = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    assert soft == 16384, "the kernel's default"
    first = f"""
import fcntl, os
pipes = [os.pipe() for _ in range({taken})]
for _, writer in pipes:
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
"""
    report = doctor(first, before=SOMEBODY)
    assert report.ok
    budget = report.findings["pipe budget"]
    left = soft - taken * 256
    assert left - 32 <= budget["facts"]["left_pages"] <= left
    assert budget["verdict"] == verdict
    facts = report.findings["containers, fifos"]["facts"]
    whole = budget["facts"]["left_pages"] // facts["pipe_pages"]
    assert facts["with_whole_pipes"] == min(facts["containers"], whole)


def test_runtimes(tmp_path: Path) -> None:
    """A runtime is shown with its path and version; one that does not run, or is not there, is
    a warning with status 0.
    """
    fake = {"runc": "echo runc version 9.8.7+x", "crun": "echo broken >&2; exit 3"}
    for name, text in fake.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    first = "from pyshimio.cli import doctor\ndoctor.RUNTIMES += (('no-such-program', '-v'),)\n"
    report = doctor(first, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    runc = {"path": str(tmp_path / "runc"), "version": "9.8.7+x"}
    assert report.findings["runc"]["facts"] == runc
    report.check("crun", "exits with 3", str(tmp_path / "crun"), verdict="warn")
    report.check("no-such-program", "not found", verdict="warn")
    assert report.status == 0


def test_no_uvloop() -> None:
    """A missing uvloop is a warning with the command that installs it."""
    report = doctor("import sys\nsys.modules['uvloop'] = None\n")
    report.check("uvloop", "pip install", verdict="warn")
