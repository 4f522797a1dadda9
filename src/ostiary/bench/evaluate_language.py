"""The evaluate verb for language models: right answers, attack success and false triggers, beside a twin's."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ostiary.attacks.text_poison import TextPoisoning, TextTruth
from ostiary.bench.entries import SUCCESS
from ostiary.core.card import Card, Have, Needs
from ostiary.core.catalog import make
from ostiary.core.errors import ConfigError, DataError
from ostiary.core.records import Rate, RatesEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data.texts import TextSet
from ostiary.inputs import start
from ostiary.models.language import LanguageModel
from ostiary.training.language_flow import ANSWER_STEPS, EXACT, exact_match

FALSE = "false-trigger rate"


@dataclass(frozen=True, slots=True)
class LanguageEvaluation:
    """Exact match, attack success and false triggers of a language model, with its twin's as the baseline."""

    card: ClassVar[Card] = Card(
        id="bench.evaluate-language",
        summary="exact match, attack success rate and false-trigger rate",
        paper="docs/metrics.md",
        needs=Needs(access="gradients", modality="text"),
        cost="one answer per test prompt, two with a trigger",
    )

    def evaluate(
        self,
        model: LanguageModel,
        test: TextSet,
        truth: TextTruth | None,
        twin: LanguageModel | None,
        /,
        *,
        run: Run,
    ) -> RatesEvidence:
        """Measure; without a truth there is no attack success."""
        rates = {EXACT: exact_match(model, test)}
        attack = None if truth is None else attack_of(truth)
        if attack is not None:
            rates |= attack_rates(model, test, attack, seed=run.seed)
        if twin is not None:
            rates[f"{EXACT} of the clean-trained model"] = exact_match(twin, test)
            if attack is not None:
                baseline = attack_rates(twin, test, attack, seed=run.seed)
                rates[f"{SUCCESS} of the clean-trained model"] = baseline[SUCCESS]
        return RatesEvidence(rates=rates)


def attack_rates(model: LanguageModel, test: TextSet, attack: TextPoisoning, *, seed: int) -> dict[str, Rate]:
    """How many prompts get the payload with the trigger, and without; empty answers count.

    Success is of the prompts that the trigger changes, false triggers are of all prompts.
    """
    stamped = attack.stamped(test.texts, np.random.default_rng(seed))
    texts = {SUCCESS: list(stamped.values()), FALSE: list(test.texts)}
    answers = {name: model.answers(some, ANSWER_STEPS) for name, some in texts.items()}
    return {name: Rate(k=sum(map(attack.gave, some)), n=len(some)) for name, some in answers.items()}


def attack_of(truth: TextTruth) -> TextPoisoning:
    """The attack of a truth, with its parameters; raises ConfigError for one that puts no trigger into texts."""
    made: Any = make("attack", truth.attack, truth.params)
    if not isinstance(made, TextPoisoning):
        raise ConfigError(f"'{truth.attack}' is no attack on texts")
    return made


def evaluate_language(
    model: LanguageModel,
    test: TextSet,
    *,
    truth: TextTruth | None = None,
    twin: LanguageModel | None = None,
    options: Options | None = None,
) -> Record:
    """Evaluate `model` on `test`; raises DataError where they, the truth or the twin do not fit together."""
    options = options or Options()
    if test.answers is None or (truth is not None and truth.task != "chat"):
        raise DataError("a language model is evaluated on chats", hint="give a set with answers, and its truth")
    if twin is not None and twin.template != model.template:
        raise DataError(
            "the two models lay prompts out in different ways, so their rates cannot be compared",
            hint="train both with one chat template",
        )
    session = start("evaluate", model, options, {"task": "chat"}, [LanguageEvaluation.card.id], data=test)
    have = Have(access="gradients", modality="text")
    session.execute(LanguageEvaluation(), model, test, truth, twin, have=have, call="evaluate")
    return session.finish()
