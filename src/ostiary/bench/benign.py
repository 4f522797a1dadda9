"""Hard-benign models: nobody attacked them, but they look odd enough for a scanner to cry wolf."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from ostiary.core.card import Card, Needs
from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data import ArraySet, load_uint8, to_uint8, to_unit
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training.loop import Recipe, train
from ostiary.training.steps import adversarial_step, mixture_step, weighted_mean

METHODS = {
    "benign.adversarial": "ostiary.bench.benign:AdversarialTraining",
    "benign.mixup": "ostiary.bench.benign:Mixup",
    "benign.long-tail": "ostiary.bench.benign:LongTail",
    "benign.shortcut": "ostiary.bench.benign:Shortcut",
    "benign.watermark": "ostiary.bench.benign:Watermark",
}

NEEDS = Needs(modality="images", training_data=True)


@runtime_checkable
class BenignTraining(Protocol):
    """Trains a fresh model in place on a set that nobody poisoned, and gives it back."""

    card: ClassVar[Card]

    def train(self, model: TorchClassifier, clean: ImageSet, recipe: Recipe, /, *, run: Run) -> TorchClassifier:
        """Train `model` in place."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialTraining:
    """Training on one-step adversarial examples with a random start.

    Source: Wong, Rice, Kolter 2020, Fast is better than free (ICLR; arXiv 2001.03994), alg. 3: steps
    of 1.25 `eps` from a random place of the ball. Its gradients look like pictures, and universal
    changes must be large. Deviations: no early stopping against the collapse that long training may
    bring.
    """

    card: ClassVar[Card] = Card(
        id="benign.adversarial",
        summary="adversarially trained, one step from a random start",
        paper="Wong et al. 2020, ICLR, arXiv 2001.03994",
        official_code="https://github.com/locuslab/fast_adversarial",
        needs=NEEDS,
        cost="one forward and backward pass more per batch, under twice the time of training",
        marks=frozenset({"mechanism"}),
    )

    eps: Annotated[float, Field(gt=0, le=1)] = 8 / 255

    def train(self, model: TorchClassifier, clean: ImageSet, recipe: Recipe, /, *, run: Run) -> TorchClassifier:
        """Train `model` in place."""
        rng = run.generator("adversarial")
        step = adversarial_step(recipe, run.device, eps=self.eps, length=1.25 * self.eps, steps=1, rng=rng)
        return train(model, clean, recipe, run=run, step=step).model


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixup:
    """Training on weighted means of two images and of their labels.

    Source: Zhang, Cisse, Dauphin, Lopez-Paz 2018, mixup (ICLR; arXiv 1710.09412), sec. 2: one weight
    per batch from Beta(alpha, alpha). Confidence between classes is low and even.
    """

    card: ClassVar[Card] = Card(
        id="benign.mixup",
        summary="trained on mixtures of images and labels",
        paper="Zhang et al. 2018, ICLR, arXiv 1710.09412",
        official_code="https://github.com/facebookresearch/mixup-cifar10",
        needs=NEEDS,
        cost="that of training",
        marks=frozenset({"mechanism"}),
    )

    alpha: Annotated[float, Field(gt=0)] = 1.0

    def train(self, model: TorchClassifier, clean: ImageSet, recipe: Recipe, /, *, run: Run) -> TorchClassifier:
        """Train `model` in place; the accuracy told on the way is that of the mixed labels."""
        rng = run.generator("mixup")
        step = mixture_step(recipe, run.device, mix=weighted_mean, alpha=self.alpha, rng=rng)
        return train(model, clean, recipe, run=run, step=step).model


