"""Predictions and accuracy over a whole set, one batch at a time."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data.base import ImageSet, as_image_set, batch_size
from ostiary.data.texts import TextSet
from ostiary.models.classifier import TorchClassifier

TEXTS = 512
"""Texts that are given to a model at once."""


def predicted(model: Predictor[Images], x: Images, /) -> Labels:
    """The predicted class of images that are in memory, a bounded number at a time."""
    parts = [model.predict(part).argmax(1).cpu() for part in x.split(batch_size(x.shape[1:]))]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def predictions(model: Predictor[Any], data: LabelledSet[Any], /, *, run: Run | None = None) -> Labels:
    """The predicted class of every sample, in order; tells `run` how far it is."""
    found: list[Tensor] = []
    done = 0
    for x, _ in data.batches(TEXTS if isinstance(data, TextSet) else batch_size(as_image_set(data).shape)):
        found.append(model.predict(x).argmax(1).cpu())
        done += len(x)
        if run is not None:
            run.step(done, len(data), "predicting")
    return torch.cat(found) if found else torch.empty(0, dtype=torch.long)


@torch.no_grad()
def sample_losses(model: TorchClassifier, data: ImageSet, /, *, run: Run) -> Tensor:
    """The cross-entropy [n] of every sample under the label it carries, in order; tells `run` how far it is."""
    found: list[Tensor] = []
    done = 0
    for x, y in data.batches(batch_size(data.shape)):
        logits = model.logits(x.to(model.device)).float()
        found.append(cross_entropy(logits, y.to(logits.device), reduction="none").cpu())
        done += len(x)
        run.step(done, len(data), "losses")
    return torch.cat(found)


def rate(hits: Tensor) -> Rate:
    """The rate of True in a boolean tensor."""
    return Rate(k=int(hits.sum()), n=hits.numel())


def accuracy(model: Predictor[Any], data: LabelledSet[Any], /, *, run: Run | None = None) -> Rate:
    """Share of samples predicted as labelled."""
    return rate(predictions(model, data, run=run) == data.labels)


def per_class(predicted: Labels, labels: Labels, classes: int) -> tuple[Rate, ...]:
    """Accuracy class by class."""
    return tuple(rate(predicted[labels == label] == label) for label in range(classes))
