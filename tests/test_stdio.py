"""Stdio and StdioURI: text in, record out, and back, without losing a byte."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
from hypothesis import example, given, settings

from pyshimio._stdio import BUILTIN_SCHEMES, Stdio, StdioURI, scheme_of
from pyshimio.errors import (
    InvalidOptionError,
    RelativePathError,
    ShimIOError,
    URIAuthorityError,
    URIError,
    URIEscapeError,
    URINulError,
    URISyntaxError,
)
from pyshimio.testing.strategies import uri_texts, uris

if TYPE_CHECKING:
    from collections.abc import Callable

ALL_BYTES_BUT_NUL = os.fsdecode(bytes(range(1, 256)))


def check_error(error: ShimIOError, hint: str) -> None:
    """The error says what to do, has no full stop, and comes through pickle whole."""
    assert hint in str(error)
    assert not str(error).endswith(".")

    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


# -- parse --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, scheme, path, args",
    [
        # What Go's net/url makes of them; where we differ, the comment says how.
        ("file:///a/b%20c?x", "file", "/a/b c", (("x", ""),)),
        ("/p/with?q#f", "", "/p/with?q#f", ()),  # Go: /p/with
        ("/bad%zz", "", "/bad%zz", ()),  # Go: an error
        ("binary:/usr/bin/x?id=1;b=2", "binary", "/usr/bin/x", (("id", "1;b=2"),)),  # Go: none
        (
            "binary:///bin/x?flag&a=1&a=2",
            "binary",
            "/bin/x",
            (("flag", ""), ("a", "1"), ("a", "2")),  # Go: one a
        ),
        (
            "binary:///a%20b/c?=x&a=%26&z=1+2",
            "binary",
            "/a b/c",
            (("", "x"), ("a", "&"), ("z", "1 2")),
        ),
        # Slashes.
        ("file:/one/slash", "file", "/one/slash", ()),
        ("file:///three/slashes", "file", "/three/slashes", ()),
        ("file:////four", "file", "//four", ()),
        ("file:///", "file", "/", ()),
        ("file:///a/../b/./c//d/", "file", "/a/../b/./c//d/", ()),
        # Schemes.
        ("FIFO:///run/x", "fifo", "/run/x", ()),
        ("binary-v2:///bin/x", "binary-v2", "/bin/x", ()),
        ("a1+.-:///x", "a1+.-", "/x", ()),
        ("journald:", "journald", "", ()),
        ("journald://?tag=x", "journald", "", (("tag", "x"),)),
        ("journald:///", "journald", "/", ()),
        # The null stream in all its spellings.
        ("", "null", "", ()),
        ("null", "null", "", ()),
        ("NULL", "null", "", ()),
        ("null:", "null", "", ()),
        ("null://", "null", "", ()),
        ("null:/", "null", "", ()),
        ("null:///", "null", "", ()),
        ("null:///?a=1", "null", "", (("a", "1"),)),
        # Escapes and plus signs.
        ("file:///a+b%2Bc%2fd?k+1=v+%2B", "file", "/a+b+c/d", (("k 1", "v +"),)),
        ("file:///%25zz%3F%23", "file", "/%zz?#", ()),
        ("file:///%C3%A9/%ff", "file", "/é/\udcff", ()),
        ("file:///é?ü=ß", "file", "/é", (("ü", "ß"),)),
        ("file:///a b?c d=e f", "file", "/a b", (("c d", "e f"),)),
        ("file:///a:b;c@d,e=f&g", "file", "/a:b;c@d,e=f&g", ()),
        # Queries.
        ("file:///x?", "file", "/x", ()),
        ("file:///x?&&a&&", "file", "/x", (("a", ""),)),
        ("file:///x?=", "file", "/x", (("", ""),)),
        ("file:///x?a=b=c?d/e", "file", "/x", (("a", "b=c?d/e"),)),
        ("file:///x?a=%3D%26", "file", "/x", (("a", "=&"),)),
        # Bare paths are names to their last byte.
        ("/", "", "/", ()),
        ("//x", "", "//x", ()),
        ("/a:b+c\t\n%41", "", "/a:b+c\t\n%41", ()),
        ("/file:///x", "", "/file:///x", ()),
    ],
)
def test_parse(text: str, scheme: str, path: str, args: tuple[tuple[str, str], ...]) -> None:
    """A text is taken apart into scheme, path and ordered arguments."""
    uri = StdioURI.parse(text)

    assert (scheme, path, args) == (uri.scheme, uri.path, uri.args)
    assert scheme == scheme_of(text)
    assert uri == StdioURI.parse(str(uri))


BAD_TEXTS: list[tuple[str, type[URIError], str]] = [
    ("file:///a%zz", URIEscapeError, "write %25"),
    ("file:///a%", URIEscapeError, "write %25"),
    ("file:///a%4", URIEscapeError, "write %25"),
    ("file:///a%\u0661\u0661", URIEscapeError, "write %25"),
    ("file:///a?x%=1", URIEscapeError, "write %25"),
    ("file:///a?x=%+1", URIEscapeError, "write %25"),
    ("null:///?%zz", URIEscapeError, "write %25"),
    ("/a\0b", URINulError, "remove it"),
    ("file:///a\0b", URINulError, "remove it"),
    ("fi\0le:///a", URINulError, "remove it"),
    ("\0", URINulError, "remove it"),
    ("file:///a%00b", URINulError, "remove it"),
    ("file:///a?%00", URINulError, "remove it"),
    ("file:///a?x=1%00", URINulError, "remove it"),
    ("file://var/log/x", URIAuthorityError, "three slashes: 'file:///var/log/x'"),
    ("file://var/log/x?a=1", URIAuthorityError, "three slashes: 'file:///var/log/x?a=1'"),
    ("FILE://x", URIAuthorityError, "three slashes: 'file:///x'"),
    ("fifo://host:1/x", URIAuthorityError, "three slashes"),
    ("file://localhost/var/x", URIAuthorityError, "three slashes: 'file:///var/x'"),
    ("null://x", URIAuthorityError, "three slashes"),
    ("file:relative", RelativePathError, "write file:///full/path"),
    ("binary:./x?a", RelativePathError, "write binary:///full/path"),
    ("file:%2Fx", RelativePathError, "write file:///full/path"),
    ("other:x", RelativePathError, "write other:///full/path"),
    ("file:", RelativePathError, "write file:///full/path, or null:"),
    ("fifo://", RelativePathError, "write fifo:///full/path, or null:"),
    ("binary:?a=1", RelativePathError, "write binary:///full/path, or null:"),
    ("binary-v2://?a=1", RelativePathError, "write binary-v2:///full/path, or null:"),
    ("var/log/x", RelativePathError, "write /var/log/x or file:///var/log/x"),
    ("./a:b", RelativePathError, "write /var/log/x or file:///var/log/x"),
    ("file", RelativePathError, "write /var/log/x or file:///var/log/x"),
    ("~/x", RelativePathError, "write /var/log/x or file:///var/log/x"),
    ("file:///a#b", URISyntaxError, "write %23"),
    ("file:///a?b#c", URISyntaxError, "write %23"),
    ("file:///a#", URISyntaxError, "write %23"),
    ("file:///a\n", URISyntaxError, "write %0A"),
    ("file:///a\tb", URISyntaxError, "write %09"),
    ("file:///a\x01\x1f", URISyntaxError, "write %01"),
    ("file:///a\x1f", URISyntaxError, "write %1F"),
    ("file:///a?b\r", URISyntaxError, "write %0D"),
    ("file:\x7f///a", URISyntaxError, "write %7F"),
    ("null:///x", URISyntaxError, "write null:"),
    ("null:x", URISyntaxError, "write null:"),
    (":///x", URISyntaxError, "write for example file:///var/log/x"),
    ("1file:///x", URISyntaxError, "write for example file:///var/log/x"),
    ("my_scheme:///x", URISyntaxError, "write for example file:///var/log/x"),
    (" file:///x", URISyntaxError, "write for example file:///var/log/x"),
    ("file\n:///x", URISyntaxError, "write for example file:///var/log/x"),
    ("\u212aind:///x", URISyntaxError, "write for example file:///var/log/x"),
    ("file:///\ud800", URISyntaxError, "os.fsdecode()"),
    ("/\ud800", URISyntaxError, "os.fsdecode()"),
]


@pytest.mark.parametrize("text, kind, hint", BAD_TEXTS)
def test_parse_refuses(text: str, kind: type[URIError], hint: str) -> None:
    """What cannot be meant is refused by its own error, which has the text and the way out."""
    with pytest.raises(URIError) as caught:
        StdioURI.parse(text)

    assert type(caught.value) is kind
    assert isinstance(caught.value, ValueError)
    assert caught.value.uri == text
    check_error(caught.value, hint)


@pytest.mark.parametrize("text", [None, b"/x", 3, Path("/x")])
def test_parse_takes_only_text(text: object) -> None:
    """Only a str is text: a path object is handed to build, or turned into one first."""
    with pytest.raises(URISyntaxError) as caught:
        StdioURI.parse(cast(Any, text))

    assert caught.value.uri == repr(text)
    check_error(caught.value, "os.fsdecode()")


@settings(deadline=None)  # the machine may be busy
@given(uri_texts())
def test_parse_gives_a_record_or_a_typed_error(text: str) -> None:
    """No text makes parse raise anything but an error of the tree that carries the text."""
    uri: StdioURI | URIError
    try:
        uri = StdioURI.parse(text)
    except URIError as exc:
        uri = exc

    if isinstance(uri, URIError):
        assert uri.uri == text
    else:
        assert uri == StdioURI.parse(str(uri))


# -- scheme_of ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, scheme",
    [
        ("tcp://host:514", "tcp"),
        ("a:b", "a"),
        ("C:\\logs\\x", "c"),
        ("FILE:%zz#", "file"),
        ("/a:b", ""),
        ("", "null"),
        ("nulL", "null"),
    ],
)
def test_scheme_of_does_not_judge_the_rest(text: str, scheme: str) -> None:
    """The scheme can be told of a text that parse would refuse."""
    assert scheme == scheme_of(text)


def test_builtin_schemes() -> None:
    """Every builtin scheme is a scheme in canonical spelling, and listed in order."""
    assert BUILTIN_SCHEMES == ("binary", "binary-v2", "fifo", "file", "null")
    assert [scheme_of(f"{scheme}:") for scheme in BUILTIN_SCHEMES] == list(BUILTIN_SCHEMES)


# -- build --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme, path, args, text",
    [
        # As LogURIGenerator writes it.
        (
            "binary",
            "/a b/c",
            [("", "x"), ("a", "&"), ("z", "1 2")],
            "binary:///a%20b/c?=x&a=%26&z=1+2",
        ),
        ("file", "/x", (), "file:///x"),
        ("file", "/x", {"b": "1", "a": ""}, "file:///x?b=1&a="),
        ("file", "/x", [("a", "1"), ("b", "2"), ("a", "3")], "file:///x?a=1&b=2&a=3"),
        ("file", "/x", [("", "")], "file:///x?="),
        ("file", "/x", [("k+;=", "%2F/#")], "file:///x?k%2B%3B%3D=%252F%2F%23"),
        ("file", "/$&+,/:;=@-_.~", (), "file:///$&+,/:;=@-_.~"),
        ("file", "/%2F?#[]!'()*\\\n", (), "file:///%252F%3F%23%5B%5D%21%27%28%29%2A%5C%0A"),
        ("file", "/é\udcff", (), "file:///%C3%A9%FF"),
        # Not as LogURIGenerator does: the path stays as it is.
        ("file", "//a/../b/", (), "file:////a/../b/"),
        ("FIFO", "/x", (), "fifo:///x"),
        ("null", "", (), "null:"),
        ("journald", "", {"tag": "x"}, "journald:?tag=x"),
        ("", "/a?b#c%zz:\n", (), "/a?b#c%zz:\n"),
        ("file", PurePosixPath("/a b"), (), "file:///a%20b"),
        ("file", b"/\xff", (), "file:///%FF"),
    ],
)
def test_build(scheme: str, path: Any, args: Any, text: str) -> None:
    """Text is built as containerd builds it, with the path kept and the arguments in order."""
    assert text == StdioURI.build(scheme, path, args)


def test_build_takes_a_one_shot_iterable() -> None:
    """Pairs may come from a generator."""
    assert StdioURI.build("file", "/x", (pair for pair in [("a", "b")])) == "file:///x?a=b"


def test_every_byte_but_nul_survives() -> None:
    """A path and arguments of all 255 bytes come back as they were, in plain ASCII between."""
    text = StdioURI.build("file", "/" + ALL_BYTES_BUT_NUL, [(ALL_BYTES_BUT_NUL, ALL_BYTES_BUT_NUL)])
    uri = StdioURI.parse(text)

    assert text.isascii()
    assert os.fsencode(uri.path) == b"/" + bytes(range(1, 256))
    assert uri.args == ((ALL_BYTES_BUT_NUL, ALL_BYTES_BUT_NUL),)


@settings(deadline=None)  # the machine may be busy
@given(uris())
@example(StdioURI("file", "/;+%2F", (("%2F", ";+"), ("", ""), ("", ""))))
@example(StdioURI("binary", "//", ()))
def test_parse_undoes_build(uri: StdioURI) -> None:
    """parse(build(x)) is x, whatever bytes the path and the arguments are made of."""
    assert StdioURI.parse(StdioURI.build(uri.scheme, uri.path, uri.args)) == uri


@settings(deadline=None)  # the machine may be busy
@given(uris())
def test_parse_undoes_build_of_a_bare_path(uri: StdioURI) -> None:
    """A bare path is its own text."""
    path = uri.path
    assert StdioURI.build("", path) == path
    assert StdioURI.parse(path) == StdioURI("", path)


@settings(deadline=None)  # the machine may be busy
@given(uris())
def test_parse_undoes_build_without_a_path(with_path: StdioURI) -> None:
    """Schemes without a path carry arguments all the same."""
    args = with_path.args
    for scheme in ("null", "other"):
        uri = StdioURI(scheme, "", args)

        assert StdioURI.parse(uri.text) == uri
        assert uri.args == args


def test_equal_bytes_are_equal_uris() -> None:
    """Two spellings of the same bytes, which os.fsdecode would never mix, are one URI."""
    assert StdioURI("file", "/\udcc3\udca9", {"\udcc3\udca9": ""}) == StdioURI(
        "file", "/é", {"é": ""}
    )


BAD_PARTS: list[tuple[tuple[Any, ...], type[URIError], str]] = [
    (("file", "rel"), RelativePathError, "write file:///full/path"),
    (("journald", "rel"), RelativePathError, "write journald:///full/path"),
    (("", "rel"), RelativePathError, "write /full/path"),
    (("", ""), RelativePathError, "write /full/path, or null:"),
    (("file", ""), RelativePathError, "write file:///full/path"),
    (("file",), RelativePathError, "write file:///full/path"),
    (("file", "/a\0"), URINulError, "remove it"),
    (("", "/a\0"), URINulError, "remove it"),
    (("file", "/a", {"\0": ""}), URINulError, "remove it"),
    (("file", "/a", {"": "\0"}), URINulError, "remove it"),
    (("my scheme", "/a"), URISyntaxError, "write for example file:///var/log/x"),
    (("file:", "/a"), URISyntaxError, "write for example file:///var/log/x"),
    (("1", "/a"), URISyntaxError, "write for example file:///var/log/x"),
    (("file\n", "/a"), URISyntaxError, "write for example file:///var/log/x"),
    (("\u212aind", "/a"), URISyntaxError, "write for example file:///var/log/x"),
    (("null", "/"), URISyntaxError, "write null:"),
    (("null", "/dev/null"), URISyntaxError, "write null:"),
    (("null", "rel"), URISyntaxError, "write null:"),
    (("", "/a", {"k": "v"}), URISyntaxError, "name a scheme"),
    (("file", "/\ud800"), URISyntaxError, "os.fsdecode()"),
    (("file", "/a", {"\ud800": ""}), URISyntaxError, "os.fsdecode()"),
    ((None, "/a"), URISyntaxError, "os.fsdecode()"),
    ((b"file", "/a"), URISyntaxError, "os.fsdecode()"),
    (("file", None), URISyntaxError, "os.fsdecode()"),
    (("file", 3), URISyntaxError, "str(n)"),
    (("file", "/a", {"k": 1}), URISyntaxError, "str(n)"),
    (("file", "/a", {b"k": "v"}), URISyntaxError, "os.fsdecode()"),
    (("file", "/a", None), URISyntaxError, "pass a mapping, or pairs"),
    (("file", "/a", 3), URISyntaxError, "pass a mapping, or pairs"),
    (("file", "/a", "kv"), URISyntaxError, "pass a mapping, or pairs"),
    (("file", "/a", ["kv"]), URISyntaxError, "pass a mapping, or pairs"),
    (("file", "/a", [b"kv"]), URISyntaxError, "pass a mapping, or pairs"),
    (("file", "/a", [("k",)]), URISyntaxError, "pass a mapping, or pairs"),
    (("file", "/a", [("k", "v", "w")]), URISyntaxError, "pass a mapping, or pairs"),
    (("file", "/a", [3]), URISyntaxError, "pass a mapping, or pairs"),
]


@pytest.mark.parametrize("make", [StdioURI, StdioURI.build])
@pytest.mark.parametrize("given_parts, kind, hint", BAD_PARTS)
def test_build_refuses(
    make: Callable[..., object], given_parts: tuple[Any, ...], kind: type[URIError], hint: str
) -> None:
    """Parts that no URI can carry are refused when it is made, by build and record alike."""
    with pytest.raises(URIError) as caught:
        make(*given_parts)

    assert type(caught.value) is kind
    assert caught.value.uri is not None
    check_error(caught.value, hint)


def test_the_error_of_a_nul_shows_where_it_is() -> None:
    """A NUL in an argument is shown in that argument."""
    with pytest.raises(URINulError, match=r"'v\\x00' in 'file:/a'") as caught:
        StdioURI.build("file", "/a", {"k": "v\0"})

    assert caught.value.uri == "file:/a"


# -- the record ---------------------------------------------------------------------


def test_argv() -> None:
    """A logger's command line is the path, then keys and values as the URI has them."""
    uri = StdioURI.parse("binary:///bin/x?flag&a=1&a=2&=y")

    assert uri.argv == ("/bin/x", "flag", "", "a", "1", "a", "2", "", "y")
    assert StdioURI.parse("binary:///bin/x?flag&a=1").argv == ("/bin/x", "flag", "", "a", "1")
    assert StdioURI.parse("binary:///bin/x").argv == ("/bin/x",)


