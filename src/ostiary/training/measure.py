"""Predictions and accuracy over a whole set, one batch at a time."""

import torch
from torch import Tensor

from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels

BATCH = 256


def predictions(model: Predictor[Images], data: LabelledSet[Images], /, *, run: Run | None = None) -> Labels:
    """The predicted class of every sample, in order; tells `run` how far it is."""
    found: list[Tensor] = []
    done = 0
    for x, _ in data.batches(BATCH):
        found.append(model.predict(x).argmax(1).cpu())
        done += len(x)
        if run is not None:
            run.progress(done, len(data), "predicting")
    return torch.cat(found) if found else torch.empty(0, dtype=torch.long)


def rate(hits: Tensor) -> Rate:
    """The rate of True in a boolean tensor."""
    return Rate(k=int(hits.sum()), n=hits.numel())


def accuracy(model: Predictor[Images], data: LabelledSet[Images], /, *, run: Run | None = None) -> Rate:
    """Share of samples predicted as labelled."""
    return rate(predictions(model, data, run=run) == data.labels)


def per_class(predicted: Labels, labels: Labels, classes: int) -> tuple[Rate, ...]:
    """Accuracy class by class."""
    return tuple(rate(predicted[labels == label] == label) for label in range(classes))
