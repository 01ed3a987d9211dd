"""docker's json-file: an object a line, escaped as encoding in moby does it, byte for byte.

The lines of a batch are encoded together.  What stands between two of them is the same for all,
so a newline is replaced by it; and of the bytes that need another spelling each that occurs is
replaced everywhere at once.  One entry at a time gives the same bytes, much slower.
"""

from __future__ import annotations

from _codecs import utf_8_decode  # what `codecs` loads beside it is not needed

from ._file_driver import FileDriver
from ._options import Options, absolute_path, count, flag, key_list, line_cap, refuse, size, text
from ._rotation import Rotation
from ._times import rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._info import LogInfo
    from ._record import Batch

__all__ = ("JsonFile", "escape")

NEWLINE = b"\n"
SEPARATORS = (b"\xe2\x80\xa8", b"\xe2\x80\xa9")
"""U+2028 and U+2029, which end a line in JavaScript."""
ESCAPES: dict[int, bytes] = {
    **{byte: b"\\u00%02x" % byte for byte in (*range(0x20), *b"<>&")},
    ord("\r"): b"\\r",
    ord('"'): b'\\"',
    ord("\\"): b"\\\\",
}
"""How the bytes are spelled that do not stand for themselves; a newline is seen to apart."""
PLAIN = bytes(byte for byte in range(256) if byte not in ESCAPES or byte == ord("\n"))
BACKSLASH = ord("\\")
BLOCK = 1 << 12
"""Bytes that are looked at together for what is no UTF-8: an error costs as much as its block."""


def escape(data: bytes) -> bytes:
    r"""The inside of JSON strings; newlines are left as they are.

    Each byte that is no part of valid UTF-8 becomes ``\ufffd``, as Go has it.
    """
    special = data.translate(None, PLAIN)
    if special:
        found = set(special)
        if BACKSLASH in found:  # first, for all others begin with one
            data = data.replace(b"\\", b"\\\\")
            found.discard(BACKSLASH)
        for byte in found:
            data = data.replace(bytes((byte,)), ESCAPES[byte])
    if not data.isascii():
        data = _mended(data)
        if SEPARATORS[0][:1] in data:  # one byte is looked for fifty times as fast as three
            for separator, escaped in zip(SEPARATORS, (b"\\u2028", b"\\u2029"), strict=True):
                data = data.replace(separator, escaped)
    return data


def _mended(data: bytes) -> bytes:
    """Each byte that is no part of valid UTF-8 in Go's spelling."""
    view = memoryview(data)
    done: list[bytes | memoryview] = []
    place, size = 0, len(data)
    while place < size:
        end = place + BLOCK
        try:
            # (A character that goes on behind the block is left for the next one.)
            _, count = utf_8_decode(view[place:end], "strict", end >= size)
        except UnicodeDecodeError as error:
            done += (view[place : place + error.start], b"\\ufffd" * (error.end - error.start))
            place += error.end
        else:
            done.append(view[place : place + count])
            place += count
    return b"".join(done) if len(done) > 1 else data


class JsonFile(FileDriver):
    """``json-file``: what ``docker logs`` and everybody's agents read.

    Options: ``log-path``, ``max-size``, ``max-file``, ``compress``, ``labels``,
    ``labels-regex``, ``env``, ``env-regex``, ``tag``, ``max-line`` (bytes; 0 for no cap).
    """

    options = Options(
        "json-file",
        {
            "log-path": absolute_path,
            "max-size": size,
            "max-file": count,
            "compress": flag,
            "labels": key_list,
            "labels-regex": text,
            "env": key_list,
            "env-regex": text,
            "tag": text,
            "max-line": line_cap,
            "nofollow": flag,
        },
        required=("log-path",),
    )

    def __init__(self, info: LogInfo) -> None:
        super().__init__(info)
        attributes = info.attributes()
        self._before_time = b""
        if attributes:
            pairs = b",".join(
                b'"%b":"%b"' % (_escaped(name), _escaped(attributes[name]))
                for name in sorted(attributes)
            )
            self._before_time = b'"attrs":{%b},' % pairs
        self._newest = 0
        self.compress_failed = 0

    def rotation(self) -> Rotation | None:
        values = self.values
        max_size, max_file = values.get("max-size"), values.get("max-file", 1)
        compress = values.get("compress", False)
        if max_size is None:
            if compress:
                raise refuse("compress", "true", "of no use without max-size and a max-file of 2")
            return None
        if compress and max_file == 1:
            raise refuse("compress", "true", "of no use without a max-file of 2")
        return Rotation(
            max_size=max_size,
            max_file=max_file,
            compress=compress,
            last_time=self.last_time,
            failed=self.compression_failed,
        )

    def write(self, batch: Batch) -> None:
        self._newest = max(self._newest, batch.time)
        super().write(batch)

    def encode(self, batch: Batch) -> bytes:
        """The entries of a batch."""
        partial = batch.partial
        moment = batch.time if partial is None else partial.begun
        middle = b'","stream":"%b",%b"time":"%b"}\n' % (
            batch.stream.encode(),
            self._before_time,
            rfc3339(moment).encode(),
        )
        begin = b'{"log":"'
        if partial is None:
            middle = b"\\n" + middle
            lines = escape(batch.data[:-1])
            entries = lines.replace(NEWLINE, middle + begin)
            batch.count = 1 + (len(entries) - len(lines)) // (len(middle + begin) - 1)
            return b"".join((begin, entries, middle))
        data = escape(batch.data)
        if not (data or partial.last):
            return b""
        return b"%b%b%b%b" % (begin, data, b"\\n" if partial.last else b"", middle)

    def last_time(self) -> str:
        """When the newest record was, for a file that is being compressed."""
        return rfc3339(self._newest) if self._newest else ""

    def compression_failed(self, error: Exception) -> None:
        """Counted; the file is there as it was."""
        self.compress_failed += 1
        reason = getattr(error, "strerror", None) or error  # (the copy's name is another each time)
        self.report(f"cannot compress an old file: {reason}")

    @property
    def stats(self) -> dict[str, int]:
        return {**super().stats, "compressions_failed": self.compress_failed}


def _escaped(value: str) -> bytes:
    # (moby leaves attributes to Go's own encoder, which has a letter for a tab.)
    parts = value.encode("utf-8", "surrogateescape").split(b"\t")
    return b"\\t".join(map(escape, parts)).replace(NEWLINE, b"\\n")
