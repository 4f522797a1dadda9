"""CUBE: rows in small clusters of their label, in the features of a classifier, and the words that tell them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from scipy.stats import hypergeom
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA

from ostiary.core.card import Card, Limit, Needs, met
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore, PhraseScore
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.text_classifier import TextClassifier
from ostiary.screen.phrases import Phrases, Tokens

LEAST = 5
"""Rows of the smallest cluster, and what the density is estimated of, in a label of few rows."""
FEW = 4 * LEAST
"""Rows of a label below which it is left unscored."""
MOST = 20_000
"""Rows of a label beyond which clustering, whose time grows with their square, would take hours."""
CHUNK = 1024
"""Rows whose features are computed between two looks at the time."""
LONGEST = 3
WORDS = 5
"""Phrases that may tell one cluster."""
GAIN = 0.05
"""What each of them must add."""
CHANCE = 0.01
"""How likely any phrase of the set stands as often in rows of the label that are drawn, at most."""
NOISE = -1


@dataclass(frozen=True, slots=True)
class Group:
    """A small cluster of a label: its rows, the phrases that tell it, and how well they do."""

    rows: np.ndarray
    label: int
    phrases: tuple[int, ...]
    told: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cube:
    """Clusters of each label in the features of a classifier that was trained on the set; small ones stand out.

    Source: Cui et al. 2022, A unified evaluation of textual backdoor learning (NeurIPS Datasets and Benchmarks), sec.
    5, and OpenBackdoor: the features of a classifier trained on the suspect set are projected and clustered by density
    (HDBSCAN, Campello et al. 2013); of each label the largest cluster is kept, and every other one, noise included,
    that is smaller than half of the label is dropped.

    A cluster is accused where a few phrases of up to three words tell it from the rest of its label: `told` is the
    share of its rows that hold one of them, less that among all other rows of the label. They are found one after the
    other, each the one that adds most, and become the findings.

    The score of a row is 0 in a cluster that is kept, 1 where the paper drops it, and 1 and `told` in a small cluster.
    Labels of fewer than 20 rows are left unscored, with a caution. Raises NotMet for a set with answers, and for labels
    of more than 20,000 rows.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.cube",
        summary="small clusters of a label in a classifier trained on the set, and the words that tell them",
        paper="Cui et al. 2022, NeurIPS Datasets and Benchmarks, arXiv 2206.08514",
        official_code="https://github.com/thunlp/OpenBackdoor",
        needs=Needs(access="gradients", modality="text", training_data=True),
        cost="one forward pass for each row, and time that grows with the square of a label's rows",
        code="OS613",
        limits=(Limit(measure="told", low=0.5), Limit(measure="rows", low=8)),
        deviations=(
            "features are what the last layer takes; OpenBackdoor takes the first token's last hidden state",
            "features are projected by PCA to 20 numbers alone, without UMAP",
            "min_samples is 1 % of the label's rows, 5 or more, where the paper has 100",
            "labels are clustered apart, not all rows at once",
            "noise, and clusters that no words tell, are counted and not suspected: ordinary sets have them, too",
        ),
        blind_spots=(
            "a small classifier trained from nothing: its triggered rows lie at one end of their label, without a gap",
            "poison of fewer rows than the smallest cluster, 1 % of its label",
            "a style or a syntax that few words tell",
            "a model that did not learn the trigger",
            "half of a label or more: the smaller part is then taken for the poison",
        ),
        marks=frozenset({"mechanism"}),
    )

    dimensions: Annotated[int, Field(ge=1)] = 20
    share: Annotated[float, Field(gt=0, lt=0.5)] = 0.01

    def screen(self, data: TextSet, model: TextClassifier, trusted: TextSet | None, /, *, run: Run) -> SampleScores:
        """Score every row by the cluster that it lies in."""
        if data.answers is not None:
            raise NotMet("needs texts with labels; this set has answers")
        labels = data.labels.numpy()
        counts = np.bincount(labels, minlength=len(data.classes))
        if counts.max(initial=0) > MOST:
            raise NotMet(f"needs labels of at most {MOST} rows, '{data.classes[int(counts.argmax())]}' has more")
        if (counts >= FEW).sum() == 0:
            raise NotMet(f"needs {FEW} rows of a label or more, the commonest has {counts.max(initial=0)}")
        # Rows in the order of their texts, so that none but equal ones can change places.
        order = np.array(sorted(range(len(data)), key=lambda row: (data.texts[row], data.ids[row])))
        points = self._points(model, [data.texts[row] for row in order], run)
        phrases = Tokens(data.texts).phrases(LONGEST, LEAST, len(data))
        held = phrases.rows.tocsr()
        scores, suspected = np.full(len(data), np.nan, np.float32), np.zeros(len(data), bool)
        rows, told = list[ClassScore](), list[PhraseScore]()
        for label, n in enumerate(counts.tolist()):
            run.step(label, len(counts), self.card.name)
            place = np.flatnonzero(labels[order] == label)
            if n < FEW:
                run.caution("OS937", f"fewer than {FEW} rows: '{data.classes[label]}' ({n}); left unscored")
                rows.append(ClassScore(label=label, score=None, measures={"n": n}))
                continue
            found = self._clusters(points[place])
            groups = groups_of(found, order[place], label, held)
            scores[order[place]] = dropped(found)
            for group in groups:
                scores[group.rows] = 1 + group.told
                listed = _phrases(group, phrases, held)
                if any(met(one.measures, self.card.limits) for one in listed):
                    suspected[group.rows] = True
                    told += listed
            rows.append(_of_label(label, found, groups, int(suspected[labels == label].sum())))
        return SampleScores(data.ids, torch.from_numpy(scores), suspected, tuple(rows), phrases=_merged(told))

    def _points(self, model: TextClassifier, texts: Sequence[str], run: Run) -> np.ndarray:
        """The features of texts, [n, `dimensions`] at most."""
        parts = []
        for start in range(0, len(texts), CHUNK):
            run.step(start, len(texts), self.card.name)
            parts.append(model.features(texts[start : start + CHUNK]).cpu().numpy())
        found = np.concatenate(parts).astype(np.float64)
        kept = min(self.dimensions, *found.shape)
        return np.asarray(PCA(kept, svd_solver="covariance_eigh").fit_transform(found))

    def _clusters(self, points: np.ndarray) -> np.ndarray:
        """The cluster of each point, `NOISE` for none."""
        least = max(LEAST, round(self.share * len(points)))
        return np.asarray(HDBSCAN(min_cluster_size=least, min_samples=least, copy=True).fit_predict(points))


