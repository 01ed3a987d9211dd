"""The command line of the commands for containers; see ``_app``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ("attach", "bundle", "exec_", "rm", "runtime_options")

OUR_ARGS = {"allow_interspersed_args": False}
"""What follows the first argument is for the program in the container."""


def runtime_options(function: F) -> F:
    """Which runtime, and where it keeps its containers."""
    root = click.option("--root", metavar="DIR", help="Where the runtime keeps its containers.")
    runtime = click.option(
        "--runtime",
        metavar="PROGRAM",
        default="runc",
        show_default=True,
        help="runc, crun or a path.",
    )
    return runtime(root(function))


def environment(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, str]:
    """NAME=VALUE, as many times as wanted."""
    found = [text.partition("=") for text in texts]
    for name, equals, _ in found:
        if not (name and equals):
            raise click.BadParameter(f"{name!r} is no NAME=VALUE")
    return {name: value for name, _, value in found}


env_option = click.option(
    "--env", "-e", metavar="NAME=VALUE", multiple=True, callback=environment, help="Added to it."
)


@click.command()
@click.option("--rootfs", metavar="DIR", required=True, help="Its root directory.")
@click.option("--tty", "-t", is_flag=True, help="Its process has a terminal.")
@click.option("--user", "-u", metavar="UID[:GID]", default="0:0", help="Who it is.")
@click.option("--cwd", metavar="DIR", default="/", help="Its working directory.")
@env_option
@click.argument("directory", metavar="DIR")
@click.argument("command", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED)
def bundle(
    *,
    rootfs: str,
    tty: bool,
    user: str,
    cwd: str,
    env: dict[str, str],
    directory: str,
    command: tuple[str, ...],
) -> int:
    """Make an OCI bundle in DIR: a config.json that runs COMMAND.

    The container has a /proc, a /dev and a read-only /sys, the capabilities that docker leaves
    one, and no network.
    """
    from .bundle import make  # noqa: PLC0415 - the library, once the line is right

    return make(directory, command, rootfs=rootfs, terminal=tty, env=env, cwd=cwd, user=user)


@click.command("exec", context_settings=OUR_ARGS)
@runtime_options
@click.option("--tty", "-t", is_flag=True, help="Give it a terminal.")
@click.option("--interactive", "-i", is_flag=True, help="Its stdin is ours; so with --tty.")
@click.option("--user", "-u", metavar="UID[:GID]", help="Who it is, if not whom init is.")
@click.option("--cwd", metavar="DIR", help="Its working directory.")
@env_option
@click.argument("id", metavar="ID")
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    *,
    runtime: str,
    root: str | None,
    tty: bool,
    interactive: bool,
    user: str | None,
    cwd: str | None,
    env: dict[str, str],
    id: str,  # noqa: A002 - the argument's name
    command: tuple[str, ...],
) -> int:
    """Run COMMAND in the container ID, which runs.

    The exit status is COMMAND's, 128+n when signal n killed it, and 125 for a failure of
    pyshimio or of the runtime.  Signals are passed on to it.
    """
    from ._foreground import Options  # noqa: PLC0415 - the library, once the line is right
    from .exec import ExecCommand, execute  # noqa: PLC0415

    return execute(
        ExecCommand(
            id=id,
            command=command,
            runtime=runtime,
            root=root,
            user=user,
            cwd=cwd,
            env=env,
            foreground=Options(
                tty=tty, interactive=interactive or tty, drain="exited" if tty else "eof"
            ),
        )
    )


@click.command()
@click.option(
    "--detach-keys",
    metavar="KEYS",
    default="ctrl-p,ctrl-q",
    show_default=True,
    help="Typed at a container's terminal they end this command, and nothing else.",
)
@click.option("--no-stdin", is_flag=True, help="Pass nothing on to its stdin.")
@click.argument("directory", metavar="DIR")
def attach(*, detach_keys: str, no_stdin: bool, directory: str) -> int:
    """Attach to the container that `pyshimio run --fifo-dir DIR` runs.

    What it has written meanwhile comes first.  The exit status is the container's, 0 when the
    detach keys were typed.  Without a terminal a signal (Ctrl-C) ends this command, and not the
    container.  One client at a time.
    """
    from ..client import parse_detach_keys  # noqa: PLC0415 - the library, once the line is right
    from ..errors import InvalidOptionError  # noqa: PLC0415
    from .attach import AttachOptions, attach_to  # noqa: PLC0415

    try:
        keys = parse_detach_keys(detach_keys)
    except InvalidOptionError as error:
        raise click.UsageError(str(error)) from error
    return attach_to(AttachOptions(directory=directory, stdin=not no_stdin, detach_keys=keys))


@click.command()
@runtime_options
@click.option("--force", "-f", is_flag=True, help="Also one that somebody else has made.")
@click.argument("id", metavar="ID")
def rm(*, runtime: str, root: str | None, force: bool, id: str) -> int:  # noqa: A002
    """Clear what is left of the container ID when the `pyshimio run` of it was killed.

    It is killed and deleted, and its FIFOs and whatever was beside them are removed.  One that is
    being run is left alone, and so is a living one that `pyshimio run` has not made.
    """
    from .remove import remove  # noqa: PLC0415 - the library, once the line is right

    return remove(id, runtime=runtime, root=root, force=force)
