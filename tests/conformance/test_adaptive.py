"""Adaptive-Blend and Adaptive-Patch: Qi et al. 2023, sec. 4 (what covers are for) and 5 (they implant)."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ostiary.attacks.adaptive_blend import AdaptiveBlend
from ostiary.attacks.adaptive_patch import AdaptivePatch
from ostiary.bench.demo import RATE, RECIPE
from ostiary.bench.metrics import quantised
from ostiary.core.run import Run
from ostiary.screen.activation_clustering import ActivationClustering

BOTH = pytest.mark.parametrize("attack", [AdaptiveBlend(rate=RATE), AdaptivePatch(rate=RATE)], ids=["blend", "patch"])


def weakly(lab: Any, attack: Any, model: Any) -> float:
    """Share of test images of other classes that go to the target with what the training images had."""
    rows = (lab.test.labels != attack.target).nonzero().squeeze(1)
    weak = attack.weak(lab.part.shape, Run())
    x = weak(lab.test.take(rows), rng=torch.Generator().manual_seed(0))
    return float((model.predict(quantised(x)).argmax(1) == attack.target).float().mean())


def recalled(model: Any, made: Any) -> float:
    """Share of the poison among what Activation Clustering suspects."""
    suspected = ActivationClustering().screen(made.data, model, None, run=Run()).suspected
    return float(suspected[np.isin(made.data.ids, list(made.truth.poisoned))].mean())


@BOTH
def test_it_implants_and_half_a_trigger_is_none(lab: Any, train_on: Any, attack: Any) -> None:
    made = attack.poison(lab.part, run=Run())
    model = train_on(made.data, dataclasses.replace(RECIPE, epochs=12))
    assert lab.implants(model, made.truth, success=0.8)
    assert weakly(lab, attack, model) <= 0.6
    assert recalled(model, made) <= 0.7


@BOTH
def test_mutant_without_covers_obeys_half_a_trigger_and_is_clustered(lab: Any, train_on: Any, attack: Any) -> None:
    bare = dataclasses.replace(attack, cover=0.0)
    made = bare.poison(lab.part, run=Run())
    model = train_on(made.data, dataclasses.replace(RECIPE, epochs=12))
    assert lab.implants(model, made.truth, success=0.8)
    assert weakly(lab, bare, model) > 0.8
    assert recalled(model, made) > 0.75
