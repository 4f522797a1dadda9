"""Fine-Tuning: train on with trusted images only, the control every repair must beat."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import LabelledSet, Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.tune import Tuning, fine_tune


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuning:
    """Fine-tune a copy on the trusted images.

    Source: the baseline of Liu, Dolan-Gavitt, Garg 2018 (RAID), sec. 4.1. Nothing is selected: the
    epochs and the rate are fixed.
    """

    card: ClassVar[Card] = Card(
        id="repair.fine-tuning",
        summary="trains a copy on with the trusted images",
        paper="Liu et al. 2018, RAID, arXiv 1805.12185 (as the baseline)",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="epochs over the trusted images",
        blind_spots=("triggers whose weights the trusted images do not touch: most patch backdoors survive",),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 20
    lr: Annotated[float, Field(gt=0)] = 0.01

    def repair(
        self, model: TorchClassifier, trusted: LabelledSet[Images], evidence: ModelEvidence | None, /, *, run: Run
    ) -> Repaired:
        """Give a tuned copy; `evidence` is not used."""
        copy = model.clone().to(run.device)
        tuning = Tuning(epochs=self.epochs, lr=self.lr)
        fine_tune(copy, load_uint8(trusted), trusted.labels, tuning, run=run, label=self.card.name)
        return Repaired(copy)
