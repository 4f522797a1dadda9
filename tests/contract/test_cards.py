"""Ids are unique across packages, and the tables' own checks can fail."""

from typing import ClassVar

import pytest
from contract_case import Case, check_class, disagreements

from ostiary.core import catalog
from ostiary.core.card import Card, Needs
from ostiary.core.catalog import PACKAGES, method_class, methods
from ostiary.core.codes import CODES
from ostiary.core.protocols import ModelScanner


def test_an_id_belongs_to_one_package() -> None:
    every = [key for verb in PACKAGES for key in methods(verb)]
    assert len(every) == len(set(every)) and len(every) >= 9
    for verb in PACKAGES:
        for key in methods(verb):
            assert key.split(".")[-2] == verb
            assert method_class(verb, key).card.id == key


def test_codes_of_cards_are_known() -> None:
    used = {method_class(verb, key).card.code for verb in PACKAGES for key in methods(verb)} - {""}
    assert used <= set(CODES)


def test_disagreements_say_what_to_add(monkeypatch: pytest.MonkeyPatch) -> None:
    import ostiary.guard

    rows = tuple(Case(id=key) for key in ostiary.guard.METHODS)
    assert disagreements("guard", rows) == []
    assert disagreements("guard", tuple(row for row in rows if row.id != "guard.strip")) == [
        "add a row Case(id='guard.strip', ...) to the table of tests/contract for 'guard'"
    ]
    assert disagreements("guard", (*rows, Case(id="guard.gone"))) == [
        "remove the row 'guard.gone': ostiary.guard has no such method"
    ]
    monkeypatch.setattr(ostiary.guard, "METHODS", {})
    assert 'add "guard.strip": "ostiary.guard.strip:Strip" to METHODS in ostiary.guard' in disagreements("guard", ())


def test_a_thawed_or_half_described_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        card: ClassVar[Card] = Card(id="scan.bare", summary="", paper="p", needs=Needs(modality="images"), cost="c")

        def scan(self, model: object, trusted: object, /, *, run: object) -> None: ...

    monkeypatch.setattr("contract_case.method_class", lambda verb, name: Bare)
    with pytest.raises(AssertionError, match="frozen=True"):
        check_class(Case(id="scan.bare"), ModelScanner)
    assert catalog.method_class is not None
