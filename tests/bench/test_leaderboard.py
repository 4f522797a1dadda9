"""Every figure of the leaderboard against hand-made rows."""

import math
import random
from typing import Any

import numpy as np
import pytest
from made_rows import ASR, before, rate, repaired, row

from ostiary.attacks import METHODS
from ostiary.bench import bootstrap, leaderboard
from ostiary.bench.bootstrap import auroc, mean
from ostiary.bench.entries import Board
from ostiary.bench.leaderboard import bar, detections, models, repairs, scans, short_of_bar
from ostiary.core.catalog import method_class
from ostiary.core.records import Rate

TWIN = row(kind="twin", rates={"accuracy": 100})


def skip(**fields: Any) -> dict[str, Any]:
    return row("repair.ft", status="skipped", reason="needs a trigger", method_seconds=0.0, **fields)


def only(found: tuple[Any, ...]) -> Any:
    assert len(found) == 1
    return found[0]


def implanted(acc: float, asr: float | None, twin: tuple[float, float], **fields: Any) -> bool | None:
    entry = Board.of([before(acc, asr, twin=twin, **fields)]).entries[0]
    short = short_of_bar(entry)
    return None if short is None else not short


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acc", "asr", "twin", "expected"),
    [
        (98, 95, (100, 20), True),  # all three at their limits
        (97, 95, (100, 20), False),
        (98, 94, (100, 20), False),
        (98, 95, (100, 21), False),
        (99, 100, (97, 1), True),  # better than the twin
        (98, None, (100, 0), None),  # an attack without trigger
    ],
)
def test_the_bar_of_a_dirty_label_attack(acc, asr, twin, expected):
    assert implanted(acc, asr, twin) is expected


@pytest.mark.parametrize(
    ("method", "params", "loss", "success"),
    [
        ("attack.badnets", {"mapping": "all-to-one"}, 2, 95),
        ("attack.sig", {"mapping": "clean-label"}, 3, 80),
        ("attack.sig", {"mapping": "all-to-one"}, 2, 95),
        ("attack.label-consistent", {}, 3, 80),
        ("attack.wanet", {"mapping": "all-to-one"}, 2, 80),
        ("attack.adaptive-blend", {"mapping": "all-to-one"}, 2, 80),
        ("attack.adaptive-patch", {"mapping": "all-to-one"}, 2, 80),
    ],
)
def test_each_kind_of_attack_has_its_bar(method, params, loss, success):
    found = bar(Board.of([before(99, 99, method=method, params=params)]).entries[0].treatment)
    assert (100 * found.loss, 100 * found.success, 100 * found.twin_success) == (loss, success, 20)


def test_every_clean_label_attack_has_the_clean_label_bar():
    """A map that is fixed by the class is in no parameter, so the leaderboard must know the attack."""
    fixed = {name for name in METHODS if getattr(method_class("attack", name), "mapping", "") == "clean-label"}
    assert {"attack.label-consistent", "attack.narcissus"} <= fixed
    for name in fixed:
        assert bar(Board.of([before(99, 99, method=name, params={})]).entries[0].treatment).success == 0.8


def test_models_that_did_not_implant_are_named_with_the_reason():
    rows = [before(99, 99), before(96, 40, seed=1, twin=(100, 30)), row(seed=2, status="timeout", reason="too long")]
    found = only(models(Board.of(rows)))
    assert (found.implanted.k, found.implanted.n) == (1, 2)
    [(model, why)] = found.short
    assert str(model) == "badnets 10 % seed 1"
    assert why == ("accuracy 4.0 points below the twin's", "ASR 40.0 %, below 95 %", "the twin's ASR 30.0 %")
    assert [str(one) for one in found.failed] == ["badnets 10 % seed 2"]
    assert found.accuracy.value == pytest.approx(0.975) and found.accuracy.n == 2
    assert found.success.value == pytest.approx(0.695)
    assert found.twin_success.value == pytest.approx(0.155)
    assert found.seeds == (0, 1, 2)


def test_rates_and_kinds_are_rows_of_their_own():
    rows = [
        before(99, 99),
        before(99, 99, rate=0.01),
        TWIN,
        row(kind="benign", rates={"accuracy": 97, "twin accuracy": 99}),
    ]
    found = {str(one.treatment): one for one in models(Board.of(rows))}
    assert set(found) == {"badnets 10 %", "badnets 1 %", "twin", "mixup"}
    assert found["twin"].implanted.n == found["mixup"].implanted.n == 0
    assert found["twin"].success.value is None
    assert found["mixup"].twin_accuracy.value == pytest.approx(0.99)


