"""The table in docs/conformance.md: a row per method, marks as the cards say, and tests that exist."""

import re
from pathlib import Path

import pytest

from ostiary.core.catalog import PACKAGES, method_class, methods

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 7
}
LISTED = [(verb, key) for verb in PACKAGES for key in methods(verb)]


@pytest.mark.parametrize(("verb", "key"), LISTED, ids=[key for _, key in LISTED])
def test_a_method_has_a_complete_row_with_its_marks(verb: str, key: str) -> None:
    assert key in ROWS, f"add a row for '{key}' to docs/conformance.md, and its check to tests/conformance"
    *text, mechanism, scale = ROWS[key]
    assert all(text)
    marks = method_class(verb, key).card.marks
    assert (mechanism == "yes") == ("mechanism" in marks)
    assert (scale != "not measured") == ("scale" in marks)


def test_no_row_is_left_over() -> None:
    assert set(ROWS) == {key for _, key in LISTED}


def test_the_tests_it_names_exist() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 15
    assert not [name for name in sorted(named) if f"def {name}(" not in source]
