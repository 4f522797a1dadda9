"""Training anew on what a screening keeps, and what that changes."""

from pathlib import Path

import numpy as np

from ostiary.core.card import Have
from ostiary.core.execute import params_of
from ostiary.core.records import RepairEvidence
from ostiary.core.run import Run
from ostiary.core.session import Session
from ostiary.data import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import save_model
from ostiary.screen.exports import found_by, suspected_of
from ostiary.training.flow import Training, fresh_as
from ostiary.training.loop import Trained
from ostiary.training.measure import accuracy, predictions, rate
from ostiary.training.quick import quick_recipe

KEEPS_LABEL = "samples left out that get the label they carry"
ACCURACY = "accuracy on trusted samples"


def retrain(session: Session, data: ImageSet, model: TorchClassifier, trusted: ImageSet | None, out: Path) -> None:
    """Train on the samples of `data` that a screening keeps, write the model to `out`, and add what changed to it.

    The new model is held against the one that was screened with: the accuracy on trusted samples, and how many of the
    samples left out each gives the label they carry. Planted samples lose it; honest ones keep it about as often as
    unseen samples are told rightly. A model whose architecture is not the zoo's becomes a small CNN. Nothing is trained
    where no sample is suspected, and the record says so. Raises OutputError when `out` cannot be written.
    """
    suspected = suspected_of(found_by(session.write()))
    if not suspected.any():
        session.caution("OS915", "no sample is suspected, so there is nothing to leave out and no model was trained")
        return
    kept, left = (data.subset(np.flatnonzero(rows).tolist()) for rows in (~suspected, suspected))
    fresh, recipe = fresh_as(model, kept, seed=session.options.seed), quick_recipe(kept)
    session.config["recipe"] = params_of(recipe)

    def compare(value: Trained, run: Run) -> RepairEvidence:
        rates = []
        for one in (model, value.model):
            own = {} if trusted is None else {ACCURACY: accuracy(one, trusted, run=run)}
            rates.append(own | {KEEPS_LABEL: rate(predictions(one, left, run=run) == left.labels)})
        return RepairEvidence(before=rates[0], after=rates[1], selected={"left out": f"{len(left)} of {len(data)}"})

    have = Have(modality="images", training_data=True)
    outcome = session.execute(Training(recipe), fresh, kept, have=have, summarise=compare, call="train")
    if outcome.value is not None and outcome.result.evidence is not None:
        save_model(fresh, out, extra={"trained_on": kept.digest})
        session.config["out"] = str(out)
