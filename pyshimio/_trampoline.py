"""Runs in a child between fork and exec, as a program of its own.

``posix_spawn`` puts descriptors in their places and has no cwd, user or umask; ``Popen``
has those and puts no descriptor in its place.  Where a command needs both, this file is
started by the first, does what the second would do, and becomes the command.  It imports
nothing that is not built in, and says why it failed on a descriptor that exec closes, if it was
given one.

Arguments: report fd, LC_CTYPE, cwd (both behind a ``=``), umask, groups, gid, uid, program,
arguments.  ``-`` leaves a thing as it is (for LC_CTYPE: unset).
"""

import os
import signal
import sys


def main(
    report: str,
    locale: str,
    cwd: str,
    umask: str,
    groups: str,
    gid: str,
    uid: str,
    *args: str,
) -> None:
    """Become the command, or say on *report* which step failed with which errno."""
    # A Ctrl-C that comes before the command does is the command's death, not a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if report != "-":
        os.set_inheritable(int(report), False)  # noqa: FBT003
    if locale == "-":
        os.environ.pop("LC_CTYPE", None)
    else:
        os.environ["LC_CTYPE"] = locale[1:]
    # As Popen has it: the directory first, with the rights of whoever starts the child.
    step = "cwd"
    try:
        if cwd != "-":
            os.chdir(cwd[1:])
        step = "umask"
        if umask != "-":
            os.umask(int(umask, 8))
        step = "groups"
        if groups != "-":
            os.setgroups([int(group) for group in groups.split(",") if group])
        step = "group"
        if gid != "-":
            os.setresgid(int(gid), int(gid), int(gid))
        step = "user"
        if uid != "-":
            os.setresuid(int(uid), int(uid), int(uid))
        step = "exec"
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execve(args[0], args[1:], os.environ)  # noqa: S606
    except OSError as error:
        if report != "-":
            os.write(int(report), f"{step} {error.errno}".encode())
    os._exit(127)


if __name__ == "__main__":
    main(*sys.argv[1:])
