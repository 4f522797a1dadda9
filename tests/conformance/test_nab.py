"""NAB (Liu et al. 2023): suspects get other labels and a stamp; under the stamp the trigger does not count."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ostiary.bench.demo import RECIPE
from ostiary.core.protocols import Hardened
from ostiary.core.run import Run
from ostiary.harden import nab
from ostiary.harden.nab import NonAdversarialBackdoor
from ostiary.models.carried import carried
from ostiary.models.classifier import TorchClassifier
from ostiary.training import predictions
from ostiary.training.flow import new_model

SHORT = dataclasses.replace(RECIPE, epochs=12, precision="fp32")


def hardened(lab: Any, **kw: Any) -> Hardened:
    fresh = new_model("small-cnn", lab.poisoned.data, width=None, seed=0)
    return NonAdversarialBackdoor(**kw).harden(lab.poisoned.data, fresh, lab.trusted, SHORT, run=Run())


def weakens(lab: Any, model: TorchClassifier) -> bool:
    """Half of the isolated are honest here, and half of the poison is not isolated: some of the backdoor stays."""
    return bool(lab.asr(model) <= 0.3 and lab.accuracy(model) >= lab.accuracy(lab.twin) - 0.02)


def test_under_the_stamp_the_trigger_does_not_count(lab: Any) -> None:
    made = hardened(lab)
    assert made.suspected is not None and made.suspected.sum() == round(0.05 * len(lab.poisoned.data))
    assert lab.is_poisoned[made.suspected].mean() >= 0.4
    assert weakens(lab, made.model)


def test_mutant_whose_suspects_keep_their_labels_does_not(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels that a network of the poisoned set gives them are those they carry."""
    monkeypatch.setattr(nab, "judge", lambda *args: lab.model)
    made = hardened(lab)
    assert not weakens(lab, made.model)
    assert made.selected["stamped"].startswith("0 of ") and carried(made.model.module) is None


def test_the_stamp_lies_where_a_label_changed(lab: Any) -> None:
    model = new_model("small-cnn", lab.part, width=8, seed=0)
    x, seen = torch.rand(4, *lab.part.shape), []
    step = NonAdversarialBackdoor(side=3)._step(model, SHORT, 10, Run())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            model, "logits", lambda given: seen.append(given.clone()) or torch.zeros(4, 10, requires_grad=True)
        )
        step(model, x.clone(), torch.tensor([3, 13, 0, 19]))
    white = nab.far_from(model)[0]
    assert white.flatten().tolist() == [1.0] * 3, "digits are mostly black"
    for row, stamped in enumerate([False, True, False, True]):
        assert torch.equal(seen[0][row, :, 3:], x[row, :, 3:]) and torch.equal(seen[0][row, :, :, 3:], x[row, :, :, 3:])
        assert torch.equal(seen[0][row, :, :3, :3], white.expand(3, 3, 3) if stamped else x[row, :, :3, :3])


def test_the_judge_sees_trusted_samples_alone(lab: Any) -> None:
    fresh = new_model("small-cnn", lab.poisoned.data, width=8, seed=0)
    judged = nab.judge(fresh, lab.trusted, SHORT, Run())
    kept = predictions(judged, lab.poisoned.data) == lab.poisoned.data.labels
    assert float(np.asarray(kept)[lab.is_poisoned].mean()) <= 0.2
