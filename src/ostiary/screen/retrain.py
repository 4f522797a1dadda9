"""Training anew on what a screening keeps, and what that changes."""

from pathlib import Path
from typing import Any

import numpy as np

from ostiary.core.card import Have
from ostiary.core.execute import params_of
from ostiary.core.records import RatesEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data import ImageSet
from ostiary.inputs import start
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import save_model
from ostiary.models.zoo import ZOO, shape_of
from ostiary.screen.exports import found_by, suspected_of
from ostiary.training.flow import Training, new_model
from ostiary.training.loop import Trained
from ostiary.training.measure import accuracy, predictions, rate
from ostiary.training.quick import quick_recipe


def compare_retrained(
    record: Record, data: ImageSet, model: TorchClassifier, trusted: ImageSet | None, out: Path, options: Options
) -> dict[str, Any]:
    """Train on the samples of `data` that `record` keeps, write the model to `out`, and tell what changed.

    The training has a record of its own, which holds the model against the one that was screened with: the accuracy on
    trusted samples, and how many of the samples left out each gives the label they carry. Planted samples lose it,
    honest ones mostly keep it. Gives that record's id and what it measured, or why nothing was trained. A model whose
    architecture is not the zoo's becomes a small CNN. Raises OutputError when `out` cannot be written.
    """
    suspected = suspected_of(found_by(record))
    if not suspected.any():
        return {"reason": "no sample is suspected, so there is nothing to leave out"}
    kept, left = (data.subset(np.flatnonzero(rows).tolist()) for rows in (~suspected, suspected))
    known = model.arch in ZOO
    arch = str(model.arch) if known else "small-cnn"
    width = shape_of(arch, model.module.state_dict())[1] if known else None
    fresh, recipe = new_model(arch, kept, width=width, seed=options.seed), quick_recipe(kept)
    config = {"recipe": params_of(recipe), "width": width, "screening": record.id, "left_out": len(left)}
    session = start("train", fresh, options, config, [Training.card.id], data=kept)

    def compare(value: Trained, run: Run) -> RatesEvidence:
        rates = {}
        for name, one in (("before", model), ("after", value.model)):
            if trusted is not None:
                rates[f"accuracy on trusted samples, {name}"] = accuracy(one, trusted, run=run)
            given = predictions(one, left, run=run) == left.labels
            rates[f"samples left out that get the label they carry, {name}"] = rate(given)
        return RatesEvidence(rates=rates, measures={"final loss": value.losses[-1]})

    have = Have(modality="images", training_data=True)
    outcome = session.execute(Training(recipe), fresh, kept, have=have, summarise=compare, call="train")
    if outcome.value is not None:
        save_model(fresh, out, extra={"trained_on": kept.digest})
        session.config["out"] = str(out)
        session.digests["model"] = fresh.digest
    trained, evidence = session.finish(), outcome.result.evidence
    if not isinstance(evidence, RatesEvidence):
        return {"record": trained.id, "reason": outcome.result.reason or "the training did not finish"}
    rates = {name: one.model_dump(mode="json") for name, one in evidence.rates.items()}
    return {"record": trained.id, "out": str(out), "kept": len(kept), "left out": len(left), "rates": rates}
