"""MixMatch: what is learnt from a batch whose labels are believed beside one whose labels are not looked at."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from ostiary.core.types import Images, Labels, Logits
from ostiary.models.classifier import TorchClassifier


@dataclass(frozen=True, kw_only=True, slots=True)
class MixMatch:
    """Berthelot, Carlini, Goodfellow, Papernot, Oliver, Raffel 2019, MixMatch (NeurIPS; arXiv 1905.02249), sec. 3.

    The guess for an unlabelled image is the mean prediction of its augmented views, sharpened to `temperature`. All
    images are mixed with one another, by one weight per batch from Beta(alpha, alpha) that leaves each the larger
    share. The loss is the cross-entropy of the labelled ones and, times `weight`, the squared error of the others.
    """

    temperature: float = 0.5
    alpha: float = 0.75
    weight: float = 15.0

    def guess(self, views: list[Logits]) -> Tensor:
        """Labels [n, k] of unlabelled images by the logits of their views."""
        mean = torch.stack([logits.softmax(1) for logits in views]).mean(0)
        sharp = mean ** (1 / self.temperature)
        return sharp / sharp.sum(1, keepdim=True)

    def loss(
        self,
        model: TorchClassifier,
        labelled: tuple[Images, Labels],
        views: list[Images],
        *,
        ramp: float,
        rng: torch.Generator,
        weights: np.random.Generator,
    ) -> Tensor:
        """The loss of a labelled batch and of `views`, augmented copies of an unlabelled one.

        `ramp` in [0, 1] is how much the unlabelled count yet; `rng` draws partners, `weights` what they weigh.
        """
        x, y = labelled
        with torch.no_grad():
            guess = self.guess([model.logits(view).float() for view in views])
        every = torch.cat([x, *views])
        wanted = torch.cat([one_hot(y, guess.shape[1]).float(), *[guess] * len(views)])
        share = float(weights.beta(self.alpha, self.alpha))
        share = max(share, 1 - share)
        other = torch.randperm(len(every), generator=rng).to(every.device)
        logits = model.logits(share * every + (1 - share) * every[other]).float()
        wanted = share * wanted + (1 - share) * wanted[other]
        known = len(y)
        first = -(wanted[:known] * log_softmax(logits[:known], dim=1)).sum(1).mean()
        second = (logits[known:].softmax(1) - wanted[known:]).square().mean()
        return first + ramp * self.weight * second
