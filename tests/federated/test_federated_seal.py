"""Rules cannot see the attacks: every module of the package stands in the import contract; codes are told."""

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ostiary.federated
from ostiary.core.catalog import method_class, methods
from ostiary.core.codes import CODES
from ostiary.core.federated_codes import FEDERATED_CAUTIONS, FEDERATED_REFUSALS

ROOT = Path(__file__).parents[2]


def test_every_module_stands_in_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (ours,) = [one for one in contracts if "federated learning" in one["name"]]
    modules = [info.name for info in pkgutil.iter_modules(ostiary.federated.__path__) if not info.ispkg]
    assert ours["source_modules"] == [f"ostiary.federated.{name}" for name in modules]
    assert "ostiary.federated.attacks" in ours["forbidden_modules"]
    everywhere = [one for one in contracts if one["name"].startswith("Truth is sealed")]
    assert len(everywhere) == 2 and all("ostiary.federated.attacks" in one["forbidden_modules"] for one in everywhere)


def test_a_sealed_process_runs_rules_and_no_attacks() -> None:
    code = """
from ostiary.core.catalog import make, methods
from ostiary.core.errors import SealBroken
from ostiary.core.seal import close_seal
close_seal()
for name in methods("aggregate"):
    make("aggregate", name)
import ostiary.federated.rounds
try:
    import ostiary.federated.attacks.study
except SealBroken as error:
    print("held", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith("held"), done.stderr


@pytest.mark.parametrize("code", [*FEDERATED_REFUSALS, *FEDERATED_CAUTIONS], ids=lambda code: code.id)
def test_a_code_is_known_in_its_range_and_tried_by_a_test(code: object) -> None:
    name = code.id  # type: ignore[attr-defined]
    assert CODES[name] is code
    number = int(name.removeprefix("OS"))
    assert 501 <= number <= 549 or 926 <= number <= 939
    tests = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert f'"{name}"' in tests


def test_codes_name_rules_that_are_there() -> None:
    known = set(methods("aggregate"))
    named = {
        word.strip(",") for code in FEDERATED_REFUSALS for word in code.method.split() if word.startswith("aggregate.")
    }
    assert named and named <= known
    assert all(method_class("aggregate", key).card.id == key for key in known)
