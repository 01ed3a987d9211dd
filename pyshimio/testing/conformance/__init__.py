"""What claims one of the protocols is held to it: each of these is a whole suite as a function.

``await check_io(make)`` and its like run in a test of your own, on its loop, and raise an
AssertionError that says which promise was broken.
"""

from __future__ import annotations

from ._driver import check_driver as check_driver
from ._io import check_io as check_io
from ._sink import check_sink as check_sink
from ._stream import check_stream as check_stream

__all__ = ("check_driver", "check_io", "check_sink", "check_stream")
