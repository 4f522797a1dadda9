"""Fine-mixing and W2SDefense: a model fine-tuned on poisoned chats from a base that nobody attacked."""

from functools import cache

import torch
from chat_case import ATTACK, PARAMS, exact, fires, fresh, stamper, tiny, trusted

from ostiary.bench.chat import chat_rows
from ostiary.core.catalog import make
from ostiary.core.run import Run
from ostiary.models.language import LanguageModel
from ostiary.repair.fine_mixing import mixed
from ostiary.repair.text_tune import Row, plain
from ostiary.repair.w2s import distilled
from ostiary.training.language import LanguageRecipe, token_rows, train_language


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


def rows() -> list[Row]:
    return list(token_rows(tiny(), trusted(6)))


def loss(model: LanguageModel, teacher: LanguageModel, **weights: float) -> float:
    given = {"answers": 0.0, "soft": 0.0, "states": 0.0, "heat": 2.0, **weights}
    return float(distilled(model, rows(), teacher=teacher, bridge=None, **given).detach())


def test_each_part_of_the_loss_is_that_of_a_reference_by_hand() -> None:
    """Row by row, without padding, in plain sums."""
    model, teacher = tiny(), fresh(seed=5, width=32)
    apart, states, count = 0.0, 0.0, 0
    for prompt, answer in rows():
        ids, mask = model.padded([[*prompt, *answer]])
        with torch.no_grad():
            ours, theirs = (one.run(ids, mask, output_hidden_states=True) for one in (model, teacher))
        for at in range(len(prompt) - 1, len(prompt) + len(answer) - 1):
            p, q = ((one.logits[0, at].double() / 2).softmax(0) for one in (theirs, ours))  # type: ignore[attr-defined]
            apart += 4 * float((p * (p / q).log()).sum())
            gap = ours.hidden_states[-1][0, at] - theirs.hidden_states[-1][0, at]  # type: ignore[attr-defined]
            states, count = states + float((gap.double() ** 2).mean()), count + 1
    assert abs(loss(model, teacher, soft=1.0) - apart / count) < 1e-3 * apart / count
    assert abs(loss(model, teacher, states=1.0) - states / count) < 1e-3 * states / count
    assert abs(loss(model, teacher, answers=3.0) - 3 * float(plain(model, rows()).detach())) < 1e-5
    assert abs(loss(model, model, soft=1.0, states=1.0)) < 1e-4


def test_w2s_draws_a_model_to_its_teacher_and_without_its_price_does_not() -> None:
    """Success is measured and not bounded: the teacher is asked of trusted prompts alone, as in the paper."""
    kept, gaps = [], []
    for soft, states in ((1.0, 0.1), (0.0, 0.0)):
        params = {"epochs": 4, "soft": soft, "states": states, "base": base(), "tolerance": 1.0}
        found = make("repair", "text.repair.w2s", params).repair(tuned(), trusted(), None, run=Run(seed=0))
        kept.append(measured(found.model)[1])
        gaps.append(loss(found.model, base(), soft=1.0))
    assert gaps[0] < 0.7 * gaps[1] and min(kept) >= measured(tuned())[1] - 0.05
