"""Non-Adversarial Backdoor: a stamp of our own outdoes the trigger; it is on every input that is told later."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import Hardened
from ostiary.core.run import Run
from ostiary.data.arrays import ArraySet
from ostiary.data.base import ImageSet
from ostiary.harden.abl import AntiBackdoorLearning
from ostiary.models.carried import stamp_input
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, predictions, train
from ostiary.training.ascent import train_by_ascent
from ostiary.training.loop import Step, plain_step
from ostiary.training.measure import sample_losses

STEPS = 400
"""Steps at least of the training on trusted samples, which are few."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NonAdversarialBackdoor:
    """Isolates suspects, gives them other labels and a stamp, trains on all, and stamps every input from then on.

    Source: Liu, Sangiovanni-Vincentelli, Yue 2023, Beating Backdoor Attack at Its Own Game (ICCV; arXiv 2307.15539).
    The share `isolated` of lowest loss after local gradient ascent (`suspected`) gets the labels that a network trained
    on the trusted samples alone gives it; those whose label changes get a stamp, too: a square of `side` pixels in the
    upper left corner. What is trained on all of it by the recipe has learned that where the stamp is, a trigger does
    not count. The model carries the stamp and lays it over every input by itself.

    Raises NotMet for images no larger than the stamp, and as `train`.
    """

    card: ClassVar[Card] = Card(
        id="harden.nab",
        summary="trains in a stamp under which triggers do not count, and stamps every input",
        paper="Liu et al. 2023, ICCV, arXiv 2307.15539",
        official_code="https://github.com/damianliumin/non-adversarial_backdoor",
        needs=Needs(access="gradients", modality="images", training_data=True, trusted_per_class=5),
        cost="that of training, five epochs (400 steps at least) before it, and 400 steps on the trusted samples",
        deviations=(
            "the stamp is black or white, whichever is further from the mean: at the mean it is not learned on digits",
            "other labels come from the trusted samples alone, not from self-supervised features",
            "inputs whose answer the stamp changes are not turned away",
        ),
        blind_spots=(
            "poison that is learned no sooner than the rest: it is not among the isolated",
            "few trusted samples give wrong labels to the suspects, and the stamp learns them",
            "the stamp lies beside the weights: other programs that read the file must apply it",
        ),
        marks=frozenset({"mechanism"}),
    )

    isolated: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    gamma: Annotated[float, Field(ge=0)] = 0.5
    tuning_epochs: Annotated[int, Field(ge=1)] = 5
    side: Annotated[int, Field(ge=1)] = 2

    def harden(
        self, data: ImageSet, fresh: TorchClassifier, trusted: ImageSet | None, recipe: Recipe, /, *, run: Run
    ) -> Hardened:
        """Train a copy of `fresh` on `data` and give it the stamp; the isolated samples are those `suspected`."""
        if trusted is None or self.side >= min(data.shape[1:]):
            raise NotMet(f"needs trusted samples, and images larger than the stamp of {self.side} pixels")
        first = fresh.clone().to(run.device)
        train_by_ascent(first, data, gamma=self.gamma, epochs=self.tuning_epochs, run=run, precision=recipe.precision)
        lowest = AntiBackdoorLearning(isolated=self.isolated).isolate(sample_losses(first, data, run=run))
        answers = predictions(judge(fresh, trusted, recipe, run), data.subset(np.flatnonzero(lowest).tolist()), run=run)
        k, labels, changed = len(data.classes), data.labels.clone(), torch.zeros(len(data), dtype=torch.bool)
        changed[torch.from_numpy(lowest)] = answers != labels[torch.from_numpy(lowest)]
        labels[torch.from_numpy(lowest)] = answers
        model = fresh.clone().to(run.device)
        pattern = model.normalised(far_from(model).expand(1, *data.shape))[0]
        mask = torch.zeros(data.shape[1:], device=run.device)
        mask[: self.side, : self.side] = 1.0
        marked = _marked(data, labels + k * changed, k)
        train(model, marked, recipe, run=run, step=self._step(model, recipe, k, run))
        if changed.any():  # else no image taught the network what the stamp means
            stamp_input(model.module, pattern, mask)
        chosen = {
            "stamped": f"{int(changed.sum())} of {int(lowest.sum())} isolated, by labels from {len(trusted)} trusted"
        }
        return Hardened(model, chosen, suspected=lowest)

    def _step(self, model: TorchClassifier, recipe: Recipe, k: int, run: Run) -> Step:
        """The plain step, once the stamp is on the samples whose label is `k` too large."""
        plain, pattern = plain_step(recipe, run.device), far_from(model)

        def step(model: TorchClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            rows = (y >= k).nonzero().squeeze(1)
            x[rows, :, : self.side, : self.side] = pattern
            return plain(model, x, y % k)

        return step


def far_from(model: TorchClassifier) -> Tensor:
    """[1, c, 1, 1]: in each channel 0 or 1, whichever is further from the mean that the model takes off."""
    mean = torch.tensor(model.mean or [0.0], device=model.device)
    return (mean < 0.5).float().view(1, -1, 1, 1)


def judge(fresh: TorchClassifier, trusted: ImageSet, recipe: Recipe, run: Run) -> TorchClassifier:
    """A copy of `fresh` trained on the trusted samples alone."""
    epochs = max(recipe.epochs, -(-STEPS // max(1, len(trusted) // recipe.batch)))
    return train(fresh.clone(), trusted, dataclasses.replace(recipe, epochs=epochs), run=run).model


def _marked(data: ImageSet, labels: Tensor, k: int) -> ImageSet:
    """The same images under `labels`, which lie below 2 k."""
    names = [str(label) for label in range(2 * k)]
    return ArraySet(data.pixels(range(len(data))), labels, classes=names, ids=data.ids, name=data.name)
