"""What can be written on the command line, and nothing of what it does.

The commands for containers alone are in ``_container_commands``.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import click

from .. import __version__
from . import FAILED
from ._container_commands import attach, bundle, exec_, rm, runtime_options
from ._say import ensure_stdio, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .run import Drain

__all__ = ("invoke",)


def invoke(args: Sequence[str]) -> int:
    """Do what *args* say and return the exit status."""
    ensure_stdio()
    try:
        status = app.main(list(args), prog_name="pyshimio", standalone_mode=False)
    except click.ClickException as error:
        say(error.format_message())
        return FAILED
    except click.Abort:  # what click makes of a Ctrl-C
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0


@click.group(
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def app(context: click.Context) -> None:
    """The stdio of a child process: files, FIFOs, loggers and terminals."""
    if context.invoked_subcommand is None:
        raise click.UsageError("what to do? pyshimio run -- COMMAND; pyshimio --help says more")


for command in (attach, bundle, exec_, rm):
    app.add_command(command)


@app.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--bundle",
    metavar="DIR",
    help="Run the container of this OCI bundle; what follows the options is its ID.",
)
@click.option(
    "--fifo-dir",
    metavar="DIR",
    help="With --bundle: its stdio is FIFOs there, for `pyshimio attach DIR`.",
)
@click.option(
    "--linger",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="With --fifo-dir: how long a client may take to read the rest when it has ended.",
)
@runtime_options
@click.option("--interactive", "-i", is_flag=True, help="With --bundle: it has a stdin.")
@click.option("--log-uri", metavar="URI", help="Where stdout and stderr go, both.")
@click.option("--log-file", metavar="PATH", help="The same for a file, which is appended to.")
@click.option(
    "--stdin",
    metavar="URI",
    help="Where stdin comes from: a file, or a FIFO, which ends when somebody has written into it"
    " and nobody has it open any more.",
)
@click.option("--stdout", metavar="URI", help="Where stdout goes.")
@click.option("--stderr", metavar="URI", help="Where stderr goes.")
@click.option("--id", metavar="ID", help="CONTAINER_ID for a logger.  [default: from our pid]")
@click.option(
    "--namespace",
    metavar="NAME",
    default="default",
    show_default=True,
    help="CONTAINER_NAMESPACE for a logger.",
)
@click.option("--tty", "-t", is_flag=True, help="Give the child a terminal of its own.")
@click.option(
    "--drain",
    type=click.Choice(["eof", "exited", "keep"]),
    help="After the exit: wait a second for the output to end; take what was written before"
    " the exit and no more; or go on until nobody has it open.  [default: eof; with --tty:"
    " exited]",
)
@click.option("--stats", is_flag=True, help="At the end, a table of what was moved, on stderr.")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object, on stderr.")
@click.option("--uvloop", is_flag=True, help="Use the uvloop event loop.")
@click.argument("command", metavar="-- COMMAND... | ID", nargs=-1, type=click.UNPROCESSED)
def run(
    *,
    bundle: str | None,
    fifo_dir: str | None,
    linger: float,
    runtime: str,
    root: str | None,
    interactive: bool,
    log_uri: str | None,
    log_file: str | None,
    stdin: str | None,
    stdout: str | None,
    stderr: str | None,
    id: str | None,  # noqa: A002 - the option's name
    namespace: str,
    tty: bool,
    drain: Drain | None,
    stats: bool,
    as_json: bool,
    uvloop: bool,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND, or the container of a bundle, and take its stdio where you say.

    A URI is file:///path, fifo:///path (or a bare path), binary:///path/of/logger?key=value,
    null: or a scheme of an installed package.  A stream that is not named is ours.

    The exit status is the child's, 128+n when signal n killed it; 125 for a failure of
    pyshimio, 126 and 127 when COMMAND cannot be executed or found.  TERM, HUP, INT, QUIT,
    USR2 and WINCH are passed on to the child; USR1 opens log files anew.

    With --bundle, a container is made, started, waited for and deleted; --tty and --interactive
    connect our terminal or our stdin.  With --fifo-dir its stdio is for `pyshimio attach`.
    """
    container, *more = command or ("",)
    if not container and bundle is not None:
        raise click.UsageError("no ID for the container; write it behind the options")
    if not command:
        raise click.UsageError("no command; write it at the end, behind --")
    both = [name for name, value in (("--log-uri", log_uri), ("--log-file", log_file)) if value]
    each = [name for name, value in (("--stdout", stdout), ("--stderr", stderr)) if value]
    if len(both) == 2 or (both and each):
        raise click.UsageError(f"{' and '.join(both + each)} exclude each other")
    for name, value in (("--log-file", log_file), ("--log-uri", log_uri), ("--id", id)):
        if value == "":
            raise click.UsageError(f"{name} is empty")
    if bundle is not None:
        foreign = {"--stdin": stdin, "--stdout": stdout, "--stderr": stderr, "--id": id}
        for name, value in foreign.items():
            if value is not None:
                raise click.UsageError(f"{name} and --bundle exclude each other")
        if fifo_dir is not None and both:
            raise click.UsageError(f"{both[0]} and --fifo-dir exclude each other")
        if more:
            raise click.UsageError("a bundle says what to run; write only the container's ID")
    else:
        chosen = {"--fifo-dir": fifo_dir, "--root": root, "--interactive": interactive}
        for name in (name for name, given in chosen.items() if given):
            raise click.UsageError(f"{name} needs --bundle")
    if tty and stderr is not None:
        raise click.UsageError("a terminal has no stderr of its own; leave out --stderr or --tty")
    _need("uvloop", "--uvloop", "uvloop", wanted=uvloop)
    _need("rich", "--stats without --json", "cli", wanted=stats and not as_json)

    if log_file is not None:
        from .._stdio import StdioURI  # noqa: PLC0415

        # Not normpath: behind a symbolic link `..` leads elsewhere.
        log_uri = StdioURI.build("file", os.path.join(_cwd(log_file), log_file))
    if log_uri is not None:
        stdout = log_uri
        stderr = None if tty else log_uri
    report: Literal["json", "table"] | None = "json" if as_json else "table" if stats else None
    if bundle is not None:
        from .._stdio import Stdio  # noqa: PLC0415 - the library, once the line is right
        from ._foreground import Options as Foreground  # noqa: PLC0415
        from .container import ContainerOptions, run_container  # noqa: PLC0415

        return run_container(
            ContainerOptions(
                id=container,
                bundle=bundle,
                runtime=runtime,
                root=root,
                log=None if stdout is None else Stdio(stdout=stdout, stderr=stderr or ""),
                fifo_dir=fifo_dir,
                linger=linger,
                foreground=Foreground(
                    tty=tty,
                    # Who looks at our terminal types there, too.
                    interactive=interactive or (tty and stdout is None and fifo_dir is None),
                    namespace=namespace,
                    drain=drain or ("exited" if tty else "eof"),
                    report=report,
                    uvloop=uvloop,
                ),
            )
        )
    from .run import Options, supervise  # noqa: PLC0415

    return supervise(
        Options(
            command=command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            id=f"pyshimio-{os.getpid()}" if id is None else id,
            namespace=namespace,
            tty=tty,
            drain=drain or ("exited" if tty else "eof"),
            report=report,
            uvloop=uvloop,
        )
    )


