"""The caller's terminal in raw mode, as it was on every way out, and its size."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyshimio import _sys
from pyshimio.client import RawTerminal
from pyshimio.errors import IOStateError
from pyshimio.testing.faults import fail_syscall
from support.children import GUARD, cancelled

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from support.children import CancelKind

HEAD = """\
import os, signal, sys, time
import anyio
from pyshimio.client import RawTerminal
def say(text):
    os.write(1, text.encode() + b";")
"""
"""How each child begins."""


class Pty:
    """A terminal, and the process that it controls."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.cooked = self.mode
        self.seen = b""

    @property
    def mode(self) -> list[Any]:
        """All attributes, to compare."""
        return termios.tcgetattr(self.slave)

    @property
    def raw(self) -> bool:
        """Whether nothing is done about what goes through."""
        iflag, oflag, _, lflag, *_ = self.mode
        return not (
            iflag & (termios.ICRNL | termios.IXON)
            or oflag & termios.OPOST
            or lflag & (termios.ICANON | termios.ISIG | termios.ECHO)
        )

    def resize(self, rows: int, columns: int) -> None:
        """What a window manager does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    @contextlib.contextmanager
    def child(self, code: str, *args: str) -> Generator[subprocess.Popen[bytes]]:
        """A Python program that is the leader of a session with this terminal."""
        command = ["setsid", "--ctty", sys.executable, "-c", HEAD + code, *args]
        with subprocess.Popen(
            command, stdin=self.slave, stdout=self.slave, stderr=self.slave
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def expect(self, text: bytes) -> None:
        """Read the screen until *text* has come."""
        deadline = time.monotonic() + GUARD
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come after {self.seen!r}"
            if select.select([self.master], [], [], left)[0]:
                self.seen += os.read(self.master, 65536)
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        """Hang up."""
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def pty() -> Iterator[Pty]:
    """A terminal of 24 by 80."""
    made = Pty()
    made.resize(24, 80)
    yield made
    made.close()


# -- in this process -------------------------------------------------------------------------


def test_raw_for_a_block(pty: Pty) -> None:
    """It is raw within the block and as it was behind it, with what was typed ahead."""
    os.write(pty.master, b"ahead\n")
    with RawTerminal(pty.slave) as terminal:
        assert pty.raw
        assert terminal.size == (24, 80)
        assert repr(terminal) == "<RawTerminal raw (24, 80)>"
        assert os.read(pty.slave, 100) == b"ahead\n"
        os.write(pty.master, b"\r\x03\x1a")
        assert os.read(pty.slave, 100) == b"\r\x03\x1a"
        os.write(pty.master, b"next\r")
        with pytest.raises(IOStateError):
            terminal.__enter__()
    assert pty.mode == pty.cooked
    assert repr(terminal) == "<RawTerminal not entered>"
    with terminal:
        assert pty.raw
        assert os.read(pty.slave, 100) == b"next\r"


def test_an_exception(pty: Pty) -> None:
    """It is as it was behind a block that raised, although its number was closed meanwhile."""
    number = os.dup(pty.slave)
    with pytest.raises(KeyError), RawTerminal(number):
        os.close(number)
        raise KeyError
    assert pty.mode == pty.cooked


@pytest.mark.parametrize("kind", ["scope", "native"])
async def test_a_cancellation(pty: Pty, kind: CancelKind) -> None:
    """It is as it was behind a block that was cancelled."""
    was_raw = []

    async def main() -> None:
        with RawTerminal(pty.slave) as terminal:
            was_raw.append(pty.raw)
            async for _ in terminal.resizes():
                pass

    await cancelled(kind, main)
    assert was_raw == [True]
    assert pty.mode == pty.cooked
    assert signal.getsignal(signal.SIGWINCH) is signal.SIG_DFL


def test_no_terminal() -> None:
    """With a pipe nothing happens at all."""
    reader, writer = os.pipe()
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    with RawTerminal(reader) as terminal:
        assert terminal.size is None
        assert repr(terminal) == "<RawTerminal no terminal>"
        assert [signal.getsignal(number) for number in signal.valid_signals()] == before
    os.close(reader)
    os.close(writer)


def test_a_terminal_that_hangs_up(pty: Pty) -> None:
    """One that has hung up has no size, and is left without an error."""
    master, slave = os.openpty()
    with RawTerminal(slave) as terminal:
        os.close(master)
        os.close(slave)
        assert terminal.size is None


def test_another_thread(pty: Pty) -> None:
    """In a thread it is raw, too; signals belong to the main thread, and are left alone."""
    seen: list[Any] = []

    def work() -> None:
        with RawTerminal(pty.slave):
            seen.extend((pty.raw, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, signal.SIG_DFL]
    assert pty.mode == pty.cooked


def test_signals_that_are_handled(pty: Pty) -> None:
    """A signal that somebody handles or ignores stays his, within the block and behind it."""
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        mine = signal.getsignal(signal.SIGTERM)
        with RawTerminal(pty.slave):
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGQUIT) is not signal.SIG_DFL
            signal.signal(signal.SIGQUIT, mine)
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGQUIT) is mine
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGHUP, ignored)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.mark.parametrize("call", ["dup", "terminal_mode", "set_terminal_mode", "get_window_size"])
def test_a_kernel_that_refuses(pty: Pty, call: str) -> None:
    """Whatever fails, the terminal and the signals are as they were."""
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    for k in (1, 2):
        with fail_syscall(call, k, error=errno.EIO) as calls:
            with contextlib.suppress(OSError), RawTerminal(pty.slave) as terminal:
                assert terminal.size in {None, (24, 80)}
        # The second one is the way back, which has no other way.
        if call == "set_terminal_mode" and k == 2:
            assert calls.failed is not None
            assert pty.raw
            termios.tcsetattr(pty.slave, termios.TCSANOW, pty.cooked)
        assert pty.mode == pty.cooked
        assert [signal.getsignal(number) for number in signal.valid_signals()] == before


# -- the size --------------------------------------------------------------------------------


async def test_resizes(pty: Pty) -> None:
    """The size as it is comes first, then each other one, and the end with the block."""
    sizes: list[tuple[int, int]] = []
    send, receive = anyio.create_memory_object_stream[None](10)

    async def follow(terminal: RawTerminal) -> None:
        async for size in terminal.resizes():
            sizes.append(size)
            send.send_nowait(None)

    with send, receive:
        async with anyio.create_task_group() as group:
            with RawTerminal(pty.slave) as terminal:
                group.start_soon(follow, terminal)
                with anyio.fail_after(GUARD):
                    await receive.receive()
                    for size in ((30, 100), (30, 100), (10, 20)):
                        pty.resize(*size)
                        os.kill(os.getpid(), signal.SIGWINCH)
                        if size != sizes[-1]:
                            await receive.receive()
                        await anyio.wait_all_tasks_blocked()
    assert sizes == [(24, 80), (30, 100), (10, 20)]
    assert signal.getsignal(signal.SIGWINCH) is signal.SIG_DFL
    with pytest.raises(IOStateError):
        terminal.resizes()


async def test_resizes_that_end(pty: Pty) -> None:
    """They end where there is no terminal, where it hangs up, and when others are asked for."""
    with open("/dev/null", "rb") as null, RawTerminal(null) as terminal:
        assert [size async for size in terminal.resizes()] == []
    with RawTerminal(pty.slave) as terminal:
        first = terminal.resizes()
        assert await anext(first) == (24, 80)
        second = terminal.resizes()
        assert await anext(second) == (24, 80)
        with pytest.raises(StopAsyncIteration):
            await anext(first)
        with fail_syscall("get_window_size", error=errno.EIO):
            os.kill(os.getpid(), signal.SIGWINCH)
            with pytest.raises(StopAsyncIteration):
                await anext(second)
        third = terminal.resizes()
        assert await anext(third) == (24, 80)
    with pytest.raises(StopAsyncIteration):
        await anext(third)


def test_a_window_that_is_resized(pty: Pty) -> None:
    """A process at the terminal hears of its new size, whatever loop it runs on."""
    code = """
