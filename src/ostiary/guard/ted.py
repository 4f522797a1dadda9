"""TED: follow an input through the layers; a triggered one comes to its class from afar."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Features, Images, Labels, Scores
from ostiary.data import split, trusted_subset
from ostiary.guard.fitted import Fitted, at_once
from ostiary.models.classifier import TorchClassifier
from ostiary.models.gaussian import whitening
from ostiary.models.trace import first_tensor, trace

MOST_LAYERS = 16
MOST_SAMPLES = 1000
VALUES = 1024
"""Of an activation map these are kept, means over parts of the image; set on develop models, as are most layers."""
WIDEST = 4096

CARD = Card(
    id="guard.ted",
    summary="ranks the nearest trusted sample of the predicted class, layer by layer, and flags odd courses",
    paper="Mo et al. 2024, IEEE S&P, arXiv 2312.02673",
    official_code="https://github.com/tedbackdoordefense/ted",
    needs=Needs(access="gradients", modality="images", trusted_per_class=10),
    cost="one forward pass per input; distances to at most 1,000 trusted samples in at most 17 layers",
    code="OS405",
    deviations=(
        "layers are what convolutions and linear layers take, and the logits, not what every layer gives; 17 at most",
        "activation maps are averaged over parts of the image, down to about 1,024 values a layer",
        "the outlier detector sums all principal components, squared, over their variance, which is shrunk",
        "the limit is a quantile of trusted inputs that are no part of the ranking",
    ),
    blind_spots=(
        "source-specific triggers; triggers whose features lie amid the target's from early layers on",
        "few trusted samples: with 25 a class on CIFAR-10 single triggers are caught or missed by the draw of these",
        "inputs of another kind without any trigger, and those that the model predicts wrongly, are flagged, too",
    ),
    marks=frozenset({"mechanism"}),
)


@dataclass(slots=True)
class FittedTed(Fitted):
    """Trusted samples as `layers` see them, and how their own courses vary.

    `features` [m, d] are those of all layers side by side, `widths` [l] how many belong to each, `labels` [m]; `usual`
    [l] is the mean course, `whiten` [l, l] makes its variation 1. The last layer, the logits, has no name in `layers`.
    """

    card: ClassVar[Card] = CARD
    tensors: ClassVar[tuple[str, ...]] = ("features", "widths", "labels", "usual", "whiten")
    texts: ClassVar[tuple[str, ...]] = ("layers",)

    features: Tensor
    widths: Tensor
    labels: Tensor
    usual: Tensor
    whiten: Tensor
    layers: list[str]
    threshold: float
    model_digest: str
    false_rejection: Rate | None = None

    def score(self, model: TorchClassifier, x: Images, /) -> Scores:
        """Squared Mahalanobis distance of each input's course from those of trusted samples."""
        return self.answer(model, x)[1]

    def answer(self, model: TorchClassifier, x: Images, /) -> tuple[Tensor, Scores]:
        """The model's probabilities and the scores, of one pass."""
        features, logits = seen_by(model, self.layers, x)
        course = self.course(torch.cat(features, 1), logits.argmax(1))
        return logits.softmax(1), ((course - self.usual) @ self.whiten).square().sum(1)

    def course(self, features: Features, predicted: Labels, *, own: bool = False) -> Tensor:
        """Of every layer the rank [n, l] of the nearest trusted sample of the predicted class among all of them.

        0 is the nearest of all; with no sample of that class it is their number. With `own` the features are those of
        the trusted samples themselves, in order, none of which is its own neighbour.
        """
        other = self.labels != predicted[:, None]
        ranks, widths = [], self.widths.tolist()
        for part, known in zip(features.split(widths, 1), self.features.split(widths, 1), strict=True):
            apart = torch.cdist(part, known, compute_mode="donot_use_mm_for_euclid_dist")
            if own:
                apart.fill_diagonal_(math.inf)
            nearest = apart.masked_fill(other, math.inf).amin(1, keepdim=True)
            ranks.append((apart < nearest).sum(1))
        return torch.stack(ranks, 1).float()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ted:
    """How oddly an input comes to its class, layer by layer, beside trusted samples; far from usual is suspicious.

    Source: Mo, Zhang, Zhang, Luo, Sun, Hu, Gao, Xiang 2024, Robust Backdoor Detection for Deep Learning via Topological
    Evolution Dynamics (IEEE S&P; arXiv 2312.02673): in every layer the trusted samples are ranked by their distance
    from the input, and the rank of the first one whose class is the predicted one is kept. Honest inputs lie close to
    their class from early on, triggered ones only in the last layers. An outlier detector learns the courses of the
    trusted samples that the model predicts rightly.

    Raises NotMet where these are fewer than two.
    """

    card: ClassVar[Card] = CARD
    fitted: ClassVar[type[Fitted]] = FittedTed

    false_rejection: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def fit(self, model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run) -> FittedTed:
        """Learn the courses on half of the trusted images, set the limit on a quarter, measure on the last."""
        own, limit, check = split(trusted, (0.5, 0.25, 0.25), seed=run.seed)
        if len(own) > MOST_SAMPLES:
            own = trusted_subset(own, MOST_SAMPLES, seed=run.seed)
        layers = layers_of(model)
        parts = [seen_by(model, layers, x.to(run.device)) for x, _ in own.batches(FittedTed.scored_at_once)]
        kept = torch.cat([logits.argmax(1) for _, logits in parts]) == own.labels
        if kept.sum() < 2:
            raise NotMet(f"needs trusted samples that the model predicts rightly, has {int(kept.sum())}")
        widths = torch.tensor([part.shape[1] for part in parts[0][0]])
        features = torch.cat([torch.cat(seen, 1) for seen, _ in parts])[kept]
        nothing = torch.empty(0)
        fitted = FittedTed(features, widths, own.labels[kept], nothing, nothing, layers, 0.0, model.digest)
        courses = fitted.course(features, fitted.labels, own=True)
        fitted.usual = courses.mean(0)
        fitted.whiten = torch.from_numpy(whitening((courses - fitted.usual).double().numpy())).float()
        fitted.set_limit(model, limit, check, self.false_rejection, run)
        return fitted


