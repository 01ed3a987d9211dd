"""The manager's side of a shim's stdio: what containerd's ``cio`` is, for Python.

``_fifo_set`` makes and removes the FIFOs of a process, ``_log_uris`` says where else its output may
go.
"""

from ._fifo_set import FifoSet as FifoSet
from ._log_uris import log_binary as log_binary
from ._log_uris import log_file as log_file
from ._log_uris import log_uri as log_uri

__all__ = ("FifoSet", "log_binary", "log_file", "log_uri")


def _rename() -> None:
    """Have tracebacks, pickles and the documentation name what people import."""
    for name in __all__:
        globals()[name].__module__ = __name__


_rename()
