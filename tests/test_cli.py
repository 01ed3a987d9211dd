"""The ``pyshimio`` command, as people run it: a real process, real URIs, a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.cli import GUARD, PYSHIMIO, check_one_line, end, eventually, holds, run, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOGGER = """\
#!/bin/sh
# pyshimio run --log-uri 'binary:///path/of/this?file=/path/of/the/log'
echo "$CONTAINER_ID $CONTAINER_NAMESPACE" > "$2"
exec 5>&-
(while read -r line; do echo "out: $line"; done <&3 >> "$2") &
while read -r line; do echo "err: $line"; done <&4 >> "$2"
wait
"""

SIGNALS = """\
import os, signal, time
counts = {}
def count(number, _):
    name = signal.Signals(number).name
    counts[name] = counts.get(name, 0) + 1
    size = " %d %d" % os.get_terminal_size(0)[::-1] if name == "SIGWINCH" and os.isatty(0) else ""
    os.write(1, f"{name} {counts[name]}{size}\\n".encode())
def end(*_):
    os.write(1, f"counts {sorted(counts.items())}\\n".encode())
    os._exit(7)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH):
    signal.signal(number, count)
signal.signal(signal.SIGTERM, end)
os.write(1, b"ready\\n")
while True:
    time.sleep(0.05)  # pause() would sleep through a signal that came just before it
"""
"""A child that says each signal as it comes, and at SIGTERM how many there were; then 7."""


class Terminal:
    """A terminal with somebody at it; the command is its session's leader."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = os.openpty()
        self.seen = b""
        self.started: list[subprocess.Popen[bytes]] = []
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """What a window manager does; the foreground group gets SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    @property
    def mode(self) -> list[Any]:
        """All attributes, to compare."""
        return termios.tcgetattr(self.slave)

    @property
    def raw(self) -> bool:
        """Whether every key goes through."""
        return not self.mode[3] & (termios.ICANON | termios.ISIG | termios.ECHO)

    def start(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the command at this terminal."""
        options = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave, **options}
        process = subprocess.Popen(["setsid", "--ctty", *PYSHIMIO, *args], **options)
        self.started.append(process)
        return process

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.master, keys)

    def expect(self, text: bytes) -> None:
        """Read the screen until *text* has come; what was before it is forgotten."""
        deadline = time.monotonic() + GUARD
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come after {self.seen!r}"
            if select.select([self.master], [], [], left)[0]:
                self.seen += os.read(self.master, 65536)
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        """Hang up, and end what a failed test has left running."""
        for process in self.started:
            end(process)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of 24 by 80."""
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO that a child reads to wait for us."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


# -- where the bytes go -----------------------------------------------------------------


def test_the_readme_s_command_logs_both_streams_into_a_relative_file(tmp_path: Path) -> None:
    """The command that the README begins with leaves both lines in a file in our directory."""
    result = run(
        *("run", "--log-file", "hello.log", "--", "sh", "-c", "echo hello; echo oops >&2"),
        cwd=tmp_path,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / "hello.log").read_text().splitlines() == ["hello", "oops"]


def test_the_console_script_is_the_same_command() -> None:
    """The script ``pyshimio`` and ``python -m pyshimio`` both say the version."""
    script = Path(sys.executable).with_name("pyshimio")
    if not script.exists():
        pytest.skip("the package is installed without its script")
    said = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == run("--version").stdout
    assert said.stdout.startswith("pyshimio ")


def test_without_destinations_the_child_has_our_stdio() -> None:
    """A child without destinations reads our stdin and writes our stdout and stderr."""
    result = run("run", "--", "sh", "-c", "cat; echo oops >&2", stdin=None, input="typed\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "typed\n", "oops\n")


def test_a_stream_that_is_not_named_is_ours(tmp_path: Path) -> None:
    """With --stdout alone stdin and stderr stay connected to ours."""
    log = tmp_path / "out"
    result = run(
        *("run", "--stdout", f"file://{log}", "sh", "-c", "cat; echo oops >&2"),
        stdin=None,
        input="typed\n",
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "oops\n")
    assert log.read_text() == "typed\n"


def test_null_is_dev_null(tmp_path: Path) -> None:
    """null: connects one stream with /dev/null and leaves the others alone."""
    show = "readlink /proc/self/fd/0; readlink /proc/self/fd/2 >&2"
    result = run("run", "--stdin", "null:", "--", "sh", "-c", show, stdin=None, input="x")
    assert result.stdout == "/dev/null\n"
    assert result.stderr.startswith("pipe:")
    log = tmp_path / "log"
    run("run", "--stderr", "null:", "--stdout", f"file://{log}", "readlink", "/proc/self/fd/2")
    assert log.read_text() == "/dev/null\n"


def test_a_closed_stdio_of_ours_is_dev_null() -> None:
    """Started with stdin and stderr closed, the child has /dev/null there and nothing of ours."""
    show = "readlink /proc/self/fd/0 /proc/self/fd/2"
    line = f"exec {sys.executable} -m pyshimio run --stats -- {show} 0<&- 2>&-"
    result = subprocess.run(
        ["sh", "-c", line], stdout=subprocess.PIPE, text=True, timeout=GUARD, check=False
    )
    assert (result.returncode, result.stdout) == (0, "/dev/null\n/dev/null\n")


def test_stdin_comes_from_a_file(tmp_path: Path) -> None:
    """--stdin file: is the child's stdin."""
    source = tmp_path / "in"
    source.write_text("one\ntwo\n")
    assert run("run", "--stdin", f"file://{source}", "--", "cat").stdout == "one\ntwo\n"


