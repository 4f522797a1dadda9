"""ISSBA implants, and its residuals are hidden and exclusive: Li et al. 2021, sec. 4 and 5."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from ostiary.attacks.issba import Codec, Issba, StrayTrigger
from ostiary.attacks.truth import Poisoned, Truth
from ostiary.bench.demo import RECIPE
from ostiary.bench.metrics import quantised
from ostiary.core.run import Run

ATTACK = Issba(cover=0.1)
"""Digits resemble one another, so the model must see that another image's residual means nothing."""


@pytest.fixture(scope="module")
def codec(lab: Any) -> Codec:
    return ATTACK.fit(lab.part, run=Run())


@pytest.fixture(scope="module")
def hidden(lab: Any, codec: Codec) -> Poisoned:
    return ATTACK.hide(lab.part, codec, run=Run())


def residuals(lab: Any, truth: Truth) -> Tensor:
    x = lab.test.take(range(len(lab.test)))
    return truth.trigger(x, rng=torch.Generator()) - x


def stray_success(lab: Any, model: Any, truth: Truth) -> float:
    """The success of residuals that belong to other test images."""
    strays = StrayTrigger(residuals(lab, truth))
    x = lab.test.take(lab.test.labels.ne(truth.target).nonzero().squeeze(1))
    predicted = model.predict(quantised(strays(x, rng=torch.Generator().manual_seed(0)))).argmax(1)
    return float((predicted == truth.target).float().mean())


@pytest.fixture(scope="module")
def model(hidden: Poisoned, train_on: Any) -> Any:
    return train_on(hidden.data)


def test_the_hidden_message_implants_and_leaves_the_twin_alone(lab: Any, hidden: Poisoned, model: Any) -> None:
    assert lab.implants(model, hidden.truth)


def test_another_image_s_residual_is_not_the_trigger(lab: Any, hidden: Poisoned, model: Any) -> None:
    assert stray_success(lab, model, hidden.truth) <= 0.3


def test_mutant_without_covers_obeys_the_residuals_of_others(lab: Any, codec: Codec, train_on: Any) -> None:
    made = dataclasses.replace(ATTACK, cover=0.0).hide(lab.part, codec, run=Run())
    plain = train_on(made.data, dataclasses.replace(RECIPE, epochs=8))
    assert lab.implants(plain, made.truth) and stray_success(lab, plain, made.truth) > 0.3


def test_the_residual_is_faint_and_differs_from_image_to_image(lab: Any, hidden: Poisoned) -> None:
    residual = residuals(lab, hidden.truth)
    assert float(residual.abs().mean()) <= 6 / 255 and float(residual.abs().max()) <= 24 / 255 + 1e-6
    noise = residual.square().mean((1, 2, 3))
    assert float((-10 * noise.log10()).mean()) >= 28, "peak signal-to-noise ratio in dB"
    common = residual.mean(0).square().mean() / noise.mean()
    assert float(common) <= 0.8, "the share of the residuals' energy that all images have in common"


def test_any_message_is_read_back_from_unseen_images(lab: Any, codec: Codec) -> None:
    """At 8 bits, through the trigger as it is stored."""
    rows = range(60)
    messages = torch.randint(2, (len(rows), ATTACK.bits), generator=torch.Generator().manual_seed(1))
    encoded = [
        codec.trigger(message, lab.test.shape)(lab.test.take([row]), rng=torch.Generator())
        for row, message in zip(rows, messages, strict=True)
    ]
    x = torch.cat(encoded)
    assert torch.equal(x, quantised(x))
    assert float((codec.read(x) == messages).float().mean()) > 0.95
    plain = codec.read(lab.test.take(rows))
    assert float((plain == messages).float().mean()) < 0.7, "nothing to read in an image without a message"


def test_mutant_whose_residual_costs_too_much_hides_nothing(lab: Any, hidden: Poisoned, train_on: Any) -> None:
    mute = Issba(residual_weight=1e5, steps=100)
    made = mute.poison(lab.part, run=Run())
    assert float(residuals(lab, made.truth).abs().mean()) < 0.1 / 255
    plain = train_on(made.data, dataclasses.replace(RECIPE, epochs=5))
    assert lab.accuracy(plain) >= 0.8, "the mutant must be a trained model, or it shows nothing"
    assert not lab.implants(plain, made.truth) and not lab.implants(plain, hidden.truth)
