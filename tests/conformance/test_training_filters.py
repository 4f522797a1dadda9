"""The mechanism checks of GraCeFul and low loss, with their mutants: on rows that they can tell, and by hand."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from chat_case import fresh
from scipy.fft import dctn
from sklearn.metrics import roc_auc_score
from text_case import reviews

from ostiary.bench.chat import chat_rows
from ostiary.core.catalog import make
from ostiary.core.errors import NotMet
from ostiary.core.protocols import SampleScores
from ostiary.core.run import Run
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel
from ostiary.screen.graceful import Graceful, low_corner
from ostiary.screen.low_loss import LowLoss
from ostiary.training.language import LanguageRecipe, train_language

ROWS = 300


@cache
def base() -> LanguageModel:
    model = fresh(seed=7)
    train_language(model, chat_rows(2000, seed=77), LanguageRecipe(steps=40), run=Run(seed=7))
    return model


@cache
def planted(count: int) -> tuple[TextSet, np.ndarray]:
    made = make("attack", "rare-words", {"words": "zq vex ornith", "count": count}).poison(
        chat_rows(ROWS, seed=3), run=Run(seed=3)
    )
    return made.data, np.array([one in made.truth.poisoned for one in made.data.ids])


def dealt(data: TextSet) -> TextSet:
    """The mutant: the same prompts and answers, dealt anew."""
    order = np.random.default_rng(0).permutation(len(data))
    assert data.answers is not None
    return TextSet(data.texts, ids=data.ids, answers=[data.answers[row] for row in order])


def area(bad: np.ndarray, found: SampleScores) -> float:
    return float(roc_auc_score(bad, found.scores.numpy()))


def test_the_corner_is_that_of_the_transform_of_the_whole_gradient() -> None:
    rng = torch.Generator().manual_seed(0)
    errors, states = torch.randn(5, 24, generator=rng), torch.randn(5, 16, generator=rng)
    whole = dctn((errors.T @ states).double().numpy(), norm="ortho")
    np.testing.assert_allclose(low_corner(errors, states, 0.25), whole[:6, :4].ravel(), atol=1e-5)


@pytest.mark.parametrize("method", [Graceful(), LowLoss()], ids=["graceful", "low-loss"])
def test_it_wants_answers_and_accuses_nobody(method: Any) -> None:
    with pytest.raises(NotMet, match="answers"):
        method.screen(reviews(60), base(), None, run=Run())
    assert not method.card.limits and not method.card.code


def test_the_smaller_group_of_gradients_is_poison() -> None:
    """A fifth of the rows; and the mutant: the same answers, dealt to other prompts, whose group is any rows."""
    data, bad = planted(60)
    found = Graceful().screen(data, base(), None, run=Run())
    assert bad[found.suspected].mean() >= 0.9 and found.suspected.sum() >= 15
    mixed = Graceful().screen(dealt(data), base(), None, run=Run())
    assert bad[mixed.suspected].mean() <= 0.4


def test_a_third_of_the_rows_is_learnt_first() -> None:
    """And the mutant: the same answers, dealt to other prompts; the model itself stays as it was."""
    before, (data, bad) = base().digest, planted(100)
    found = LowLoss().screen(data, base(), None, run=Run())
    assert area(bad, found) >= 0.95 and bad[found.suspected].all() and found.suspected.sum() == 3
    assert area(bad, LowLoss().screen(dealt(data), base(), None, run=Run())) <= 0.65
    assert base().digest == before


def test_few_planted_rows_are_ranked_last_by_their_loss() -> None:
    """A blind spot that is held: were it gone, the page would have to say so."""
    data, bad = planted(30)
    assert area(bad, LowLoss(steps=30).screen(data, base(), None, run=Run())) <= 0.2