def test_options() -> None:
    """Arguments that are said once can be looked up by name, in order."""
    options = StdioURI.parse("file:///x?b=1&nofollow").options

    assert list(options.items()) == [("b", "1"), ("nofollow", "")]


def test_options_refuses_a_repeated_key() -> None:
    """An option said twice, with the same value even, is refused and named."""
    with pytest.raises(InvalidOptionError) as caught:
        StdioURI.parse("file:///x?a=1&b=2&a=1").options  # noqa: B018

    assert caught.value.option == "a"
    check_error(caught.value, "say it once")


@pytest.mark.parametrize(
    "record",
    [
        StdioURI("file", "/a\udcff", {"k": "v"}),
        StdioURI.parse("/x"),
        Stdio("/in", "/out", "file:///err", terminal=True),
    ],
)
def test_records_are_values(record: StdioURI | Stdio) -> None:
    """Copies are equal and hash alike, nothing can be set, and the repr makes another one."""
    for again in (
        pickle.loads(pickle.dumps(record)),
        copy.deepcopy(record),
        eval(repr(record), {"Stdio": Stdio, "StdioURI": StdioURI}),
        attrs.evolve(record),
    ):
        assert again == record
        assert hash(again) == hash(record)

    name = attrs.fields(type(record))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(record, name, "x")
    with pytest.raises((AttributeError, TypeError)):
        record.no_such_attribute = 1  # type: ignore[union-attr]


