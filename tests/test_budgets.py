"""Budgets of the source: length of files and functions, depth of nesting, docstrings on all that is public."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE_LINES, OTHER_LINES = 400, 600
FUNCTION_LINES = 80
NESTING = 4

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


def sources() -> list[Path]:
    return sorted((ROOT / "src" / "ostiary").rglob("*.py"))


def parsed() -> Iterator[tuple[str, ast.Module]]:
    for path in sources():
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def depth(node: ast.AST) -> int:
    """How many blocks stand inside each other below `node`; elif is no deeper, an inner function counts for itself."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.Lambda | ast.ClassDef):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, depth(child) + (isinstance(child, BLOCKS) and not is_elif))
    return deepest


def is_stub(node: Function) -> bool:
    only = node.body[0]
    return len(node.body) == 1 and isinstance(only, ast.Expr) and getattr(only.value, "value", None) is ...


def undocumented(scope: ast.Module | ast.ClassDef, name: str) -> Iterator[str]:
    """The public things of a module or class that have no docstring; stubs of a protocol need none."""
    if ast.get_docstring(scope) is None:
        yield name
    for node in scope.body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        inner = f"{name}:{node.lineno} {node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node, inner)
        elif ast.get_docstring(node) is None and not is_stub(node):
            yield inner


def test_files_are_short() -> None:
    others = [path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")]
    limits = dict.fromkeys(sources(), SOURCE_LINES) | dict.fromkeys(others, OTHER_LINES)
    counted = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in limits}
    long = [f"{path.relative_to(ROOT)}: {n} lines" for path, n in counted.items() if n > limits[path]]
    assert counted
    assert not long, "\n".join(["over the budget:", *long])


def test_functions_are_short() -> None:
    found = [
        f"{name}:{node.lineno} {node.name}: {lines} lines"
        for name, tree in parsed()
        for node in functions(tree)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not found, "\n".join([f"longer than {FUNCTION_LINES} lines:", *found])


def test_nesting_is_shallow() -> None:
    found = [
        f"{name}:{node.lineno} {node.name}: {deep} deep"
        for name, tree in parsed()
        for node in functions(tree)
        if (deep := depth(node)) > NESTING
    ]
    assert not found, "\n".join([f"nested deeper than {NESTING}:", *found])


def test_everything_public_has_a_docstring() -> None:
    found = [line for name, tree in parsed() for line in undocumented(tree, name)]
    assert not found, "\n".join(["no docstring:", *found])


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("pass", 0),
        ("if a:\n  pass\nelif b:\n  pass\nelse:\n  pass", 1),
        ("for a in b:\n  try:\n    pass\n  except OSError:\n    with c:\n      pass", 3),
        ("if a:\n  def inner():\n    if b:\n      pass", 1),
    ],
)
def test_depth_counts_blocks(text: str, deep: int) -> None:
    assert depth(ast.parse(text)) == deep


def test_undocumented_sees_methods_but_no_stubs() -> None:
    text = "class A:\n  'doc'\n  def f(self):\n    return 1\n  def g(self): ...\n  def _h(self):\n    return 2\n"
    assert list(undocumented(ast.parse(text), "m")) == ["m", "m:1 A:3 f"]


def test_no_two_files_of_tests_have_one_name() -> None:
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(set(names)) == len(names), "pytest imports them by name: two of one name cannot run together"
