"""Where a child's stdio goes: the three strings of a task, and the URI inside each.

This module only reads and writes text.  Whether a scheme is served by anybody, whether a
path exists and what stands there is found out by the IO types, before they start anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast
from urllib.parse import quote, quote_plus, unquote_to_bytes

import attrs

from pyshimio.errors import (
    InvalidOptionError,
    RelativePathError,
    URIAuthorityError,
    URIEscapeError,
    URINulError,
    URISyntaxError,
)

__all__ = ("BUILTIN_SCHEMES", "Stdio", "StdioURI", "scheme_of")

BUILTIN_SCHEMES = ("binary", "binary-v2", "fifo", "file", "null")
"""The schemes that pyshimio serves itself; a bare path (scheme ``""``) comes on top."""

AnyPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
Args: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")
_CONTROL = re.compile(r"[\x01-\x1f\x7f]")
_NEED_A_PATH = frozenset({"", "binary", "binary-v2", "fifo", "file"})
_PLAIN_IN_PATH = "$&+,/:;=@"  # besides letters, digits and -._~: what Go's EscapedPath leaves alone


# -- converters and checks ----------------------------------------------------------


def _normal(value: object) -> str:
    """One str for one run of bytes: what os.fsdecode() makes of them."""
    if not isinstance(value, str):
        raise URISyntaxError(
            f"every part of a stdio URI is a str, {value!r} is {type(value).__name__}; "
            "write numbers as str(n) and decode bytes with os.fsdecode()",
            uri=repr(value),
        )

    try:
        return os.fsdecode(os.fsencode(value))
    except UnicodeEncodeError as exc:
        raise URISyntaxError(
            f"{value!r} has a character that no file name can hold (position {exc.start}); "
            "make text out of bytes with os.fsdecode()",
            uri=value,
        ) from exc


def _to_scheme(value: str) -> str:
    scheme = _normal(value)
    return scheme.lower() if scheme.isascii() else scheme


def _to_path(value: AnyPath) -> str:
    return _normal(os.fsdecode(value) if isinstance(value, (bytes, os.PathLike)) else value)


def _pairs(value: Args) -> Iterable[tuple[str, str]]:
    return cast(Mapping[str, str], value).items() if isinstance(value, Mapping) else value


def _pair(value: object) -> tuple[object, object]:
    if isinstance(value, (str, bytes)):  # "kv" would unpack very well
        raise TypeError("text where a pair was due")

    key, content = cast(tuple[object, object], value)
    return key, content


def _to_args(value: Args) -> tuple[tuple[str, str], ...]:
    try:
        pairs = [_pair(pair) for pair in _pairs(value)]
    except (TypeError, ValueError) as exc:
        raise URISyntaxError(
            f"the arguments {value!r} are no pairs of str; "
            'pass a mapping, or pairs as in [("key", "value")]',
            uri=repr(value),
        ) from exc

    return tuple((_normal(key), _normal(content)) for key, content in pairs)


def _to_stream(value: AnyPath) -> str:
    try:
        return os.fsdecode(value)
    except TypeError as exc:
        raise InvalidOptionError(
            f"a stream of Stdio is a path or the text of a URI, not {value!r}; "
            'write "" for /dev/null and str(uri) for a StdioURI',
            option="stdio",
        ) from exc


def _check_bool(_record: object, field: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidOptionError(
            f"{field.name} is True or False, not {value!r}; convert it with bool()",
            option=field.name,
        )


def _bad_scheme(scheme: str, uri: str) -> URISyntaxError:
    return URISyntaxError(
        f"{scheme!r} in {uri!r} is no scheme: a letter, then letters, digits, '+', '-' or '.'; "
        "write for example file:///var/log/x, or /var/log/x for a bare path",
        uri=uri,
    )


def _check_nul(uri: str, *parts: str) -> None:
    for part in parts:
        if "\0" in part:
            raise URINulError(
                f"{part!r} in {uri!r} holds a NUL byte, as no path or argument can; remove it",
                uri=uri,
            )


def _check_shape(uri: str, scheme: str, path: str) -> None:
    if scheme == "null" and path:
        raise URISyntaxError(
            f"{uri!r} names a path, and the null scheme has none; write null: alone, "
            "or file: or fifo: in its place",
            uri=uri,
        )

    if not path and scheme in _NEED_A_PATH:
        raise RelativePathError(
            f"{uri!r} names no path; write {_example(scheme)}, or null: for /dev/null", uri=uri
        )

    if path and not path.startswith("/"):
        raise RelativePathError(
            f"the path of {uri!r} does not start at the root; write {_example(scheme)}",
            uri=uri,
        )


def _example(scheme: str) -> str:
    return f"{scheme}:///full/path" if scheme else "/full/path"


def scheme_of(text: str) -> str:
    """Tell the scheme of a stdio URI without judging the rest of it.

    What serves the scheme can so be looked up first: for ``tcp://host`` "unknown scheme"
    is the better answer than "write three slashes".

    Args:
        text: A path, a URI or ``""``.

    Returns:
        The scheme in lower case; ``""`` for a bare path; ``"null"`` for ``""``.

    Raises:
        RelativePathError: It is neither a URI nor a path from the root.
        URINulError: There is a NUL in it.
        URISyntaxError: What stands before the colon is no scheme, or *text* is no str.

    Example:
        >>> from pyshimio import scheme_of
        >>> scheme_of("BINARY-v2:///usr/bin/logger"), scheme_of("/run/x:y"), scheme_of("")
        ('binary-v2', '', 'null')
    """
    text = _normal(text)
    _check_nul(text, text)
    if text.startswith("/"):
        return ""

    if text.lower() in ("", "null"):
        return "null"

    head, colon, _ = text.partition(":")
    if not colon or "/" in head:
        raise RelativePathError(
            f"{text!r} is neither a URI nor a path from the root; "
            "write /var/log/x or file:///var/log/x",
            uri=text,
        )

    if not _SCHEME.fullmatch(head):
        raise _bad_scheme(head, text)

    return head.lower()


# -- the records --------------------------------------------------------------------


@attrs.frozen
class StdioURI:
    """One destination or source of a stream: a scheme, a path and ordered arguments.

    Made by :meth:`parse` from text, or from its parts; both check everything that can be
    checked without touching the system.  Two of them are equal when they mean the same
    bytes, and ``StdioURI.parse(str(uri)) == uri`` holds for every one that exists.

    Bytes that are not UTF-8 are carried as :func:`os.fsdecode` writes them
    (surrogateescape), so any path the kernel takes can be said.

    Args:
        scheme: ``"fifo"``, ``"file"``, ``"binary"``, ``"binary-v2"``, ``"null"``, or one that
            another package registers; ``""`` for a bare path.  Taken in lower case.
        path: From the root and kept as it is, ``..`` and double slashes included.  Empty for
            ``null``; schemes of other packages may go without one, too.
        args: A mapping or pairs; their order, blank and repeated ones are kept.

    Raises:
        RelativePathError: The path is missing or does not start at ``/``.
        URINulError: The path or an argument holds a NUL.
        URISyntaxError: The scheme is none; a part is no str; ``null`` with a path; a bare
            path with arguments.

    Example:
        >>> from pyshimio import StdioURI
        >>> uri = StdioURI("file", "/var/log/my app.log")
        >>> str(uri)
        'file:///var/log/my%20app.log'
        >>> StdioURI.parse("file:///var/log/my%20app.log") == uri
        True
    """

    scheme: str = attrs.field(converter=_to_scheme)
    path: str = attrs.field(default="", converter=_to_path)
    args: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_to_args)

    def __attrs_post_init__(self) -> None:
        uri = f"{self.scheme}:{self.path}" if self.scheme else self.path
        if self.scheme and not _SCHEME.fullmatch(self.scheme):
            raise _bad_scheme(self.scheme, uri)

        _check_nul(uri, self.path, *(part for pair in self.args for part in pair))
        _check_shape(uri, self.scheme, self.path)
        if self.args and not self.scheme:
            raise URISyntaxError(
                f"the bare path {uri!r} cannot carry arguments; name a scheme, "
                "such as fifo: or file:",
                uri=uri,
            )

    @classmethod
    def parse(cls, text: str) -> StdioURI:
        """Read a stdio URI.

        A text that starts with ``/`` is a path to its last character: ``?``, ``#``, ``%``
        and ``:`` in it are part of the name.  ``""`` is the null stream.  Everything else is
        ``scheme:///path?key=value&…`` (one slash for three will do), where ``%XX`` stands
        for one byte and, in the query alone, ``+`` for a space.

        Where this departs from Go's ``net/url`` as the shim uses it: an argument with ``;``
        is read and one with a bad escape refused (Go drops both in silence); a ``#`` is
        refused (Go cuts there), and so is a host (Go ignores it: ``file://var/log/x`` would
        be ``/log/x``) and ``%00``; arguments keep their order and repeated keys (Go shuffles
        them and takes the first); a bare path is not unescaped; ``fifo:`` works.

        Args:
            text: The text as a client wrote it.

        Raises:
            RelativePathError: There is no path, or it does not start at ``/``.
            URIAuthorityError: Two slashes where three were meant.
            URIEscapeError: A ``%`` without two hexadecimal digits.
            URINulError: A NUL, as such or as ``%00``.
            URISyntaxError: A control character, a ``#``, a bad scheme, or no str.

        Example:
            >>> from pyshimio import StdioURI
            >>> StdioURI.parse("binary:///bin/log%20it?tag=a+b&verbose")
            StdioURI(scheme='binary', path='/bin/log it', args=(('tag', 'a b'), ('verbose', '')))
            >>> StdioURI.parse("/run/50%/out?1#2").path
            '/run/50%/out?1#2'
        """
        scheme = scheme_of(text)
        if not scheme:
            return cls("", text)

        rest = text.partition(":")[2]
        if found := _CONTROL.search(rest):
            raise URISyntaxError(
                f"{text!r} holds the control character {found[0]!r}; "
                f"remove it, or write %{ord(found[0]):02X} if it is meant",
                uri=text,
            )

        if "#" in rest:
            raise URISyntaxError(
                f"{text!r} has a '#', and stdio URIs have no fragment; write %23", uri=text
            )

        if found := _BAD_ESCAPE.search(rest):
            raise URIEscapeError(
                f"{found[0]!r} in {text!r} is no escape: two hexadecimal digits follow a '%'; "
                "write %25 for the character itself",
                uri=text,
            )

        path, mark, query = rest.partition("?")
        if path.startswith("//"):
            host, slash, path = path[2:].partition("/")
            path = slash + path
            if host:
                first = "" if host == "localhost" else f"/{host}"
                meant = f"{scheme}://{first}{path}{mark}{query}"
                raise URIAuthorityError(
                    f"two slashes make {host!r} in {text!r} a host name, and stdio URIs have "
                    f"none; write three slashes: {meant!r}",
                    uri=text,
                )

        if scheme == "null" and path == "/":
            path = ""

        _check_shape(text, scheme, path)
        path = _unescape(path)
        args = tuple(
            (_unescape(key.replace("+", " ")), _unescape(value.replace("+", " ")))
            for key, _, value in (piece.partition("=") for piece in query.split("&") if piece)
        )
        _check_nul(text, path, *(part for pair in args for part in pair))
        return cls(scheme, path, args)

    @classmethod
    def build(cls, scheme: str, path: AnyPath = "", args: Args = ()) -> str:
        """Write a stdio URI; :meth:`parse` gives back exactly what went in.

        The text is what containerd's ``cio.LogURIGenerator`` would write, with two
        differences: the path is not cleaned (``..`` may lead elsewhere than it seems when a
        directory is a symbolic link), and the arguments stay in order (Go sorts them by
        key, and its mapping cannot repeat one).

        Args:
            scheme: As for :class:`StdioURI`; with ``""`` the text is the path itself.
            path: From the root; any bytes but NUL.
            args: A mapping or pairs.

        Returns:
            The text; pure ASCII unless it is a bare path.

        Raises:
            RelativePathError: The path is missing or does not start at ``/``.
            URINulError: The path or an argument holds a NUL.
            URISyntaxError: As for :class:`StdioURI`.

        Example:
            >>> from pyshimio import StdioURI
            >>> StdioURI.build("binary", "/a b/c", [("", "x"), ("a", "&"), ("z", "1 2")])
            'binary:///a%20b/c?=x&a=%26&z=1+2'
        """
        return cls(scheme, path, args).text

    @property
    def text(self) -> str:
        """The URI as text, the same as ``str(uri)``; the null stream is ``null:``."""
        if not self.scheme:
            return self.path

        path = f"//{quote(os.fsencode(self.path), _PLAIN_IN_PATH)}" if self.path else ""
        query = "&".join(f"{_escape(key)}={_escape(value)}" for key, value in self.args)
        return f"{self.scheme}:{path}?{query}" if query else f"{self.scheme}:{path}"

    def __str__(self) -> str:
        return self.text

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line of a ``binary`` logger: the path, then each key and its value.

        A key without a value gives an empty argument, as in Go.  The order is the URI's and
        repeated keys are all there; Go's order is random, and it keeps the first value only.

        Example:
            >>> from pyshimio import StdioURI
            >>> StdioURI.parse("binary:///bin/x?flag&a=1").argv
            ('/bin/x', 'flag', '', 'a', '1')
        """
        return (self.path, *(part for pair in self.args for part in pair))

    @property
    def options(self) -> dict[str, str]:
        """The arguments as a dict, for schemes where each key is said once.

        Raises:
            InvalidOptionError: A key is repeated; ``option`` names it.
        """
        options: dict[str, str] = {}
        for key, value in self.args:
            if key in options:
                raise InvalidOptionError(
                    f"the option {key!r} stands twice in {self.text!r}; say it once", option=key
                )

            options[key] = value

        return options


