"""Traits of a sample by which the fusion knows poison: its class's odd group, and its distance from its class."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import beta

from ostiary.core.memory import rows_of
from ostiary.core.protocols import LabelledSet
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import stratified_rows
from ostiary.models.classifier import TorchClassifier
from ostiary.models.gaussian import Within, distances, within
from ostiary.screen.classes import MIN_MEMBERS
from ostiary.screen.features import SetFeatures, features_of
from ostiary.screen.scan import LIMIT
from ostiary.screen.two_groups import Ruler, odd_group, ruler_of, stand_out

NAMES = ("distance", "nearer elsewhere", "in an odd group", "depth in it", "far in class")
QUANTILE = 0.99
"""Distances beyond this quantile of samples that nobody suspects are far."""
RARER = 3
"""An odd group is no kind of its class where it is this many times rarer among the class's trusted samples."""
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Group:
    """The odd group of a class, as a mask over its samples, and the means of both groups about the class's place."""

    odd: np.ndarray
    inside: np.ndarray
    outside: np.ndarray

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Where points [m, d] lie between the two means: 1 at the odd group's, -1 at the other's."""
        axis = self.inside - self.outside
        middle = (self.inside + self.outside) / 2
        return np.asarray((points - middle) @ axis / max(float(axis @ axis) / 2, TINY))


@dataclass(frozen=True, slots=True)
class Traits:
    """What traits are measured with: the ruler, the odd groups of classes that stand out, and the far distance."""

    ruler: Ruler
    groups: dict[int, Group]
    far: float

    @classmethod
    def of(
        cls, data: LabelledSet[Images], model: TorchClassifier, trusted: LabelledSet[Images] | None, run: Run
    ) -> "Traits":
        """Learned from a suspect set and, as far as there are enough, trusted samples."""
        ruler = ruler_of(data, model, trusted, run)
        whole, labels = features_of(model, data, run), data.labels.numpy()
        j_star, groups = _part(whole, labels, ruler)
        out = set(np.flatnonzero(j_star >= LIMIT).tolist())
        if trusted is None or not ruler.placed:
            groups = {label: group for label, group in groups.items() if label in out}
            means = ruler.within.means.copy()
            for label, group in groups.items():  # the class lies where its other group does
                means[label] += group.outside @ np.linalg.inv(ruler.within.whiten)
            ruler = replace(ruler, within=Within(means, ruler.within.whiten))
            return cls(ruler, groups, _far_of_suspects(whole, labels, groups, ruler.within))
        known = features_of(model, trusted, run).features.astype(np.float64)
        for label, group in groups.items():
            own = ruler.within.centred(known[trusted.labels.numpy() == label], label)
            if _far_rarer(int((group.depth(own) > 0).sum()), len(own), float(group.odd.mean())):
                out.add(label)
        groups = {label: group for label, group in groups.items() if label in out}
        return cls(ruler, groups, _far_of_trusted(known, trusted, ruler, run.seed))

    def of_class(self, features: np.ndarray, label: int) -> np.ndarray:
        """The traits [m, 5] of all samples of a class, in the order of NAMES."""
        centres = self.ruler.within.means @ self.ruler.within.whiten
        places = features.astype(np.float64) @ self.ruler.within.whiten
        squares = (places**2).sum(1)[:, None] - 2 * places @ centres.T + (centres**2).sum(1)
        own = np.maximum(squares[:, label], TINY)
        others = np.maximum(np.nanmin(np.delete(squares, label, axis=1), axis=1), TINY)
        found = np.zeros((len(features), len(NAMES)))
        found[:, 0] = np.log(own / self.far)
        found[:, 1] = np.log(own / others)
        if (group := self.groups.get(label)) is not None:
            found[:, 2] = group.odd
            found[:, 3] = np.clip(group.depth(places - centres[label]), -1.5, 1.5)
        found[:, 4] = np.log(max(float((own > self.far).mean()) / (1 - QUANTILE), 1.0))
        return found


def _part(whole: SetFeatures, labels: np.ndarray, ruler: Ruler) -> tuple[np.ndarray, dict[int, Group]]:
    """J* [k], NaN where unknown, and the odd group of every class that has members enough."""
    j, sure, groups = np.full(len(ruler.within.means), np.nan), np.full((len(ruler.within.means), 2), np.nan), {}
    for label in range(len(j)):
        members = np.flatnonzero(labels == label)
        if len(members) < MIN_MEMBERS:
            continue
        found = odd_group(rows_of(whole.features, members), rows_of(whole.logits, members), label, ruler)
        j[label], sure[label] = found.parted.j, found.sure
        groups[label] = Group(found.odd, found.points[found.odd].mean(0), found.points[~found.odd].mean(0))
    return stand_out(j, np.bincount(labels, minlength=len(j)), sure, ruler), groups


def _far_rarer(hits: int, n: int, share: float) -> bool:
    """Whether a group that makes up `share` of a class is far rarer among n trusted samples, of which it has `hits`."""
    highest = 1.0 if hits == n else float(beta.ppf(0.95, hits + 1, n - hits))
    return highest < share / RARER


def _far_of_trusted(known: np.ndarray, trusted: LabelledSet[Images], ruler: Ruler, seed: int) -> float:
    """The distance that is far, by trusted samples that the means did not see."""
    labels = trusted.labels.numpy()
    halves = [rows.numpy() for rows in stratified_rows(trusted.labels, (0.5, 0.5), seed=seed)]
    unseen = []
    for one, other in (halves, halves[::-1]):
        half = within(known[one], labels[one], len(trusted.classes))
        if not ruler.measured:
            half = Within(half.means, ruler.within.whiten)
        unseen.append(distances(half, known[other], labels[other]))
    return float(np.quantile(np.concatenate(unseen), QUANTILE))


def _far_of_suspects(whole: SetFeatures, labels: np.ndarray, groups: dict[int, Group], ruler: Within) -> float:
    """The distance that is far, by samples outside the odd groups."""
    found = []
    for label in np.unique(labels).tolist():
        own = (ruler.centred(rows_of(whole.features, labels == label).astype(np.float64), label) ** 2).sum(1)
        found.append(own[~groups[label].odd] if label in groups else own)
    return float(np.quantile(np.concatenate(found), QUANTILE))
