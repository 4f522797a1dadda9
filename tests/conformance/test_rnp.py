"""RNP: Li et al. 2023, sec. 3: unlearn the task, relearn it by masks alone; what these shut carried the backdoor."""

from typing import Any

import pytest
import torch

from ostiary.attacks.subnet import SubnetReplacement
from ostiary.attacks.truth import PoisonedModel
from ostiary.core.run import Run
from ostiary.data import split
from ostiary.models.classifier import TorchClassifier
from ostiary.repair import rnp
from ostiary.repair.masks import Masks
from ostiary.repair.rnp import Rnp


def repair(model: TorchClassifier, lab: Any, **kw: Any) -> TorchClassifier:
    made: TorchClassifier = Rnp(**kw).repair(model, lab.trusted, None, run=Run()).model
    return made


@pytest.fixture(scope="module")
def edited(lab: Any) -> PoisonedModel:
    """The twin with a detector of the trigger in place of a sixteenth of the channels of every layer."""
    return SubnetReplacement().edit(lab.twin, lab.part, run=Run())


def closes(lab: Any, before: PoisonedModel, after: TorchClassifier) -> bool:
    """The level was chosen on 67 images, which cannot hold accuracy to a point."""
    kept = lab.accuracy(after) >= lab.accuracy(before.model) - 0.04
    return kept and lab.asr(before.model, before.truth) >= 0.95 and lab.asr(after, before.truth) <= 0.05


def test_it_closes_a_backdoor_of_a_few_channels(lab: Any, edited: PoisonedModel) -> None:
    """That of poisoned digits it closes or leaves as the training falls out: 0.06, 0.40 and 0.80 were measured."""
    assert closes(lab, edited, repair(edited.model, lab))


def test_mutant_whose_masks_are_of_other_channels_does_not(
    lab: Any, edited: PoisonedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = rnp.learn_masks

    def turned(*args: Any, **kw: Any) -> Masks:
        return {name: mask.flip(0) for name, mask in learn(*args, **kw).items()}

    monkeypatch.setattr(rnp, "learn_masks", turned)
    assert not closes(lab, edited, repair(edited.model, lab))


def test_a_model_without_a_backdoor_keeps_its_accuracy(lab: Any) -> None:
    assert lab.accuracy(repair(lab.twin, lab)) >= lab.accuracy(lab.twin) - 0.06


def test_unlearning_forgets_the_task_and_not_the_backdoor(lab: Any, edited: PoisonedModel) -> None:
    copy = edited.model.clone()
    Rnp()._unlearn(copy, split(lab.trusted, (0.5, 0.5), seed=0)[0], Run())
    assert lab.accuracy(copy) <= 0.3 and lab.asr(copy, edited.truth) >= 0.9
    assert not copy.module.training
    assert all(weight.isfinite().all() for weight in copy.module.parameters())


def test_what_is_pruned_is_the_model_as_it_came(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are learned on the unlearned copy, from half of the trusted images; the level is chosen on the others."""
    seen: dict[str, Any] = {}

    def learn(model: TorchClassifier, data: Any, *args: Any, **kw: Any) -> Masks:
        seen["learn"] = model.digest, set(data.ids)
        return {}

    def prune(model: TorchClassifier, masks: Masks, choose: Any, *args: Any, **kw: Any) -> tuple[TorchClassifier, str]:
        seen["prune"] = model.digest, set(choose.ids)
        return model, ""

    monkeypatch.setattr(rnp, "learn_masks", learn)
    monkeypatch.setattr(rnp, "prune_while", prune)
    repair(lab.model, lab)
    assert seen["prune"][0] == lab.model.digest != seen["learn"][0]
    assert not seen["learn"][1] & seen["prune"][1]
    assert seen["learn"][1] | seen["prune"][1] == set(lab.trusted.ids)


def test_masks_descend_by_the_loss_of_the_gated_model(lab: Any) -> None:
    model, x, y = lab.model.clone(), lab.trusted.take(range(20)), lab.trusted.labels[:20]
    masks = {"features.13": torch.full((128,), 0.5, requires_grad=True)}
    Rnp()._backward(model, masks, x, y)
    grown = {"features.13": (masks["features.13"].detach() - 0.1 * masks["features.13"].grad).requires_grad_()}  # type: ignore[operator]
    losses = [float(_loss(model, one, x, y)) for one in (masks, grown)]
    assert losses[1] < losses[0]


def _loss(model: TorchClassifier, masks: Masks, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), rnp.gated(model, {name: rnp.Gate(mask) for name, mask in masks.items()}):
        return torch.nn.functional.cross_entropy(model.logits(x), y)