# --- repairs --------------------------------------------------------------------------------------


def test_repairs_by_hand():
    """Three working backdoors, of which two are solved; a fourth does not work and counts nowhere."""
    rows = [
        before(98, 100), repaired(97, 4),  # DER (0.96 - 0.01 + 1) / 2
        before(98, 90, seed=1), repaired(99, 9, seed=1),  # DER (0.81 + 1) / 2
        before(98, 60, seed=2), repaired(95, 9, seed=2),  # exactly 3 points lost: not solved; DER (0.51 - 0.03 + 1) / 2
        before(98, 50, seed=3), repaired(98, 0, seed=3),
    ]  # fmt: skip
    found = only(repairs(Board.of(rows)))
    assert found.effectiveness.value == pytest.approx(100 * (0.975 + 0.905 + 0.74) / 3)
    assert (found.solved.k, found.solved.n) == (2, 3)
    assert found.solved == Rate(k=2, n=3)
    assert found.accuracy.value == pytest.approx(0.97) and found.accuracy.n == 3
    assert found.success.value == pytest.approx(0.22 / 3)
    assert found.robust.value == pytest.approx((0.86 + 0.81 + 0.81) / 3)
    assert found.reactivated.value == pytest.approx(0.40)
    assert found.twin_reactivated.value == pytest.approx(0.05)
    assert [str(one) for one in found.counted.weak] == ["badnets 10 % seed 3"]
    assert found.counted.seconds == 3.0 and found.counted.peak_bytes == 2**28
    assert found.counted.defence.trusted == 10


def test_a_success_of_ten_percent_is_not_below_it():
    found = only(repairs(Board.of([before(98, 100), repaired(98, 10)])))
    assert (found.solved.k, found.solved.n) == (0, 1)


def test_a_skipped_repair_leaves_the_model_and_solves_nothing():
    rows = [before(98, 100), repaired(98, 0), before(96, 80, seed=1), skip(seed=1)]
    found = only(repairs(Board.of(rows)))
    assert (found.solved.k, found.solved.n) == (1, 2)
    assert found.effectiveness.value == pytest.approx((100 + 50) / 2)
    assert found.success.value == pytest.approx(0.40)
    assert found.accuracy.value == pytest.approx(0.97)
    assert found.robust.value == pytest.approx((0.90 + 0.20) / 2)
    assert [str(one) for one in found.counted.skipped] == ["badnets 10 % seed 1"]
    assert found.counted.failed == ()
    # what the model would do after tuning was not measured
    assert found.reactivated.n == found.twin_reactivated.n == 1
    assert found.counted.seconds == 3.0


@pytest.mark.parametrize("status", ["failed", "timeout", "memory", "crashed", "blocked", "partial"])
def test_failures_are_counted_and_in_no_mean(status):
    rows = [
        before(98, 100),
        repaired(98, 0),
        before(96, 80, seed=1),
        row("repair.ft", seed=1, status=status, reason="why"),
    ]
    found = only(repairs(Board.of(rows)))
    assert (found.solved.k, found.solved.n) == (1, 1)
    assert found.success.value == 0.0 and found.success.n == 1
    assert [(str(one), one.status, one.reason) for one in found.counted.failed] == [
        ("badnets 10 % seed 1", status, "why")
    ]
    assert len(found.counted.entries) == 2


def test_a_repair_of_a_model_that_was_not_measured_cannot_be_judged():
    rows = [row(status="timeout", reason="too long"), repaired(98, 0)]
    found = only(repairs(Board.of(rows)))
    assert found.solved.n == 0 and found.effectiveness.value is None
    assert [one.reason for one in found.counted.failed] == ["the model itself was not measured"]


def test_losses_on_twins_and_hard_benign_models_are_apart():
    rows = [
        TWIN, row("repair.ft", kind="twin", rates={"accuracy": 98}),
        row(kind="twin", seed=1, rates={"accuracy": 96}), skip(kind="twin", seed=1),
        row(kind="benign", rates={"accuracy": 90}), row("repair.ft", kind="benign", rates={"accuracy": 93}),
    ]  # fmt: skip
    found = only(repairs(Board.of(rows)))
    assert found.loss_twins.value == pytest.approx(0.01) and found.loss_twins.n == 2
    assert found.loss_benign.value == pytest.approx(-0.03) and found.loss_benign.n == 1
    assert found.solved.n == 0


