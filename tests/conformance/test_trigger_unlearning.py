"""Trigger unlearning: Wang et al. 2019, sec. VI-C, table IV (ASR below 6.7 % after it, accuracy kept)."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from ostiary.core.errors import NotMet
from ostiary.core.records import FormName, ModelEvidence
from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.perturb import stamp
from ostiary.repair import trigger_unlearning
from ostiary.repair.trigger_unlearning import Answers, TriggerUnlearning
from ostiary.repair.tune import fine_tune
from ostiary.scan.forms import FORMS


def closes(lab: Any, model: TorchClassifier) -> bool:
    """The true trigger, which no repair has seen, has lost its effect, and accuracy is kept."""
    return lab.asr(model) <= 0.05 and lab.accuracy(model) >= lab.accuracy(lab.model) - 0.02


def repair(lab: Any, evidence: ModelEvidence, answers: Answers = "model") -> TorchClassifier:
    made: TorchClassifier = TriggerUnlearning(answers=answers).repair(lab.model, lab.trusted, evidence, run=Run()).model
    return made


@pytest.mark.parametrize("answers", get_args(Answers))
def test_the_recovered_trigger_closes_the_true_one(lab: Any, recovered: ModelEvidence, answers: Answers) -> None:
    assert closes(lab, repair(lab, recovered, answers))


def test_mutant_that_stamps_towards_the_target_fails(
    lab: Any, recovered: ModelEvidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong way round: stamped images carry the target's label."""

    def backwards(model: TorchClassifier, pixels: Tensor, labels: Tensor, *args: Any, change: Any, **kw: Any) -> None:
        (candidate,) = recovered.candidates
        stamped = stamp(pixels / 255, torch.from_numpy(candidate.mask), torch.from_numpy(candidate.pattern))
        both = torch.cat([pixels, (stamped * 255).round().to(torch.uint8)])
        fine_tune(model, both, torch.cat([labels, torch.zeros_like(labels)]), *args, **kw)

    monkeypatch.setattr(trigger_unlearning, "fine_tune", backwards)
    made = TriggerUnlearning(epochs=5, answers="labels").repair(lab.model, lab.trusted, recovered, run=Run())
    assert not closes(lab, made.model)


def test_mutant_that_stamps_nothing_fails(lab: Any, recovered: ModelEvidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger_unlearning, "lay_over", lambda x, trigger: x)
    assert not closes(lab, repair(lab, recovered))


def captured(lab: Any, evidence: ModelEvidence, share: float = 1.0) -> tuple[Tensor, Tensor, Callable[..., Tensor]]:
    """What the repair gives to the tuning: pixels, labels, change."""
    kept: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trigger_unlearning, "fine_tune", lambda m, x, y, t, *, change, **kw: kept.extend((x, y, change)))
        TriggerUnlearning(share=share).repair(lab.model, lab.trusted, evidence, run=Run())
    return kept[0], kept[1], kept[2]


def test_the_stamp_is_the_array_of_the_scan(lab: Any, recovered: ModelEvidence) -> None:
    """Bit for bit, and not what a picture of it, normalised and rounded, would be."""
    x = lab.trusted.take(range(30))
    _, _, change = captured(lab, recovered)
    (candidate,) = recovered.candidates
    mask, pattern = torch.from_numpy(candidate.mask), torch.from_numpy(candidate.pattern)
    changed = change(x, torch.Generator().manual_seed(0))
    assert torch.equal(changed, stamp(x, mask, pattern))
    normalised = (mask - mask.min()) / (mask.max() - mask.min())
    picture = (normalised * 255).round() / 255
    assert not torch.allclose(changed, stamp(x, picture, pattern), atol=1e-3)


@pytest.mark.parametrize(("name", "shapes"), [("frequencies", ((1, 32, 32), (3, 32, 32))), ("warp", ((2, 6, 6),))])
def test_triggers_of_other_forms_are_laid_over_as_the_scan_did(
    lab: Any, recovered: ModelEvidence, name: FormName, shapes: tuple[tuple[int, ...], ...]
) -> None:
    x, rng = lab.trusted.take(range(30)), torch.Generator().manual_seed(0)
    parts = tuple(torch.rand(shape, generator=rng) for shape in shapes)
    arrays = tuple(part.numpy() for part in parts)
    one = recovered.candidates[0].model_copy(update={"form": name, "mask": None, "pattern": None, "parts": arrays})
    _, _, change = captured(lab, recovered.model_copy(update={"candidates": (one,)}))
    by_the_scan = FORMS[name].apply(x, tuple(part[None] for part in parts))[0]
    assert torch.equal(change(x, rng), by_the_scan) and not torch.equal(by_the_scan, x)


def test_without_its_arrays_a_trigger_cannot_be_unlearned(lab: Any, recovered: ModelEvidence) -> None:
    bare = recovered.candidates[0].model_copy(update={"mask": None})
    with pytest.raises(NotMet, match="needs a trigger"):
        TriggerUnlearning().repair(
            lab.model, lab.trusted, recovered.model_copy(update={"candidates": (bare,)}), run=Run()
        )


def test_stamped_images_keep_their_true_labels_the_target_s_too(lab: Any, recovered: ModelEvidence) -> None:
    pixels, labels, _ = captured(lab, recovered)
    assert torch.equal(labels, lab.trusted.labels)
    assert torch.equal(pixels, lab.trusted.pixels(range(len(lab.trusted))))
    assert set(labels.tolist()) == set(range(10))


def test_a_share_is_stamped_and_the_batch_is_not_changed_in_place(lab: Any, recovered: ModelEvidence) -> None:
    x = lab.trusted.take(range(len(lab.trusted)))
    before = x.clone()
    _, _, change = captured(lab, recovered, share=0.5)
    moved = (change(x, torch.Generator().manual_seed(0)) != x).flatten(1).any(1)
    assert torch.equal(x, before)
    assert 0.35 < float(moved.float().mean()) < 0.65
