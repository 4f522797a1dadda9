"""Needs and limits."""

import dataclasses
from typing import Any

import pytest

from ostiary.core.card import Access, Card, Have, Limit, Needs

ALL = Needs(access="gradients", modality="images", trusted_per_class=4, training_data=True, trigger=True)
HAVE = Have(access="gradients", modality="images", trusted_per_class=4, training_data=True, trigger=True)


@pytest.mark.parametrize(
    ("lack", "reason"),
    [
        ({"modality": "text"}, "works on images only, this is text"),
        ({"access": "probabilities"}, "needs model access 'gradients', has 'probabilities'"),
        ({"training_data": False}, "needs the training data"),
        ({"trigger": False}, "needs a trigger recovered by a scan"),
        ({"trusted_per_class": 3}, "needs 4 trusted samples per class (--trusted), the rarest class has 3"),
    ],
)
def test_the_unmet_need_is_named(lack: dict[str, Any], reason: str) -> None:
    assert ALL.unmet(HAVE) is None
    assert ALL.unmet(dataclasses.replace(HAVE, **lack)) == reason
    assert Needs().unmet(dataclasses.replace(HAVE, **lack)) is None


def test_more_access_meets_a_need_for_less() -> None:
    order: list[Access] = ["none", "labels", "probabilities", "gradients"]
    for i, need in enumerate(order):
        for j, have in enumerate(order):
            assert (Needs(access=need).unmet(Have(access=have)) is None) == (j >= i)


def test_any_modality() -> None:
    assert Needs(modality="any").unmet(Have(modality="text")) is None
    assert Needs(modality="text").unmet(Have(modality="text")) is None


@pytest.mark.parametrize(
    ("limit", "value", "meets"),
    [
        (Limit(measure="m", low=2.0), 2.0, True),
        (Limit(measure="m", low=2.0), 1.9, False),
        (Limit(measure="m", high=0.4), 0.4, True),
        (Limit(measure="m", high=0.4), 0.5, False),
        (Limit(measure="m", low=1.0, high=2.0), 1.5, True),
        (Limit(measure="m", low=1.0, high=2.0), 2.5, False),
        (Limit(measure="m", low=1.0), None, False),
        (Limit(measure="m"), None, False),
        (Limit(measure="m", low=1.0), float("nan"), False),
    ],
)
def test_limits_are_closed_and_never_met_by_what_was_not_measured(
    limit: Limit, value: float | None, meets: bool
) -> None:
    assert limit.meets(value) is meets


def test_verb_and_name_come_from_the_id() -> None:
    card = Card(id="text.scan.toy", summary="s", paper="p", needs=Needs(), cost="c")
    assert (card.verb, card.name) == ("scan", "toy")
    assert (dataclasses.replace(card, id="guard.strip").verb, card.marks) == ("guard", frozenset())