async def main():
    with RawTerminal() as terminal:
        async for rows, columns in terminal.resizes():
            say(f"{rows}x{columns}")
            if rows == 1:
                break
    say("left")
name = sys.argv[1]
anyio.run(main, backend="trio" if name == "trio" else "asyncio",
          backend_options={"use_uvloop": True} if name == "uvloop" else {})
"""
    for loop in ("asyncio", "uvloop", "trio"):
        pty.resize(24, 80)
        with pty.child(code, loop) as child:
            pty.expect(b"24x80;")
            assert pty.raw
            pty.resize(50, 132)
            pty.expect(b"50x132;")
            pty.resize(1, 1)
            pty.expect(b"1x1;")
            pty.expect(b"left;")
            assert child.wait(GUARD) == 0
        assert pty.mode == pty.cooked


# -- signals ---------------------------------------------------------------------------------

SLEEPERS = {
    "nothing": "time.sleep(60)",
    "asyncio": "anyio.run(anyio.sleep, 60)",
    "uvloop": 'anyio.run(anyio.sleep, 60, backend_options={"use_uvloop": True})',
    "trio": 'anyio.run(anyio.sleep, 60, backend="trio")',
}


@pytest.mark.parametrize("loop", SLEEPERS)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_signal_that_ends_the_process(pty: Pty, name: str, loop: str) -> None:
    """The terminal is as it was, and the process has died of the signal."""
    number = signal.Signals[name]
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with RawTerminal():
    say("raw")
    {SLEEPERS[loop]}
"""
    with pty.child(code) as child:
        pty.expect(b"raw;")
        assert pty.raw
        child.send_signal(number)
        assert child.wait(GUARD) == -number
    assert pty.mode == pty.cooked


