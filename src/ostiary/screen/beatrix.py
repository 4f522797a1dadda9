"""Beatrix: how the channels of a convolution fire together, held against trusted samples of the same label."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.linalg import eigh
from scipy.spatial.distance import cdist
from torch import Tensor

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.errors import ModelError, NotMet
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import batch_size
from ostiary.models.classifier import TorchClassifier, last_conv_name
from ostiary.models.fuse import fused_inference
from ostiary.screen.classes import Split, evenly, screen_classes
from ostiary.screen.two_groups import LEAST_CLASSES, above_median

ARTIFACT = "beatrix"
LIMIT = float(np.exp(2))
"""The paper's limit on the anomaly index."""
QUANTILE = 0.95
"""The deviation that this share of unseen trusted samples stays below parts a class in two; the paper's."""
FOLDS = 5
NEGLIGIBLE = 0.01
"""Share of the mean entry that is added to the bound a deviation is measured in: pairs that never fire have zero."""
LEAST = 1e-4
"""The least limit on a deviation: where no trusted sample deviates at all, rounding must not."""
TINY = 1e-12
CHANNELS = 128
"""Channels that are looked at, at even steps: entries grow with their square."""
MAX_TRUSTED = 200
MAX_COMPARED = 500
"""Trusted samples of a class, and samples of either group in the comparison, that are used, at even steps."""
ROWS_AT_ONCE = 8
"""So few that what passes stays in a processor's cache: with 64 a sample takes more than twice as long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beatrix:
    """Deviation of each sample's Gram matrices from those of the trusted samples of its label.

    Source: Ma, Wang, Sun, Xue, Wen, Xiang 2023, The "Beatrix" Resurrections (NDSS, arXiv 2209.11715). Of an
    intermediate layer's activations v [channels, positions] the Gram matrix of order p is (v^p (v^p)')^(1/p), entry by
    entry. Trusted samples of a class give each entry a range, the median and `width` times the median absolute
    deviation either side. A sample's deviation is by how much its entries leave their ranges, as a share of the bound,
    in the mean over entries and orders. Samples that deviate more than 95 % of the trusted ones are one group of their
    class, the others another; the maximum mean discrepancy of the two says how different they are, and a class is
    suspicious when it exceeds the median class's by more than exp(2) robust standard deviations.

    Raises NotMet for fewer than four classes, and for a model without convolutions but of the image itself.
    """

    card: ClassVar[Card] = Card(
        id="screen.beatrix",
        summary="holds how channels fire together against trusted samples of the same label",
        paper="Ma et al. 2023, NDSS, arXiv 2209.11715",
        official_code="https://github.com/wanlunsec/Beatrix",
        needs=Needs(access="gradients", modality="images", training_data=True, trusted_per_class=20),
        cost="two forward passes over the data; eight matrix products of 128 x 128 per sample",
        code="OS307",
        limits=(Limit(measure="j_star", low=LIMIT),),
        deviations=(
            "the layer is what the last convolution takes, at most 128 of its channels",
            "a deviation is also divided by 1 % of the mean entry, as the bound of a pair that never fires is zero",
            "the score is the deviation over its class's limit, so that classes compare",
            "the discrepancy is weighted by the sizes of the groups, with no penalty on norms, as in the authors' code",
            "a class counts only where the anomaly index is high, not low",
        ),
        blind_spots=(
            "all-to-all backdoors: the samples rank first, but every class has an odd group, so that none stands out",
            "less than 1 % of the set poisoned, most attacks on 1 %, and adaptive poison in a small network",
            "trusted samples from another source than the data",
            "models with fewer than four classes, or whose last convolution takes a single position",
            "one of twelve unattacked develop models has a class that is accused",
        ),
        marks=frozenset({"mechanism"}),
    )

    orders: Annotated[int, Field(ge=1, le=16)] = 8
    width: Annotated[float, Field(gt=0)] = 10.0

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run
    ) -> SampleScores:
        """Score every sample with its deviation over its class's limit; those above 1 are suspected.

        Raises OutOfTime once the deadline of `run` has passed.
        """
        if len(data.classes) < LEAST_CLASSES:
            raise NotMet(f"needs {LEAST_CLASSES} classes, the data have {len(data.classes)}")
        layer = _Layer(model)
        ranges, limits = self._ranges(layer, trusted, run)
        scores, places = self._deviations(layer, data, ranges, run)
        labels = data.labels.numpy()
        scores /= limits[labels]

        def split(_: np.ndarray, label: int) -> Split:
            own, where = scores[labels == label], places[labels == label]
            return Split(
                score=discrepancy(where[own > 1], where[own <= 1]),
                measure="j",
                scores=own,
                suspected=own > 1,
                points=_plane(where),
            )

        return screen_classes(data, model, split, _with_index, artifact=ARTIFACT, run=run)

    def _ranges(self, layer: "_Layer", trusted: LabelledSet[Images], run: Run) -> tuple["Ranges", np.ndarray]:
        """The ranges of every class, and the limit [k] on a deviation, by trusted samples that ranges did not see."""
        labels = trusted.labels.numpy()
        if (least := int(np.bincount(labels, minlength=len(trusted.classes)).min())) < FOLDS:
            raise NotMet(f"needs {FOLDS} trusted samples of every class, the rarest has {least}")
        found, limits = [], np.ones(len(trusted.classes))
        for label in range(len(trusted.classes)):
            run.step(label, len(trusted.classes), "Gram matrices of trusted samples")
            rows = evenly(np.flatnonzero(labels == label), MAX_TRUSTED)
            grams = torch.cat(
                [gram_matrices(maps, self.orders) for maps, _ in layer.maps(trusted.subset(rows.tolist()), run)]
            )
            found.append(Ranges.of(grams, self.width))
            limits[label] = max(float(np.quantile(_unseen(grams, self.width), QUANTILE)), LEAST)
        return Ranges(*(torch.stack(parts) for parts in zip(*(one.parts() for one in found), strict=True))), limits

    def _deviations(
        self, layer: "_Layer", data: LabelledSet[Images], ranges: "Ranges", run: Run
    ) -> tuple[np.ndarray, np.ndarray]:
        """The deviation [n] of every sample from the ranges of its label, and its activations' means [n, c]."""
        # Made beforehand: small results kept between large passing tensors would tear the memory to pieces.
        deviations, places = np.empty(len(data)), np.empty((len(data), len(layer.channels)), np.float32)
        done = 0
        for maps, labels in layer.maps(data, run):
            for part, own in zip(maps.split(ROWS_AT_ONCE), labels.split(ROWS_AT_ONCE), strict=True):
                rows = slice(done, done + len(part))
                grams = gram_matrices(part, self.orders)
                deviations[rows] = ranges.at(own.to(part.device)).deviation(grams).cpu().numpy()
                places[rows] = part.mean(2).cpu().numpy()
                done += len(part)
            run.step(done, len(data), "Gram matrices")
        return deviations, places


