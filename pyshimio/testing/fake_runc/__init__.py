"""``pyshimio-fake-runc``: a runtime for tests, which needs neither root nor namespaces.

It honours runc's command line, keeps its state on disk and starts real processes; what it cannot
do is to isolate them: they see the host's files, and what an init leaves behind lives until
``delete``.  It loads nothing but the standard library, for each command is a process of its own.

``_program`` is the command line, ``_commands`` what each command does, ``_store`` the state,
``_process`` how a process begins, ``_mischief`` what it does wrong when it was told to.
"""

from __future__ import annotations

from ._program import main as main

__all__ = ("main",)
