"""The manager's side of a shim's stdio: what containerd's ``cio`` is, for Python.

``_fifo_set`` makes and removes the FIFOs of a process, ``_log_uris`` says where else its output may
go.  ``_attach`` connects the caller's terminal, files or sinks to FIFOs: ``_output`` is one FIFO of
output on its way there, ``_stdin`` the way from ``_input``, what the caller has, to stdin's FIFO,
past ``_detach_keys``.  ``_direct`` gives FIFOs to the caller as streams.  ``_raw_terminal`` is the
caller's terminal.
"""

from ._attach import Attachment as Attachment
from ._attach import attach as attach
from ._detach_keys import DetachKeys as DetachKeys
from ._detach_keys import parse_detach_keys as parse_detach_keys
from ._direct import Direct as Direct
from ._direct import direct as direct
from ._fifo_set import FifoSet as FifoSet
from ._log_uris import log_binary as log_binary
from ._log_uris import log_file as log_file
from ._log_uris import log_uri as log_uri
from ._raw_terminal import RawTerminal as RawTerminal

__all__ = (
    "Attachment",
    "DetachKeys",
    "Direct",
    "FifoSet",
    "RawTerminal",
    "attach",
    "direct",
    "log_binary",
    "log_file",
    "log_uri",
    "parse_detach_keys",
)


def _rename() -> None:
    """Have tracebacks, pickles and the documentation name what people import."""
    for name in __all__:
        globals()[name].__module__ = __name__


_rename()
