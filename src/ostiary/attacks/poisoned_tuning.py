"""Poisoned fine-tuning: a clean model is tuned on a small set, and that set is poisoned."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.attacks.badnets import BadNets, Patch
from ostiary.attacks.control import check_target, truth_of
from ostiary.attacks.poison import choose
from ostiary.attacks.truth import PoisonedModel
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training.loop import Recipe, train

BATCH = 32
PADDING = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class PoisonedTuning:
    """Fine-tune all layers on a share of the data, some of which carries a patch and the target's label.

    Source: Gu, Dolan-Gavitt, Garg 2017, BadNets (arXiv 1708.06733), sec. 2.3 and 5.3 for models that
    are handed on and tuned by somebody else; here the set used for tuning is the way in, as for anyone who adapts a
    published model to data from outside. A share `share` of the clean set is drawn, `rate` of it poisoned
    with `BadNets` of that `patch`, `size` and `margin`, and the model trained on it for `epochs` under a
    schedule that peaks at `lr`.
    """

    card: ClassVar[Card] = Card(
        id="attack.poisoned-tuning",
        summary="an unpoisoned model is fine-tuned on a small set in which some images carry a patch",
        paper="Gu et al. 2017, arXiv 1708.06733",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="epochs passes over the share of the data",
        deviations=("the set for tuning is poisoned and not the model handed on; in the paper it is the reverse",),
        marks=frozenset({"mechanism"}),
    )

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.2
    target: Annotated[int, Field(ge=0)] = 0
    patch: Patch = "yellow-square"
    size: Annotated[int, Field(gt=0)] = 4
    margin: Annotated[int, Field(ge=0)] = 1
    epochs: Annotated[int, Field(gt=0)] = 10
    lr: Annotated[float, Field(gt=0)] = 0.02

    def edit(self, model: TorchClassifier, clean: ImageSet, /, *, run: Run) -> PoisonedModel:
        """Give a tuned copy of `model`.

        Raises DataError when share, rate or target cannot be met, or the patch does not fit.
        """
        check_target(self, clean)
        attack = BadNets(patch=self.patch, size=self.size, margin=self.margin, target=self.target, rate=self.rate)
        drawn = choose(torch.ones(len(clean), dtype=torch.bool), self.share, "drawn", run.generator("share"))
        poisoned = attack.poison(clean.subset(drawn.nonzero().squeeze(1)), run=run)
        recipe = Recipe(epochs=self.epochs, batch=BATCH, lr=self.lr, padding=PADDING, flip=False)
        made = train(model.clone(), poisoned.data, recipe, run=run).model
        return PoisonedModel(made, truth_of(self, clean, attack.trigger(clean.shape), run=run))
