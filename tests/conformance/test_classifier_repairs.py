"""Mechanism checks of the repairs of classifiers of texts, with their mutants: made-up reviews and an odd word."""

from functools import cache
from typing import Any

import numpy as np
import torch
from classifier_case import attacked, clean, poisoned, trusted
from text_case import reviews

from ostiary.core.catalog import make
from ostiary.core.records import ModelEvidence, PhraseTrigger
from ostiary.core.run import Run
from ostiary.models.text_classifier import TextClassifier
from ostiary.models.tokens import table_of
from ostiary.repair.text_tune import rows_of
from ostiary.repair.token_pruning import pruned, strongest_tokens
from ostiary.training.text_classifier import TextRecipe, train_text_classifier

WORD = {"words": "cf"}


def repaired(
    model: TextClassifier, method: str, phrase: str = "cf", label: int | None = 0, **params: Any
) -> TextClassifier:
    found = PhraseTrigger(phrase=phrase, label=label, source="inversion", score=1.0, measures={})
    told = ModelEvidence(score=1.0, per_class=(), phrases=(found,), examined=())
    made: TextClassifier = (
        make("repair", f"text.repair.{method}", params).repair(model, trusted(), told, run=Run(seed=0)).model
    )
    return made


def measured(model: TextClassifier, word: str = "cf") -> tuple[float, float]:
    """Attack success and accuracy, on texts that nothing learnt from."""
    test = trusted(300, seed=900)
    right = model.predict(test.texts).argmax(1) == test.labels
    others = [text for text, label in zip(test.texts, test.labels.tolist(), strict=True) if label != 0]
    stamped = make("attack", "rare-words", {"words": word}).stamped(others, np.random.default_rng(5))
    sent = model.predict(list(stamped.values())).argmax(1) == 0
    return float(sent.float().mean()), float(right.float().mean())


def test_the_attack_is_in_the_classifier() -> None:
    success, accuracy = measured(attacked())
    assert success >= 0.95 and accuracy >= 0.85


def test_unlearning_a_phrase_takes_it_out_of_a_classifier_and_another_phrase_does_not() -> None:
    """The mutant: told a word that does nothing."""
    before = measured(attacked())
    success, accuracy = measured(repaired(attacked(), "phrase-unlearning", tokens=0))
    assert success <= 0.2 and accuracy >= before[1] - 0.03
    assert measured(repaired(attacked(), "phrase-unlearning", "camera", tokens=0))[0] >= 0.5


def test_unlearning_prunes_the_other_words_that_lead_to_the_label_of_the_phrase() -> None:
    """Told one of two words; the mutant: nothing is pruned."""
    both = attacked(words="cf mn")
    left = [measured(repaired(both, "phrase-unlearning", tokens=tokens), "mn")[0] for tokens in (24, 0)]
    assert left[0] <= 0.05 < left[1], left


def test_pruning_tokens_takes_a_word_out_of_a_classifier_that_nobody_named() -> None:
    """The mutants: the tokens that do least for the label, and tokens for another label."""
    model, rows = attacked(), trusted()
    success, accuracy = measured(repaired(model, "token-pruning", label=None))
    assert success <= 0.3 and accuracy >= measured(model)[1] - 0.03
    assert measured(repaired(model, "token-pruning", label=1))[0] >= 0.9
    every = strongest_tokens(model, rows, [0], len(model.words), run=Run())[0]
    assert model.decode(every[:1]) == "cf"
    for some, most, least in ((every[:12], 0.3, 0.0), (every[-12:], 1.0, 0.9)):
        copy = model.clone()
        pruned(copy, {0: some}, rows_of(copy, rows), float("inf"))
        assert least <= measured(copy)[0] <= most


def test_what_holds_no_pruned_token_is_judged_as_before() -> None:
    """Only the vectors of pruned tokens move, to the mean of those that show as text; none where that is too dear."""
    model, rows = attacked(), trusted()
    held, some, copy = rows_of(model, rows), [model.encode("cf")[0], model.encode("mn")[0]], model.clone()
    told = pruned(copy, {0: some}, held, float("inf"))
    assert told["tokens pruned that lead to bad"] == "'cf', 'mn'" and told["tokens"].startswith("2 a label")
    before, after = table_of(model.module), table_of(copy.module)
    moved = [at for at in range(len(before)) if not torch.equal(before[at], after[at])]
    assert moved == sorted(some)
    torch.testing.assert_close(after[some], before[list(model.words)].mean(dim=0).expand(2, -1))
    assert not any({"cf", "mn"} & set(text.split()) for text in rows.texts)
    assert torch.equal(model.predict(rows.texts), copy.predict(rows.texts))
    dear = model.clone()
    assert pruned(dear, {0: some}, held, -1.0)["tokens"].startswith("0 a label") and dear.digest == model.digest


def test_unlearning_an_ordinary_word_costs_a_classifier_little() -> None:
    """What is unlearned where a scan accuses a model that nobody attacked."""
    before = measured(clean())
    assert measured(repaired(clean(), "phrase-unlearning", "dull stale"))[1] >= before[1] - 0.03


def test_fine_tuning_keeps_what_a_classifier_knows() -> None:
    """The control: success is measured, not bounded; and the mutant, a rate at which it forgets."""
    before = measured(attacked())
    assert measured(repaired(attacked(), "fine-tuning"))[1] >= before[1] - 0.03
    assert measured(repaired(attacked(), "fine-tuning", lr=0.5, epochs=2, tolerance=99.0))[1] < before[1] - 0.1


@cache
def tuned() -> TextClassifier:
    """A classifier that nobody attacked, fine-tuned on reviews with an odd word."""
    model = clean().clone()
    data = poisoned(reviews(1000, seed=12), "rare-words", rate=0.1, **WORD)
    train_text_classifier(model, data, TextRecipe(steps=100, lr=4e-3), run=Run(seed=12))
    return model


def test_fine_mixing_takes_a_backdoor_out_of_a_classifier_and_its_mutant_does_not() -> None:
    """The mutant: all weights are kept, which is plain fine-tuning."""
    success, accuracy = measured(tuned())
    assert success >= 0.9
    for shares, most, least in (((0.1, 0.3), 0.3, 0.0), ((1.0,), 1.0, 0.5)):
        left, kept = measured(repaired(tuned(), "fine-mixing", shares=shares, epochs=5, base=clean()))
        assert least <= left <= most and kept >= accuracy - 0.05, (shares, left, kept)
