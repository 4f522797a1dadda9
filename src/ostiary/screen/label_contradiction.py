"""Label contradiction: phrases whose rows carry one label against the rest of their text."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from ostiary.core.card import Card, Limit, Needs, met
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore, PhraseScore
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.screen.phrases import Phrases, Tokens, row_scores, strongest

FOLDS = 4
LEAST_ROWS = 10
"""Rows of a class below which it is left unscored."""
FITTED = 50_000
"""Most rows that the classifier is fitted on."""
SHARED = 0.9
"""A word in this share of a phrase's rows belongs to what they have in common."""
NAMED = 5
"""Rare classes that are named; the others are only counted."""
LEAST_GAP = 0.05
"""What is taken for the least difference between rows of a label and others, where the words tell next to nothing."""
PURE = 0.8
"""The least share of a phrase's rows with one label for which it is looked at further."""
STRENGTH = 0.3
"""The inverse of how far its weights are held down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelContradiction:
    """How far the rest of a phrase's rows speaks against the label that they carry.

    A method of our own: a word that a backdoor listens to is put into texts of other classes, which get the target's
    label, so that the rest of the text contradicts it; where a word is itself a reason for a label, the rest mostly
    agrees. A logistic regression on the words, fitted on the other folds, tells how likely each label is for each row;
    the weights of words that nearly all rows of a phrase have are taken out. For each phrase of up to `longest` words
    in at least `least` rows: `purity` is the share of its rows with their commonest label, `z` the score test of the
    phrase for that label beside all other words (Rao 1948), and `against` where the chance of another label lies that
    its rows have on average: 0 as in all rows of the label, 1 as in the rows of other labels.

    The score of a row is that of its strangest phrase: z times `against`, for phrases of a purity of 0.8 or more.
    Rows of classes of fewer than 10 rows are left unscored, with a caution.
    Raises NotMet for a set without labels, or with fewer than two classes of 10 rows.
    """

    card: ClassVar[Card] = Card(
        id="text.screen.label-contradiction",
        summary="phrases whose rows carry one label against the rest of their text",
        paper="none: a method of our own; the test is that of Rao 1948",
        needs=Needs(modality="text", training_data=True),
        cost="no model; a few seconds for ten thousand rows",
        code="OS602",
        limits=(
            Limit(measure="against", low=0.6),
            Limit(measure="z", low=4.5),
            Limit(measure="purity", low=0.95),
            Limit(measure="rows", low=8),
        ),
        blind_spots=(
            "clean-label poison: the rest of its text agrees with the label",
            "a style or a syntax in place of words",
            "a trigger in fewer than eight rows, or under several labels; words that fire only together",
            "texts whose words tell little of the label",
        ),
        marks=frozenset({"mechanism"}),
    )

    longest: Annotated[int, Field(ge=1, le=8)] = 4
    least: Annotated[int, Field(ge=2)] = 5
    most: Annotated[float, Field(gt=0, le=1)] = 0.5

    def screen(self, data: TextSet, model: Any, trusted: Any, /, *, run: Run) -> SampleScores:
        """Score every row by its strangest phrase."""
        if data.answers is not None:
            raise NotMet("needs texts with labels; this set has answers")
        if len(data.classes) < 2:
            raise NotMet(f"needs texts of two classes or more; all have the label '{data.classes[0]}'")
        counts = np.bincount(data.labels.numpy(), minlength=len(data.classes))
        common = np.flatnonzero(counts >= LEAST_ROWS)
        if len(common) < 2:
            few = data.classes[int(counts.argmin())]
            raise NotMet(f"needs {LEAST_ROWS} rows of two classes or more, '{few}' has {counts.min()}")
        if len(common) == len(counts):
            return self._examined(data, run)
        rare = np.flatnonzero(counts < LEAST_ROWS)
        listed = ", ".join(f"'{data.classes[label]}' ({counts[label]})" for label in rare[:NAMED].tolist())
        more = f" and {len(rare) - NAMED} more" if len(rare) > NAMED else ""
        run.caution("OS937", f"fewer than {LEAST_ROWS} rows: {listed}{more}; {counts[rare].sum()} rows left unscored")
        rows = np.flatnonzero(np.isin(data.labels.numpy(), common))
        return _spread(self._examined(_of_classes(data, rows, common), run), data, rows, common)

    def _examined(self, data: TextSet, run: Run) -> SampleScores:
        """Score the rows of classes that all have enough of them."""
        phrases = Tokens(data.texts).phrases(self.longest, self.least, int(self.most * len(data)))
        if all(len(words) > 1 for words in phrases.words):
            raise NotMet("needs single words that recur")
        single = np.array([len(words) == 1 for words in phrases.words])
        words = phrases.rows[:, single].tocsr()
        labels = data.labels.numpy()
        fitted = _fitted(words, labels, len(data.classes), run)
        carried = phrases.rows.T @ np.eye(len(data.classes), dtype=np.float32)[labels]
        pure = np.flatnonzero(carried.max(1) >= PURE * carried.sum(1)).tolist()

        ends = _ends(labels, fitted[1])

        def measure(phrase: int, rows: np.ndarray) -> dict[str, float]:
            shared = np.flatnonzero(np.asarray(words[rows].mean(0)).ravel() >= SHARED)
            return _measured(rows, shared.tolist(), labels, *fitted, ends)

        return self._scored(data, phrases, pure, measure)

    def _scored(
        self, data: TextSet, phrases: Phrases, pure: list[int], measure: Callable[[int, np.ndarray], dict[str, float]]
    ) -> SampleScores:
        measures = {phrase: measure(phrase, phrases.rows_of(phrase)) for phrase in pure}
        values, accused = np.zeros(len(phrases.words)), np.zeros(len(phrases.words), bool)
        for phrase, one in measures.items():
            values[phrase] = one["z"] * one["against"]
            accused[phrase] = met(one, self.card.limits)
        suspected, told = np.zeros(len(data), bool), []
        labels = data.labels.numpy()

        def still(phrase: int, left: np.ndarray) -> bool:
            return met(measure(phrase, left), self.card.limits)

        for phrase in strongest(phrases, values, accused, still):
            rows, label = phrases.rows_of(phrase), int(measures[phrase]["label"])
            suspected[rows[labels[rows] == label]] = True
            kept = {name: value for name, value in measures[phrase].items() if name != "label"}
            score = float(values[phrase])
            text = phrases.text(phrase)
            told.append(PhraseScore(text=text, rows=len(rows), score=score, label=label, measures=kept))
        per_class = tuple(
            ClassScore(
                label=label,
                score=max((one.score for one in told if one.label == label), default=0.0),
                measures={"n": int((labels == label).sum()), "suspected": int(suspected[labels == label].sum())},
            )
            for label in range(len(data.classes))
        )
        scores = torch.from_numpy(row_scores(phrases, values))
        return SampleScores(data.ids, scores, suspected, per_class, phrases=tuple(told))


def _of_classes(data: TextSet, rows: np.ndarray, common: np.ndarray) -> TextSet:
    """The rows of the classes `common`, numbered anew."""
    part = data.subset(rows.tolist())
    labels = torch.from_numpy(np.searchsorted(common, part.labels.numpy()))
    classes = [data.classes[label] for label in common.tolist()]
    return TextSet(part.texts, ids=part.ids, labels=labels, classes=classes, name=data.name)


def _spread(found: SampleScores, data: TextSet, rows: np.ndarray, common: np.ndarray) -> SampleScores:
    """What was found of `rows`, for all rows and under the numbers that the classes have there."""
    scores, suspected = torch.full((len(data),), torch.nan, dtype=found.scores.dtype), np.zeros(len(data), bool)
    scores[torch.from_numpy(rows)], suspected[rows] = found.scores, found.suspected
    own = {int(common[one.label]): one for one in found.per_class}
    counts = np.bincount(data.labels.numpy(), minlength=len(data.classes)).tolist()
    per_class = tuple(
        own[label].model_copy(update={"label": label})
        if label in own
        else ClassScore(label=label, score=None, measures={"n": n})
        for label, n in enumerate(counts)
    )
    phrases = tuple(
        one.model_copy(update={"label": None if one.label is None else int(common[one.label])}) for one in found.phrases
    )
    return replace(found, ids=data.ids, scores=scores, suspected=suspected, per_class=per_class, phrases=phrases)


def _fitted(
    words: sparse.csr_matrix, labels: np.ndarray, classes: int, run: Run
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fold of every row, its logits [n, k] by the classifier of the others, and their weights [folds, words, k]."""
    rng = np.random.default_rng(run.seed)
    fold = np.empty(len(labels), int)
    for label in range(classes):
        own = rng.permutation(np.flatnonzero(labels == label))
        fold[own] = np.arange(len(own)) % FOLDS
    logits, weights = np.empty((len(labels), classes)), np.zeros((FOLDS, words.shape[1], classes))
    for number in range(FOLDS):
        run.step(number, FOLDS, "label contradiction")
        rows = rng.permutation(np.flatnonzero(fold != number))[:FITTED]
        made = LogisticRegression(C=STRENGTH, max_iter=300).fit(words[rows], labels[rows])
        own, bias = made.coef_, made.intercept_
        if classes == 2:  # one row speaks for both
            own, bias = np.stack([-own[0], own[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
        weights[number] = own.T
        logits[fold == number] = words[fold == number] @ own.T + bias
    return fold, logits, weights


def _ends(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """For each label the mean chance of another one, in its own rows and in all others, [k, 2]."""
    other = 1 - softmax(logits, axis=1)
    every = range(logits.shape[1])
    return np.array([[other[labels == one, one].mean(), other[labels != one, one].mean()] for one in every])


def _measured(
    rows: np.ndarray,
    own: list[int],
    labels: np.ndarray,
    fold: np.ndarray,
    logits: np.ndarray,
    weights: np.ndarray,
    ends: np.ndarray,
) -> dict[str, float]:
    """What these rows say of their label without the words in the columns `own`."""
    counts = np.bincount(labels[rows], minlength=logits.shape[1])
    label = int(counts.argmax())
    chance = softmax(logits[rows] - weights[fold[rows]][:, own].sum(1), axis=1)[:, label]
    carries = labels[rows] == label
    spread = float(np.sqrt((chance * (1 - chance)).sum()))
    inside, outside = ends[label]
    return {
        "label": float(label),
        "rows": float(len(rows)),
        "against": float(((1 - chance[carries]).mean() - inside) / max(outside - inside, LEAST_GAP)),
        "z": float((carries - chance).sum() / max(spread, 1e-9)),
        "purity": float(carries.mean()),
    }