@attrs.frozen
class Stdio:
    """The stdio of one process, as containerd's shim is told it: three texts and a flag.

    Each stream is a path or the text of a :class:`StdioURI`; ``""`` is ``/dev/null`` for that
    stream alone (Go fails unless all three are empty).  The texts are kept as given and
    read when an IO is made from the record.

    Args:
        stdin: Where the process reads from; a path object will do, too.
        stdout: Where its output goes.
        stderr: Where its errors go; not used when there is a terminal.
        terminal: Whether the process gets a terminal in place of pipes.

    Raises:
        InvalidOptionError: A stream is neither text nor a path, or *terminal* is no bool.

    Example:
        >>> from pyshimio import Stdio
        >>> Stdio(stdout="file:///var/log/app.log").is_null
        False
    """

    stdin: str = attrs.field(default="", converter=_to_stream)
    stdout: str = attrs.field(default="", converter=_to_stream)
    stderr: str = attrs.field(default="", converter=_to_stream)
    terminal: bool = attrs.field(default=False, validator=_check_bool)

    @property
    def is_null(self) -> bool:
        """Whether all three streams are ``""``.

        As in Go, *terminal* does not count: a process may have a terminal that nobody reads
        or types at, so ask for ``terminal`` first.
        """
        return not (self.stdin or self.stdout or self.stderr)


def _escape(part: str) -> str:
    return quote_plus(os.fsencode(part), "")


def _unescape(part: str) -> str:
    return os.fsdecode(unquote_to_bytes(os.fsencode(part)))
