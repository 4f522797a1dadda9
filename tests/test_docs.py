"""The pages hold: the example method works as it stands there, and links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

from ostiary.core.card import Have
from ostiary.core.execute import execute
from ostiary.core.protocols import ModelScanner
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    file = tmp_path / "weight_norm.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("weight_norm", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    method = module.WeightNorm()
    model = TorchClassifier(build("small-cnn", 10, width=8), 10, (3, 16, 16))
    outcome = execute(method, model, None, run=Run(), have=Have(access="gradients"), classes=model.classes)
    assert isinstance(method, ModelScanner)
    assert outcome.result.status == "ok", outcome.result.reason
    assert isinstance(outcome.result.evidence, ModelEvidence)
    assert len(outcome.result.examined) == 10
    head = model.module.get_submodule(model.head_name)
    longest = max(range(10), key=lambda label: float(next(head.parameters()).detach()[label].norm()))
    top = max(outcome.result.evidence.per_class, key=lambda row: row.score or 0.0)
    assert top.label == longest
    assert method.card.id in TEXT.split("```")[2], "the line for METHODS and the row name the card's id"


PAGES = (
    "architecture",
    "cli",
    "metrics",
    "conformance",
    "scan",
    "screen",
    "harden",
    "repair",
    "text",
    "bom",
    "ci",
    "federated",
)


@pytest.mark.parametrize("page", [f"{name}.md" for name in PAGES])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    file = Path(__file__).parents[1] / "docs" / page
    for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), f"{page} links to {target}"
