"""The guards of language models, step by step."""

import math

import pytest
import torch
from chat_case import tiny, trusted

from ostiary.core.run import Run
from ostiary.guard.confguard import SHORT, ConfGuard, answered, sure_for
from ostiary.guard.hidden_mahalanobis import HiddenMahalanobis, last_states


@pytest.mark.parametrize(
    ("odds", "window", "wanted"),
    [([1.0, 5.0, 4.0, 2.0], 2, 4.0), ([1.0, 5.0, 4.0, 2.0], 3, 2.0), ([1.0, 2.0], 3, SHORT), ([], 1, SHORT)],
)
def test_the_surest_window_counts_by_its_least_sure_token(odds: list[float], window: int, wanted: float) -> None:
    assert sure_for(odds, window) == wanted


def test_log_odds_are_those_of_the_tokens_that_are_said() -> None:
    model = tiny()
    row = model.prompt(trusted(1).texts[0])
    ((told, odds),), (said,) = answered(model, [row], 6), model.continued([row], 6)
    assert told == said and len(odds) == len(said) > 0
    ids, mask = model.padded([[*row, *said]])
    chances = model.logits(ids, mask).detach()[0].double().softmax(1)
    for at, (token, found) in enumerate(zip(said, odds, strict=True)):
        chance = float(chances[len(row) - 1 + at, token])
        assert found == pytest.approx(math.log(chance / (1 - chance)), abs=1e-3)


def test_a_very_sure_model_still_has_finite_log_odds() -> None:
    """Where the chance is 1 in single precision the odds still tell two answers apart."""
    values = torch.tensor([[0.0, 40.0], [0.0, 60.0]])
    best = values.argmax(1, keepdim=True)
    rest = values.scatter(1, best, -torch.inf).logsumexp(1)
    assert values.softmax(1).max(1).values.tolist() == [1.0, 1.0]
    assert (values.gather(1, best)[:, 0] - rest).tolist() == [40.0, 60.0]


def test_a_state_is_that_of_the_last_token() -> None:
    model, texts = tiny(), trusted(3).texts
    ids, mask = model.padded([model.prompt(texts[0])])
    found = model.run(ids, mask, use_cache=False, output_hidden_states=True)
    alone = found.hidden_states[-1][0, -1].detach()  # type: ignore[attr-defined]
    assert torch.allclose(last_states(model, texts)[0], alone, atol=1e-5)


def test_the_limit_is_a_quantile_of_prompts_that_fitted_nothing() -> None:
    for method in (ConfGuard(window=3, steps=12, false_rejection=0.2), HiddenMahalanobis(false_rejection=0.2)):
        fitted = method.fit(tiny(), trusted(80), run=Run(seed=1))
        assert fitted.false_rejection is not None
        assert fitted.false_rejection.n == (40 if isinstance(method, ConfGuard) else 20)
        assert (fitted.false_rejection.value or 0.0) <= 0.6
