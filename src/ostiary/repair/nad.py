"""Neural Attention Distillation: a fine-tuned copy teaches the model where to look."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.models.trace import trace
from ostiary.repair.tune import Tuning, fine_tune

DEPTHS = 3
"""Layers that are compared: the last of each of the last sizes of maps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nad:
    """Fine-tune a copy, then fine-tune the model towards the copy's attention maps.

    Source: Li, Lyu, Koren, Lyu, Li, Ma 2021, Neural Attention Distillation (ICLR; arXiv 2101.05930), sec. 3: the
    attention of a layer is the sum over channels of its squared activations, scaled to length 1; the loss is
    cross-entropy plus beta times the distances between the maps of model and teacher. The distance here is the mean
    square over places, as in public code, whose betas of 500 and 1,000 belong to it. Nothing is selected.

    Raises NotMet for a model without a convolution, and what `fine_tune` does.
    """

    card: ClassVar[Card] = Card(
        id="repair.nad",
        summary="fine-tunes a copy and then the model towards the copy's attention maps",
        paper="Li et al. 2021, ICLR, arXiv 2101.05930",
        official_code="https://github.com/bboylyg/NAD",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="epochs over the trusted images, twice",
        deviations=("one beta for all layers; the layers are the last of each of the last three sizes of maps",),
        blind_spots=(
            "a teacher that keeps the backdoor passes it on: it can be no better than fine-tuning lets it",
            (
                "what distillation adds is disputed: on the authors' own student, fine-tuning at the same rate left "
                "8 % of ASR and this 20 %"
            ),
        ),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 20
    lr: Annotated[float, Field(gt=0)] = 0.05
    beta: Annotated[float, Field(ge=0)] = 1000.0

    def repair(
        self, model: TorchClassifier, trusted: LabelledSet[Images], evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a distilled copy; `evidence` is not used."""
        names = attended(model)
        if not names:
            raise NotMet("needs a convolution, whose attention could be taught")
        pixels, tuning = load_uint8(trusted), Tuning(epochs=self.epochs, lr=self.lr)
        teacher, student = model.clone().to(run.device), model.clone().to(run.device)
        fine_tune(teacher, pixels, trusted.labels, tuning, run=run, label="teacher")

        def backward(x: Images, want: Tensor) -> Tensor:
            with torch.no_grad():
                theirs = teacher.activations(x, names)
            ours = student.activations(x, [*names, student.head_name])
            apart = sum(distance(ours[name], theirs[name]) for name in names)
            loss = cross_entropy(ours[student.head_name], want) + self.beta * apart
            loss.backward()
            return loss.detach()

        fine_tune(student, pixels, trusted.labels, tuning, run=run, label=self.card.name, backward=backward)
        return Repaired(student, {"layers": ", ".join(names)})


def attended(model: TorchClassifier) -> list[str]:
    """The last convolution, or the normalisation of it, at each of the last DEPTHS sizes of maps."""
    calls, _ = trace(model.module, model.probe_normalised())
    last: dict[int, str] = {}
    for call in calls:
        if isinstance(call.module, nn.Conv2d | nn.BatchNorm2d):
            last[call.output.shape[-1]] = call.name
    return list(last.values())[-DEPTHS:]


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared distance of two attention maps of activations [n, c, h, w], each of length 1."""
    maps = [normalize(part.square().mean(1).flatten(1)) for part in (one, other)]
    return (maps[0] - maps[1]).square().mean()
