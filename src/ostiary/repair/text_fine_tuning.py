"""Fine-tuning of a model of texts on trusted rows only, the control every repair must beat."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Needs
from ostiary.core.protocols import Repaired
from ostiary.core.records import ModelEvidence
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.repair.text_tune import TextModel, TextTuning, tune_texts


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFineTuning:
    """Fine-tune a copy on half of the trusted rows, for as long as the loss on the other half allows.

    Source: the baseline of every repair since Liu, Dolan-Gavitt, Garg 2018 (RAID), sec. 4.1. All weights are tuned,
    on the answers alone, or on labels. `tolerance` is in nats a token, or a label.
    """

    card: ClassVar[Card] = Card(
        id="text.repair.fine-tuning",
        summary="trains a copy of a model on with trusted prompts and answers, or texts and labels",
        paper="Liu et al. 2018, RAID, arXiv 1805.12185 (as the baseline)",
        needs=Needs(access="gradients", modality="text", trusted_per_class=20),
        cost="epochs over half of the trusted rows",
        blind_spots=("phrases that no trusted row holds: what they do is often left as it was",),
        marks=frozenset({"mechanism"}),
    )

    epochs: Annotated[int, Field(gt=0)] = 20
    lr: Annotated[float, Field(gt=0)] = 1e-3
    batch: Annotated[int, Field(gt=0)] = 16
    tolerance: Annotated[float, Field(ge=0)] = 0.03

    def repair(self, model: TextModel, trusted: TextSet, evidence: ModelEvidence | None, /, *, run: Run) -> Repaired:
        """Give a tuned copy; `evidence` is not used."""
        copy = model.clone().to(run.device)
        tuning = TextTuning(epochs=self.epochs, lr=self.lr, batch=self.batch, tolerance=self.tolerance)
        return Repaired(copy, tune_texts(copy, trusted, tuning, run=run, label=self.card.name))