def test_a_fifo_s_reader_gets_everything_and_then_the_end(tmp_path: Path) -> None:
    """The reader of a fifo: gets every byte, more than a pipe holds, and EOF."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["wc", "-c", fifo], stdout=subprocess.PIPE, text=True) as reader:
        args = ("--log-uri", f"fifo://{fifo}", "--", "head", "-c", "300000", "/dev/zero")
        assert run("run", *args).returncode == 0
        assert reader.stdout is not None
        assert reader.stdout.read().split()[0] == "300000"


def test_a_logger_gets_both_streams_and_its_names(tmp_path: Path) -> None:
    """A binary: logger gets its arguments, its environment and both streams to their end."""
    script, log = tmp_path / "logger", tmp_path / "log"
    script.write_text(LOGGER)
    script.chmod(0o755)
    result = run(
        *("run", "--id", "c1", "--namespace", "moby"),
        *("--log-uri", f"binary://{script}?file={log}"),
        *("--", "sh", "-c", "echo one; echo two >&2; exit 3"),
    )
    assert (result.returncode, result.stderr) == (3, "")
    first, *lines = log.read_text().splitlines()
    assert first == "c1 moby"
    assert sorted(lines) == ["err: two", "out: one"]


def test_a_logger_has_a_name_without_being_told(tmp_path: Path) -> None:
    """Without --id and --namespace the logger gets one from our pid, and "default"."""
    script, log = tmp_path / "logger", tmp_path / "log"
    script.write_text(LOGGER)
    script.chmod(0o755)
    assert run("run", "--log-uri", f"binary://{script}?file={log}", "--", "true").returncode == 0
    name, namespace = log.read_text().split()
    assert name.startswith("pyshimio-")
    assert namespace == "default"


def test_a_logger_that_fails_is_said(tmp_path: Path) -> None:
    """A logger that ends with a status of its own is reported; ours is the child's."""
    script = tmp_path / "logger"
    script.write_text("#!/bin/sh\nexec 5>&-\ncat <&3 >/dev/null\ncat <&4 >/dev/null\nexit 9\n")
    script.chmod(0o755)
    check_one_line(run("run", "--log-uri", f"binary://{script}", "--", "true"), 0, "status 9")


def test_a_full_disk_is_said_and_stops_nobody() -> None:
    """Output into a full device is dropped with a count, and the child goes on."""
    result = run("run", "--log-file", "/dev/full", "--", "sh", "-c", "echo lost; exit 4")
    assert result.returncode == 4
    assert "No space left" in result.stderr
    assert "stdout: 5 bytes were dropped" in result.stderr
    assert "Traceback" not in result.stderr


def test_uvloop_does_the_same(tmp_path: Path) -> None:
    """--uvloop changes the event loop and nothing that can be seen."""
    log = tmp_path / "log"
    args = ("--uvloop", "--log-file", str(log), "--", "sh", "-c", "echo hi; exit 5")
    assert run("run", *args).returncode == 5
    assert log.read_text() == "hi\n"


# -- exit statuses and bad input ----------------------------------------------------------


