"""The steps of the search by queries, against numbers by hand and against known answers."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from ostiary.core.decide import decide
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet
from ostiary.models.black_box import BlackBox
from ostiary.scan.b3d import B3D
from ostiary.scan.penalty import Schedule
from ostiary.scan.queries import Beliefs, Draws, Sampling

SIDE, CLASSES, TARGET = 16, 6, 4
NAMES = tuple("abcdef")
SCHEDULE = Schedule(
    rounds=1, batches_per_round=1, batch=8, lr=0.1, initial_cost=1e-3, cost_factor=2.0, patience=1, success=0.9
)
SAMPLING = Sampling(sigma=0.5, density=0.25, cells=4, check=8)


def box(backdoored: bool, **how: Any) -> BlackBox:
    """Classes by the brightness of six stripes; with a backdoor, a red corner of 4x4 pixels outvotes them all."""

    def answer(x: Tensor) -> Tensor:
        stripes = torch.stack([part.mean((1, 2, 3)) for part in x[:, :, :, :12].split(2, dim=3)], 1)
        logits = 12 * stripes
        corner = x[:, :, -4:, -4:].mean((2, 3))
        red = (corner[:, 0] - corner[:, 1:].mean(1)).clamp(min=0)
        if backdoored:
            logits[:, TARGET] += 30 * red
        found = logits.softmax(1)
        return found.argmax(1) if how.get("labels") else found

    return BlackBox(answer, NAMES, (3, SIDE, SIDE), batch=512)


@pytest.fixture(scope="module")
def stripes() -> ImageSet:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % CLASSES
    pixels = torch.randint(0, 80, (96, 3, SIDE, SIDE), generator=rng)
    for row, label in enumerate(labels.tolist()):
        pixels[row, :, :, 2 * label : 2 * label + 2] += 120
    return ArraySet(pixels.to(torch.uint8).numpy(), labels.numpy(), NAMES, name="stripes")


def findings(evidence: ModelEvidence) -> list[tuple[str, str]]:
    return [(finding.subject, finding.level) for finding in decide(evidence, B3D.card, NAMES)]


def test_a_planted_backdoor_is_found_by_queries_alone(stripes: ImageSet) -> None:
    model = box(True)
    run = Run(seed=1)
    evidence = B3D(cells=8).scan(model, stripes, run=run)
    assert findings(evidence) == [(f"class:{TARGET}", "suspect")]
    (found,) = [one for one in evidence.candidates if one.target == TARGET]
    assert found.mask is not None and found.mask[-4:, -4:].sum() >= 0.7 * found.size
    assert model.queries <= 300 * 32 * CLASSES + 30 * 32 * CLASSES + 96 * CLASSES + 4


def test_its_twin_has_no_finding(stripes: ImageSet) -> None:
    assert findings(B3D(cells=8).scan(box(False), stripes, run=Run(seed=1))) == []


def test_the_gradient_of_the_draws_by_hand() -> None:
    draws = Draws(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1), torch.tensor([2.0, -1.0]).view(1, 2, 1, 1, 1))
    mask, pattern = draws.gradients(torch.tensor([[5.0, 1.0]]), torch.tensor([[1.0]]), sigma=0.5)
    assert mask.item() == 4.0 and pattern.item() == 4.0 * 3.0 / (2 * 0.5)


def test_the_estimate_is_the_gradient() -> None:
    """For the loss w m + v e, e the noise: its slope is 2 g (1 - g) w to theta_m and v / sigma to theta_p."""
    rng = torch.Generator().manual_seed(3)
    chance = torch.tensor([0.1, 0.5, 0.8, 0.3]).view(1, 1, 2, 2)
    draws = Draws.of(chance, 1, 200_000, rng)
    w = torch.tensor([1.0, -2.0, 3.0, 0.0]).view(1, 1, 1, 2, 2)
    v = torch.tensor([0.5, 0.0, -1.0, 2.0]).view(1, 1, 1, 2, 2)
    loss = (w * draws.masks + v * draws.noise).sum((2, 3, 4))
    mask, pattern = draws.gradients(loss, torch.full((1, 100_000), 1e-5), sigma=0.5)
    torch.testing.assert_close(mask, (2 * chance * (1 - chance) * w[:, 0]), atol=0.03, rtol=0)
    torch.testing.assert_close(pattern, v[:, 0] / 0.5, atol=0.06, rtol=0)


def test_a_cell_stands_for_its_pixels_and_the_penalty_for_the_mask() -> None:
    beliefs = Beliefs(2, (3, 8, 8), SCHEDULE, SAMPLING)
    assert beliefs.mask.shape == (2, 1, 4, 4) and beliefs.pixels == 4
    rows = torch.tensor([1])
    torch.testing.assert_close(beliefs.chance(rows), torch.full((1, 1, 4, 4), 0.25))
    before = beliefs.mask.clone()
    beliefs.mask[1, 0, 0, 0] = 1.0
    mask, pattern = beliefs.likeliest(rows)
    assert mask.shape == (1, 1, 8, 8) and mask.sum() == 4 and mask[0, 0, :2, :2].sum() == 4
    assert pattern.shape == (1, 3, 8, 8) and bool((pattern == 0.5).all())
    beliefs.mask[1, 0, 0, 0] = before[1, 0, 0, 0]
    beliefs.move(rows, torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4), torch.tensor([0.1]))
    assert bool((beliefs.mask[1] < before[1]).all()) and torch.equal(beliefs.mask[0], before[0])


def test_images_smaller_than_the_grid_are_searched_pixel_by_pixel() -> None:
    assert Beliefs(1, (1, 3, 2), SCHEDULE, dataclasses.replace(SAMPLING, cells=16)).mask.shape == (1, 1, 3, 2)


def test_labels_alone_are_not_enough_and_are_said_to_be(stripes: ImageSet) -> None:
    unmet = B3D.card.needs.unmet
    from ostiary.inputs import have_of

    assert unmet(have_of(box(True), stripes)) is None
    assert unmet(have_of(box(True, labels=True), stripes)) == "needs model access 'probabilities', has 'labels'"
