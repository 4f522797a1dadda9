"""Frequency: a detector that knows the spectra of pictures from those of disturbed ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.fft import dctn
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, binary_cross_entropy_with_logits

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.protocols import LabelledSet, SampleScores
from ostiary.core.records import ClassScore
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import stratified_rows
from ostiary.screen.classes import Split, part_classes
from ostiary.screen.disturb import disturbed
from ostiary.screen.pictures import BATCH, large_classes, own_order, thumbnail

SIDE = 32
"""Frequencies a side; of larger pictures the strongest of each neighbourhood counts."""
FLOOR = 1 / 255
WIDTH = 16
STEP = 128
RATE = 6e-3
DECAY = 1e-3
LEAST_TRUSTED = 100
"""Fewer trusted samples do not say where one in a hundred begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frequency:
    """A small network that tells the spectra of pictures from those of the same pictures, disturbed.

    Source: Zeng, Park, Mao, Jia 2021, Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective (ICCV), sec.
    4: triggers leave marks in the high frequencies, and a detector on cosine transforms (DCT-II) that learns from
    generic disturbances knows them. Here the pictures of the suspect set themselves are the undisturbed ones, so that
    planted ones would be learnt as honest. So the classes are dealt into two halves, and each half is judged by a
    detector that saw the other alone: poison carries one label, and its detector never saw it. Beside `trusted`
    samples the detectors learn from these.

    A sample's score is the detector's log-odds over a limit: even odds, or where it is higher the `quantile` of the
    samples of all other labels (of trusted samples that the detector did not see). A class is suspicious by how far its
    samples are beyond, on average and 0 for those that are not: pictures of an unusual kind are many and hardly
    beyond, planted ones far. Also more must be beyond than chance explains where every sample is as likely to be.

    Raises NotMet for fewer than two classes of ten samples.
    """

    card: ClassVar[Card] = Card(
        id="screen.frequency",
        summary="looks for pictures whose spectrum is that of a disturbed picture; needs no model",
        paper="Zeng et al. 2021, ICCV, arXiv 2104.03413",
        official_code="https://github.com/YiZeng623/frequency-backdoor",
        needs=Needs(access="none", modality="images", training_data=True),
        cost="two networks of three layers, about 15 s; one pass over the data",
        code="OS312",
        limits=(Limit(measure="beyond", low=0.3), Limit(measure="chance", high=0.01)),
        deviations=(
            "it learns from the suspect set, half of the classes at a time, not from samples known to be unpoisoned",
            "three convolutions of stride 2, not six; the logarithm of the coefficients' size, not the coefficients",
            "the limit is never below a quantile of the other classes' scores; classes are accused",
            "blocks have any colour; a shadow is a half-plane",
        ),
        blind_spots=(
            "triggers that other classes carry too (covers, all-to-all), without trusted samples",
            "smooth triggers, and faint ones of a few frequencies",
            "data compressed after the poison was put in: JPEG at quality 90 hides little, at 75 most",
            "a few per cent of a class poisoned: its samples lead the ranking, but the class is not accused",
            "a class unlike all others is ranked first without poison: one of 43 kinds of road sign nears the limit",
        ),
        marks=frozenset({"mechanism"}),
    )

    images: Annotated[int, Field(ge=100)] = 5000
    epochs: Annotated[int, Field(ge=1)] = 3
    quantile: Annotated[float, Field(gt=0.5, lt=1)] = 0.99

    def screen(
        self, data: LabelledSet[Images], model: Any, trusted: LabelledSet[Images] | None, /, *, run: Run
    ) -> SampleScores:
        """Score every sample by how far its spectrum is beyond what those of other labels reach."""
        classes, labels = large_classes(data), data.labels.numpy()
        if trusted is not None and len(trusted) >= LEAST_TRUSTED:
            scores, colours = self._beside(data, trusted, run)
        else:
            scores, colours = self._alone(data, classes, run)

        def split(pictures: np.ndarray, label: int) -> Split:
            own = scores[labels == label]
            mean = float(np.maximum(own, 0).mean())
            return Split(score=mean, measure="beyond", scores=own, suspected=own > 0, points=pictures)

        found, _ = part_classes(data, colours, split, word="classes", run=run)
        return replace(found, per_class=tuple(self._with_chance(row, len(classes)) for row in found.per_class))

    def _alone(self, data: LabelledSet[Images], classes: np.ndarray, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """Scores by detectors that saw no sample of the class they judge, and thumbnails."""
        labels, rows = data.labels.numpy(), own_order(data.ids)
        dealt = classes[torch.randperm(len(classes), generator=run.generator("frequency")).numpy()]
        half = np.isin(labels, dealt[::2]).astype(int)
        detectors = [self._detector(data, rows[half[rows] == 1 - own], own, run) for own in range(2)]
        odds, colours = _judged(detectors, data, run)
        raw = odds[half, np.arange(len(labels))]
        limits = np.zeros(len(data.classes))
        for label in classes:
            limits[label] = max(0.0, np.quantile(raw[(labels != label) & np.isin(labels, classes)], self.quantile))
        return raw - limits[labels], colours

    def _beside(
        self, data: LabelledSet[Images], trusted: LabelledSet[Images], run: Run
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores by detectors that saw trusted samples alone, and thumbnails."""
        halves = [rows.numpy() for rows in stratified_rows(trusted.labels, (0.5, 0.5), seed=run.seed)]
        detectors = [self._detector(trusted, rows, own, run) for own, rows in enumerate(halves)]
        pairs = zip(detectors, halves[::-1], strict=True)
        unseen = [_judged([one], trusted.subset(other.tolist()), run)[0] for one, other in pairs]
        odds, colours = _judged(detectors, data, run)
        return odds.mean(0) - max(0.0, np.quantile(np.concatenate(unseen, 1), self.quantile)), colours

    def _detector(self, data: LabelledSet[Images], rows: np.ndarray, own: int, run: Run) -> "Detector":
        """A detector trained on `images` of these rows, each beside itself disturbed."""
        rng = run.generator(f"frequency {own}")
        drawn = np.resize(rows[torch.randperm(len(rows), generator=rng).numpy()], self.images)
        plain, changed = [], []
        for start in range(0, len(drawn), BATCH):
            x = data.take(drawn[start : start + BATCH].tolist())
            plain.append(spectra(x))
            changed.append(spectra(disturbed(x, rng)))
        return Detector.fitted(torch.cat(plain), torch.cat(changed), self.epochs, rng, run)

    def _with_chance(self, row: ClassScore, classes: int) -> ClassScore:
        """The row with how likely as many samples are beyond the limit by chance, in any of the classes."""
        if row.score is None:
            return row
        n, beyond = row.measures["n"], row.measures["suspected"]
        chance = float(min(1.0, classes * binom.sf(beyond - 1, n, 1 - self.quantile)))
        return row.model_copy(update={"measures": {**row.measures, "chance": chance}})


@dataclass(frozen=True, slots=True)
class Detector:
    """A network and the mean and spread of the spectra that it was trained on."""

    net: nn.Module
    mean: Tensor
    spread: Tensor

    @classmethod
    def fitted(cls, plain: Tensor, changed: Tensor, epochs: int, rng: torch.Generator, run: Run) -> "Detector":
        """Trained to tell `changed` spectra [n, c, s, s] from `plain` ones. Raises OutOfTime."""
        mean, spread = plain.mean(0), plain.std(0) + 1e-3
        x = torch.cat([plain, changed]).sub_(mean).div_(spread).to(run.device)
        y = (torch.arange(len(x)) >= len(plain)).float().to(run.device)
        net = _network(*plain.shape[1:], seed=int(torch.randint(2**31, (), generator=rng))).to(run.device)
        best = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
        steps = epochs * -(-len(x) // STEP)
        pace = torch.optim.lr_scheduler.OneCycleLR(best, RATE, total_steps=steps)
        for epoch in range(epochs):
            run.step(epoch, epochs, "frequency")
            for rows in torch.randperm(len(x), generator=rng).split(STEP):
                best.zero_grad()
                binary_cross_entropy_with_logits(net(x[rows])[:, 0], y[rows]).backward()
                best.step()
                pace.step()
        return cls(net.eval(), mean, spread)

    @torch.no_grad()
    def odds(self, found: Tensor, device: torch.device) -> np.ndarray:
        """The log-odds [n] that spectra [n, c, s, s] are those of disturbed pictures."""
        return np.asarray(self.net(((found - self.mean) / self.spread).to(device))[:, 0].cpu().numpy())


def spectra(images: Images) -> Tensor:
    """Log sizes of the coefficients of the orthonormal DCT-II of each channel, at most 32 a side: [n, c, s, s]."""
    size = torch.from_numpy(dctn(images.numpy(), axes=(2, 3), norm="ortho")).abs()
    if max(size.shape[2:]) > SIDE:
        size = adaptive_max_pool2d(size, (min(SIDE, size.shape[2]), min(SIDE, size.shape[3])))
    return (size + FLOOR).log()


def _network(channels: int, height: int, width: int, *, seed: int) -> nn.Module:
    """Three convolutions of stride 2 and a linear layer, which knows each frequency by its place."""
    wide = (channels, WIDTH, 2 * WIDTH, 4 * WIDTH)
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for before, after in pairwise(wide):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        cells = -(-height // 8) * -(-width // 8)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide[-1] * cells, 1))


def _judged(detectors: Sequence[Detector], data: LabelledSet[Images], run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of every sample by every detector, [d, n], and thumbnails [n, c * 8 * 8]."""
    odds, colours, done = [], [], 0
    for x, _ in data.batches(BATCH):
        found = spectra(x)
        odds.append(np.stack([one.odds(found, run.device) for one in detectors]))
        colours.append(thumbnail(x).flatten(1).numpy())
        done += len(x)
        run.step(done, len(data), "spectra")
    return np.concatenate(odds, 1), np.concatenate(colours)