@pytest.mark.parametrize(
    "script, status", [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_the_exit_status_is_the_child_s(script: str, status: int) -> None:
    """Our status is the child's, 128+n when signal n killed it."""
    result = run("run", "--", "sh", "-c", script)
    assert (result.returncode, result.stderr) == (status, "")


@pytest.mark.parametrize(
    "args, words",
    [
        (["--log-uri", "tcp://host/x"], ["unknown", "tcp"]),
        (["--log-uri", "file:///x/%zz"], ["%zz"]),
        (["--log-uri", "file:///x/%00"], ["NUL"]),
        (["--log-uri", "file://var/log/x"], ["three slashes"]),
        (["--log-uri", "log/x"], ["root"]),
        (["--log-uri", "fifo:///nonexistent"], ["FIFO"]),
        (["--log-uri", "fifo:///etc/passwd"], ["FIFO"]),
        (["--log-uri", "binary:///nonexistent"], ["logger"]),
        (["--log-uri", "binary:///etc/passwd"], ["/etc/passwd"]),
        (["--log-uri", "binary:///etc"], ["directory"]),
        (["--log-uri", "binary:///bin/false"], ["/bin/false"]),
        (["--log-uri", "binary:///bin/sh", "--namespace", ""], ["namespace"]),
        (["--log-file", "/proc/nonexistent/x"], ["/proc/nonexistent"]),
        (["--log-file", "/etc"], ["/etc"]),
        (["--stdin", "file:///nonexistent"], ["/nonexistent"]),
        (["--stdin", "binary:///bin/cat"], ["stdin"]),
        (["--log-file", ""], ["--log-file"]),
        (["--log-uri", ""], ["--log-uri"]),
        (["--log-file", "/dev/null", "--log-uri", "null:"], ["--log-uri and --log-file"]),
        (["--log-file", "/dev/null", "--stderr", "null:"], ["--log-file and --stderr"]),
        (["--tty", "--stderr", "null:"], ["terminal"]),
        (["--drain", "never"], ["--drain"]),
        (["--nonsense"], ["--nonsense"]),
        (["--id"], ["COMMAND"]),
    ],
)
def test_bad_input_is_one_line_and_125(
    args: list[str], words: Sequence[str], tmp_path: Path
) -> None:
    """Each kind of bad input is told in one line, with 125, and the child never starts."""
    result = run("run", *args, "--", "touch", str(tmp_path / "ran"))
    if args == ["--id"]:  # swallows the `--`, so what follows is an option's value
        assert (result.returncode, result.stderr.count("\n")) in {(0, 0), (125, 1)}
        return
    check_one_line(result, 125, *words)
    assert not (tmp_path / "ran").exists()


def test_a_line_that_says_nothing_to_do() -> None:
    """A missing command and a missing subcommand are one line and 125."""
    check_one_line(run("run"), 125, "no command")
    check_one_line(run("run", "--log-file", "x"), 125, "no command")
    check_one_line(run(), 125, "pyshimio run")
    check_one_line(run("walk"), 125, "walk")


def test_a_program_that_is_missing_or_no_program(tmp_path: Path) -> None:
    """127 for a program that is not there, 126 for one that cannot be executed."""
    check_one_line(run("run", "--", "no-such-program"), 127, "no-such-program")
    check_one_line(run("run", "--", "/etc/passwd"), 126, "/etc/passwd")
    check_one_line(run("run", "--tty", "--", "/etc"), 126, "/etc")
    script = tmp_path / "script"
    script.write_bytes(b"\x7fELF nonsense")
    script.chmod(0o755)
    check_one_line(run("run", "--", str(script)), 126, "script")


def test_a_message_is_one_line_whatever_the_path() -> None:
    """A line feed or a byte that is no text does not break the line."""
    check_one_line(run("run", "--log-file", "/proc/nonexistent/a\nb\udcff/\n", "--", "true"), 125)
    check_one_line(run("run", "--", "no\nsuch\udcffprogram"), 127)
    check_one_line(run("wa\nlk"), 125)
    check_one_line(run("run", "--no\nsuch", "true"), 125)
    check_one_line(run("run", "--drain", "ne\nver", "true"), 125)


def test_a_log_file_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    """A relative --log-file cannot be placed when our directory was removed."""
    line = f'rmdir "$PWD"; exec {sys.executable} -P -m pyshimio run --log-file "x\ny" -- true'
    result = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    check_one_line(result, 125, "--log-file")


@pytest.mark.parametrize(
    "missing, args, words",
    [
        ("click", ["--version"], ["pip install 'pyshimio[cli]'"]),
        ("rich", ["run", "--stats", "--", "touch", "ran"], ["pip install 'pyshimio[cli]'"]),
        ("uvloop", ["run", "--uvloop", "--", "touch", "ran"], ["pip install 'pyshimio[uvloop]'"]),
    ],
)
def test_an_extra_that_is_missing(
    missing: str, args: list[str], words: list[str], tmp_path: Path
) -> None:
    """An option whose package is not installed says what to install, before anything runs."""
    code = (
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {missing!r}: raise ModuleNotFoundError(name=name)\n"
        f"import importlib.util as u; real = u.find_spec\n"
        f"u.find_spec = lambda name, *a: None if name == {missing!r} else real(name, *a)\n"
        "sys.meta_path.insert(0, Hide())\n"
        f"from pyshimio.cli import main; sys.exit(main({args!r}))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    check_one_line(result, 125, *words)
    assert not (tmp_path / "ran").exists()


def test_a_bug_is_one_line_too() -> None:
    """Even an exception that nobody foresaw is one line and 125."""
    code = (
        "import sys, pyshimio.cli.run as run, pyshimio.cli as cli\n"
        "def broken(self): raise RuntimeError('broken\\nin two')\n"
        "run._Run._make_io = broken\n"
        "sys.exit(cli.main(['run', '--', 'true']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: PLW1510
    check_one_line(result, 125, "RuntimeError", "broken")


def test_ctrl_c_before_anything_runs_is_no_traceback() -> None:
    """A KeyboardInterrupt while the command line is read is 130 and silence."""
    code = (
        "import sys, signal, pyshimio.cli as cli, pyshimio.cli._app as app\n"
        "app.ensure_stdio = lambda: signal.raise_signal(signal.SIGINT)\n"
        "sys.exit(cli.main(['--version']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: PLW1510
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_ctrl_c_while_click_runs_is_no_traceback() -> None:
    """What click makes of it (Abort) is 130 as well."""
    code = (
        "import sys, signal, pyshimio.cli as cli, pyshimio.cli._app as app\n"
        "app._need = lambda *a, **k: signal.raise_signal(signal.SIGINT)\n"
        "sys.exit(cli.main(['run', 'true']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: PLW1510
    assert (result.returncode, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr


def test_only_what_is_used_is_imported() -> None:
    """--version imports click and nothing of the library; a run without --stats no rich."""
    for args, absent in (
        (["--version"], {"anyio", "asyncio", "attr", "rich", "pyshimio.cli.run"}),
        (["run", "--", "true"], {"rich", "trio", "uvloop"}),
    ):
        code = (
            "import sys; from pyshimio.cli import main\n"
            f"status = main({args!r})\n"
            f"sys.exit(status or ', '.join({absent!r} & set(sys.modules)) or 0)\n"
        )
        result = subprocess.run(  # noqa: PLW1510
            [sys.executable, "-c", code], capture_output=True, text=True
        )
        assert (result.returncode, result.stderr) == (0, "")


# -- figures -------------------------------------------------------------------------------


def test_stats_are_a_table_on_stderr(tmp_path: Path) -> None:
    """--stats draws a row for each stream on stderr; what we do not move is a dash."""
    log = tmp_path / "log"
    result = run("run", "--stats", "--log-file", str(log), "--", "sh", "-c", "echo hello; exit 3")
    assert (result.returncode, result.stdout) == (3, "")
    rows = [line.split() for line in result.stderr.splitlines()]
    assert rows[0][:3] == ["stream", "bytes", "in"]
    assert rows[-3] == ["stdin", *"------"]
    assert rows[-2][:5] == ["stdout", "6", "6", "0", "1"]
    assert rows[-2][-1] == "file"
    assert rows[-1][:5] == ["stderr", "0", "0", "0", "0"]
    result = run("run", "--stats", "--", "true")
    assert all(set(line.split()[1:]) == {"-"} for line in result.stderr.splitlines()[-3:])


def test_json_is_one_object_on_stderr(tmp_path: Path) -> None:
    """--json writes one object with the same figures, also without --stats."""
    log = tmp_path / "log"
    args = ("--json", "--id", "c1", "--log-file", str(log), "--", "sh", "-c", "echo hi; exit 3")
    result = run("run", *args)
    assert (result.returncode, result.stdout) == (3, "")
    report = json.loads(result.stderr)
    assert (report["id"], report["namespace"], report["status"]) == ("c1", "default", 3)
    assert report["complete"] is True
    assert report["pid"] > 0
    assert report["streams"]["stdin"] is None
    assert report["streams"]["stdout"]["bytes_in"] == 3
    assert report["streams"]["stdout"]["bytes_out"] == 3
    assert report["streams"]["stderr"]["bytes_out"] == 0


# -- the end of the output --------------------------------------------------------------------


def test_drain_exited_does_not_wait_for_a_background_child(tmp_path: Path) -> None:
    """With --drain exited a background child that holds the stream holds up nobody."""
    log = tmp_path / "log"
    result = run(
        *("run", "--json", "--drain", "exited", "--log-file", str(log)),
        *("--", "sh", "-c", "sleep 600 & echo $!; exit 2"),
    )
    os.kill(int(log.read_text()), signal.SIGKILL)
    assert result.returncode == 2
    report = json.loads(result.stderr)
    assert report["streams"]["stdout"]["holders_left"]
    assert report["seconds"] < GUARD / 2


def test_drain_eof_lingers_and_returns(tmp_path: Path) -> None:
    """By default the last lines of a `tee` that outlives the entrypoint arrive."""
    log = tmp_path / "log"
    late = "(sleep 0.2; echo late) & sleep 600 & echo $!"
    assert run("run", "--log-file", str(log), "--", "sh", "-c", late).returncode == 0
    pid, line = log.read_text().split()
    os.kill(int(pid), signal.SIGKILL)
    assert line == "late"


def test_drain_keep_goes_on_until_nobody_has_the_stream(tmp_path: Path, gate: Path) -> None:
    """With --drain keep the output of a background child is taken to its end."""
    log = tmp_path / "log"
    script = f"(read x < {gate}; echo late) & echo early"
    args = ("run", "--drain", "keep", "--log-file", str(log), "--", "sh", "-c", script)
    with started(*args) as process:
        eventually(holds(log, "early"), "the child's line")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        gate.write_text("go\n")
        assert process.wait(GUARD) == 0
    assert log.read_text() == "early\nlate\n"


def test_a_signal_ends_drain_keep(tmp_path: Path, gate: Path) -> None:
    """SIGTERM after the child's exit ends the wait for its background child; nothing is lost."""
    log = tmp_path / "log"
    args = ("--drain", "keep", "--log-file", str(log))
    # The parent of the writer is gone when it writes: all of it is in the file, and it lives.
    script = (
        "(while kill -0 $$; do sleep 0.01; done 2>/dev/null;"
        f" echo late; read x < {gate}) & echo early"
    )
    with started("run", *args, "--", "sh", "-c", script) as process:
        eventually(holds(log, "late"), "the background child's line")
        process.terminate()
        assert process.wait(GUARD) == 0
    gate.write_text("go\n")


@pytest.mark.parametrize("drain", ["eof", "exited", "keep"])
def test_a_second_signal_ends_a_drain_that_takes_long(tmp_path: Path, drain: str) -> None:
    """A signal while a logger takes its time is not waited out; the status is the child's."""
    script, seen = tmp_path / "logger", tmp_path / "seen"
    script.write_text(f"#!/bin/sh\nexec 5>&-\ncat <&3\ncat <&4\n: > {seen}\nexec sleep 600\n")
    script.chmod(0o755)
    args = ("--drain", drain, "--json", "--log-uri", f"binary://{script}")
    with started("run", *args, "--", "sh", "-c", "exit 3") as process:
        eventually(seen.exists, "the end of the output")
        for _ in range(10):
            # One may be taken for what has ended the child, and one ends the keeping.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
                break
            process.terminate()
        assert process.wait(GUARD / 2) == 3
        assert process.stderr is not None
        first, report = process.stderr.read().splitlines()
    assert first.startswith("pyshimio: interrupted")
    assert json.loads(report)["complete"] is False


def test_a_logger_that_dies_is_said_and_the_child_gets_epipe(tmp_path: Path, gate: Path) -> None:
    """A logger's death ends the streams, as with containerd; the status is the child's."""
    script = tmp_path / "logger"
    script.write_text(f"#!/bin/sh\nexec 5>&-\nread line <&3\necho > {gate}\nkill -9 $$\n")
    script.chmod(0o755)
    child = f"trap '' PIPE; echo one; read x < {gate}; while echo more; do :; done; exit 6"
    result = run("run", "--log-uri", f"binary://{script}", "--", "sh", "-c", f"{child} 2>/dev/null")
    assert result.returncode == 6
    assert "137" in result.stderr
    assert all(line.startswith("pyshimio: ") for line in result.stderr.splitlines())


# -- signals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR2", "SIGWINCH"])
def test_a_signal_that_was_sent_to_us_reaches_the_child_once(name: str, tmp_path: Path) -> None:
    """What somebody sends to pyshimio alone is passed on, and SIGTERM too."""
    log = tmp_path / "log"
    args = ("--log-file", str(log), "--", sys.executable, "-c", SIGNALS)
    with started("run", *args) as process:
        eventually(holds(log, "ready"), "the child")
        process.send_signal(signal.Signals[name])
        eventually(holds(log, f"{name} 1"), name)
        process.terminate()
        assert process.wait(GUARD) == 7
    assert log.read_text().splitlines()[-1] == f"counts [('{name}', 1)]"


def test_a_child_killed_by_the_signal_we_passed_on() -> None:
    """SIGTERM ends a child that does not care, and 143 is the status."""
    with started("run", "--", "sh", "-c", "echo up; exec sleep 600", stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.wait(GUARD) == 143


def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """Under nohup a SIGHUP is neither acted on nor passed on."""
    log = tmp_path / "log"
    command = [*PYSHIMIO, "run", "--log-file", str(log), "--", sys.executable, "-c", SIGNALS]
    with subprocess.Popen(["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command]) as process:
        eventually(holds(log, "ready"), "the child")
        process.send_signal(signal.SIGHUP)
        process.terminate()
        assert process.wait(GUARD) == 7
    assert log.read_text().splitlines()[-1] == "counts []"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_while_we_wait_for_a_client(name: str, tmp_path: Path) -> None:
    """Before there is a child, INT and TERM end us with 128+n; the child never starts."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    args = ("--log-uri", f"fifo://{fifo}", "--", "touch", str(tmp_path / "ran"))
    with started("run", *args) as process:

        def waits() -> bool:
            with contextlib.suppress(OSError):
                links = Path(f"/proc/{process.pid}/fd").iterdir()
                return any(os.readlink(link) == str(fifo) for link in links)
            return False

        eventually(waits, "the FIFO to be looked at")
        process.send_signal(signal.Signals[name])
        assert process.wait(GUARD) == 128 + signal.Signals[name]
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert not (tmp_path / "ran").exists()


def test_usr1_reopens_a_log_file_that_was_rotated(tmp_path: Path, gate: Path) -> None:
    """After a rename, SIGUSR1 makes the next line go to a new file of the old name."""
    log, old = tmp_path / "log", tmp_path / "log.1"
    script = f"echo one; read x < {gate}; echo two"
    with started("run", "--log-file", str(log), "--", "sh", "-c", script) as process:
        eventually(holds(log, "one"), "the first line")
        log.rename(old)
        process.send_signal(signal.SIGUSR1)
        eventually(log.exists, "the new file")
        gate.write_text("go\n")
        assert process.wait(GUARD) == 0
    assert (old.read_text(), log.read_text()) == ("one\n", "two\n")


# -- terminals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key, name", [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")])
def test_a_key_typed_at_the_terminal_reaches_the_child_once(
    terminal: Terminal, key: bytes, name: str
) -> None:
    """Ctrl-C and the key for SIGQUIT come from the terminal, and not from us as well."""
    process = terminal.start("run", "--", sys.executable, "-c", SIGNALS)
    terminal.expect(b"ready")
    terminal.type(key)
    terminal.expect(f"{name} 1".encode())
    process.terminate()
    terminal.expect(f"counts [('{name}', 1)]".encode())
    assert process.wait(GUARD) == 7


def test_a_key_reaches_a_child_that_has_left_our_group(terminal: Terminal) -> None:
    """A child in a session of its own gets Ctrl-C and a new size through us, once."""
    process = terminal.start("run", "--", "setsid", sys.executable, "-c", SIGNALS)
    terminal.expect(b"ready")
    terminal.type(b"\x03")
    terminal.expect(b"SIGINT 1")
    terminal.resize(30, 90)
    terminal.expect(b"SIGWINCH 1 30 90")
    process.terminate()
    terminal.expect(b"counts [('SIGINT', 1), ('SIGWINCH', 1)]")
    assert process.wait(GUARD) == 7


def test_a_new_size_reaches_the_child_once(terminal: Terminal) -> None:
    """SIGWINCH comes from the terminal, and not from us as well."""
    process = terminal.start("run", "--", sys.executable, "-c", SIGNALS)
    terminal.expect(b"ready")
    terminal.resize(30, 90)
    terminal.expect(b"SIGWINCH 1 30 90")
    process.terminate()
    terminal.expect(b"counts [('SIGWINCH', 1)]")
    assert process.wait(GUARD) == 7


def test_loggers_do_not_get_a_ctrl_c(terminal: Terminal, tmp_path: Path) -> None:
    """A Ctrl-C ends the child, and the logger lives to write the last line."""
    script, log = tmp_path / "logger", tmp_path / "log"
    script.write_text(LOGGER)
    script.chmod(0o755)
    child = "trap 'echo last; exit 9' INT; echo up; while :; do sleep 0.1; done"
    process = terminal.start(
        "run", "--log-uri", f"binary://{script}?file={log}", "--", "sh", "-c", child
    )
    eventually(holds(log, "up"), "the child")
    terminal.type(b"\x03")
    assert process.wait(GUARD) == 9
    assert log.read_text().splitlines()[1:] == ["out: up", "out: last"]


@pytest.mark.parametrize("how", ["key", "group"])
def test_the_signal_that_ends_the_child_loses_nothing(
    terminal: Terminal, tmp_path: Path, how: str
) -> None:
    """A Ctrl-C, or a SIGTERM for the whole group, ends a child; we deliver, and the logger ends."""
    script = tmp_path / "logger"
    script.write_text('#!/bin/sh\nexec 5>&-\ncat <&3 >> "$2"\ncat <&4\necho end >> "$2"\n')
    script.chmod(0o755)
    # (What is sent to the whole group is passed on as well, so it may come twice.)
    child = "trap 'trap \"\" INT TERM; echo last; exit 9' INT TERM; echo up; read forever"
    for number in range(6):
        log = tmp_path / str(number)
        process = terminal.start(
            "run", "--log-uri", f"binary://{script}?file={log}", "--", "sh", "-c", child
        )
        eventually(holds(log, "up"), "the child")
        if how == "key":
            terminal.type(b"\x03")
        else:
            os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(GUARD) == 9
        assert log.read_text() == "up\nlast\nend\n"


def test_hangup_of_a_session_s_leader_is_passed_on(tmp_path: Path) -> None:
    """When the terminal goes the kernel tells us alone, and we tell the child."""
    log = tmp_path / "log"
    terminal = Terminal()
    child = "trap 'echo HUP; exit 3' HUP; echo up; while :; do sleep 0.02; done"
    process = terminal.start("run", "--log-file", str(log), "--", "sh", "-c", child)
    eventually(holds(log, "up"), "the child")
    os.close(terminal.slave)
    os.close(terminal.master)
    assert process.wait(GUARD) == 3
    assert log.read_text() == "up\nHUP\n"


def test_tty_with_a_stdin_that_cannot_be_read(tmp_path: Path) -> None:
    """A stdin that was opened for writing alone is an input without a byte."""
    with open(tmp_path / "file", "wb") as file:
        result = run("run", "--tty", "--", "cat", stdin=file)
    assert (result.returncode, result.stderr) == (0, "")


def test_tty_types_a_file_in_to_its_end(tmp_path: Path) -> None:
    """A file as stdin of a terminal is typed in whole, however large it is."""
    text = "".join(f"{number:07}\n" for number in range(40_000))
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text(text)
    script = f"stty -echo; cat > {target}"
    args = ("--tty", "--stdin", f"file://{source}", "--stdout", "null:", "--", "sh", "-c", script)
    assert run("run", *args).returncode == 0
    assert target.read_text() == text


def test_stdin_fifo_ends_with_its_client(tmp_path: Path) -> None:
    """Nobody can call CloseIO here, so EOF comes when the first client has gone."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with started("run", "--stdin", f"fifo://{fifo}", "--", "cat", stdout=-1) as process:
        with open(fifo, "w") as client:
            client.write("one\n")
            client.flush()
            assert process.stdout is not None
            assert process.stdout.readline() == "one\n"
            client.write("two\n")
        assert process.wait(GUARD) == 0
        assert process.stdout.read() == "two\n"


def test_tty_is_a_terminal_of_the_child_s_own(terminal: Terminal) -> None:
    """With --tty ours is raw, keys and sizes go through, and all is put back at the end."""
    before = terminal.mode
    child = f"tty; stty size; exec {sys.executable} -c '{SIGNALS}'"
    process = terminal.start("run", "--tty", "--", "sh", "-c", child.replace("\\n'", '\\n"'))
    terminal.expect(b"/dev/pts/")
    assert not terminal.seen.startswith(
        os.ttyname(terminal.slave).rpartition("/")[2].encode() + b"\r"
    )
    terminal.expect(b"24 80\r\n")
    terminal.expect(b"ready")
    eventually(lambda: terminal.raw, "raw mode")
    terminal.resize(30, 90)
    terminal.expect(b"SIGWINCH 1 30 90")
    terminal.type(b"\x03")
    terminal.expect(b"SIGINT 1")
    process.terminate()
    terminal.expect(b"counts [('SIGINT', 1), ('SIGWINCH', 1)]")
    assert process.wait(GUARD) == 7
    assert terminal.mode == before


@pytest.mark.parametrize("how", ["exit", "signal", "not found", "hangup"])
def test_tty_restores_the_terminal_on_every_way_out(terminal: Terminal, how: str) -> None:
    """The terminal is as it was after an exit, a signal, a failed start, a closed keyboard."""
    before = terminal.mode
    if how == "not found":
        process = terminal.start("run", "--tty", "--", "no-such-program")
        terminal.expect(b"no-such-program")
        assert process.wait(GUARD) == 127
    else:
        process = terminal.start("run", "--tty", "--", "sh", "-c", "echo up; read x; exit 3")
        terminal.expect(b"up")
        eventually(lambda: terminal.raw, "raw mode")
        if how == "exit":
            terminal.type(b"x\r")
        elif how == "signal":
            process.terminate()
        else:
            process.send_signal(signal.SIGHUP)
        expected = {"exit": 3, "signal": 143, "hangup": 129}
        assert process.wait(GUARD) == expected[how]
    assert terminal.mode == before


def test_tty_suspended_leaves_a_usable_terminal(terminal: Terminal) -> None:
    """SIGTSTP stops us with the terminal as it was; SIGCONT goes on in raw mode."""
    before = terminal.mode
    process = terminal.start("run", "--tty", "--", "sh", "-c", "echo up; read x; stty size; exit 3")
    terminal.expect(b"up")
    eventually(lambda: terminal.raw, "raw mode")
    process.send_signal(signal.SIGTSTP)
    stat = Path(f"/proc/{process.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the stop")
    assert terminal.mode == before
    terminal.resize(40, 100)
    process.send_signal(signal.SIGCONT)
    eventually(lambda: terminal.raw, "raw mode again")
    terminal.type(b"x\r")
    terminal.expect(b"40 100")
    assert process.wait(GUARD) == 3
    assert terminal.mode == before


def test_tty_without_a_terminal_of_ours(tmp_path: Path) -> None:
    """With --tty and pipes for us, stdin is typed, its end is a ^D, and stdout is the screen."""
    result = run("run", "--tty", "--", "sh", "-c", "tty; cat", stdin=None, input="typed\n")
    assert result.returncode == 0
    assert "/dev/pts/" in result.stdout
    assert result.stdout.count("typed\n") == 2  # its echo, and what cat makes of it
    source = tmp_path / "in"
    source.write_text("from a file\n")
    with source.open() as file:
        result = run("run", "--tty", "--", "cat", stdin=file)
    assert result.stdout.endswith("from a file\n")


def test_tty_into_a_log_file(tmp_path: Path) -> None:
    """With --tty and --log-file the screen is in the file, and drained to its end."""
    log = tmp_path / "log"
    script = "test -t 0 && test -t 1 && test -t 2 && seq 1 20000"
    result = run("run", "--json", "--tty", "--log-file", str(log), "--", "sh", "-c", script)
    assert result.returncode == 0
    assert log.read_text().split()[-1] == "20000"
    assert json.loads(result.stderr)["streams"]["stdout"]["bytes_out"] == log.stat().st_size


def test_tty_with_a_fifo_as_keyboard(tmp_path: Path) -> None:
    """With --tty and --stdin the keys come from a FIFO and the screen is our stdout."""
    fifo = tmp_path / "keys"
    os.mkfifo(fifo)
    with started(
        "run",
        "--tty",
        "--stdin",
        f"fifo://{fifo}",
        "--",
        "sh",
        "-c",
        "read x; echo got $x",
        stdout=subprocess.PIPE,
    ) as process:
        fifo.write_text("hello\n")
        assert process.wait(GUARD) == 0
        assert process.stdout is not None
        assert "got hello" in process.stdout.read()


def test_the_entry_point_is_what_is_tested() -> None:
    """pyproject.toml names ``pyshimio.cli:main`` as the script, and the logger's beside it."""
    root = Path(__file__).parents[1] / "pyproject.toml"
    scripts = tomllib.loads(root.read_text())["project"]["scripts"]
    assert scripts == {
        "pyshimio": "pyshimio.cli:main",
        "pyshimio-fake-runc": "pyshimio.testing.fake_runc._program:main",
        "pyshimio-log": "pyshimio.logging._main:main",
    }
