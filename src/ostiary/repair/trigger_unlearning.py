"""Unlearning with the recovered trigger: show the trigger until it changes no answer."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.errors import NotMet
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.tune import Tuning, fine_tune
from ostiary.scan.forms import lay_over

Answers = Literal["model", "labels"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TriggerUnlearning:
    """Fine-tune a copy on trusted images, a share of which carries the recovered trigger but keeps its right answer.

    Source: Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. VI-C: 20 % of the samples stamped, one
    epoch over 10 % of the training data, true labels (`answers` "labels"). With "model" the right
    answer is what the model itself says to the image without the stamp: a few hundred labels alone
    make it forget the rest of its task. The trigger is the array the scan recovered, not a picture
    of it. With several candidates each stamped image carries one of them.
    """

    card: ClassVar[Card] = Card(
        id="repair.trigger-unlearning",
        summary="fine-tunes on trusted images, some stamped with the recovered trigger, until it changes no answer",
        paper="Wang et al. 2019, IEEE S&P, doi 10.1109/SP.2019.00031, sec. VI-C",
        needs=Needs(access="gradients", modality="images", trusted_per_class=2, trigger=True),
        cost="epochs over the trusted images",
        deviations=(
            "half of the images are stamped and several epochs run, as trusted sets here are small",
            "the answer to learn is the model's own to the image without the stamp, not the label",
        ),
        blind_spots=("a recovered trigger that differs from the attacker's", "triggers the scan did not find"),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 20
    lr: Annotated[float, Field(gt=0)] = 0.01
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    answers: Answers = "model"

    def repair(
        self, model: TorchClassifier, trusted: LabelledSet[Images], evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a copy for which the candidates of `evidence` lost their effect; raises NotMet without any."""
        triggers = [one for one in (evidence.candidates if evidence is not None else ()) if one.whole]
        if not triggers:
            raise NotMet("needs a trigger recovered by a scan", hint="run a scan first and pass its evidence")

        def stamp_some(x: Images, rng: torch.Generator) -> Images:
            x = x.clone()
            chosen = torch.rand(len(x), generator=rng) < self.share
            which = torch.randint(len(triggers), (len(x),), generator=rng)
            for number, trigger in enumerate(triggers):
                rows = (chosen & (which == number)).nonzero().squeeze(1).to(x.device)
                x[rows] = lay_over(x[rows], trigger)
            return x

        copy = model.clone().to(run.device)
        tuning = Tuning(epochs=self.epochs, lr=self.lr)
        fine_tune(
            copy,
            load_uint8(trusted),
            trusted.labels,
            tuning,
            run=run,
            label=self.card.name,
            teacher=model.predict if self.answers == "model" else None,
            change=stamp_some,
        )
        return Repaired(copy, {"triggers": ", ".join(f"{one.form} {one.subject}" for one in triggers)})