def test_an_interrupt(pty: Pty) -> None:
    """SIGINT is Python's own as a rule, and an exception then; else it ends the process."""
    code = """
if sys.argv[1] == "default":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    with RawTerminal():
        say("raw")
        time.sleep(60)
except KeyboardInterrupt:
    say("caught")
"""
    for how, status in (("python", 0), ("default", -signal.SIGINT)):
        with pty.child(code, how) as child:
            pty.expect(b"raw;")
            child.send_signal(signal.SIGINT)
            assert child.wait(GUARD) == status
        assert pty.mode == pty.cooked


def test_restored_from_the_background(pty: Pty) -> None:
    """Somebody who is in the background by then is not stopped on the way out."""
    code = """
if len(sys.argv) > 1:
    while os.tcgetpgrp(0) != os.getpgrp():
        time.sleep(0.005)
    with RawTerminal():
        os.write(int(sys.argv[1]), b"raw")
        while os.tcgetpgrp(0) == os.getpgrp():
            time.sleep(0.005)
    sys.exit(7)
import subprocess
code = open("/proc/self/cmdline").read().split("\\0")[2]
reader, writer = os.pipe()
child = subprocess.Popen([sys.executable, "-c", code, str(writer)], process_group=0,
                         pass_fds=[writer])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
os.tcsetpgrp(0, child.pid)
os.read(reader, 3)
say("raw")
os.tcsetpgrp(0, os.getpgrp())
pid, status = os.waitpid(child.pid, os.WUNTRACED)
say(f"stopped={os.WIFSTOPPED(status)} status={os.waitstatus_to_exitcode(status)}")
"""
    with pty.child(code):
        pty.expect(b"raw;")
        pty.expect(b"stopped=False status=7;")
    assert pty.mode == pty.cooked


def test_suspend(pty: Pty) -> None:
    """A process that stops leaves the terminal as it was meanwhile, and hears of a new size."""
    code = """
import subprocess
async def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    with RawTerminal() as terminal, subprocess.Popen(["sleep", "60"], process_group=0) as other:
        async for rows, columns in terminal.resizes():
            say(f"{rows}x{columns}")
            if rows == 24:
                os.tcsetpgrp(0, other.pid)  # as a shell does, which is there now
                terminal.suspend()
            else:
                break
        other.kill()
anyio.run(main)
"""
    with pty.child(code) as child:
        pty.expect(b"24x80;")
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert pty.mode == pty.cooked
        pty.resize(50, 132)
        child.send_signal(signal.SIGCONT)
        pty.expect(b"50x132;")
        assert child.wait(GUARD) == 0
    assert pty.mode == pty.cooked


def test_what_is_no_terminal() -> None:
    """What termios refuses is an OSError, as all that the kernel refuses."""
    reader, writer = os.pipe()
    try:
        for call in (_sys.set_raw, _sys.eof_character, _sys.line_ends, _sys.terminal_mode):
            with pytest.raises(OSError, match="ioctl"):
                call(reader)
    finally:
        os.close(reader)
        os.close(writer)
