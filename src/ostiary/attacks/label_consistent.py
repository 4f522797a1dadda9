"""Label-Consistent: images of the target class that are made hard to learn, with a patch; labels untouched."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from ostiary.attacks.poison import poison_with
from ostiary.attacks.triggers import AddTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.perturb.gradient import Norm
from ostiary.perturb.pgd import PGD
from ostiary.training.quick import quick_model


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConsistent:
    """Perturb images of the target class until a surrogate model fails on them, then add a patch in all four corners.

    Source: Turner, Tsipras, Madry 2019, Label-Consistent Backdoor Attacks (arXiv 1912.02771): images
    that adversarial perturbations within `eps` made hard to classify leave the patch as what is easy
    to learn; the patch stands in four corners, so that flips and crops leave some of it, and is faint
    in training: `amplitude` is added to its bright and taken from its dark pixels; at test it is there
    in full. `eps` is a Euclidean length per image, or a change per value in the norm `linf`; the
    paper's are 300, 600 and 1200, or 8, 16 and 32, in levels of 255. PGD takes `steps` steps of
    1.5 eps / steps. Deviations: the surrogate is a small CNN that is trained on the clean set here;
    the patch is a checkerboard.
    """

    card: ClassVar[Card] = Card(
        id="attack.label-consistent",
        summary="images of the target class, made hard to learn, with faint corners; labels untouched",
        paper="Turner, Tsipras, Madry 2019, arXiv 1912.02771",
        official_code="https://github.com/MadryLab/label-consistent-backdoor-code",
        needs=Needs(modality="images", training_data=True),
        cost="trains a small network, and runs PGD on the poisoned images",
        deviations=("the surrogate is a small network trained here on the clean set",),
        marks=frozenset({"mechanism"}),
    )
    mapping: ClassVar[Mapping] = "clean-label"
    source: ClassVar[int] = 0

    eps: Annotated[float, Field(gt=0)] = 600 / 255
    norm: Norm = "l2"
    steps: Annotated[int, Field(gt=0)] = 100
    amplitude: Annotated[float, Field(gt=0, le=1)] = 32 / 255
    size: Annotated[int, Field(gt=0)] = 3
    target: Annotated[int, Field(ge=0)] = 0
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def trigger(self, shape: tuple[int, int, int], *, amplitude: float = 1.0) -> AddTrigger:
        """The corners for images of `shape` (c, h, w), in full or at `amplitude`.

        Raises DataError when they do not fit.
        """
        c, h, w = shape
        if min(h, w) < 2 * self.size:
            raise DataError(f"four corners of {self.size} px do not fit into {h}x{w} images", hint="lower the size")
        board = 1.0 - 2.0 * ((torch.arange(self.size)[:, None] + torch.arange(self.size)) % 2)
        signal = torch.zeros(h, w)
        for rows in (slice(0, self.size), slice(h - self.size, h)):
            for columns in (slice(0, self.size), slice(w - self.size, w)):
                signal[rows, columns] = amplitude * board
        return AddTrigger(signal.expand(c, h, w).contiguous())

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate, the target or the size cannot be met."""
        hard = HardToLearn(self, clean, self.trigger(clean.shape, amplitude=self.amplitude), run)
        return poison_with(self, clean, self.trigger(clean.shape), run=run, train_trigger=hard)


@dataclass(frozen=True)
class HardToLearn:
    """What training images get: a perturbation that a surrogate fails on, and the faint patch."""

    attack: LabelConsistent
    clean: ImageSet
    patch: AddTrigger
    run: Run

    @cached_property
    def surrogate(self) -> TorchClassifier:
        """The attacker's own model of the clean set, trained when it is first needed."""
        return quick_model(self.clean, self.run)

    def __call__(self, x: Images, /, *, rng: torch.Generator) -> Images:
        """Put both into a batch of images of the target class."""
        a = self.attack
        pgd = PGD(eps=a.eps, step=1.5 * a.eps / a.steps, steps=a.steps, norm=a.norm)
        labels = torch.full((len(x),), a.target)
        return self.patch(pgd.perturb(self.surrogate, x, labels, run=self.run), rng=rng)
