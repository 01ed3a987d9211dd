"""What each command does."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from ._process import begin, end, exit_code, hold_signals, relay_signals, write_pid_file
from ._store import Failure, Stored, started, stat_fields

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ._mischief import Mischief
    from ._store import Store

__all__ = ("COMMANDS", "Run")

PATIENCE = 10.0
"""Seconds for a process that was sent SIGKILL."""
SPEC = "1.0.2-dev"
TICKS = os.sysconf("SC_CLK_TCK")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Run:
    """One command of one call.

    Args:
        store: The containers.
        mischief: What is to go wrong with it.
        options: Its command line.
    """

    def __init__(self, store: Store, mischief: Mischief, options: Namespace) -> None:
        self._store = store
        self._mischief = mischief
        self._options = options

    def _say(self, answer: object) -> None:
        if not self._mischief.silent:
            sys.stdout.write(f"{json.dumps(answer)}\n")
            sys.stdout.flush()

    def _find(self) -> Stored:
        return self._store.find(self._options.id)

    # -- making ---------------------------------------------------------------------------

    def create(self) -> int:
        """Up to the moment before its program begins."""
        self._make()
        return 0

    def run(self) -> int:
        """Create it, start it, and unless it is to be detached wait for it and delete it."""
        # (A terminal of ours would have to be relayed; nobody who tests a shim has one.)
        if not self._options.detach:
            hold_signals()
        stored = self._make()
        pid: int = stored.about["init"][0]
        if not self._options.detach:
            relay_signals(pid)
        try:
            self._start(stored)
        except Failure:
            self._delete(stored)
            raise
        if self._options.detach:
            return 0
        status = exit_code(pid)
        if not self._options.keep:
            with contextlib.suppress(Failure):  # somebody else has deleted it
                self._delete(self._find())
        return status

    def _make(self) -> Stored:
        options = self._options
        bundle = os.path.abspath(options.bundle)
        path = os.path.join(bundle, "config.json")
        if not os.path.isdir(bundle):
            raise Failure(f"chdir {bundle}: no such file or directory")
        try:
            with open(path, encoding="utf-8") as file:
                config: dict[str, Any] = json.load(file)
        except FileNotFoundError as error:
            raise Failure("JSON specification file config.json not found") from error
        except ValueError as error:
            raise Failure(f"{path}: {error}") from error
        about: dict[str, Any] = {
            "bundle": bundle,
            "rootfs": os.path.join(bundle, config.get("root", {}).get("path", "rootfs")),
            "created": dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z"),
            "annotations": config.get("annotations") or {},
            "process": config.get("process") or {},
        }
        stored = self._store.make(options.id, about)
        pid, known = 0, -1
        try:
            os.mkfifo(stored.fifo)
            pid, known = self._begin(about["process"], fifo=stored.fifo)
            stored.about["init"] = [pid, started(pid)]
            stored.save()
            if options.pid_file:
                write_pid_file(options.pid_file, pid)
            os.write(known, b"1")
        except BaseException:
            if pid:
                end(pid)
            stored.remove()
            raise
        finally:
            if known >= 0:
                os.close(known)
        return stored

    def _begin(self, process: dict[str, Any], *, fifo: str | None = None) -> tuple[int, int]:
        options = self._options
        if options.console_socket and not getattr(options, "detach", True):
            raise Failure("cannot use console socket if runc will not detach or allocate tty")
        return begin(
            process,
            self._mischief,
            fifo=fifo,
            console_socket=options.console_socket,
            pidfd_socket=options.pidfd_socket,
            preserve=options.preserve_fds,
        )

    def start(self) -> int:
        """Let its program begin."""
        self._start(self._find())
        return 0

    def _start(self, stored: Stored) -> None:
        status = stored.status
        if status == "stopped":
            raise Failure("cannot start a container that has stopped")
        if status == "paused":
            raise Failure("cannot start a container in the paused state")
        if status != "created":
            raise Failure("cannot start an already running container")
        # (Not blocking: an init that has been killed would never come.)
        fd = os.open(stored.fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while stored.pid and not select.select([fd], [], [], 0.05)[0]:
                pass
            went = os.read(fd, 1)
        finally:
            os.close(fd)
        if not went:
            raise Failure("container process is already dead")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stored.fifo)

    def exec(self) -> int:
        """Another process."""
        options = self._options
        stored = self._find()
        status = stored.status
        if status == "stopped":
            raise Failure("cannot exec in a stopped container")
        if status == "paused" and not options.ignore_paused:
            raise Failure("cannot exec in a paused container (use --ignore-paused to override)")
        if not options.detach:
            hold_signals()
        pid, known = self._begin(self._process(stored))
        os.close(known)
        try:
            with stored.changing() as about:
                about["execs"].append([pid, started(pid)])
            if options.pid_file:
                write_pid_file(options.pid_file, pid)
        except BaseException:
            end(pid)
            raise
        if options.detach:
            return 0
        relay_signals(pid)
        return exit_code(pid)

    def _process(self, stored: Stored) -> dict[str, Any]:
        options = self._options
        if options.process:
            with open(options.process, encoding="utf-8") as file:
                spec: dict[str, Any] = json.load(file)
            return spec
        init = stored.about["process"]
        return {
            "args": options.args,
            "cwd": options.cwd or init.get("cwd"),
            "env": [*(init.get("env") or ()), *options.env],
            "terminal": options.tty,
        }

    # -- ending ---------------------------------------------------------------------------

    def kill(self) -> int:
        """A signal for its init, or for all."""
        stored = self._find()
        number = _signal(self._options.signal)
        init = stored.pid
        if not init and not self._options.all:
            raise Failure("container not running")
        for pid in stored.pids() if self._options.all else [init]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return 0

    def delete(self) -> int:
        """Forget it."""
        try:
            stored = self._find()
        except Failure:
            self._store.forget(self._options.id)
            if self._options.force:
                return 0
            raise
        status = stored.status
        if status != "stopped" and not (self._options.force or status == "created"):
            name = self._options.id
            raise Failure(f"cannot delete container {name} that is not stopped: {status}")
        self._delete(stored)
        return 0

    def _delete(self, stored: Stored) -> None:
        until = time.monotonic() + PATIENCE
        while pids := stored.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                raise Failure("container init still running")
            time.sleep(0.005)
        stored.remove()

    # -- changing -------------------------------------------------------------------------

    def pause(self) -> int:
        """Stop all of its processes."""
        stored = self._find()
        if stored.status not in {"created", "running"}:
            raise Failure(f"container not running or created: {stored.status}")
        self._signal_all(stored, signal.SIGSTOP, paused=True)
        return 0

    def resume(self) -> int:
        """Let them go on."""
        stored = self._find()
        if stored.status != "paused":
            raise Failure("container not paused")
        self._signal_all(stored, signal.SIGCONT, paused=False)
        return 0

    def _signal_all(self, stored: Stored, number: int, *, paused: bool) -> None:
        for pid in stored.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with stored.changing() as about:
            about["paused"] = paused

    def update(self) -> int:
        """Limits, which are kept and have no effect."""
        stored = self._find()
        if not stored.pid:
            raise Failure("container not running")
        path = self._options.resources
        try:
            if path == "-":
                limits = json.load(sys.stdin)
            elif path:
                with open(path, encoding="utf-8") as file:
                    limits = json.load(file)
            else:
                limits = {}
        except ValueError as error:
            raise Failure(str(error)) from error
        with stored.changing() as about:
            about["resources"] = {**about.get("resources", {}), **limits}
        return 0

    # -- saying ---------------------------------------------------------------------------

    def state(self) -> int:
        """How it is."""
        self._say(_state(self._find()))
        return 0

    def list(self) -> int:
        """How all are."""
        if self._options.quiet:
            sys.stdout.write("".join(f"{stored.about['id']}\n" for stored in self._store.all()))
        elif self._options.format == "json":
            self._say([_state(stored) for stored in self._store.all()] or None)
        else:
            for stored in self._store.all():
                sys.stdout.write(f"{stored.about['id']}\t{stored.pid}\t{stored.status}\n")
        return 0

    def ps(self) -> int:
        """Its pids."""
        pids = self._find().pids()
        if self._options.format == "json":
            self._say(pids)
        else:
            sys.stdout.write("".join(f"{pid}\n" for pid in pids))
        return 0

    def events(self) -> int:
        """What it uses: once, or again and again until it ends."""
        stored = self._find()
        if not stored.pid:
            raise Failure(f"container with id {self._options.id} is not running")
        self._say(_usage(stored))
        while not self._options.stats and stored.pid:
            time.sleep(_seconds(self._options.interval))
            self._say(_usage(stored))
        return 0

    def features(self) -> int:
        """What it can do."""
        self._say({"ociVersionMin": "1.0.0", "ociVersionMax": SPEC, "linux": {"namespaces": []}})
        return 0


COMMANDS: dict[str, Callable[[Run], int]] = {
    name: getattr(Run, name)
    for name in (
        *("create", "run", "start", "exec", "kill", "delete", "pause", "resume", "update"),
        *("state", "list", "ps", "events", "features"),
    )
}


def _state(stored: Stored) -> dict[str, Any]:
    about = stored.about
    return {
        "ociVersion": SPEC,
        "id": about["id"],
        "pid": stored.pid,
        "status": stored.status,
        "bundle": about["bundle"],
        "rootfs": about["rootfs"],
        "created": about["created"],
        "annotations": about["annotations"],
        "owner": "",
    }


def _usage(stored: Stored) -> dict[str, Any]:
    cpu = memory = 0
    pids = stored.pids()
    for pid in pids:
        if fields := stat_fields(pid):
            cpu += (int(fields[11]) + int(fields[12])) * 10**9 // TICKS
            memory += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    data = {
        "cpu": {"usage": {"total": cpu}},
        "memory": {"usage": {"usage": memory}},
        "pids": {"current": len(pids)},
    }
    return {"type": "stats", "id": stored.about["id"], "data": data}


def _signal(text: str) -> int:
    if text.isdecimal():
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    try:
        return signal.Signals[name]
    except KeyError:
        raise Failure(f"unknown signal {text!r}") from None


def _seconds(text: str) -> float:
    for unit, seconds in UNITS.items():
        if text.endswith(unit):
            with contextlib.suppress(ValueError):
                return float(text.removesuffix(unit)) * seconds
    raise Failure(f"{text!r} is no interval such as 500ms or 5s")
