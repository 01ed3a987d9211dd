"""The OCI runtime's client: what go-runc's ``Runc`` is, for runc and crun.

``_client`` is the client, ``_call`` how one command of a runtime is run and what it said,
``_options`` what the commands take, ``_records`` what they answer.
"""

from ._client import Runc as Runc
from ._events import RuntimeEvents as RuntimeEvents
from ._options import CheckpointOptions as CheckpointOptions
from ._options import CreateOptions as CreateOptions
from ._options import ExecOptions as ExecOptions
from ._options import RestoreOptions as RestoreOptions
from ._records import ContainerState as ContainerState
from ._records import LogEntry as LogEntry
from ._records import RuntimeEvent as RuntimeEvent
from ._records import RuntimeVersion as RuntimeVersion

__all__ = (
    "CheckpointOptions",
    "ContainerState",
    "CreateOptions",
    "ExecOptions",
    "LogEntry",
    "RestoreOptions",
    "Runc",
    "RuntimeEvent",
    "RuntimeEvents",
    "RuntimeVersion",
)


def _rename() -> None:
    """Have tracebacks, pickles and the documentation name what people import."""
    for name in __all__:
        globals()[name].__module__ = __name__


_rename()