def test_uris_differ_in_each_part() -> None:
    """Scheme, path, arguments and their order all count."""
    uris = {
        StdioURI.parse(text)
        for text in (
            "/x",
            "fifo:/x",
            "file:/x",
            "file:/y",
            "file:/x?a&b",
            "file:/x?b&a",
            "file:/x?a&a",
            "file:/x?a",
        )
    }

    assert len(uris) == 8
    assert StdioURI.parse("file:/x") == StdioURI.parse("FILE:///x?")


def test_repr_and_str() -> None:
    """The repr shows the parts, the str is the text."""
    uri = StdioURI.parse("file:/a%20b?c")

    assert repr(uri) == "StdioURI(scheme='file', path='/a b', args=(('c', ''),))"
    assert str(uri) == uri.text == "file:///a%20b?c="
    assert f"{StdioURI.parse('')}" == "null:"
    assert repr(Stdio(stdout="/x")) == ("Stdio(stdin='', stdout='/x', stderr='', terminal=False)")


# -- Stdio --------------------------------------------------------------------------


def test_stdio_signature() -> None:
    """The record is made as design.md has it: everything optional, by position or by name."""
    parameters = inspect.signature(Stdio).parameters.values()

    assert [(one.name, one.default) for one in parameters] == [
        ("stdin", ""),
        ("stdout", ""),
        ("stderr", ""),
        ("terminal", False),
    ]
    assert Stdio("a", "b", "c", terminal=True) == Stdio(
        terminal=True, stderr="c", stdout="b", stdin="a"
    )


