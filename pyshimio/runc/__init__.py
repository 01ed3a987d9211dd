"""The OCI runtime's client: what go-runc's ``Runc`` is, for runc and crun.

``_client`` is the client, ``_call`` how one command of a runtime is run and what it said,
``_options`` what the commands take, ``_records`` what they answer.

``_container`` is a container from its creation to its end and ``_exec`` a process beside its
init; ``_life`` is what those have in common.  ``_subreaper`` makes them our children, ``_adopted``
follows one, ``_exits`` tells who has exited, ``_bundle`` reads and writes a configuration.
"""

from ._bundle import Bundle as Bundle
from ._client import Runc as Runc
from ._container import Container as Container
from ._events import RuntimeEvents as RuntimeEvents
from ._exec import Exec as Exec
from ._exits import ExitEvent as ExitEvent
from ._exits import Exits as Exits
from ._options import CheckpointOptions as CheckpointOptions
from ._options import CreateOptions as CreateOptions
from ._options import ExecOptions as ExecOptions
from ._options import RestoreOptions as RestoreOptions
from ._records import ContainerState as ContainerState
from ._records import LogEntry as LogEntry
from ._records import RuntimeEvent as RuntimeEvent
from ._records import RuntimeVersion as RuntimeVersion
from ._subreaper import Subreaper as Subreaper

__all__ = (
    "Bundle",
    "CheckpointOptions",
    "Container",
    "ContainerState",
    "CreateOptions",
    "Exec",
    "ExecOptions",
    "ExitEvent",
    "Exits",
    "LogEntry",
    "RestoreOptions",
    "Runc",
    "RuntimeEvent",
    "RuntimeEvents",
    "RuntimeVersion",
    "Subreaper",
)


def _rename() -> None:
    """Have tracebacks, pickles and the documentation name what people import."""
    for name in __all__:
        globals()[name].__module__ = __name__


_rename()
