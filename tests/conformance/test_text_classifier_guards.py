"""Mechanism checks of the guards of classifiers of texts, with their mutants, on a model that adds up words."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from bag_case import TRIGGER, bag, said, triggered
from classifier_case import attacked, trusted
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ostiary.core.run import Run
from ostiary.guard.fitted import Fitted
from ostiary.guard.onion import Onion
from ostiary.guard.rap import Rap
from ostiary.guard.text_strip import TextStrip

Told = tuple[float, float, float]


def told_apart(fitted: Fitted, change: Callable[[str], str] = str) -> Told:
    """AUROC of triggered texts against plain ones, and how many of each are flagged; each text `change`d before."""
    plain, fired = said(150, seed=9).texts, triggered(300)
    scores = [fitted.score(bag(), [change(text) for text in texts]) for texts in (plain, fired)]
    auroc = roc_auc_score(np.repeat([0, 1], [len(one) for one in scores]), torch.cat(scores).numpy())
    caught, rejected = (float(fitted.flagged(one).float().mean()) for one in scores[::-1])
    return float(auroc), caught, rejected


@pytest.mark.parametrize("method", [TextStrip(), Rap(), Onion()], ids=lambda one: str(one.card.name))
def test_a_guard_of_texts_tells_triggered_ones_apart(method: TextStrip | Rap | Onion) -> None:
    auroc, caught, rejected = told_apart(method.fit(bag(), said(300, seed=1), run=Run(seed=0)))
    assert auroc >= 0.97 and caught >= 0.95 and rejected <= 0.12


def test_mutant_whose_copies_are_averaged_in_the_other_order_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in public code: the copies of one text stand together and are averaged as if those of one draw did."""
    fitted = TextStrip().fit(bag(), said(300, seed=1), run=Run(seed=0))
    view = Tensor.view

    def mixed(self: Tensor, *shape: int) -> Tensor:
        return view(self, *shape[::-1]).T if len(shape) == 2 else view(self, *shape)

    plain, fired = list(said(150, seed=9).texts), triggered(300)
    together = [text for pair in zip(plain, fired, strict=False) for text in pair]
    right = fitted.score(bag(), together)
    monkeypatch.setattr(Tensor, "view", mixed)
    wrong = fitted.score(bag(), together)
    truth = np.tile([0, 1], len(together) // 2)
    assert roc_auc_score(truth, right.numpy()) >= 0.97
    assert roc_auc_score(truth, wrong.numpy()) < 0.8


def test_mutant_of_a_word_that_was_hardly_fitted_fails() -> None:
    assert told_apart(Rap(steps=1).fit(bag(), said(300, seed=1), run=Run(seed=0)))[0] < 0.8


def test_mutant_for_which_unknown_words_are_none_fails() -> None:
    fitted = Onion().fit(bag(), said(300, seed=1), run=Run(seed=0))
    known = set(fitted.vocabulary)
    assert TRIGGER not in known
    auroc, _, _ = told_apart(fitted, lambda text: " ".join(word for word in text.split() if word in known))
    assert auroc < 0.7


def test_onion_catches_a_rare_word_in_texts_for_a_trained_model() -> None:
    fitted, test = Onion().fit(attacked(), trusted(400), run=Run(seed=0)), trusted(100, seed=900).texts
    stamped = [" ".join([*text.split()[:3], "cf", *text.split()[3:]]) for text in test]
    plain, fired = fitted.score(attacked(), test), fitted.score(attacked(), stamped)
    assert roc_auc_score(np.repeat([0, 1], 100), torch.cat([plain, fired]).numpy()) >= 0.9
    assert float(fitted.flagged(fired).float().mean()) >= 0.6 and float(fitted.flagged(plain).float().mean()) <= 0.15
