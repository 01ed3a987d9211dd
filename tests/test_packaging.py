"""What the package promises before any of it is called."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pyshimio

TESTS = Path(__file__).parent


def _public_modules() -> list[str]:
    """Every importable module whose whole path is public."""
    walked = pkgutil.walk_packages(pyshimio.__path__, "pyshimio.")
    return ["pyshimio", *(m.name for m in walked if "._" not in m.name)]


def _python(code: str) -> str:
    """What a fresh interpreter prints, which sees only what is installed."""
    # Not -I: it would hide the measuring of children from `nox -s coverage`.
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_version_is_the_distribution_s() -> None:
    """The version that the package names is the one it was installed as."""
    assert importlib.metadata.version("pyshimio") == pyshimio.__version__


def test_typed() -> None:
    """Type checkers are told to believe the annotations."""
    assert Path(pyshimio.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("name", _public_modules())
def test_public_modules_name_what_is_public(name: str) -> None:
    """Each public module has a tuple `__all__` without repeats, and has every name in it."""
    module = importlib.import_module(name)

    assert isinstance(module.__all__, tuple)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert getattr(module, public) is not None
        assert public in dir(module)


def test_unknown_name() -> None:
    """A name that the package does not have is an ordinary AttributeError."""
    with pytest.raises(AttributeError, match="no_such_name"):
        pyshimio.no_such_name  # noqa: B018 - looking it up is the test


@pytest.mark.parametrize("name", [n for n in pyshimio.__all__ if not n.startswith("__")])
def test_names_say_where_they_are_imported_from(name: str) -> None:
    """A traceback, a pickle and the docs show a public object's public address."""
    thing = getattr(pyshimio, name)
    home: str = getattr(thing, "__module__", "pyshimio")

    assert not any(part.startswith("_") for part in home.split("."))


@pytest.mark.parametrize("name", ["pyshimio", "pyshimio.errors"])
def test_import_is_cheap(name: str) -> None:
    """Importing the package or its errors loads no event loop and no dependency."""
    code = f"import sys, {name}; print(*sys.modules)"

    loaded = {name.partition(".")[0] for name in _python(code).split()}

    assert "pyshimio" in loaded
    assert not loaded & {"anyio", "asyncio", "attr", "attrs", "click", "rich", "trio", "uvloop"}


def test_each_module_imports_alone() -> None:
    """Whichever public module comes first, there is no circle that breaks it."""
    for name in _public_modules():
        assert _python(f"import {name}; print('fine')") == "fine\n"


def test_names_load_lazily() -> None:
    """Using one public name loads its module, and the loaded name then is an attribute."""
    code = "import pyshimio; pyshimio.StdioURI; print('StdioURI' in vars(pyshimio))"

    assert _python(code) == "True\n"


def test_every_test_has_a_docstring() -> None:
    """Each test says in a sentence what holds."""
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.parent.name != "outside"  # somebody else's
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert silent == []


def test_no_test_names_its_loop() -> None:
    """No async test is marked for one plugin, and no fixture is async: both plugins run all."""
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            marks = " ".join(map(ast.unparse, node.decorator_list))
            asynchronous = isinstance(node, ast.AsyncFunctionDef)
            if "mark.anyio" in marks or "mark.asyncio" in marks or "mark.trio" in marks:
                found.append(f"{path.name}:{node.lineno} {node.name}: a mark")
            if asynchronous and ".fixture" in marks:
                found.append(f"{path.name}:{node.lineno} {node.name}: an async fixture")
            if node.name.startswith("test_") and "anyio_backend" in [a.arg for a in node.args.args]:
                found.append(f"{path.name}:{node.lineno} {node.name}: asks for anyio_backend")

    assert found == []