class _Layer:
    """What the last convolution of a model takes, channel by channel.

    Raises NotMet where the model has no convolution, or none but of the image itself.
    """

    def __init__(self, model: TorchClassifier) -> None:
        self.model = fused_inference(model, channels_last=True)
        try:
            self.name = last_conv_name(self.model)
        except ModelError as error:
            raise NotMet(str(error)) from error
        probe, _ = self.model.input_of(self.name, self.model.probe())
        if probe.dim() != 4 or probe.shape[1] <= model.input_shape[0]:
            raise NotMet("needs a convolution of features, the model's last one is of the image itself")
        self.channels = torch.from_numpy(evenly(np.arange(probe.shape[1]), CHANNELS)).to(probe.device)

    def maps(self, data: LabelledSet[Images], run: Run) -> Iterator[tuple[Tensor, Tensor]]:
        """Activations [b, c, positions] and labels [b] of all samples in order."""
        for x, labels in data.batches(batch_size(self.model.input_shape)):
            found, _ = self.model.input_of(self.name, x.to(run.device))
            yield found.index_select(1, self.channels).flatten(2).float(), labels


@dataclass(frozen=True, slots=True)
class Ranges:
    """The bounds `low`, `high` [..., orders, entries] of Gram matrices, and what is `negligible` [..., orders, 1]."""

    low: Tensor
    high: Tensor
    negligible: Tensor

    @classmethod
    def of(cls, grams: Tensor, width: float) -> "Ranges":
        """Those that Gram matrices [n, orders, entries] of one class give."""
        middle = grams.median(0).values
        reach = width * (grams - middle).abs().median(0).values
        negligible = (NEGLIGIBLE * middle.abs().mean(1, keepdim=True)).clamp(min=TINY)
        return cls(middle - reach, middle + reach, negligible)

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Its tensors in order."""
        return self.low, self.high, self.negligible

    def at(self, labels: Tensor) -> "Ranges":
        """Of ranges stacked by class, those of the given labels [n]."""
        return Ranges(*(part[labels] for part in self.parts()))

    def deviation(self, grams: Tensor) -> Tensor:
        """By how much Gram matrices [n, orders, entries] leave the ranges, as a mean share of the bounds, [n]."""
        below = (self.low - grams).clamp(min=0) / (self.low.abs() + self.negligible)
        above = (grams - self.high).clamp(min=0) / (self.high.abs() + self.negligible)
        return (below + above).mean((1, 2))


def gram_matrices(maps: Tensor, orders: int) -> Tensor:
    """Gram matrices [n, orders, c (c + 1) / 2] of activations [n, c, positions]: their upper triangles, row by row."""
    scale = maps.abs().amax((1, 2), keepdim=True).clamp(min=TINY)
    unit = maps / scale  # every order scales as the square, and powers of large values would overflow
    c = maps.shape[1]
    rows, columns = torch.triu_indices(c, c, device=maps.device)
    found = maps.new_empty(len(maps), orders, len(rows))
    for order in range(1, orders + 1):
        power = unit**order
        # Much quicker than taking rows and columns.
        entries = (power @ power.transpose(1, 2)).flatten(1).index_select(1, rows * c + columns)
        found[:, order - 1] = entries.sign() * entries.abs() ** (1 / order)
    return found.mul_(scale**2)


def discrepancy(one: np.ndarray, other: np.ndarray) -> float:
    """The squared maximum mean discrepancy of points [n, d] and [m, d], times n m / (n + m); 0 where one has none.

    Gaussian kernels, the median squared distance and half of it for the widths (Gretton et al. 2012).
    """
    if not len(one) or not len(other):
        return 0.0
    one, other = (group[evenly(np.arange(len(group)), MAX_COMPARED)].astype(np.float64) for group in (one, other))
    n, m = len(one), len(other)
    both = np.concatenate([one, other])
    squares = cdist(both, both, "sqeuclidean")
    middle = max(float(np.median(squares)), np.finfo(float).tiny)
    kernel = np.exp(-squares / middle) + np.exp(-2 * squares / middle)
    gap = kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
    return float(max(gap, 0.0) * n * m / (n + m))


def _unseen(grams: Tensor, width: float) -> np.ndarray:
    """The deviation [n] of each trusted sample of a class from the ranges that the other folds give."""
    fold = torch.arange(len(grams), device=grams.device) % FOLDS
    found = torch.zeros(len(grams), device=grams.device)
    for number in range(FOLDS):
        found[fold == number] = Ranges.of(grams[fold != number], width).deviation(grams[fold == number])
    return found.cpu().numpy()


def _with_index(rows: list[ClassScore]) -> list[ClassScore]:
    """The rows with J*, how far their discrepancy stands above the median class's."""
    scores = np.array([np.nan if row.score is None else row.score for row in rows])
    if np.isfinite(scores).sum() < LEAST_CLASSES:
        return rows
    return [
        row if row.score is None else row.model_copy(update={"measures": {**row.measures, "j_star": index}})
        for row, index in zip(rows, above_median(scores).tolist(), strict=True)
    ]


def _plane(points: np.ndarray) -> np.ndarray:
    """Points [n, d] along the two axes of their largest variance."""
    centred = points - points.mean(0)
    _, axes = eigh(centred.T @ centred, subset_by_index=[max(0, points.shape[1] - 2), points.shape[1] - 1])
    return np.asarray(centred @ axes[:, ::-1])
