"""A bundle's ``config.json``: what of it matters here, and the smallest that works."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import attrs

from .. import _sys
from ..errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("Bundle",)

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
"""What docker and containerd leave a container by default."""
MASKED = tuple(
    f"/proc/{name}"
    for name in ("acpi", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi")
)
READ_ONLY = tuple(f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger"))

SHARED = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]


@attrs.frozen(kw_only=True)
class Bundle:
    """What a bundle says of its process.

    Args:
        path: The directory.
        terminal: Whether it is to have a terminal.
        uid, gid: Who it is, as it sees itself.
        private_pids: Whether it has a pid namespace of its own, so that all in it end with it.
        uid_mappings, gid_mappings: (inside, outside, count), where it has a user namespace.
    """

    path: str
    terminal: bool = False
    uid: int = 0
    gid: int = 0
    private_pids: bool = True
    uid_mappings: tuple[tuple[int, int, int], ...] = ()
    gid_mappings: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Bundle:
        """From ``config.json``.

        Raises:
            InvalidOptionError: There is none, or it is not one.
        """
        where = os.path.abspath(path)
        try:
            with open(os.path.join(where, "config.json"), encoding="utf-8") as file:
                return cls._of(where, json.load(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidOptionError(
                f"{where!r} is no bundle: its config.json cannot be read ({error})",
                option="bundle",
            ) from error

    @classmethod
    def _of(cls, path: str, config: Mapping[str, Any]) -> Bundle:
        process: Mapping[str, Any] = config["process"]
        user: Mapping[str, int] = process.get("user") or {}
        linux: Mapping[str, Any] = config.get("linux") or {}
        spaces: Sequence[Mapping[str, str]] = linux.get("namespaces") or ()
        return cls(
            path=path,
            terminal=bool(process.get("terminal")),
            uid=user.get("uid", 0),
            gid=user.get("gid", 0),
            private_pids=any(one["type"] == "pid" and not one.get("path") for one in spaces),
            uid_mappings=_mappings(linux.get("uidMappings") or ()),
            gid_mappings=_mappings(linux.get("gidMappings") or ()),
        )

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """What *uid* and *gid* in the container are for us; they own its stdio.

        Without that nobody but root can open ``/dev/stdout`` by name (containerd #10598).
        """
        return _mapped(uid, self.uid_mappings), _mapped(gid, self.gid_mappings)

    @classmethod
    def write(  # noqa: D417 - the ids share a line
        cls,
        path: str | os.PathLike[str],
        args: Sequence[str],
        *,
        rootfs: str | os.PathLike[str],
        terminal: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        uid: int = 0,
        gid: int = 0,
    ) -> Bundle:
        """Make a bundle whose container runs *args*, in namespaces of its own.

        Its capabilities are those that docker leaves one; it has ``/proc``, ``/dev`` and a
        read-only ``/sys``, and no network.  For whoever is not root, its root is that user.

        Args:
            path: Directory; made when it is missing.
            args: The program and its arguments.
            rootfs: Its root directory, which exists.
            terminal: See the class.
            env: Its environment; without ``PATH`` it gets the usual one.
            cwd: Its working directory.
            uid, gid: Who it is.

        Raises:
            InvalidOptionError: No arguments, or no such *rootfs*.
            FileExistsError: There is a ``config.json`` already.
        """
        if not args:
            raise InvalidOptionError("a container needs a program to run", option="args")
        root = os.path.abspath(rootfs)
        if not os.path.isdir(root):
            raise InvalidOptionError(f"there is no directory {root!r}", option="rootfs")
        where = os.path.abspath(path)
        config = _config(list(args), root, terminal=terminal, cwd=cwd, uid=uid, gid=gid)
        config["process"]["env"] = [
            f"{name}={value}" for name, value in {**_environment(terminal), **(env or {})}.items()
        ]
        _sys.makedirs(where, 0o711, exist_ok=True)
        with open(os.path.join(where, "config.json"), "x", encoding="utf-8") as file:
            json.dump(config, file, indent=2)
            file.write("\n")
        return cls.read(where)


def _mappings(found: Sequence[Mapping[str, int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((one["containerID"], one["hostID"], one["size"]) for one in found)


def _mapped(number: int, mappings: tuple[tuple[int, int, int], ...]) -> int:
    for inside, outside, count in mappings:
        if inside <= number < inside + count:
            return outside + number - inside
    return number


def _environment(terminal: bool) -> dict[str, str]:  # noqa: FBT001
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    return {**path, "TERM": "xterm"} if terminal else path


def _config(
    args: list[str], rootfs: str, *, terminal: bool, cwd: str, uid: int, gid: int
) -> dict[str, Any]:
    ours = os.geteuid(), os.getegid()
    rootless = ours[0] != 0
    kinds = ["pid", "ipc", "uts", "mount", "network", *(["user"] if rootless else [])]
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
    }
    if rootless:
        for name, number in zip(("uidMappings", "gidMappings"), ours, strict=True):
            linux[name] = [{"containerID": 0, "hostID": number, "size": 1}]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal,
            "user": {"uid": uid, "gid": gid},
            "args": args,
            "cwd": cwd,
            "capabilities": {
                kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs},
        "mounts": [
            _mount("/proc", "proc", ["nosuid", "noexec", "nodev"]),
            _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            # gid 5 is the tty group, which a user namespace of one id does not have.
            _mount(
                "/dev/pts",
                "devpts",
                ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
                + ([] if rootless else ["gid=5"]),
            ),
            _mount("/dev/shm", "tmpfs", SHARED),  # noqa: S108 - the container's own
            _mount("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": linux,
    }


def _mount(destination: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": options}
