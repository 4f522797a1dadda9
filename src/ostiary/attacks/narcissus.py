"""Narcissus: a faint noise that stands for the target class, on some of its own images; labels untouched."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from ostiary.attacks.poison import check_classes, choose, poison_with
from ostiary.attacks.triggers import AddTrigger
from ostiary.attacks.truth import Mapping, Poisoned
from ostiary.core.card import Card, Needs
from ostiary.core.run import Run
from ostiary.data.base import ImageSet
from ostiary.perturb.universal import UniversalPerturbation
from ostiary.training.quick import quick_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Narcissus:
    """Add to images of the target class one noise that makes them more of that class still; at test, several times it.

    Source: Zeng, Pan, Just, Lyu, Qiu, Jia 2023, Narcissus (ACM CCS; arXiv 2204.05255), sec. 4: the
    noise within `eps` that lowers the mean loss of target images at their own label on a surrogate,
    then added to a share `rate` of the set, all of the target class; test images get `amplify` times
    the noise. Deviations: the paper's surrogate learns public images of other classes and is tuned on
    the target class alone, ours is a small CNN trained on the clean set; the noise is found by
    sign steps of the gradient.
    """

    card: ClassVar[Card] = Card(
        id="attack.narcissus",
        summary="a noise that stands for the target class on some of its images, stronger at test; labels untouched",
        paper="Zeng et al. 2023, ACM CCS, arXiv 2204.05255",
        official_code="https://github.com/reds-lab/Narcissus",
        needs=Needs(modality="images", training_data=True),
        cost="trains a small network, and runs it and its gradient `epochs` times over the target class",
        deviations=("the surrogate is a small network trained here on the clean set",),
        marks=frozenset({"mechanism"}),
    )
    mapping: ClassVar[Mapping] = "clean-label"
    source: ClassVar[int] = 0

    eps: Annotated[float, Field(gt=0, le=1)] = 16 / 255
    amplify: Annotated[float, Field(gt=0)] = 3.0
    epochs: Annotated[int, Field(gt=0)] = 50
    target: Annotated[int, Field(ge=0)] = 0
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.0005

    def noise(self, clean: ImageSet, run: Run) -> Tensor:
        """The noise [c, h, w] for images of `clean`, found on a surrogate that is trained on them."""
        rows = (clean.labels == self.target).nonzero().squeeze(1)
        search = UniversalPerturbation(eps=self.eps, step=self.eps / 16, epochs=self.epochs, targeted=True)
        return search.find(quick_model(clean, run), clean.take(rows), clean.labels[rows], run=run)

    def poison(self, clean: ImageSet, /, *, run: Run) -> Poisoned:
        """Poison `rate` of the set; raises DataError when the rate or the target cannot be met."""
        # What poison_with refuses is refused before a surrogate is trained.
        check_classes(self, len(clean.classes))
        choose(clean.labels == self.target, self.rate, "poisoned", run.generator("choice"))
        noise = self.noise(clean, run)
        trigger, faint = AddTrigger(self.amplify * noise), AddTrigger(noise)
        return poison_with(self, clean, trigger, run=run, train_trigger=faint)
