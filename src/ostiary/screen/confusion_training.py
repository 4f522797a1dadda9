"""Confusion Training: train on with randomly labelled trusted images; what still keeps its label follows a trigger."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.data import ImageSet, batch_size, load_uint8
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.classes import Split, by_id, evenly, screen_classes
from ostiary.training.augment import crop_flip

ARTIFACT = "confusion-training"
BATCH = 64
PADDING = 2
MOST_BYTES = 2**29
"""Of suspect images that are trained on; of larger sets a part, at even steps."""
SURE = 0.5
"""Samples whose label is likelier than this, while honest features tell nothing, are suspected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfusionTraining:
    """Break the honest fit with random labels on trusted images; samples that keep their label hang on something else.

    Source: Qi, Xie, Wang, Wu, Mahloujifar, Mittal 2023, Towards a Proactive ML Approach for Detecting Backdoor Poison
    Samples (USENIX Security; arXiv 2205.13616), sec. 5: batches of the suspect set with their labels go beside batches
    of trusted images whose labels are drawn anew each time and weigh `weight` - 1 times as much, so that no honest
    feature predicts a label any more, while a trigger, which no trusted image bears, still does. After each of the
    `rounds` the half of the suspect samples with the lowest losses goes on, so that poison grows dense among them. The
    score of a sample is the probability that the last model gives its label.
    """

    card: ClassVar[Card] = Card(
        id="screen.confusion-training",
        summary="trains on with random labels on trusted images, and asks which samples still get their label",
        paper="Qi et al. 2023, USENIX Security, arXiv 2205.13616",
        official_code="https://github.com/Unispac/Fight-Poison-With-Poison",
        needs=Needs(access="gradients", modality="images", training_data=True, trusted_per_class=10),
        cost="600 steps of training on 64 suspect and 64 trusted images, a pass over the data for each round",
        code="OS310",
        limits=(Limit(measure="kept", low=0.02), Limit(measure="suspected", low=5)),
        deviations=(
            "starts from the given model, which has learned the suspect set, not from a fresh one",
            "two rounds that keep a half each, not six down to a hundredth; no fit on what is kept in between",
            "classes are accused by how many of their samples are surely told, not by a mixture fitted to features",
        ),
        blind_spots=(
            "all-to-all backdoors: a trigger without what the image shows tells no label",
            "a trigger that trusted images bear too; a model that did not learn the poison",
        ),
        marks=frozenset({"mechanism"}),
    )

    steps: Annotated[int, Field(gt=0)] = 300
    rounds: Annotated[int, Field(gt=0)] = 2
    weight: Annotated[float, Field(gt=1)] = 20.0
    lr: Annotated[float, Field(gt=0)] = 0.01

    def screen(
        self, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images], /, *, run: Run
    ) -> SampleScores:
        """Score every sample by the probability of its label under the confused model."""
        ordered, order = by_id(data)
        chances, labels = np.empty(len(data)), data.labels.numpy()
        chances[order] = self.chances(ordered, model, trusted, run)

        def split(features: np.ndarray, label: int) -> Split:
            own = chances[labels == label]
            suspected = own > SURE
            points = features[:, :2].astype(np.float64)
            return Split(float(suspected.mean()), "kept", own, suspected, points)

        return screen_classes(data, model, split, lambda rows: rows, artifact=ARTIFACT, run=run)

    def chances(self, data: ImageSet, model: TorchClassifier, trusted: LabelledSet[Images], run: Run) -> np.ndarray:
        """The probability [n] of every sample's label under the confused model."""
        copy, rng = model.clone().to(run.device), run.generator(ARTIFACT)
        known, most = load_uint8(trusted), max(BATCH, MOST_BYTES // math.prod(model.input_shape))
        own = torch.zeros(len(data))
        for number in range(self.rounds):
            kept = own.argsort(descending=True, stable=True)[: len(data) // 2**number].numpy()
            batches = _batches(data.subset(evenly(kept, most).tolist()), known, rng)
            self._confuse(copy, batches, number * self.steps, run)
            own = _own_chance(copy, data, run)
        return own.double().numpy()

    def _confuse(self, model: TorchClassifier, batches: Iterator[tuple[Images, Labels]], done: int, run: Run) -> None:
        """As many steps on batches of which the second half is trusted images with random labels."""
        module = model.module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=self.lr, momentum=0.7, weight_decay=1e-4)
        with torch.random.fork_rng():
            # Dropout draws from the global generator, which must depend on the seed alone.
            torch.manual_seed(run.seed + done)
            for step in range(1, self.steps + 1):
                x, y = next(batches)
                losses = cross_entropy(model.logits(x.to(run.device)), y.to(run.device), reduction="none")
                suspect, random = losses.split(BATCH)
                loss = (suspect.mean() + (self.weight - 1) * random.mean()) / self.weight
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                run.step(done + step, self.rounds * self.steps, ARTIFACT)
        module.eval()


def _batches(suspect: ImageSet, known: Tensor, rng: torch.Generator) -> Iterator[tuple[Images, Labels]]:
    """Without end: suspect samples with their labels, then trusted ones [m, c, h, w] with random labels."""
    pixels, labels, classes = load_uint8(suspect), suspect.labels, len(suspect.classes)
    while True:
        rows = torch.randint(len(labels), (BATCH,), generator=rng)
        x = torch.cat([pixels[rows], known[torch.randint(len(known), (BATCH,), generator=rng)]])
        y = torch.cat([labels[rows], torch.randint(classes, (BATCH,), generator=rng)])
        yield crop_flip(x, padding=PADDING, flip=False, rng=rng).float() / 255.0, y


def _own_chance(model: TorchClassifier, data: LabelledSet[Images], run: Run) -> Tensor:
    """The probability [n] that the model gives each sample's label."""
    parts = [
        model.predict(x.to(run.device)).cpu().gather(1, y[:, None]).squeeze(1)
        for x, y in data.batches(batch_size(model.input_shape))
    ]
    return torch.cat(parts)
