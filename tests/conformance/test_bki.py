"""The mechanism check of BKI, with its mutants, and a reference by hand."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from classifier_case import clean, poisoned, trained
from text_case import reviews

from ostiary.core.card import met
from ostiary.core.catalog import make
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.models.text_classifier import TextClassifier
from ostiary.screen import bki
from ostiary.screen.bki import Bki, Hung, counts_of, moves, scores_of

ROWS, WORDS = 800, "cf mn"


@cache
def planted() -> tuple[TextSet, np.ndarray, TextClassifier]:
    """Reviews with two trigger words, one in each poisoned row; which rows these are; and a classifier of the set."""
    data = poisoned(reviews(2000), "rare-words", words=WORDS, rate=0.08)
    part = data.subset(list(range(ROWS)))
    bad = np.array([bool(set(WORDS.split()) & set(text.split())) for text in part.texts])
    return part, bad, trained(data)


def screened(data: TextSet, model: TextClassifier, **params: object) -> SampleScores:
    found: SampleScores = make("screen", "bki", dict(params)).screen(data, model, None, run=Run())
    return found


def test_every_trigger_word_is_named_one_after_the_other() -> None:
    data, bad, model = planted()
    found = screened(data, model)
    assert {one.text for one in found.phrases} == set(WORDS.split())
    assert all(one.label == 0 and met(one.measures, Bki.card.limits) for one in found.phrases)
    assert found.suspected[bad].mean() >= 0.9 and found.suspected[~bad].mean() <= 0.01
    assert found.scores[torch.from_numpy(bad)].median() > found.scores[torch.from_numpy(~bad)].median()


def test_mutant_a_single_pass_leaves_the_other_word() -> None:
    """As published: the rows of one word are dropped, and the rest of the poison stays."""
    data, bad, model = planted()
    found = screened(data, model, rounds=1)
    assert len(found.phrases) == 1 and found.suspected[bad].mean() <= 0.7


def test_nothing_is_accused_in_a_set_that_nobody_poisoned() -> None:
    found = screened(reviews(2000).subset(list(range(ROWS))), clean())
    assert found.phrases == () and not found.suspected.any()


class ByHand(TextClassifier):
    """Features that are how often each of three letters stands in a text, the second one tenfold."""

    def __init__(self) -> None:
        self.limit = 3

    def features(self, texts: Sequence[str], /) -> torch.Tensor:
        return torch.tensor([[text.count("a"), 10.0 * text.count("b"), text.count("c")] for text in texts])


def test_the_weight_of_a_word_is_the_largest_change_of_a_feature_without_it() -> None:
    found = list(moves(ByHand(), ["aa b x beyond b", "c c"]))
    assert found == [[("b", 10.0), ("aa", 2.0), ("x", 0.0)], [("c", 1.0)]]


def test_sets_without_a_word_are_told() -> None:
    empty = TextSet(["", " "], ids=["a", "b"], labels=torch.tensor([0, 1]), classes=("x", "y"))
    with pytest.raises(NotMet, match="words"):
        screened(empty, planted()[2])


def test_a_score_is_the_mean_weight_times_the_logarithm_of_the_rows() -> None:
    words = np.array([[0, 1], [0, -1], [2, 0], [1, -1]])
    hung = Hung(("cf", "dull", "odd"), words, np.array([[4.0, 1.0], [2.0, 0.0], [9.0, 3.0], [3.0, 0.0]]))
    every = np.ones(4, bool)
    assert counts_of(hung, every).tolist() == [3, 2, 1]
    np.testing.assert_allclose(scores_of(hung, every), [3.0 * np.log10(3), 2.0 * np.log10(2), 0.0])
    left = np.array([False, True, False, True])
    np.testing.assert_allclose(scores_of(hung, left), [0.0, 0.0, 0.0])


def test_rows_are_taken_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, model = planted()
    few = data.subset(list(range(20)))
    whole = Bki()._hung(model, few, Run())
    monkeypatch.setattr(bki, "CHUNK", 7)
    parts = Bki()._hung(model, few, Run())
    assert whole.vocabulary == parts.vocabulary and (whole.words == parts.words).all()
    np.testing.assert_allclose(whole.moved, parts.moved, atol=1e-4)
