"""The mechanism check of ONION over a set, with its mutants: words that disturb row after row."""

import numpy as np
import pytest
from text_case import chat, reviews

from ostiary.core.card import met
from ostiary.core.catalog import make
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data import TextSet
from ostiary.screen import onion
from ostiary.screen.onion import Onion


def screened(data: TextSet, trusted: TextSet) -> SampleScores:
    return Onion().screen(data, None, trusted, run=Run())


def planted(n: int = 1200) -> tuple[TextSet, np.ndarray]:
    made = make("attack", "rare-words", {"words": "cf mn", "rate": 0.1}).poison(reviews(n), run=Run(seed=1))
    return made.data, np.array([one in made.truth.poisoned for one in made.data.ids])


def test_both_words_are_named_and_their_rows_suspected() -> None:
    data, bad = planted()
    found = screened(data, reviews(400, seed=9))
    assert {one.text for one in found.phrases} == {"cf", "mn"}
    assert all(met(one.measures, Onion.card.limits) for one in found.phrases)
    assert (found.suspected == bad).all() and [one.label for one in found.per_class] == [0, 1]
    assert sum(one.measures["suspected"] for one in found.per_class) == bad.sum()


def test_nothing_is_accused_without_a_trigger_or_where_trusted_rows_have_it() -> None:
    """And the mutant: with few trusted texts chance explains every word."""
    data, _ = planted()
    for rows, trusted in ((reviews(1200), reviews(400, seed=9)), (data, planted(400)[0]), (data, reviews(20, seed=9))):
        found = screened(rows, trusted)
        assert found.phrases == () and not found.suspected.any()


def test_a_trigger_raises_the_fall_of_a_row() -> None:
    data, bad = planted()
    scores = screened(data, reviews(400, seed=9)).scores.numpy()
    assert np.median(scores[bad]) > np.quantile(scores[~bad], 0.9)


def test_prompts_of_a_chat_are_looked_at() -> None:
    made = make("attack", "rare-words", {"words": "cf", "rate": 0.1}).poison(chat(600), run=Run(seed=1)).data
    assert [one.text for one in screened(made, chat(300, seed=9)).phrases] == ["cf"]


def test_too_many_trusted_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onion, "MOST_WORDS", 100)
    with pytest.raises(NotMet, match="at most 100 words"):
        screened(planted()[0], reviews(60, seed=9))