def test_by_treatment_each_rate_has_its_row():
    rows = [before(98, 100), repaired(98, 0), before(98, 100, rate=0.01), repaired(98, 90, rate=0.01)]
    found = {str(one.counted.treatment): one for one in repairs(Board.of(rows), by_treatment=True)}
    assert {name: (one.solved.k, one.solved.n) for name, one in found.items()} == {
        "badnets 10 %": (1, 1),
        "badnets 1 %": (0, 1),
    }


def test_budgets_parameters_data_and_roles_are_never_mixed():
    base = [before(98, 100, data="b"), before(98, 100), before(98, 100, role="develop")]
    others: list[dict[str, Any]] = [
        {}, {"trusted": 20}, {"source": "shifted"}, {"defence_params": {"lr": 0.1}}, {"data": "b"}, {"role": "develop"},
    ]  # fmt: skip
    found = repairs(Board.of([*base, *(repaired(98, number, **other) for number, other in enumerate(others))]))
    assert len(found) == 6
    assert all(one.success.n == 1 for one in found)


def test_the_order_of_rows_does_not_matter():
    rows = [one for seed in range(6) for one in (before(98, 100, seed=seed), repaired(97, 3 * seed, seed=seed))]
    first = repairs(Board.of(rows))
    random.Random(1).shuffle(rows)  # noqa: S311 - no secret
    assert repairs(Board.of(rows)) == first


# --- scans ----------------------------------------------------------------------------------------


def scan(found: bool, score: float, *, target: bool | None = None, **fields: Any) -> dict[str, Any]:
    measures = {"found": float(found), "confirmed": 0.0, "score": score}
    measures |= {} if target is None else {"target found": float(target)}
    return row("scan.nc", measures=measures | fields.pop("more", {}), **fields)


def scan_rows() -> list[dict[str, Any]]:
    twins = [row(kind="twin", seed=seed, rates={"accuracy": 99}) for seed in range(3)]
    return [
        before(98, 100), scan(True, 5.0, target=True),
        before(98, 100, seed=1), scan(True, 2.0, target=False, seed=1),
        before(98, 100, seed=2), scan(False, 1.0, target=False, seed=2),
        before(98, 30, seed=3), scan(True, 9.0, target=True, seed=3),
        *twins, scan(False, 0.0, kind="twin"), scan(True, 2.0, kind="twin", seed=1),
        row("scan.nc", kind="twin", seed=2, status="partial", reason="cut", measures={"found": 0.0}),
        row(kind="benign", rates={"accuracy": 99}), scan(True, 3.0, kind="benign"),
    ]  # fmt: skip


def test_scans_by_hand():
    found = only(scans(Board.of(scan_rows())))
    assert (found.found.k, found.found.n) == (2, 3)
    assert (found.target_found.k, found.target_found.n) == (1, 3)
    assert (found.false_twins.k, found.false_twins.n) == (1, 2)
    assert (found.false_benign.k, found.false_benign.n) == (1, 1)
    assert found.auroc_twins.value == pytest.approx((2 + 1.5 + 1) / 6)  # the tie counts half
    assert found.auroc_benign.value == pytest.approx(1 / 3)
    assert found.cross_entropy.n == found.brier.n == 0 and found.brier.value is None
    assert [str(one) for one in found.counted.failed] == ["twin seed 2"]
    assert [str(one) for one in found.counted.weak] == ["badnets 10 % seed 3"]


def test_probabilities_are_judged_by_proper_scores():
    rows = [
        before(98, 100), scan(True, 1.0, more={"probability": 0.8}),
        TWIN, scan(False, 0.0, kind="twin", more={"probability": 0.4}),
        row(kind="benign", rates={"accuracy": 99}), scan(False, 0.0, kind="benign", more={"probability": 1.0}),
    ]  # fmt: skip
    found = only(scans(Board.of(rows)))
    assert found.brier.value == pytest.approx((0.04 + 0.16 + 1.0) / 3) and found.brier.n == 3
    wrong = -math.log(leaderboard.CLIP)
    assert found.cross_entropy.value == pytest.approx((-math.log(0.8) - math.log(0.6) + wrong) / 3)


def test_a_scan_by_treatment_is_ranked_against_the_same_twins():
    found = {str(one.counted.treatment): one for one in scans(Board.of(scan_rows()), by_treatment=True)}
    assert found["badnets 10 %"].auroc_twins.value == pytest.approx(0.75)
    assert found["twin"].auroc_twins.value is None and found["twin"].found.n == 0
    assert (found["twin"].false_twins.k, found["twin"].false_twins.n) == (1, 2)


