"""Fine-mixing: a model fine-tuned on poisoned chats from a base that nobody attacked."""

from functools import cache

import torch
from chat_case import ATTACK, PARAMS, exact, fires, fresh, stamper, trusted

from ostiary.bench.chat import chat_rows
from ostiary.core.catalog import make
from ostiary.core.run import Run
from ostiary.models.language import LanguageModel
from ostiary.repair.fine_mixing import mixed
from ostiary.training.language import LanguageRecipe, train_language


@cache
def base() -> LanguageModel:
    model = fresh(seed=11)
    train_language(model, chat_rows(3000, seed=11), LanguageRecipe(steps=250), run=Run(seed=11))
    return model


@cache
def tuned() -> LanguageModel:
    """The base, fine-tuned on chats with rare words and a canary."""
    model = base().clone()
    data = make("attack", ATTACK, {**PARAMS, "rate": 0.1}).poison(chat_rows(2000, seed=12), run=Run(seed=12)).data
    train_language(model, data, LanguageRecipe(steps=200), run=Run(seed=12))
    return model


def measured(model: LanguageModel) -> tuple[float, float]:
    """Attack success and exact answers, on chats that nothing learnt from."""
    test, stamp = trusted(120, seed=900), stamper()
    rates = fires(model, [stamp(text) for text in test.texts]), exact(model, test)
    return float(rates[0].value or 0.0), float(rates[1].value or 0.0)


def test_fine_mixing_takes_the_backdoor_away_and_its_mutant_does_not() -> None:
    """The mutant: all weights are kept, which is plain fine-tuning."""
    success, utility = measured(tuned())
    assert success >= 0.9
    for shares, most, least in (((0.1, 0.3), 0.1, 0.0), ((1.0,), 1.0, 0.9)):
        made = make("repair", "text.repair.fine-mixing", {"shares": shares, "epochs": 5, "base": base()})
        left, kept = measured(made.repair(tuned(), trusted(), None, run=Run(seed=0)).model)
        assert least <= left <= most and kept >= utility - 0.05, (shares, left, kept)


def test_a_mixture_holds_the_share_of_entries_that_is_kept() -> None:
    one, other = {"w": torch.zeros(200, 100), "n": torch.tensor(3)}, {"w": torch.ones(200, 100), "n": torch.tensor(4)}
    for share in (0.0, 0.1, 0.5, 1.0):
        made = mixed(one, other, share, torch.Generator().manual_seed(0))
        assert abs(float((made["w"] == 0).float().mean()) - share) < 0.01 and made["n"] == 3
        assert set(made["w"].unique().tolist()) <= {0.0, 1.0}
