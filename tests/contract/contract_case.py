"""What the contract tables share: a row per method, and the checks that need no data."""

import dataclasses
import inspect
import pkgutil
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from ostiary.core.card import FAMILIES, Card, Have
from ostiary.core.catalog import PACKAGES, make, method_class, methods
from ostiary.core.codes import CODES
from ostiary.core.execute import Outcome, execute
from ostiary.core.records import MethodResult
from ostiary.core.run import Run

EVERYTHING = Have(access="gradients", trusted_per_class=10**6, training_data=True, trigger=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One method in a table: its id, tiny settings, and a seed.

    `instant` methods are done before any deadline, `whole` ones measure the model and not its classes. Of `unordered`
    screeners the small model of the table shows an order on some machines alone; their conformance test does on all.
    """

    id: str
    instant: bool = False
    whole: bool = False
    unordered: bool = False
    tiny: dict[str, Any] = field(default_factory=dict)
    seed: int = 3

    @property
    def verb(self) -> str:
        return self.id.split(".")[-2]

    def build(self, **params: Any) -> Any:
        """The method with its tiny settings."""
        return make(self.verb, self.id, {**self.tiny, **params})

    def run(self) -> Run:
        return Run(seed=self.seed)


def by_id(cases: tuple[Case, ...]) -> Any:
    """Parametrise a test over a table."""
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


def disagreements(verb: str, cases: tuple[Case, ...]) -> list[str]:
    """What to add where the files of a package, its METHODS and its contract table do not agree."""
    package = import_module(PACKAGES[verb])
    listed, rows = dict(package.METHODS), {case.id for case in cases}
    found = []
    carded: set[str] = set()
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for name, cls in inspect.getmembers(import_module(info.name), inspect.isclass):
            if cls.__module__ != info.name or not isinstance(cls.__dict__.get("card"), Card):
                continue
            carded.add(cls.card.id)
            if cls.card.id not in listed:
                found.append(f'add "{cls.card.id}": "{info.name}:{name}" to METHODS in {package.__name__}')
    for key in listed:
        if key not in carded:
            found.append(f"remove '{key}' from METHODS in {package.__name__}: no file carries its card")
        if key not in rows:
            found.append(f"add a row Case(id='{key}', ...) to the table of tests/contract for '{verb}'")
    return found + [f"remove the row '{key}': {package.__name__} has no such method" for key in rows - set(listed)]


def check_class(case: Case, protocol: Any) -> None:
    """A frozen dataclass that needs no argument, follows its protocol and has a complete card."""
    cls = method_class(case.verb, case.id)
    method = cls()
    assert isinstance(method, protocol), f"{case.id} does not follow {protocol.__name__}"
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen, f"{case.id}: @dataclass(frozen=True)"
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        method.card = None
    card: Card = cls.card
    assert card.id == case.id and card.id.removeprefix("text.").startswith(f"{case.verb}.")
    assert methods(case.verb)[card.id].endswith(f":{cls.__name__}")
    missing = [name for name in ("summary", "paper", "cost", "version") if not getattr(card, name)]
    assert not missing, f"{case.id}: its card lacks {', '.join(missing)}"
    if case.verb not in ("aggregate", "client-attack"):  # these take flat updates, of whatever model
        assert card.needs.modality != "any", f"{case.id}: its card must say which modality it works on"
    if case.verb not in ("attack", "perturb", "benign", "client-attack"):
        assert card.blind_spots, f"{case.id}: a defence must name its blind spots"
    if card.families:
        assert case.verb == "scan", f"{case.id}: only scans say which families they look for"
        assert set(card.families) <= set(FAMILIES[card.needs.modality]), f"{case.id}: a family of another modality"
    if card.code:
        assert card.id in CODES[card.code].method, f"{card.code} must name {card.id} as its method"
    assert bool(card.limits) <= bool(card.code), f"{case.id}: limits make findings, and findings need a code"
    assert inspect.getdoc(cls), f"{case.id}: no docstring"


def check_skips(case: Case, *subjects: Any, call: str | None = None) -> None:
    """With nothing at hand the method is skipped with a reason and never called."""
    outcome = execute(case.build(), *subjects, run=case.run(), have=Have(access="none", modality="text"), call=call)
    assert outcome.result.status == "skipped"
    assert outcome.result.reason == "works on images only, this is text"
    assert outcome.value is None and outcome.result.evidence is None and outcome.result.findings == ()
    poor = dataclasses.replace(EVERYTHING, access="none", trusted_per_class=0, training_data=False)
    again = execute(case.build(), *subjects, run=case.run(), have=poor, call=call).result
    assert again.status == "skipped" and again.reason and again.reason.startswith("needs ")


def check_json(result: MethodResult) -> None:
    """The result survives JSON unchanged."""
    text = result.model_dump_json()
    assert MethodResult.model_validate_json(text).model_dump_json() == text


def ok(outcome: Outcome) -> Any:
    """The outcome's value or evidence; fails with the method's own reason."""
    assert outcome.result.status == "ok", outcome.result.reason
    return outcome.value


def same_arrays(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Same names, same bytes."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)
