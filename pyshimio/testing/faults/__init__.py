"""Everything going wrong, on purpose: what a test does to the kernel, to disks, pipes and peers.

:func:`fail_syscall` makes one call fail, :func:`every_failure` each one in each way, and
:func:`cancel_everywhere` cancels at each suspension.  :func:`clogged`, :func:`tiny_pipe`,
:func:`full_disk` and :func:`dying_peer` are what happens to a good program on a bad day.
"""

from __future__ import annotations

from ._cancel import CancelReport as CancelReport
from ._cancel import cancel_everywhere as cancel_everywhere
from ._cancelled_run import MODES as MODES
from ._cancelled_run import Mode as Mode
from ._disk import Disk as Disk
from ._disk import full_disk as full_disk
from ._every import FailureReport as FailureReport
from ._every import every_failure as every_failure
from ._peer import Peer as Peer
from ._peer import dying_peer as dying_peer
from ._pipes import Clog as Clog
from ._pipes import clogged as clogged
from ._pipes import tiny_pipe as tiny_pipe
from ._syscalls import ANY as ANY
from ._syscalls import Calls as Calls
from ._syscalls import count_syscalls as count_syscalls
from ._syscalls import fail_syscall as fail_syscall
from ._table import FAULTS as FAULTS
from ._table import REPEATED as REPEATED
from ._table import SHORT as SHORT
from ._table import SURE as SURE
from ._table import Fault as Fault

__all__ = (
    "ANY",
    "FAULTS",
    "MODES",
    "REPEATED",
    "SHORT",
    "SURE",
    "Calls",
    "CancelReport",
    "Clog",
    "Disk",
    "FailureReport",
    "Fault",
    "Mode",
    "Peer",
    "cancel_everywhere",
    "clogged",
    "count_syscalls",
    "dying_peer",
    "every_failure",
    "fail_syscall",
    "full_disk",
    "tiny_pipe",
)
