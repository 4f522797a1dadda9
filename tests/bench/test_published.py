"""Results of others: counted like ours, and apart."""

import pytest

from ostiary.bench.backdoorbench import TheirRow
from ostiary.bench.published import published


def theirs(
    attack: str,
    defence: str,
    accuracy: float | None,
    success: float | None,
    robust: float | None = None,
    *,
    rate: float = 0.1,
    dataset: str = "cifar10",
    architecture: str = "preactresnet18",
    origin: str = "Somebody",
) -> TheirRow:
    return TheirRow(dataset, architecture, rate, attack, defence, accuracy, success, robust, origin=origin)


CELLS = (
    theirs("badnet", "no defense", 0.92, 1.0, 0.0),
    theirs("badnet", "ft", 0.91, 0.05, 0.8),  # DER (0.95 - 0.01 + 1) / 2, solved
    theirs("wanet", "no defense", 0.92, 0.9),
    theirs("wanet", "ft", 0.85, 0.9),  # DER (0 - 0.07 + 1) / 2
    theirs("sig", "no defense", 0.92, 0.4),
    theirs("sig", "ft", 0.92, 0.0),  # did not work before
    theirs("lc", "no defense", 0.92, 0.99),
    theirs("lc", "ft", None, None),  # blank
    theirs("ssba", "no defense", None, None),
    theirs("ssba", "ft", 0.9, 0.0),  # nothing to compare with
)


def test_counted_as_ours():
    [found] = published(CELLS)
    assert (found.origin, found.dataset, found.architecture, found.rate, found.defence) == (
        "Somebody", "cifar10", "preactresnet18", 0.1, "ft",
    )  # fmt: skip
    assert found.effectiveness.value == pytest.approx(100 * (0.97 + 0.465) / 2)
    assert (found.solved.k, found.solved.n) == (1, 2)
    assert found.accuracy.value == pytest.approx(0.88)
    assert found.success.value == pytest.approx(0.475)
    assert found.robust.value == pytest.approx(0.8) and found.robust.n == 1
    assert found.blank == 1


def test_settings_are_not_mixed():
    more = [
        theirs("badnet", defence, 0.9, success, rate=rate, dataset=data, architecture=net, origin=origin)
        for rate, data, net, origin in [
            (0.01, "cifar10", "preactresnet18", "Somebody"),
            (0.1, "gtsrb", "preactresnet18", "Somebody"),
            (0.1, "cifar10", "vgg19_bn", "Somebody"),
            (0.1, "cifar10", "preactresnet18", "Another"),
        ]
        for defence, success in (("no defense", 1.0), ("ft", 0.0))
    ]
    found = published([*CELLS, *more])
    assert len(found) == 5
    assert sorted(one.solved.n for one in found) == [1, 1, 1, 1, 2]


def test_nothing_published():
    assert published([]) == ()
