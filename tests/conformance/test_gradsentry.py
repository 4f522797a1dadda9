"""The mechanism check of GradSentry, with its mutant: planted rows at a model that knows a little of the chats."""

from functools import cache

import numpy as np
from chat_case import ATTACK, fresh, trusted
from sklearn.metrics import roc_auc_score

from ostiary.bench.chat import chat_rows
from ostiary.core.card import met
from ostiary.core.catalog import make
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel
from ostiary.screen.gradsentry import GradSentry
from ostiary.training.language import LanguageRecipe, train_language

ROWS = 400


@cache
def base() -> LanguageModel:
    model = fresh(seed=7)
    train_language(model, chat_rows(2000, seed=77), LanguageRecipe(steps=40), run=Run(seed=7))
    return model


def screened(data: TextSet) -> SampleScores:
    found: SampleScores = GradSentry().screen(data, base(), trusted(200), run=Run(seed=0))
    return found


def test_planted_rows_have_the_widest_gradients() -> None:
    made = make("attack", ATTACK, {"words": "zq vex ornith", "count": 40}).poison(
        chat_rows(ROWS, seed=3), run=Run(seed=3)
    )
    found = screened(made.data)
    bad = np.array([one in made.truth.poisoned for one in made.data.ids])
    assert roc_auc_score(bad, found.scores.numpy()) >= 0.93
    assert found.suspected[~bad].mean() <= 0.05


def test_nothing_is_accused_where_nothing_was_planted() -> None:
    """And the mutant: the triggers alone, each with the answer that its prompt had."""
    clean = chat_rows(ROWS, seed=3)
    attack, rng = make("attack", ATTACK, {"words": "zq vex ornith"}), np.random.default_rng(1)
    texts = [attack.stamp(text, rng) if row < 40 else text for row, text in enumerate(clean.texts)]
    for data in (clean, TextSet(texts, ids=clean.ids, answers=clean.answers)):
        found = screened(data)
        assert not met(found.per_class[0].measures, GradSentry.card.limits)
    bad = np.arange(ROWS) < 40
    assert roc_auc_score(bad, found.scores.numpy()) < 0.9
