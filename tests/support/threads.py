"""The library's threads among those of the process."""

from __future__ import annotations

import threading


def pool_threads() -> list[threading.Thread]:
    """The file pools' threads that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "pyshimio-file"]
