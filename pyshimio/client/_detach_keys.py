"""The keys that end an attachment and not the process: found in what is typed."""

from __future__ import annotations

from ..errors import InvalidOptionError

__all__ = ("DETACH_KEYS", "DetachKeys", "parse_detach_keys")

DETACH_KEYS = b"\x10\x11"
"""ctrl-p, ctrl-q."""
CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"
"""What stands behind ``ctrl-``, in the order of the codes."""


class DetachKeys:
    """Looks for a sequence of keys in bytes that come piece by piece.

    Args:
        keys: The sequence.

    Raises:
        InvalidOptionError: It is empty.
    """

    def __init__(self, keys: bytes = DETACH_KEYS) -> None:
        if not keys:
            raise InvalidOptionError(
                "a sequence of detach keys has one key at least; pass None for none",
                option="detach_keys",
            )
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take what was typed next.

        Returns:
            What to pass on, and whether the sequence is complete.  A beginning of it is held
            back until it turns out what it is.  What stands behind it is dropped.
        """
        data = self._held + data
        found = data.find(self._keys)
        if found >= 0:
            self._held = b""
            return data[:found], True
        held = next(
            size
            for size in range(min(len(self._keys) - 1, len(data)), -1, -1)
            if data.endswith(self._keys[:size])
        )
        passed = len(data) - held
        self._held = data[passed:]
        return data[:passed], False

    def rest(self) -> bytes:
        """No more is typed: what was held back, to be passed on after all."""
        held, self._held = self._held, b""
        return held


def parse_detach_keys(text: str) -> bytes:
    r"""Read a sequence of keys as docker spells it.

    Args:
        text: Keys with commas between them: one character, ``DEL``, or ``ctrl-`` and one of
            ``a`` to ``z``, ``@``, ``[``, ``\``, ``]``, ``^``, ``_``.

    Raises:
        InvalidOptionError: A key is none of these.

    Example:
        >>> from pyshimio.client import parse_detach_keys
        >>> parse_detach_keys("ctrl-p,ctrl-q")
        b'\x10\x11'
    """
    return b"".join(map(_parse_key, text.split(",")))


def _parse_key(key: str) -> bytes:
    if len(key) == 1 and key.isascii():
        return key.encode()
    if key == "DEL":
        return b"\x7f"
    prefix, name = key[:-1], key[-1:]
    if prefix == "ctrl-" and name in CONTROL:
        return bytes((CONTROL.index(name),))
    raise InvalidOptionError(
        f"{key!r} is no key; write one character, DEL, or for example ctrl-p, with commas between",
        option="detach_keys",
    )