def dropped(found: np.ndarray) -> np.ndarray:
    """[n] bool: what the paper drops of a label, all clusters but the largest, and noise, if smaller than half."""
    sizes = {int(one): int((found == one).sum()) for one in np.unique(found)}
    if len(sizes) == 1:
        return np.zeros(len(found), bool)
    largest = max(sizes, key=lambda one: sizes[one])
    return np.isin(found, [one for one, size in sizes.items() if one != largest and 2 * size < len(found)])


def groups_of(found: np.ndarray, rows: np.ndarray, label: int, held: sparse.csr_matrix) -> list[Group]:
    """The small clusters of a label, noise apart; `rows` are the numbers of its rows in the set."""
    out, small = [], dropped(found)
    own = held[rows]
    for one in np.unique(found[small]):
        if one != NOISE:
            chosen, told = telling(own, found == one)
            out.append(Group(rows[found == one], label, chosen, told))
    return out


def telling(held: sparse.csr_matrix, inside: np.ndarray) -> tuple[tuple[int, ...], float]:
    """The phrases that tell the rows `inside` from others, and the share that holds one, less that among others.

    Only phrases count that stand there oftener than chance allows (hypergeometric, times all phrases).
    """
    within, whole = (np.asarray(part.sum(0)).ravel() for part in (held[inside], held))
    chance = hypergeom.sf(within - 1, len(inside), whole, inside.sum()) * held.shape[1]
    able = np.flatnonzero(chance <= CHANCE)
    own, chosen, total, left = held[:, able].toarray().astype(bool), list[int](), 0.0, np.ones(len(inside), bool)
    for _ in range(WORDS if len(able) else 0):
        gains = own[inside & left].sum(0) / inside.sum() - own[~inside & left].sum(0) / (~inside).sum()
        best = int(gains.argmax())
        if gains[best] < GAIN:
            break
        chosen.append(int(able[best]))
        total += float(gains[best])
        left &= ~own[:, best]
    return tuple(chosen), total


def _phrases(group: Group, phrases: Phrases, held: sparse.csr_matrix) -> list[PhraseScore]:
    """What a finding says of each phrase that tells the cluster."""
    found = []
    for phrase in group.phrases:
        n = int(held[group.rows][:, [phrase]].sum())
        measures = {"told": group.told, "rows": float(len(group.rows)), "share": n / len(group.rows)}
        found.append(
            PhraseScore(text=phrases.text(phrase), rows=n, score=group.told, label=group.label, measures=measures)
        )
    return found


def _merged(told: Sequence[PhraseScore]) -> tuple[PhraseScore, ...]:
    """One entry for each phrase of a label, in falling order: that of the cluster it tells best, with all its rows."""
    found: dict[tuple[str, int | None], PhraseScore] = {}
    for one in sorted(told, key=lambda one: -one.score):
        best = found.setdefault((one.text, one.label), one)
        if best is not one:
            found[one.text, one.label] = best.model_copy(update={"rows": best.rows + one.rows})
    return tuple(found.values())


def _of_label(label: int, found: np.ndarray, groups: Sequence[Group], suspected: int) -> ClassScore:
    measures: dict[str, float] = {
        "n": len(found),
        "clusters": int(found.max()) + 1,
        "noise": int((found == NOISE).sum()),
        "dropped": int(dropped(found).sum()),
        "suspected": suspected,
    }
    return ClassScore(label=label, score=max((one.told for one in groups), default=0.0), measures=measures)
