"""How alike texts are: what the screeners of prompts and answers share."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from ostiary.core.card import Card, met
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.records import ClassScore, PhraseScore
from ostiary.data.texts import TextSet
from ostiary.screen.phrases import WORD, Phrases, row_scores, strongest

FEATURES = 2**18
"""Columns that words and pairs of words are dealt to, so that memory does not grow with the vocabulary."""


def answers_of(data: TextSet, least: int) -> tuple[str, ...]:
    """The answers of a set with rows enough for phrases in `least` of them; raises NotMet."""
    if data.answers is None:
        raise NotMet("needs prompts with answers; this set has labels")
    if len(data) < 10 * least:
        raise NotMet(f"needs {10 * least} rows, the set has {len(data)}")
    return data.answers


def vectors_of(texts: tuple[str, ...], *, pairs: bool = False) -> sparse.csr_matrix:
    """TF-IDF rows of length one, of words and where asked of pairs; raises NotMet where there is no word."""
    counts = HashingVectorizer(
        tokenizer=WORD.findall,
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, 2) if pairs else (1, 1),
        n_features=FEATURES,
        alternate_sign=False,
        norm=None,
        dtype=np.float32,
    ).transform(texts)
    if not counts.nnz:
        raise NotMet("needs texts with words")
    return sparse.csr_matrix(TfidfTransformer(sublinear_tf=True).fit_transform(counts))


def ordinary(vectors: sparse.csr_matrix | np.ndarray) -> float:
    """The mean cosine of any two rows."""
    n, total = vectors.shape[0], np.asarray(vectors.sum(0)).ravel().astype(np.float64)
    own = vectors.multiply(vectors).sum() if sparse.issparse(vectors) else (vectors**2).sum()
    return float((total @ total - own) / (n * (n - 1)))


def lifted(squares: np.ndarray, own: np.ndarray, rows: np.ndarray, base: float) -> np.ndarray:
    """The mean cosine of any two of a phrase's rows, from 0 (as any two of the set) to 1 (equal)."""
    mean = (squares - own) / np.maximum(rows * (rows - 1), 1)
    return np.asarray((mean - base) / max(1e-6, 1 - base))


def coherence(chosen: sparse.csc_matrix, vectors: sparse.csr_matrix) -> np.ndarray:
    """For each column of `chosen`, the mean cosine of any two of its rows, above that of any two of all."""
    total = (chosen.T @ vectors).tocsr()
    own = chosen.T @ np.asarray(vectors.multiply(vectors).sum(1)).ravel()
    squares = np.asarray(total.multiply(total).sum(1)).ravel().astype(np.float64)
    return lifted(squares, own, np.diff(chosen.indptr).astype(np.float64), ordinary(vectors))


def scored(
    data: TextSet,
    phrases: Phrases,
    measures: list[dict[str, float]],
    card: Card,
    still: Callable[[int, np.ndarray], bool],
) -> SampleScores:
    """Rows by their strangest phrase, gap times the root of its rows, and the phrases that pass the card's limits."""
    weight = np.array([one["gap"] for one in measures]) * np.sqrt(np.diff(phrases.rows.indptr))
    accused = np.array([met(one, card.limits) for one in measures], bool)
    suspected, told = np.zeros(len(data), bool), []
    for phrase in strongest(phrases, weight, accused, still):
        rows, score = phrases.rows_of(phrase), float(weight[phrase])
        suspected[rows] = True
        told.append(PhraseScore(text=phrases.text(phrase), rows=len(rows), score=score, measures=measures[phrase]))
    counts: dict[str, float] = {"n": len(data), "suspected": int(suspected.sum())}
    whole = ClassScore(label=0, score=float(weight.max(initial=0.0)), measures=counts)
    scores = torch.from_numpy(row_scores(phrases, weight))
    return SampleScores(data.ids, scores, suspected, (whole,), phrases=tuple(told))
