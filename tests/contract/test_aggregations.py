"""One table for all rules that aggregate clients' updates, and one for the clients that attack."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contract_case import Case, by_id, check_class, disagreements

from ostiary.core.protocols import AggregationRule
from ostiary.core.run import Run
from ostiary.federated.attacks.sight import DataPoison, Hooks, Sight, UpdateAttack, joined
from ostiary.federated.layout import Layout
from ostiary.federated.network import Network
from ostiary.federated.verdict import Context

CASES = (
    Case(id="aggregate.guard", tiny={"gain": 1.0, "trusted": 0.0, "longest": 1.0}),
    Case(id="aggregate.rfa"),
    Case(id="aggregate.norm-clip", tiny={"noise": 0.01}),
    Case(id="aggregate.fltrust"),
    Case(id="aggregate.flame"),
    Case(id="aggregate.flame-updates"),
    Case(id="aggregate.rlr"),
    Case(id="aggregate.foolsgold"),
    Case(id="aggregate.fldetector", tiny={"window": 2}),
    Case(id="aggregate.deepsight", tiny={"samples": 20, "draws": 1}),
    Case(id="aggregate.nnm"),
    Case(id="aggregate.bucketing"),
    Case(id="aggregate.flower", tiny={"declared": 1}),
)
ATTACKS = (
    Case(id="client-attack.badnets"),
    Case(id="client-attack.blended"),
    Case(id="client-attack.dba"),
    Case(id="client-attack.edge-case"),
    Case(id="client-attack.label-flip"),
    Case(id="client-attack.model-replacement"),
    Case(id="client-attack.constrain-and-scale"),
    Case(id="client-attack.pgd"),
    Case(id="client-attack.neurotoxin"),
    Case(id="client-attack.neurotoxin-gradient"),
)
NETWORK = Network(inputs=4, hidden=5, classes=3)
N = 9


def updates() -> np.ndarray:
    """Nine updates that go much the same way, of different lengths."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=NETWORK.size) + rng.normal(size=(N, NETWORK.size))) * rng.uniform(0.5, 2, (N, 1))


def context(order: np.ndarray | None = None) -> Context:
    """All that a server may know."""
    weights = NETWORK.fresh(np.random.default_rng(1))
    names = [f"c{i}" for i in (range(N) if order is None else order)]
    return Context(
        clients=tuple(names),
        weights=weights,
        shares=np.full(N, 1 / N),
        round=1,
        root=lambda: updates().mean(0),
        probe=NETWORK.probabilities,
        input_shape=(4,),
        head=Layout.of(NETWORK.tensors(weights)).head("head.weight", "head.bias"),
    )


def test_files_methods_and_rows_agree() -> None:
    assert disagreements("aggregate", CASES) == []
    assert disagreements("client-attack", ATTACKS) == []


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, AggregationRule)


@by_id(CASES)
def test_a_verdict_is_whole_repeatable_and_leaves_all_else_alone(case: Case) -> None:
    given, told, state = updates(), context(), torch.get_rng_state()
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - whether the global one is left alone
    found = case.build().aggregate(given, told, run=case.run())
    assert (np.random.get_state()[1] == before).all() and torch.equal(torch.get_rng_state(), state)  # noqa: NPY002
    assert (given == updates()).all() and (told.weights == context().weights).all()
    assert found.update.shape == told.weights.shape and found.update.dtype == np.float64
    assert len(found.reasons) == N and all(reason.text for reason in found.reasons)
    assert found.accepted.any() and found.weights.sum() == pytest.approx(1) and (found.weights >= 0).all()
    again = case.build().aggregate(given, context(), run=case.run())
    assert (again.update == found.update).all() and again.reasons == found.reasons


@by_id(tuple(case for case in CASES if case.id != "aggregate.bucketing"))  # whose buckets are drawn by place
def test_a_client_is_judged_whatever_its_place(case: Case) -> None:
    """Clip factors or rows that go by position and not by client would show here."""
    order = np.random.default_rng(2).permutation(N)
    one = case.build().aggregate(updates(), context(), run=case.run())
    other = case.build().aggregate(updates()[order], context(order), run=case.run())
    np.testing.assert_allclose(other.update, one.update, atol=1e-9)
    np.testing.assert_allclose(other.weights, one.weights[order], atol=1e-9)
    assert (other.accepted == one.accepted[order]).all()


@by_id(tuple(case for case in CASES if case.id != "aggregate.foolsgold"))  # which takes equal clients for one
def test_equal_updates_are_aggregated_to_themselves(case: Case) -> None:
    same = np.tile(updates()[0], (N, 1))
    told = replace(context(), root=lambda: same[0])
    rule = case.build(**({"noise": 0.0} if hasattr(case.build(), "noise") else {}))
    np.testing.assert_allclose(rule.aggregate(same, told, run=Run()).update, same[0], rtol=1e-6, atol=1e-9)


@by_id(ATTACKS)
def test_class_and_card_of_attacks(case: Case) -> None:
    check_class(case, DataPoison if hasattr(case.build(), "poison") else UpdateAttack)


@by_id(ATTACKS)
def test_an_attack_changes_copies_alone(case: Case) -> None:
    attack = case.build()
    if isinstance(attack, UpdateAttack):
        weights = np.linspace(-1, 1, 40)
        hooks = joined([attack.arm(Sight(weights, weights**2, lambda: weights**3, 0.5)), Hooks()])
        assert hooks.change is not None and hooks.project is not None and hooks.finish is not None
        gradient, moved, update = np.ones(40), weights + 1, np.ones(40)
        changed = (hooks.change(weights, gradient), hooks.project(moved), hooks.finish(update))
        assert (gradient == 1).all() and (moved == weights + 1).all() and (update == 1).all()
        before = (gradient, moved, update)
        assert any((one != two).any() for one, two in zip(before, changed, strict=True))
        return
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(60, 8, 8)), rng.integers(0, 10, 60)
    kept = x.copy(), y.copy()
    bad_x, bad_y = attack.poison(x, y, member=0)
    test_x, test_y = attack.test(x, y)
    assert (x == kept[0]).all() and (y == kept[1]).all()
    assert len(bad_x) == len(bad_y) > 0 and len(test_x) == len(test_y) > 0
    assert (test_y == attack.target).all() and bad_x.min() >= 0 and bad_x.max() <= 1
