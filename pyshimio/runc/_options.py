"""What a runtime's commands take, under the runtime's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._fd import Descriptor

__all__ = ("CheckpointOptions", "CreateOptions", "ExecOptions", "RestoreOptions", "flags")


@attrs.frozen(kw_only=True)
class CreateOptions:
    """Options of ``create`` and ``run``.

    Args:
        pid_file: Where the runtime writes the pid of the container's init.
        console_socket: Path of a :class:`~pyshimio.ConsoleSocket`; a console given as *io*
            says it by itself.
        pidfd_socket: The same for init's pidfd (runc 1.2 and newer).
        no_pivot: Do not ``pivot_root``, for a root file system on a ramdisk.
        no_new_keyring: Keep our session keyring.
        preserve_fds: Descriptors that arrive in the container as 3, 4 and so on.
    """

    pid_file: str | None = None
    console_socket: str | None = None
    pidfd_socket: str | None = None
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: tuple[Descriptor, ...] = ()


@attrs.frozen(kw_only=True)
class ExecOptions:
    """Options of ``exec``; what a process specification says as well is said there.

    Args:
        detach: Return when the process runs, rather than when it has exited.
        pid_file: Where the runtime writes its pid.
        console_socket, pidfd_socket, preserve_fds: As for :class:`CreateOptions`.
        cwd: Its working directory in the container.
        env: Added to the container's environment.
        tty: Give it a terminal; a console given as *io* says it by itself.
        user: ``"uid"`` or ``"uid:gid"``.
        additional_gids: More groups.
        cap: Capabilities added to its bounding set.
        no_new_privs: Set that flag.
        process_label, apparmor: Names of a SELinux label and an AppArmor profile.
        cgroup: A sub-cgroup that exists.
        ignore_paused: Also in a paused container.
    """

    detach: bool = False
    pid_file: str | None = None
    console_socket: str | None = None
    pidfd_socket: str | None = None
    preserve_fds: tuple[Descriptor, ...] = ()
    cwd: str | None = None
    env: Mapping[str, str] = attrs.field(factory=dict[str, str])
    tty: bool = False
    user: str | None = None
    additional_gids: tuple[int, ...] = ()
    cap: tuple[str, ...] = ()
    no_new_privs: bool = False
    process_label: str | None = None
    apparmor: str | None = None
    cgroup: str | None = None
    ignore_paused: bool = False


@attrs.frozen(kw_only=True)
class CheckpointOptions:
    """Options of ``checkpoint``, which needs CRIU.

    Args:
        image_path: Directory for the images.
        work_path: Directory for CRIU's own files and logs.
        parent_path: Images of an earlier ``pre_dump``.
        leave_running: Let the container go on.
        tcp_established, ext_unix_sk, shell_job, file_locks, lazy_pages, auto_dedup: What CRIU
            allows or does.
        pre_dump: Memory only.
        manage_cgroups_mode: ``"soft"``, ``"full"`` or ``"strict"``.
        empty_ns: Kinds of namespaces whose properties are not saved.
        page_server: ``"address:port"``.
    """

    image_path: str | None = None
    work_path: str | None = None
    parent_path: str | None = None
    leave_running: bool = False
    tcp_established: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    lazy_pages: bool = False
    auto_dedup: bool = False
    pre_dump: bool = False
    manage_cgroups_mode: str | None = None
    empty_ns: tuple[str, ...] = ()
    page_server: str | None = None


@attrs.frozen(kw_only=True)
class RestoreOptions:
    """Options of ``restore``, which needs CRIU.

    Args:
        image_path, work_path: As for :class:`CheckpointOptions`.
        detach: Return when the container runs.
        pid_file, console_socket, no_pivot: As for :class:`CreateOptions`.
        no_subreaper: The runtime does not adopt orphans.
        tcp_established, ext_unix_sk, shell_job, file_locks, lazy_pages, auto_dedup: What CRIU
            allows or does.
        manage_cgroups_mode, empty_ns: As for :class:`CheckpointOptions`.
    """

    image_path: str | None = None
    work_path: str | None = None
    detach: bool = False
    pid_file: str | None = None
    console_socket: str | None = None
    no_pivot: bool = False
    no_subreaper: bool = False
    tcp_established: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    lazy_pages: bool = False
    auto_dedup: bool = False
    manage_cgroups_mode: str | None = None
    empty_ns: tuple[str, ...] = ()


def flags(options: attrs.AttrsInstance) -> list[str]:
    """The command line of one record: each name as the runtime spells it, in their order."""
    made: list[str] = []
    for attribute in attrs.fields(type(options)):
        name = f"--{attribute.name.replace('_', '-')}"
        for value in _values(attribute.name, getattr(options, attribute.name)):
            made += [name] if value is True else [name, value]
    return made


def _values(name: str, value: Any) -> list[Any]:
    if name == "preserve_fds":
        return [str(len(value))] if value else []
    if name == "env":
        return [f"{key}={text}" for key, text in value.items()]
    if isinstance(value, tuple):
        return list(map(str, cast("tuple[object, ...]", value)))
    if value is None or value is False:
        return []
    return [True] if value is True else [str(value)]
