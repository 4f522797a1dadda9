"""Attack success, robust accuracy, DER and 'solved' against counts made by hand."""

import pytest
import torch
from torch import Tensor

from ostiary.attacks.triggers import StampTrigger
from ostiary.attacks.truth import Mapping, Truth
from ostiary.bench import metrics
from ostiary.bench.metrics import attack_rates, defence_effectiveness, quantised, solved
from ostiary.core.run import Run
from ostiary.data import ArraySet

LABELS = [0, 0, 1, 1, 2, 2, 2, 3]
MARK = 1.0


class Scripted:
    """Answers by a sample's number, which its first pixel holds; it notes whether the mark is on."""

    classes = ("0", "1", "2", "3")
    digest = "scripted"

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers
        self.asked: list[int] = []

    def predict(self, x: Tensor, /) -> Tensor:
        assert (x[:, :, -1, -1] == MARK).all(), "an item was judged without the trigger"
        rows = (x[:, 0, 0, 0] * 255).round().long().tolist()
        self.asked += rows
        return torch.nn.functional.one_hot(torch.tensor([self.answers[row] for row in rows]), 4).float()


@pytest.fixture
def items() -> ArraySet:
    pixels = torch.zeros(len(LABELS), 1, 4, 4, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(len(LABELS))
    return ArraySet(pixels, LABELS, classes=("0", "1", "2", "3"))


def truth(mapping: Mapping = "all-to-one", target: int = 0) -> Truth:
    mask, pattern = torch.zeros(4, 4), torch.ones(1, 4, 4)
    mask[-1, -1] = 1
    return Truth(
        attack="attack.badnets", params={}, mapping=mapping, target=target, source=1,
        classes=("0", "1", "2", "3"), seed=0, rate=0.1, source_digest="", poisoned={}, covers=(),
        trigger=StampTrigger(mask, pattern),
    )  # fmt: skip


@pytest.mark.parametrize("batch", [3, 256])
def test_items_of_the_target_class_do_not_count(items: ArraySet, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Of six items outside class 0: four go to 0, one stays right, one goes wrong elsewhere."""
    monkeypatch.setattr(metrics, "BATCH", batch)
    model = Scripted([0, 0, 0, 1, 0, 0, 3, 0])
    found = attack_rates(model, items, truth(), run=Run())
    assert sorted(model.asked) == [2, 3, 4, 5, 6, 7]
    assert (found.success.k, found.success.n) == (4, 6)
    assert (found.robust.k, found.robust.n) == (1, 6)


def test_all_to_all_counts_every_item_and_the_next_class(items: ArraySet) -> None:
    model = Scripted([1, 0, 2, 1, 3, 3, 2, 0])
    found = attack_rates(model, items, truth("all-to-all"), run=Run())
    assert (found.success.k, found.success.n) == (5, 8)
    assert (found.robust.k, found.robust.n) == (3, 8)


def test_source_specific_counts_the_source_and_apart_from_it_the_others(items: ArraySet) -> None:
    """Source 1, target 0: one of two ones turns, and one of the four twos and threes strays."""
    model = Scripted([0, 0, 1, 0, 2, 3, 3, 0])
    found = attack_rates(model, items, truth("source-specific"), run=Run())
    assert sorted(model.asked) == [2, 3, 4, 5, 6, 7], "items of the target class are not asked"
    assert (found.success.k, found.success.n) == (1, 2) and (found.robust.k, found.robust.n) == (1, 2)
    assert found.false_trigger is not None and (found.false_trigger.k, found.false_trigger.n) == (1, 4)


def test_only_items_of_the_target_leave_no_rate(items: ArraySet) -> None:
    found = attack_rates(Scripted([0] * 8), items.subset([0, 1]), truth(), run=Run())
    assert found.success.n == 0 and found.success.value is None


def test_success_and_robustness_never_exceed_one_together(items: ArraySet) -> None:
    for answer in range(4):
        found = attack_rates(Scripted([answer] * 8), items, truth(), run=Run())
        assert found.success.k + found.robust.k <= found.success.n


def test_triggered_items_have_8_bits() -> None:
    assert quantised(torch.tensor([[[[0.1, 0.5, 1.0]]]])).mul(255).flatten().tolist() == pytest.approx([26, 128, 255])


@pytest.mark.parametrize(
    ("success", "accuracy", "der"),
    [
        ((1.0, 1.0), (0.9, 0.9), 50.0),  # nothing done
        ((1.0, 0.0), (0.9, 0.9), 100.0),
        ((1.0, 0.0), (0.9, 0.8), 95.0),  # a loss lowers it; with the sign wrong it would be 105
        ((1.0, 1.0), (0.9, 0.5), 30.0),
        ((0.2, 0.9), (0.9, 0.9), 50.0),  # a rise of ASR counts as no drop
        ((1.0, 0.0), (0.8, 0.9), 100.0),  # a gain of accuracy counts as no loss
    ],
)
def test_der(success: tuple[float, float], accuracy: tuple[float, float], der: float) -> None:
    assert defence_effectiveness(success, accuracy) == pytest.approx(der)


@pytest.mark.parametrize(
    ("success", "accuracy", "expected"),
    [
        ((1.0, 0.05), (0.9, 0.88), True),
        ((1.0, 0.1), (0.9, 0.9), False),
        ((1.0, 0.05), (0.9, 0.86), False),
        ((0.5, 0.0), (0.9, 0.9), None),
    ],
)
def test_solved(success: tuple[float, float], accuracy: tuple[float, float], expected: bool | None) -> None:
    assert solved(success, accuracy) is expected