def layers_of(model: TorchClassifier) -> list[str]:
    """The convolutions and linear layers after the first, in the order in which they are called, at even steps.

    Of those that take the same tensor (a shortcut, the parts of an attention) the first one counts.
    """
    probe = model.probe_normalised()
    calls, _ = trace(model.module, probe)
    taken: dict[int, str] = {}
    for call in calls:
        weighs = isinstance(call.module, nn.Conv2d | nn.Linear)
        if weighs and call.input is not None and len(call.input) == len(probe):
            taken.setdefault(id(call.input), call.name)
    names = list(dict.fromkeys(taken.values()))[1:]
    steps = np.linspace(0, len(names) - 1, min(len(names), MOST_LAYERS)).round().astype(int)
    return [names[step] for step in steps]


def seen_by(model: TorchClassifier, layers: list[str], x: Images) -> tuple[list[Tensor], Tensor]:
    """What each of the layers takes, pooled to [n, d], and the logits [n, k], which are the last of these, too."""
    found, answers = [], []
    with taken_by(model, layers) as taken, torch.no_grad():
        for part in x.split(at_once(x)):
            answers.append(model.logits(part).float().cpu())
            found.append([*(taken[name] for name in layers), answers[-1]])
    return [torch.cat(parts) for parts in zip(*found, strict=True)], torch.cat(answers)


@contextlib.contextmanager
def taken_by(model: TorchClassifier, layers: list[str]) -> Iterator[dict[str, Tensor]]:
    """By name what these layers took in the last pass, pooled [n, d], within the block."""
    taken: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        if (given := first_tensor(args, kwargs)) is not None:
            taken[name] = pooled(given)

    modules = [model.module.get_submodule(name) for name in layers]
    hooks = [
        module.register_forward_pre_hook(partial(keep, name), with_kwargs=True)
        for name, module in zip(layers, modules, strict=True)
    ]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()


def pooled(x: Tensor) -> Tensor:
    """An activation [n, ...] as [n, d] on the CPU: means over parts of a map, over all tokens, or as it is."""
    if x.dim() == 4:
        side = max(1, math.isqrt(VALUES // x.shape[1]))
        x = adaptive_avg_pool2d(x, (min(side, x.shape[2]), min(side, x.shape[3])))
    elif x.dim() == 3:
        x = x.mean(1)
    flat = x.flatten(1).float()
    return (adaptive_avg_pool1d(flat, WIDEST) if flat.shape[1] > WIDEST else flat).cpu()
