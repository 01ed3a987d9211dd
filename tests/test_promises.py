"""The page that names our tests names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "promises.md"


def test_each_promise_names_tests_that_exist() -> None:
    """Every file and every function that the page names is there, function in its row's file."""
    if not PAGE.exists():
        pytest.skip("needs the documentation's sources")
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if ".py`" in line]
    assert len(rows) > 20
    for row in rows:
        sources = [TESTS / name for name in re.findall(r"`([\w/]+\.py)`", row)]
        missing = [source.name for source in sources if not source.exists()]
        text = "".join(source.read_text(encoding="utf-8") for source in sources if source.exists())
        names = re.findall(r"`(test_\w+)`", row)
        missing += [name for name in names if f"def {name}(" not in text]
        assert not missing, f"{', '.join(missing)} in {row}"
