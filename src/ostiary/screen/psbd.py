"""PSBD: how much of a prediction is lost under dropout; what carries a trigger loses little."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import ImageSet, batch_size
from ostiary.models.classifier import TorchClassifier
from ostiary.models.trace import trace
from ostiary.screen.classes import Split, by_id, evenly, screen_classes

ARTIFACT = "psbd"
RATES = tuple(tenth / 10 for tenth in range(1, 10))
"""The dropout rates that are tried."""
SHIFTED = 0.8
"""A rate counts that shifts this share of trusted predictions, where there is one."""
QUANTILE = 0.25
"""The share of trusted samples below the limit."""
MAX_TRIED = 2000
"""Samples that the rate is chosen on, at even steps: their shift ratio is then known to a point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Psbd:
    """Minus the prediction shift uncertainty of every sample: the probability of its prediction that dropout costs.

    Source: Li, Chen, Liu, Wang 2025, PSBD: Prediction Shift Uncertainty Unlocks Backdoor Detection (CVPR; arXiv
    2406.05826): PSU(x) = P_c(x) - mean P_c(x) over `passes` passes with dropout after every block, c the prediction
    without it. Under dropout honest samples shift to some other class, triggered ones stay. The rate is the one at
    which the shift ratio of trusted samples exceeds that of the suspect ones most, among those that shift 80 % of
    trusted predictions where there are any; the limit is the 25 % quantile of trusted PSU. The paper gives no verdict
    on a class. Here one is suspicious when 85 % of it are below the limit, as when a backdoor's target is what other
    classes shift to.

    Raises NotMet for a model without convolutions.
    """

    card: ClassVar[Card] = Card(
        id="screen.psbd",
        summary="measures how much of each sample's prediction is lost when features are dropped",
        paper="Li et al. 2025, CVPR, arXiv 2406.05826",
        official_code="https://github.com/WL-619/PSBD",
        needs=Needs(access="gradients", modality="images", training_data=True, trusted_per_class=10),
        cost="four forward passes over the data, 36 over 2,000 samples of it",
        code="OS309",
        limits=(Limit(measure="steady", low=0.85),),
        deviations=(
            "the rate is chosen on 2,000 samples of the suspect data at most",
            "a verdict on classes; the paper suspects every sample below the limit, a quarter of honest ones with them",
        ),
        blind_spots=(
            "honest samples of the target: dropout shifts other classes to it, so that they stay as poison does",
            "poison that leaves the target steady in itself, as clean-label poison of a shallow network does",
            "on small networks all but patches: of blended, source-specific and all-to-all poison little stays",
            "a class that an unpoisoned model shifts all others to is accused, too",
        ),
        marks=frozenset({"mechanism"}),
    )

    passes: Annotated[int, Field(ge=1)] = 3

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run
    ) -> SampleScores:
        """Choose the rate, and score every sample with minus its PSU."""
        places = blocks_of(model)
        if not places:
            raise NotMet("needs convolutions, the model has none")
        (suspect, rows), (known, _) = by_id(data), by_id(trusted)
        rate = self._chosen(model, places, [suspect, known], run)
        psu = np.empty(len(data))
        psu[rows], _ = self._uncertainty(model, places, suspect, rate, run)
        trusted_psu, _ = self._uncertainty(model, places, known, rate, run)
        limit = float(np.quantile(trusted_psu, QUANTILE))
        labels = data.labels.numpy()

        def split(features: np.ndarray, label: int) -> Split:
            own = psu[labels == label]
            return Split(float((own < limit).mean()), "steady", -own, own < limit, features)

        def compare(rows: list[ClassScore]) -> list[ClassScore]:
            return [row.model_copy(update={"measures": {**row.measures, "dropout": rate}}) for row in rows]

        return screen_classes(data, model, split, compare, artifact=ARTIFACT, run=run)

    def _chosen(self, model: TorchClassifier, places: list[nn.Module], ordered: list[ImageSet], run: Run) -> float:
        """The dropout rate at which trusted predictions shift more often than suspect ones by the widest gap."""
        some = [one.subset(torch.from_numpy(evenly(np.arange(len(one)), MAX_TRIED))) for one in ordered]
        ratios = []
        for done, rate in enumerate(RATES):
            ratios.append([self._uncertainty(model, places, one, rate, run)[1] for one in some])
            run.step(done + 1, len(RATES), "dropout rates")
        return best_rate(np.array(ratios))

    def _uncertainty(
        self, model: TorchClassifier, places: list[nn.Module], data: ImageSet, rate: float, run: Run
    ) -> tuple[np.ndarray, float]:
        """PSU [n] of a set, and the share of its passes in which the prediction shifts."""
        rng, done, shifted = run.generator(f"psbd-{rate}-{len(data)}"), 0, 0
        found = []
        for images, _ in data.batches(batch_size(model.input_shape)):
            x = images.to(run.device)
            surest, predicted = model.predict(x).max(1)
            kept = torch.zeros_like(surest)
            with dropping(places, rate, rng):
                for _ in range(self.passes):
                    answers = model.predict(x)
                    kept += answers.gather(1, predicted[:, None]).squeeze(1) / self.passes
                    shifted += int((answers.argmax(1) != predicted).sum())
            found.append((surest - kept).cpu().double().numpy())
            done += len(x)
            run.step(done, len(data), "dropout")
        return np.concatenate(found), shifted / (self.passes * len(data))


def best_rate(ratios: np.ndarray) -> float:
    """The rate, from the shift ratios [rates, 2] of suspect and trusted samples at each of RATES."""
    gaps = ratios[:, 1] - ratios[:, 0]
    enough = ratios[:, 1] >= SHIFTED
    return RATES[int(np.argmax(np.where(enough, gaps, -np.inf) if enough.any() else gaps))]


def blocks_of(model: TorchClassifier) -> list[nn.Module]:
    """The modules after which features are dropped: residual blocks, else the layer that ends each convolution.

    A block is a module of its own kind with convolutions inside it, apart from the network itself. A convolution ends
    with its normalisation where one follows; a rectifier after it may as well come before the dropping.
    """
    blocks: list[nn.Module] = []
    for name, module in model.module.named_modules():
        own = any(isinstance(child, nn.Conv2d) for child in module.children())
        if name and own and not isinstance(module, nn.Sequential):
            blocks.append(module)
    if blocks:
        return blocks
    calls, _ = trace(model.module, model.probe_normalised())
    ends = []
    for index, call in enumerate(calls):
        if isinstance(call.module, nn.Conv2d):
            after = calls[index + 1] if index + 1 < len(calls) else None
            normal = after is not None and isinstance(after.module, nn.BatchNorm2d) and after.input is call.output
            ends.append(after.module if after is not None and normal else call.module)
    return list(dict.fromkeys(ends))


@contextlib.contextmanager
def dropping(places: list[nn.Module], rate: float, rng: Generator) -> Iterator[None]:
    """Drop each value that these modules give with chance `rate`, and scale up the rest, within the block."""

    def drop(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        kept = torch.rand(output.shape, generator=rng) >= rate
        return output * kept.to(output.device) / (1 - rate)

    hooks = [place.register_forward_hook(drop) for place in places]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
