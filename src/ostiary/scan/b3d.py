"""B3D: reverse a small trigger for every class by queries alone; a class whose trigger is far too small stands out."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import split
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.aims import ToClass
from ostiary.scan.forms import Patch
from ostiary.scan.penalty import Schedule
from ostiary.scan.queries import Sampling, search_by_queries
from ostiary.scan.recover import Recovered, flip_rates, frozen, patch_evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class B3D:
    """Recover the smallest trigger towards every class from answers alone; an outlier is suspicious.

    Source: Dong, Yang, Deng, Pang, Xiao, Su, Zhu 2021, Black-box Detection of Backdoor Attacks with Limited
    Information and Data (ICCV, arXiv 2103.13127): masks are drawn from Bernoulli distributions of chance
    g(theta_m), patterns are g of Gaussian draws around theta_p with deviation `sigma`, g(t) = (tanh t + 1) / 2, and
    both thetas follow the gradient that `samples` draws estimate (natural evolution strategies). Half of the trusted
    images drive the search, the other half only tell how often the final trigger flips unseen images. A step asks
    `samples` images for each class, a round is `steps_per_round` steps and `check` images more.
    """

    card: ClassVar[Card] = Card(
        id="scan.b3d",
        summary="recovers the smallest trigger towards every class by queries alone and compares their sizes",
        paper="Dong et al. 2021, ICCV, arXiv 2103.13127",
        needs=Needs(access="probabilities", modality="images", trusted_per_class=4),
        cost="at most steps x (samples + check / steps per round) queries for each class, then 256 for each",
        code="OS205",
        limits=(Limit(measure="size_ratio", low=3.0), Limit(measure="flip_held_out", low=0.75)),
        size="mask_l1",
        confirms=False,  # a search that queries cut short leaves masks large, and large ones flip anything
        deviations=(
            "mask and pattern are searched on a coarse grid of cells, 16 a side, and not pixel by pixel",
            "each draw is tried on one image, mask and pattern of a draw together, against a second draw on that image",
            "sigma, learning rate and number of draws are our own, for few queries: the paper was not at hand in full",
            "the penalty on the mask follows the schedule of Neural Cleanse and its gradient is exact",
            "the mask that counts is where the chance is above one half; images of the target class are left out",
            "the verdict rests on a mask 3 times smaller than the median and on 75 % flips of held-out images",
            "real trusted images, no synthetic ones",
            "findings are suspect, never confirmed: false alarms were seen, and their rate is not known",
        ),
        families=("patch",),
        blind_spots=(
            "triggers over the whole image: blends, warps, sinusoids, quantisation",
            "triggers far smaller than a cell of the grid, and those that must match pixel by pixel",
            "all-to-all and source-specific backdoors; models with fewer than three classes",
            "a server that tells scans from other queries, or answers with noise",
            "models that give labels alone: the search needs to see how sure they are",
        ),
        marks=frozenset({"mechanism"}),
    )

    steps: Annotated[int, Field(gt=0)] = 300
    samples: Annotated[int, Field(ge=2, multiple_of=2)] = 32
    steps_per_round: Annotated[int, Field(gt=0)] = 10
    check: Annotated[int, Field(gt=0)] = 32
    cells: Annotated[int, Field(gt=0)] = 16
    sigma: Annotated[float, Field(gt=0)] = 0.5
    lr: Annotated[float, Field(gt=0)] = 0.1
    density: Annotated[float, Field(gt=0, lt=1)] = 0.27
    initial_cost: Annotated[float, Field(gt=0)] = 3e-3
    cost_factor: Annotated[float, Field(gt=1)] = 1.5
    patience: Annotated[int, Field(gt=0)] = 2
    success: Annotated[float, Field(gt=0, le=1)] = 0.95
    measured: Annotated[int, Field(gt=0)] = 128

    def scan(self, model: Predictor[Images], trusted: LabelledSet[Images], /, *, run: Run) -> ModelEvidence:
        """Examine every class of `model`; raises what asking the model or reading `trusted` raises."""
        return patch_evidence(self.recovered(model, trusted, run), self.card.name, self.success, run)

    def recovered(self, model: Predictor[Images], trusted: LabelledSet[Images], run: Run) -> Recovered:
        """The search itself, and the rates of what it found."""
        quick = frozen(model, bf16=False)[0] if isinstance(model, TorchClassifier) else model
        search, held_out = split(trusted, (0.5, 0.5), seed=run.seed)
        schedule = Schedule(
            rounds=max(1, self.steps // self.steps_per_round),
            batches_per_round=self.steps_per_round,
            batch=self.samples,
            lr=self.lr,
            initial_cost=self.initial_cost,
            cost_factor=self.cost_factor,
            patience=self.patience,
            success=self.success,
        )
        sampling = Sampling(sigma=self.sigma, density=self.density, cells=self.cells, check=self.check)
        x, y = search.take(range(len(search))), search.labels
        found = search_by_queries(quick, x, y, len(model.classes), schedule, sampling, run=run, label=self.card.name)
        flips, aim = [], ToClass(torch.arange(len(model.classes)))
        for part in (search, held_out):
            rows = torch.linspace(0, len(part) - 1, min(len(part), self.measured)).long()
            flips.append(flip_rates(model, Patch(), found, part.take(rows), part.labels[rows], aim))
        return Recovered(found, flips[0], flips[1], held_out.take([0])[0])
