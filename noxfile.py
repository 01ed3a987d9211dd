"""The checks of this project; ``nox -l`` lists them, ``nox`` runs them all."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

HERE = Path(__file__).parent
PYTHONS = [
    line.rpartition(" ")[2]
    for line in nox.project.load_toml("pyproject.toml")["project"]["classifiers"]
    if line.startswith("Programming Language :: Python :: 3.")
]

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
# Nox reports an interpreter that is not there as skipped; that is enough, in CI too.
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"


def _runs(python: str) -> bool:
    """Tell whether this interpreter is there and works (a version manager's shim may not)."""
    path = shutil.which(f"python{python}")
    return path is not None and subprocess.run([path, "-c", ""], check=False).returncode == 0


# One interpreter runs everything: the one that runs nox, which needs no looking for.
MINE = f"{sys.version_info.major}.{sys.version_info.minor}"
FULL = MINE if MINE in PYTHONS else next(filter(_runs, PYTHONS), PYTHONS[0])
OTHERS = [python for python in PYTHONS if python != FULL]

WORKERS = ("-n", str(min((os.cpu_count() or 1) + 1, 4)), "--dist=worksteal")
"""Options that run the suite in a process for each core, and one more, as many tests wait for
something most of their time; ``-- -n0`` runs it in one."""

SHORTENED = ("--loops=asyncio", "-m", "not slow and not thorough")
"""Options for what differs from the full run in little: an interpreter, a wheel, dependencies."""

ASYNCIO = [
    *("-p", "no:anyio", "-p", "asyncio", "-o", "asyncio_mode=auto"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
]
"""Options that hand the async tests to pytest-asyncio."""


def _scratch(session: nox.Session) -> Path:
    """A directory of the session's own, absolute, since children have others."""
    path = Path(session.create_tmp()).absolute()
    # Nox makes it TMPDIR as well, and a socket's path there may be too long for the kernel.
    session.env.pop("TMPDIR", None)
    return path


@nox.session(python=[FULL, *OTHERS])
def tests(session: nox.Session) -> None:
    """Run the suite: on one interpreter whole and on every loop, on the others shortened."""
    session.install("--group=tests", "-e.[cli,uvloop]")
    chosen = () if session.python == FULL else SHORTENED
    session.run("pytest", *WORKERS, *chosen, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the suite once more, under pytest-asyncio, and measure its branch coverage.

    Child processes count.  What tries everything has done so on this loop in `tests`.
    """
    session.install("--group=tests", "--group=tests-asyncio", "--group=coverage", "-e.[cli,uvloop]")
    scratch = _scratch(session)
    lists = [scratch / name for name in ("anyio", "asyncio")]
    for plugin, path in zip(((), ASYNCIO), lists, strict=True):
        collect = ("pytest", *plugin, "--collect-only", "-qq", f"--list-functions={path}")
        session.run(*collect, *session.posargs, silent=True)
    # The files compared, not the counts: a difference says which test was not collected.
    here, there = (path.read_text(encoding="utf-8").splitlines() for path in lists)
    if here != there:
        session.log("\n".join(difflib.unified_diff(here, there, "anyio", "pytest-asyncio")))
        session.error("the two plugins were not given the same test functions")
    session.log(f"both plugins were given the same {len(here)} test functions")
    env = {"COVERAGE_FILE": str(scratch / "data")}
    session.run("coverage", "erase", env=env)
    pytest = ("coverage", "run", "-m", "pytest", *WORKERS)
    session.run(*pytest, *ASYNCIO, "-m", "not thorough", *session.posargs, env=env)
    if not session.posargs:
        # These alone have lines for trio; `tests` runs everything there.
        files = (f"tests/test_{name}.py" for name in ("poller", "pump", "testing_faults"))
        session.run(*pytest, "--loops=trio", *files, env=env)
    session.run("coverage", "combine", "--quiet", env=env)
    session.run("coverage", "report", env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, docstrings included, and formatting."""
    session.install("--group=lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with two checkers, and that no public name lacks one."""
    session.install("--group=types", "--group=docs", "nox", ".[cli,uvloop]")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "pyshimio")


@nox.session
def imports(session: nox.Session) -> None:
    """Check that imports point one way."""
    session.install("--group=imports", "-e.[cli]")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, with every warning an error, and run its examples."""
    session.install("--group=docs", "-e.[cli,testing]")
    for builder in ("html", "doctest"):
        session.run(
            *("sphinx-build", "-n", "-W", "--keep-going", "-q", "-b", builder),
            *("docs", f"docs/_build/{builder}"),
        )
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)


@nox.session
def wheel(session: nox.Session) -> None:
    """Run the shortened suite against the built wheel, with the checkout out of reach."""
    session.install("--group=tests", "build")
    work = _scratch(session)
    shutil.rmtree(work)
    session.run("python", "-m", "build", "--outdir", str(work / "dist"), silent=True)
    (built,) = (work / "dist").glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(built))
    session.install(f"{built}[cli,uvloop]")
    shutil.copytree(HERE / "tests", work / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "pyproject.toml", work)
    session.chdir(work)
    where = session.run("python", "-c", "import pyshimio; print(pyshimio.__file__)", silent=True)
    if "site-packages" not in str(where):
        session.error(f"not the installed package: {where}")
    session.run("python", "-m", "support.price", env={"PYTHONPATH": "tests"})
    # Somebody else's project gets it, too.
    env = {"PYSHIMIO_WHEEL": str(built.absolute())}
    session.run("pytest", "tests/test_outside.py", env=env)
    session.run("pytest", *WORKERS, *SHORTENED, *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the shortened suite on the oldest dependencies that pyproject.toml admits."""
    session.install("uv")
    session.run(
        *("uv", "pip", "install", "--quiet", "--resolution=lowest-direct"),
        *(f"--python={session.virtualenv.location}", "--group=tests", "-e.[cli,uvloop]"),
    )
    session.run("uv", "pip", "freeze", env={"VIRTUAL_ENV": session.virtualenv.location})
    session.run("pytest", *WORKERS, *SHORTENED, *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run random children for a minute, or `-- --minutes N`, and account for every byte."""
    session.install("--group=tests", "-e.[cli,uvloop]")
    session.run("python", "-m", "soak", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Give the parsers what nobody thought of, each for five seconds, or `-- --seconds N`."""
    session.install("--group=fuzz", "-e.")
    arguments = session.posargs or ("--seconds", "5")
    env = {"PYTHONPATH": str(HERE / "tests"), "TMPDIR": str(_scratch(session))}
    for target in ("uri", "console", "json-file", "cri"):
        session.run("python", "-m", "fuzz", target, *arguments, env=env)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure beside real peers, `-- ROW... --rounds N --json FILE`; 20 minutes, a quiet machine.

    Uses Go where it is found; without it the rows beside the Go loop have no ratio.
    """
    session.install("--group=bench", ".[cli,uvloop]")
    session.run("python", "-m", "bench", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(default=False)
def figures(session: nox.Session) -> None:
    """Make the tables and the plot of the page about speed from docs/figures/bench.json."""
    session.install("--group=bench")
    env = {"PYTHONPATH": "tests"}
    session.run("python", "-m", "bench.publish", "docs/figures", env=env)


@nox.session(default=False)
def mutation(session: nox.Session) -> None:
    """Break what moves bytes in every small way, half an hour long: do the tests notice?"""
    session.install("--group=tests", "--group=mutation", "-e.[cli,uvloop]")
    work = _scratch(session)
    shutil.rmtree(work)
    for name in ("pyshimio", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(HERE / name, work / name, ignore=ignored)
    shutil.copy(HERE / "pyproject.toml", work)
    session.chdir(work)
    session.run("mutmut", "run", "--max-children=2", *session.posargs)
    session.run("mutmut", "results")
    verdicts: list[int | None] = []
    poor = False
    for path in sorted((work / "mutants" / "pyshimio").glob("*.meta")):
        # What pytest said: 0 if no test failed; mutmut's 33: there is none; null: not tried.
        codes = list(json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"].values())
        verdicts += codes
        session.log(f"{path.stem}: {_noticed(codes)} of {len(codes)}")
        poor = poor or _noticed(codes) < 0.9 * len(codes)
    session.log(f"all: {_noticed(verdicts)} of {len(verdicts)}")
    if poor and not session.posargs:
        session.error("fewer than nine of ten were noticed in one of them")


def _noticed(verdicts: list[int | None]) -> int:
    return sum(verdict not in {0, 33, None} for verdict in verdicts)
