"""Adversarial training, as a control: what it does to backdoors is measured, not promised."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Hardened
from ostiary.core.run import Run
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training import Recipe, train
from ostiary.training.steps import adversarial_step


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialTraining:
    """Trains on adversarial examples of the network as it stands: PGD from a random start, or one large step.

    Source: Madry, Makelov, Schmidt, Tsipras, Vladu 2018 (ICLR; arXiv 1706.06083), sec. 2.1 and 5: `steps` of a quarter
    of `eps`; with `fast` Wong, Rice, Kolter 2020 (ICLR; arXiv 2001.03994), alg. 3: one of 1.25 `eps`. A control: it is
    made against perturbations. Trusted samples are not used, and nothing is chosen. Raises as `train`.
    """

    card: ClassVar[Card] = Card(
        id="harden.adversarial",
        summary="control: trains on adversarial examples; made against perturbations, not against backdoors",
        paper="Madry et al. 2018, ICLR, arXiv 1706.06083; Wong et al. 2020, ICLR, arXiv 2001.03994 (fast)",
        official_code="https://github.com/MadryLab/cifar10_challenge",
        needs=Needs(access="gradients", modality="images", training_data=True),
        cost="one forward and backward pass per batch and step beside training: eight times it, fast twice",
        deviations=("no early stopping against the collapse that long fast training may bring",),
        blind_spots=(
            "backdoors: a trigger larger than eps is learned as ever, patches maybe sooner",
            "accuracy on plain images falls",
        ),
        marks=frozenset({"mechanism"}),
    )

    eps: Annotated[float, Field(gt=0, le=1)] = 8 / 255
    steps: Annotated[int, Field(ge=1)] = 7
    fast: bool = False

    def harden(
        self, data: ImageSet, fresh: TorchClassifier, trusted: ImageSet | None, recipe: Recipe, /, *, run: Run
    ) -> Hardened:
        """Train a copy of `fresh` on `data`."""
        steps, length = (1, 1.25 * self.eps) if self.fast else (self.steps, self.eps / 4)
        rng = run.generator(self.card.name)
        step = adversarial_step(recipe, run.device, eps=self.eps, length=length, steps=steps, rng=rng)
        return Hardened(train(fresh.clone(), data, recipe, run=run, step=step).model)
