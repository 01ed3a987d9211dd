"""Sphinx configuration; ``nox -s docs`` builds with every warning an error."""

from __future__ import annotations

import builtins
import sys
from importlib.metadata import version as _version

project = "pyshimio"
author = "The pyshimio developers"
copyright = author
release = _version("pyshimio")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pyshimio {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

doctest_global_setup = "import pyshimio"

# Names of other projects have no target here: building needs no network, so there is no
# intersphinx.  A name of ours that is misspelled still is an error.
# IO, Sink and ShimIOError have two names each, of which either will do.
suppress_warnings = ["ref.python"]
nitpick_ignore_regex = [
    (r"py:.*", rf"({'|'.join(sorted(sys.stdlib_module_names))})(\..*)?"),
    (r"py:.*", r"(anyio|attrs?|click|trio)(\..*)?"),
    (r"py:.*", r"(Broken|Busy|Closed)ResourceError|EndOfStream|Byte(Receive|Send)Stream"),
    # A private base class has no entry.
    (
        r"py:.*",
        r"pyshimio\.(.+\.)?_.*|BaseIO|Deliver|T|AbstractAsyncContextManager|Fd(Receive|Send)Stream|OwnedFd",
    ),
    (r"py:.*", "|".join(name for name in dir(builtins) if not name.startswith("_"))),
]
