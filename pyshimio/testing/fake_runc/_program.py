"""The command line, and how the program says what went wrong."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import stat
import sys
from typing import TYPE_CHECKING, NoReturn

from ._commands import COMMANDS, SPEC, Run
from ._mischief import Mischief
from ._store import Failure, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("main",)

VERSION = f"runc version 1.1.5-fake\ncommit: pyshimio\nspec: {SPEC}\n"
FLAGS = ("--systemd-cgroup", "--debug")
LOG_FORMATS = ("text", "json")
LIMITS = (
    *("blkio-weight", "cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-rt-period"),
    *("cpu-rt-runtime", "cpuset-cpus", "cpuset-mems", "cpu-idle", "memory", "memory-reservation"),
    *("memory-swap", "pids-limit", "l3-cache-schema", "mem-bw-schema"),
)
"""What ``update`` takes beside a file; nothing is limited here."""
NO_COMMAND = 3
FAILED = {"exec": 255}
"""Statuses other than 1 that runc's failures have."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    log, log_format, failed = "", "text", 1
    try:
        options = _globals().parse_args(argv)
        if options.version:
            sys.stdout.write(VERSION)
            return 0
        log, log_format = options.log, options.log_format
        if options.command not in COMMANDS:
            _complain(f"No help topic for {options.command!r}", log, log_format)
            return NO_COMMAND
        failed = FAILED.get(options.command, 1)
        _check_root(options.root)
        mischief = Mischief(options.root, options.command)
        mischief.before()
        told = _parser(options.command).parse_args(options.rest)
        status = COMMANDS[options.command](Run(Store(options.root), mischief, told))
        wrong = mischief.after()
    except (Failure, OSError, ValueError) as error:
        _complain(str(error), log, log_format)
        return failed
    return status if wrong is None else wrong


def _globals() -> _Parser:
    parser = _Parser(prog="pyshimio-fake-runc", add_help=False, allow_abbrev=False)
    parser.add_argument("--root", default=os.path.join(_runtime_directory(), "fake-runc"))
    parser.add_argument("--log", default="")
    parser.add_argument("--log-format", choices=LOG_FORMATS, default="text")
    parser.add_argument("--rootless", default="auto")
    parser.add_argument("--criu", default="")
    parser.add_argument("--version", "-v", action="store_true")
    for flag in FLAGS:
        parser.add_argument(flag, action="store_true")
    parser.add_argument("command", nargs="?", default="help")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser


def _runtime_directory() -> str:
    return os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/pyshimio-{os.getuid()}"  # noqa: S108


def _check_root(path: str) -> None:
    """What it says decides whom we kill: nobody else may have written it."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    for directory in (path, os.path.dirname(os.path.abspath(path))):
        status = os.stat(directory)
        writable = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in {0, os.getuid()} or writable:
            raise Failure(f"{directory} belongs to somebody else, or others may write it")


def _parser(command: str) -> _Parser:
    parser = _Parser(prog=f"pyshimio-fake-runc {command}", add_help=False, allow_abbrev=False)
    add = parser.add_argument
    if command in {"create", "run", "exec"}:
        add("--pid-file")
        add("--console-socket")
        add("--pidfd-socket")
        add("--preserve-fds", type=int, default=0)
    if command in {"create", "run"}:
        add("--bundle", "-b", default=".")
        for flag in ("--no-pivot", "--no-new-keyring"):
            add(flag, action="store_true")
    if command == "run":
        for flag in ("--keep", "--no-subreaper"):
            add(flag, action="store_true")
    if command in {"run", "exec"}:
        add("--detach", "-d", action="store_true")
    if command == "exec":
        add("--process", "-p")
        add("--user", "-u")
        for option in ("--cwd", "--process-label", "--apparmor", "--cgroup"):
            add(option)
        for option in ("--env", "--additional-gids", "--cap"):
            add(option, option[1:3], action="append", default=[])
        for flag in ("--no-new-privs", "--ignore-paused", "--no-subreaper"):
            add(flag, action="store_true")
        add("--tty", "-t", action="store_true")
    if command == "kill":
        add("--all", "-a", action="store_true")
    if command == "delete":
        add("--force", "-f", action="store_true")
    if command == "update":
        add("--resources", "-r", default="")
        for option in LIMITS:
            add(f"--{option}")
    if command in {"ps", "list"}:
        add("--format", "-f", choices=("json", "table"), default="table")
    if command == "list":
        add("--quiet", "-q", action="store_true")
    if command == "events":
        add("--stats", action="store_true")
        add("--interval", default="5s")
    if command not in {"list", "features"}:
        add("id")
    if command == "kill":
        add("signal", nargs="?", default="SIGTERM")
    if command == "exec":
        add("args", nargs=argparse.REMAINDER)
    return parser


def _complain(message: str, log: str, log_format: str) -> None:
    """On stderr and, if there is one, in the log; as runc does."""
    time = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    text = f'time="{time}" level=error msg={json.dumps(message)}\n'
    sys.stderr.write(f"{message}\n" if log else text)
    if not log:
        return
    entry = {"level": "error", "msg": message, "time": time}
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{json.dumps(entry)}\n" if log_format == "json" else text)