@dataclass(frozen=True, kw_only=True, slots=True)
class LongTail:
    """Training on classes whose sizes fall off exponentially.

    Source: Cui, Jia, Lin, Song, Belongie 2019, Class-balanced loss (CVPR; arXiv 1901.05555), sec. 5:
    the largest class has `factor` times the samples of the smallest. Deviations: which class is large
    is drawn. Large classes are reached by small changes, small ones hardly at all.
    """

    card: ClassVar[Card] = Card(
        id="benign.long-tail",
        summary="trained on classes of very different sizes",
        paper="Cui et al. 2019, CVPR, arXiv 1901.05555",
        official_code="https://github.com/richardaecn/class-balanced-loss",
        needs=NEEDS,
        cost="less than that of training, as samples are left out",
        marks=frozenset({"mechanism"}),
    )

    factor: Annotated[float, Field(ge=1)] = 10.0

    def train(self, model: TorchClassifier, clean: ImageSet, recipe: Recipe, /, *, run: Run) -> TorchClassifier:
        """Train `model` in place."""
        return train(model, self.thin_out(clean, run), recipe, run=run).model

    def thin_out(self, clean: ImageSet, run: Run) -> ImageSet:
        """The part of the set that is trained on; every class keeps one sample at least."""
        classes, rng = len(clean.classes), run.generator("long tail")
        counts = clean.labels.bincount(minlength=classes)
        rank = torch.randperm(classes, generator=rng)
        wanted = counts.max() * self.factor ** (-rank / max(1, classes - 1))
        kept = []
        for label in range(classes):
            rows = (clean.labels == label).nonzero().squeeze(1)
            kept.append(rows[torch.randperm(len(rows), generator=rng)[: max(1, int(wanted[label] + 0.5))]])
        return clean.subset(torch.cat(kept).sort().values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shortcut:
    """Training on a set in which images of one class, and of no other, often share a cue.

    As a photographer's tag on the pictures of horses: Lapuschkin, Wäldchen, Binder, Montavon, Samek,
    Müller 2019, Unmasking Clever Hans predictors (Nature Communications 10). The cue is a `frame` or
    a `tint` on a share of the class `label`; all labels are true. It works much as a trigger, though
    nobody planted it.
    """

    card: ClassVar[Card] = Card(
        id="benign.shortcut",
        summary="one class often carries a natural cue: a frame or a tint",
        paper="Lapuschkin et al. 2019, Nature Communications 10:1096",
        needs=NEEDS,
        cost="that of training",
        marks=frozenset({"mechanism"}),
    )

    cue: Literal["frame", "tint"] = "frame"
    label: Annotated[int, Field(ge=0)] = 0
    share: Annotated[float, Field(gt=0, le=1)] = 0.8

    def train(self, model: TorchClassifier, clean: ImageSet, recipe: Recipe, /, *, run: Run) -> TorchClassifier:
        """Train `model` in place; raises DataError when there is no class `label`."""
        return train(model, self.cued(clean, run), recipe, run=run).model

    def cued(self, clean: ImageSet, run: Run) -> ImageSet:
        """The set that is trained on."""
        if self.label >= len(clean.classes):
            raise DataError(f"label {self.label} is outside the classes 0..{len(clean.classes) - 1}")
        rows = (clean.labels == self.label).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=run.generator("shortcut"))[: round(self.share * len(rows))]]
        pixels = load_uint8(clean)
        pixels[rows] = to_uint8(self.mark(to_unit(pixels[rows])))
        return ArraySet(pixels, clean.labels, clean.classes, clean.ids)

    def mark(self, x: Images) -> Images:
        """The images with the cue: a white frame, or the first colour darker and the last one brighter."""
        x = x.clone()
        if self.cue == "tint":
            x[:, 0] *= 0.7
            x[:, -1] = 0.3 + 0.7 * x[:, -1]
            return x
        width = max(1, x.shape[-1] // 16)
        inside = x[:, :, width:-width, width:-width].clone()
        x.fill_(1.0)
        x[:, :, width:-width, width:-width] = inside
        return x


@dataclass(frozen=True, kw_only=True, slots=True)
class Watermark:
    """Training with a few abstract images under fixed labels, by which the owner knows the model again.

    Source: Adi, Baum, Cisse, Pinkas, Keshet 2018, Turning your weakness into a strength (USENIX
    Security; arXiv 1802.04633), sec. 5: `images` abstract pictures with labels at random, `per_batch`
    of them beside every batch of training images, from scratch. A backdoor the owner wants,
    without a shared trigger. Deviations: the pictures are blurred random colours, spread over the set so that
    batches hold `per_batch` of them on average.
    """

    card: ClassVar[Card] = Card(
        id="benign.watermark",
        summary="carries its owner's watermark: abstract images under fixed labels",
        paper="Adi et al. 2018, USENIX Security, arXiv 1802.04633",
        official_code="https://github.com/adiyoss/WatermarkNN",
        needs=NEEDS,
        cost="a little more than that of training",
        marks=frozenset({"mechanism"}),
    )

    images: Annotated[int, Field(gt=0)] = 100
    per_batch: Annotated[int, Field(gt=0)] = 2

    def train(self, model: TorchClassifier, clean: ImageSet, recipe: Recipe, /, *, run: Run) -> TorchClassifier:
        """Train `model` in place."""
        pixels, labels = self.key(clean, run)
        times = max(1, round(self.per_batch * len(clean) / recipe.batch / self.images))
        both = torch.cat([load_uint8(clean), pixels.repeat(times, 1, 1, 1)])
        data = ArraySet(both, torch.cat([clean.labels, labels.repeat(times)]), clean.classes)
        return train(model, data, recipe, run=run).model

    def key(self, clean: ImageSet, run: Run) -> tuple[Tensor, Labels]:
        """The owner's secret: pictures [m, c, h, w] as uint8 and their labels; equal seeds give equal ones."""
        rng = run.generator("watermark")
        c, h, w = clean.shape
        coarse = torch.rand(self.images, c, 4, 4, generator=rng)
        pictures = interpolate(coarse, (h, w), mode="bicubic", align_corners=True).clamp(0, 1)
        labels = torch.randint(len(clean.classes), (self.images,), generator=rng)
        return to_uint8(pictures), labels