def test_stdio_takes_path_objects() -> None:
    """Path objects and bytes become text, by which os.fsencode finds the same file."""
    stdio = Stdio(stdin=Path("/a b"), stdout=b"/\xff", stderr=PurePosixPath("/c"))

    assert (stdio.stdin, stdio.stdout, stdio.stderr) == ("/a b", "/\udcff", "/c")


def test_stdio_keeps_its_texts() -> None:
    """Texts are not read when the record is made, so none is refused or rewritten."""
    stdio = Stdio("FILE://x/%zz", "rel", "a\0b")

    assert (stdio.stdin, stdio.stdout, stdio.stderr) == ("FILE://x/%zz", "rel", "a\0b")


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize("value", [None, 1, StdioURI("null")])
def test_stdio_refuses_what_is_no_text(stream: str, value: object) -> None:
    """A descriptor, None and a StdioURI are refused with what to write instead."""
    with pytest.raises(InvalidOptionError) as caught:
        Stdio(**{stream: cast(Any, value)})

    check_error(caught.value, 'write "" for /dev/null and str(uri) for a StdioURI')


@pytest.mark.parametrize("value", [None, 1, "no"])
def test_stdio_refuses_a_flag_that_is_none(value: object) -> None:
    """Only True and False say whether there is a terminal: "no" is not taken for yes."""
    with pytest.raises(InvalidOptionError) as caught:
        Stdio(terminal=cast(Any, value))

    assert caught.value.option == "terminal"
    check_error(caught.value, "bool()")


@pytest.mark.parametrize("terminal", [False, True])
def test_is_null(terminal: bool) -> None:
    """Only the streams count, all three of them, and the terminal does not; as in Go."""
    assert Stdio(terminal=terminal).is_null
    assert not Stdio("x", terminal=terminal).is_null
    assert not Stdio(stdout="x", terminal=terminal).is_null
    assert not Stdio(stderr="x", terminal=terminal).is_null
    assert not Stdio("null:", terminal=terminal).is_null
