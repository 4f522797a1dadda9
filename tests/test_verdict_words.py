"""No text that a user may read says that something is safe or clean, and none carries ticks or emoji."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from ostiary.core.records import Verdict

SOURCE = Path(__file__).parents[1] / "src" / "ostiary"

PRAISE = "(?:safe|clean|secure|harmless|trustworthy)"
BANNED = re.compile(
    rf"""
    \b(?:is|are|was|be|looks?|seems?|appears?|remains?|stays?|verdict:?|result:?)\s+(?:\w+ly\s+|now\s+|all\s+)?{PRAISE}\b
    | \b{PRAISE}\s+(?:models?|checkpoints?|networks?|files?)\b
    | \bsafe\s+to\b
    | \bbackdoor[- ]free\b
    | \bno\s+(?:backdoors?|poison)\b
    | [\u2600-\u27bf\U0001f000-\U0001faff\ufe0f]
    """,
    re.IGNORECASE | re.VERBOSE,
)


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The string constants of a module; its docstrings only where they are printed as help."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    is_help = "cli" in path.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (is_help or id(node) not in docstrings):
            yield node.lineno, node.value


def texts() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield from ((f"{path.relative_to(SOURCE)}:{line}", text) for line, text in strings(path))
    for path in sorted(SOURCE.glob("*/templates/*")):
        lines = path.read_text(encoding="utf-8").splitlines()
        yield from ((f"{path.relative_to(SOURCE)}:{number}", line) for number, line in enumerate(lines, 1))


def test_nothing_is_called_safe_or_clean() -> None:
    found = [f"{where}: {hit.group()!r}" for where, text in texts() for hit in BANNED.finditer(text)]
    assert not found, "\n".join(["a verdict promises too much:", *found])


def test_the_verdicts_are_four() -> None:
    assert set(get_args(Verdict)) == {"backdoor", "suspect", "none-found", "incomplete"}


@pytest.mark.parametrize(
    "text",
    [
        "the model is safe",
        "this looks completely clean",
        "Verdict: clean",
        "a clean model",
        "safe to deploy",
        "no backdoor found",
        "backdoor-free",
        "\u2713 passed",
        "\U0001f512 locked",
    ],
)
def test_promises_are_seen(text: str) -> None:
    assert BANNED.search(text)


@pytest.mark.parametrize(
    "text",
    ["no evidence found by 1 of 2 methods", "model.safetensors", "clean accuracy", "the clean twin", "a 3x3 patch"],
)
def test_terms_of_the_field_are_allowed(text: str) -> None:
    assert not BANNED.search(text)
