"""Containers of a real runc or crun, made of one static busybox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from pyshimio import Command
from support.rootfs import make_rootfs
from support.terminals import GUARD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

RUNTIME_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


@attrs.frozen
class Runtime:
    """runc with a state directory, and one container's bundle."""

    program: str
    root: str
    bundle: str
    pid_file: str
    log: str
    name: str
    """Its own: the state directory is apart, but the cgroup is called by the name alone."""

    @classmethod
    def make(
        cls,
        where: Path,
        args: Sequence[str],
        *,
        terminal: bool = False,
        uid: int = 0,
        program: str = "runc",
        name: str = "c",
    ) -> Runtime:
        """A bundle whose container runs *args*; nothing is started."""
        found = fitting(program, where)
        assert found is not None
        bundle = where / "bundle"
        make_rootfs(bundle / "rootfs")
        subprocess.run([found, "spec"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        _edit(config, list(args), terminal=terminal, uid=uid)
        (bundle / "config.json").write_text(json.dumps(config))
        return cls(
            program=found,
            root=str(where / "state"),
            bundle=str(bundle),
            pid_file=str(where / "pid"),
            log=str(where / "log.txt"),
            name=f"{name}{os.getpid()}",
        )

    def command(self, verb: str, *options: str, **more: Any) -> Command:
        """One of the runtime's commands for the container."""
        args = [self.program, "--root", self.root, "--log", self.log, verb, *options, self.name]
        return Command(args, **more)

    def create(self, verb: str = "create", *options: str) -> Command:
        """``create`` or ``run`` from the bundle, with a pid file."""
        return self.command(verb, "--bundle", self.bundle, "--pid-file", self.pid_file, *options)

    async def do(self, verb: str, *options: str) -> int:
        """Run a command that has no stdio, to its end."""
        async with await self.command(verb, *options).start() as process:
            return await process.wait(GUARD)

    def pidfd(self) -> int:
        """The container's init, which is not our child; the caller closes it."""
        with open(self.pid_file, encoding="ascii") as file:
            return os.pidfd_open(int(file.read()))

    def exists(self) -> bool:
        """Whether the runtime knows the container."""
        return os.path.exists(os.path.join(self.root, self.name))

    @asynccontextmanager
    async def cleaned(self) -> AsyncIterator[Runtime]:
        """Whatever happens, the container is deleted."""
        try:
            yield self
        finally:
            if self.exists():
                subprocess.run(
                    [self.program, "--root", self.root, "delete", "--force", self.name],
                    check=False,
                    timeout=GUARD,
                    capture_output=True,
                )
            # runc leaves them where it was killed before it had written down what there is.
            for path in Path("/sys/fs/cgroup").glob(f"*/{self.name}"):
                with suppress(OSError):
                    path.rmdir()


CRUN = """#!/bin/sh
exec unshare -mC sh -c 'mount -t cgroup2 none /sys/fs/cgroup && exec crun "$@"' crun "$@"
"""
"""crun refuses hosts that have both kinds of cgroups; each of its commands gets another view."""


def fitting(program: str, where: Path) -> str | None:
    """The runtime's path; for crun that of a script, where the host is not to its taste."""
    found = shutil.which(program, path=RUNTIME_PATH)
    if program != "crun" or os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return found
    script = where / "crun"
    script.write_text(CRUN)
    script.chmod(0o755)
    probe = subprocess.run([script, "--version"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("needs crun on a host where cgroup2 can be mounted")
    return str(script)


def _edit(config: dict[str, Any], args: list[str], *, terminal: bool, uid: int) -> None:
    process = config["process"]
    process.update(terminal=terminal, args=args)
    process["user"] = {"uid": uid, "gid": uid}
    process.pop("rlimits", None)
    process["env"] = ["PATH=/bin"]
    config["hostname"] = "c1"
    linux = config["linux"]
    linux.pop("resources", None)
    # A container without a cgroup namespace or mounts of /sys works on any host.
    linux["namespaces"] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    config["mounts"] = [
        mount for mount in config["mounts"] if mount["destination"] in {"/proc", "/dev", "/dev/pts"}
    ]