@app.command()
@click.option("--follow", "-f", is_flag=True, help="Go on, across rotations; until Ctrl-C.")
@click.option("--until-unwritten", is_flag=True, help="Follow, until nobody can write any more.")
@click.option("--tail", "-n", type=click.IntRange(min=0), help="The last so many lines alone.")
@click.option("--since", metavar="TIME", help="Not before: RFC 3339, seconds since 1970, or 1h30m.")
@click.option("--until", metavar="TIME", help="Not after.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="One of them alone.")
@click.option("--details", is_flag=True, help="What docker's labels and env options chose.")
@click.option("--timestamps", "-t", is_flag=True, help="With the time of each line, in UTC.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each line, on stdout.")
@click.argument("path", metavar="PATH|DIR")
def logs(
    *,
    follow: bool,
    until_unwritten: bool,
    tail: int | None,
    since: str | None,
    until: str | None,
    stream: str | None,
    details: bool,
    timestamps: bool,
    as_json: bool,
    path: str,
) -> int:
    """Print a container's log: a json-file or CRI file, with its rotated and gzipped files.

    DIR is docker's directory of a container, or kubelet's, whose restarts follow each other.  What
    the container wrote to stderr goes to stderr.  A damaged line is left out and reported.
    """
    from .logs import LogOptions, show  # noqa: PLC0415 - the library, once the line is right

    return show(
        LogOptions(
            path=path,
            follow=follow or until_unwritten,
            until_unwritten=until_unwritten,
            tail=tail,
            since=since,
            until=until,
            stream=stream,
            details=details,
            timestamps=timestamps,
            as_json=as_json,
        )
    )


@app.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def doctor(*, as_json: bool) -> int:
    """Check what this machine has of what the library needs, and for how many containers.

    One line each; a line that begins with `fail` or `warn` ends with what to do.  The exit
    status is 1 when something that is needed does not work, else 0.
    """
    from .doctor import examine  # noqa: PLC0415 - the library, for whoever asked for it

    return examine(as_json=as_json)


def _cwd(path: str) -> str:
    if os.path.isabs(path):
        return "/"
    try:
        return os.getcwd()
    except OSError as error:
        raise click.UsageError(
            f"the directory that --log-file {path} starts at is gone: {error.strerror}"
        ) from error


def _need(module: str, option: str, extra: str, *, wanted: bool) -> None:
    """Refuse *option* before anything is started for it."""
    if wanted and find_spec(module) is None:
        raise click.UsageError(f"{option} needs {module}: pip install 'pyshimio[{extra}]'")
