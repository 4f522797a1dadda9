"""FGSM: one step along the sign of the input gradient."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Classifier
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.perturb.gradient import in_batches, input_gradient


def fgsm(model: Classifier[Images], x: Images, y: Labels, /, *, eps: float) -> Images:
    """Images moved by `eps` per value so that the loss at labels `y` rises, in [0, 1]; `x` is not changed.

    Goodfellow et al. 2015, sec. 4.
    """
    return (x + eps * input_gradient(model, x, y).sign()).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class FGSM:
    """Adversarial examples in one step: x + eps sign(gradient of the loss).

    Source: Goodfellow, Shlens, Szegedy 2015, Explaining and harnessing adversarial examples (ICLR;
    arXiv 1412.6572), sec. 4. `eps` is the change per value of an image in [0, 1]; 8/255 is what the
    field uses on photographs today, the paper had 0.1 to 0.25.
    """

    card: ClassVar[Card] = Card(
        id="perturb.fgsm",
        summary="adversarial examples in one step along the sign of the gradient",
        paper="Goodfellow et al. 2015, ICLR, arXiv 1412.6572",
        needs=Needs(access="gradients", modality="images"),
        cost="one forward and backward pass per image",
        marks=frozenset({"mechanism"}),
    )

    eps: Annotated[float, Field(gt=0, le=1)] = 8 / 255

    def perturb(self, model: Classifier[Images], x: Images, y: Labels, /, *, run: Run) -> Images:
        """Perturb `x` away from its labels `y`."""
        return in_batches(lambda part, labels: fgsm(model, part, labels, eps=self.eps), x, y, "FGSM", run=run)