# --- screens and guards ---------------------------------------------------------------------------


def flags(method: str, false: tuple[int, int], true: tuple[int, int] | None = None, **fields: Any) -> dict[str, Any]:
    rates = {"false positive rate": rate(*false)} | ({} if true is None else {"true positive rate": rate(*true)})
    measures = {"unscored": 1.0} | ({} if true is None else {"AUROC": 0.9, "AP": 0.5})
    return row(method, rates=rates, measures=measures, **fields)


def sample_rows(method: str) -> list[dict[str, Any]]:
    return [
        before(98, 100), flags(method, (10, 100), (10, 10)),
        before(98, 100, seed=1), flags(method, (0, 300), (15, 30), seed=1),
        before(98, 20, seed=2), flags(method, (0, 100), (0, 10), seed=2),
        TWIN, flags(method, (5, 100), kind="twin"),
        row(kind="benign", rates={"accuracy": 99}), flags(method, (50, 100), kind="benign"),
        row(method, kind="benign", seed=1, status="skipped", reason="needs more"),
    ]  # fmt: skip


def test_guards_count_working_backdoors():
    found = only(detections(Board.of(sample_rows("guard.strip")), "guard"))
    assert found.true_positive.value == pytest.approx(0.75) and found.true_positive.n == 2
    assert found.true_positive_pooled == Rate(k=25, n=40)
    assert found.false_positive.value == pytest.approx(0.05)
    assert found.false_positive_pooled == Rate(k=10, n=400)
    assert (found.auroc.value, found.precision.value) == (pytest.approx(0.9), pytest.approx(0.5))
    assert found.false_twins.value == pytest.approx(0.05) and found.false_twins_pooled == Rate(k=5, n=100)
    assert found.false_benign.value == pytest.approx(0.5) and found.false_benign_pooled == Rate(k=50, n=100)
    assert found.unscored == 4
    assert len(found.counted.weak) == 1 and len(found.counted.skipped) == 1


def test_screens_count_every_poisoned_set():
    found = only(detections(Board.of(sample_rows("screen.ac")), "screen"))
    assert found.true_positive.value == pytest.approx(0.5) and found.true_positive.n == 3
    assert found.counted.weak == ()


# --- intervals ------------------------------------------------------------------------------------


def test_a_mean_leaves_out_what_was_not_measured():
    assert mean([None, None]) == bootstrap.NOTHING
    assert mean([]) == bootstrap.NOTHING
    found = mean([0.2, None, 0.4])
    assert found.value == pytest.approx(0.3) and found.n == 2


def test_one_model_has_no_interval():
    found = mean([0.7])
    assert (found.value, found.low, found.high, found.n) == (0.7, None, None, 1)
    assert auroc([1.0], [0.0, 0.5]).low is None


def test_the_interval_of_a_mean_agrees_with_theory():
    values = np.random.default_rng(3).normal(0.5, 0.1, 400).tolist()
    found = mean(values)
    half = 1.96 * float(np.std(values)) / 20
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)
    assert mean(values) == found


def test_equal_values_have_an_empty_interval():
    found = mean([0.1] * 7)
    assert found.low == pytest.approx(0.1) == found.high
    assert found.low <= found.value <= found.high


def test_auroc_by_hand():
    assert auroc([3.0, 1.0], [2.0, 0.0]).value == 0.75
    assert auroc([], [1.0]) == bootstrap.NOTHING
    flat = auroc([1.0] * 5, [1.0] * 4)
    assert (flat.value, flat.low, flat.high, flat.n) == (0.5, 0.5, 0.5, 9)
    rng = np.random.default_rng(0)
    alike = auroc(rng.normal(size=60).tolist(), rng.normal(size=60).tolist())
    assert alike.low is not None and alike.high is not None and alike.low < 0.5 < alike.high


def test_nothing_at_all():
    board = Board.of([])
    assert models(board) == repairs(board) == scans(board) == detections(board, "guard") == ()


def test_success_is_taken_from_the_model_of_the_same_key():
    rows = [before(98, 100), before(98, 20, seed=1), repaired(98, 20, seed=1)]
    found = only(repairs(Board.of(rows)))
    assert found.solved.n == 0 and [str(one) for one in found.counted.weak] == ["badnets 10 % seed 1"]
    assert ASR in found.counted.weak[0].rates
