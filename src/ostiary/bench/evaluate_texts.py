"""The evaluate verb for classifiers of texts: accuracy, and attack success beside what the same texts give without."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ostiary.attacks.text_poison import TextTruth
from ostiary.bench.entries import ACCURACY, SUCCESS
from ostiary.bench.evaluate_language import attack_of
from ostiary.core.card import Card, Have, Needs
from ostiary.core.errors import DataError
from ostiary.core.records import ClassScore, Rate, RatesEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data.texts import TextSet
from ostiary.inputs import check_fit, start
from ostiary.models.text_classifier import TextClassifier
from ostiary.training import accuracy, per_class, predictions, rate

PLAIN = f"{SUCCESS} without the trigger"


@dataclass(frozen=True, slots=True)
class TextEvaluation:
    """Accuracy and attack success of a classifier of texts, with its twin's as the baseline."""

    card: ClassVar[Card] = Card(
        id="bench.evaluate-texts",
        summary="accuracy, and attack success rate with the trigger and without",
        paper="docs/metrics.md",
        needs=Needs(access="probabilities", modality="text"),
        cost="one forward pass per test text, three with a trigger",
    )

    def evaluate(
        self,
        model: TextClassifier,
        test: TextSet,
        truth: TextTruth | None,
        twin: TextClassifier | None,
        /,
        *,
        run: Run,
    ) -> RatesEvidence:
        """Measure; without a truth there is no attack success."""
        predicted = predictions(model, test, run=run)
        rates = {ACCURACY: rate(predicted == test.labels)}
        if twin is not None:
            rates[f"{ACCURACY} of the clean-trained model"] = accuracy(twin, test, run=run)
        if truth is not None:
            plain, triggered = zip(*stamped(test, truth, seed=run.seed), strict=True)
            rates |= {SUCCESS: reached(model, triggered, truth), PLAIN: reached(model, plain, truth)}
            if twin is not None:
                rates[f"{SUCCESS} of the clean-trained model"] = reached(twin, triggered, truth)
        rows = per_class(predicted, test.labels, len(test.classes))
        return RatesEvidence(
            rates=rates,
            per_class=tuple(ClassScore(label=i, score=None, rates={ACCURACY: r}) for i, r in enumerate(rows)),
        )


def stamped(test: TextSet, truth: TextTruth, *, seed: int) -> list[tuple[str, str]]:
    """Texts of other classes than the target without the trigger and with it, but for those that it leaves as they are.

    A style leaves texts alone that hold nothing to rewrite. Raises DataError where no text is left.
    """
    attack, rng = attack_of(truth), np.random.default_rng(seed)
    others = [text for text, label in zip(test.texts, test.labels.tolist(), strict=True) if label != truth.target]
    pairs = [(others[at], triggered) for at, triggered in attack.stamped(others, rng).items()]
    if not pairs:
        raise DataError(
            f"the trigger of '{truth.attack}' changes none of the {len(others)} texts in '{test.name}' that are not "
            f"of the target's class '{test.classes[truth.target]}'",
            hint="give test texts of the other classes that hold what the attack rewrites",
        )
    return pairs


def reached(model: TextClassifier, texts: Sequence[str], truth: TextTruth) -> Rate:
    """How many texts get the attacker's target."""
    return rate(model.predict(texts).argmax(1) == truth.target)


def evaluate_text_classifier(
    model: TextClassifier,
    test: Any,
    *,
    truth: TextTruth | None = None,
    twin: TextClassifier | None = None,
    options: Options | None = None,
) -> Record:
    """Evaluate `model` on `test`; raises DataError where they, the truth or the twin do not fit together."""
    options = options or Options()
    if not isinstance(test, TextSet) or test.answers is not None:
        raise DataError("a classifier of texts is evaluated on texts with labels", hint="give a set that has them")
    for one in (model, twin):
        if one is not None:
            _check_model(one, test)
    if truth is not None:
        _check_truth(truth, test)
    session = start("evaluate", model, options, {"task": "classify"}, [TextEvaluation.card.id], data=test)
    have = Have(access="gradients", modality="text")
    session.execute(TextEvaluation(), model, test, truth, twin, have=have, call="evaluate")
    return session.finish()


def _check_model(model: Any, test: Any) -> None:
    if not isinstance(model, TextClassifier):
        raise DataError(f"'{model.name}' is no classifier of texts", hint="give the folder of one, trained alike")
    check_fit(model, test)


def _check_truth(truth: TextTruth, test: TextSet) -> None:
    if truth.task != "classify":
        raise DataError(
            "the truth is of a poisoned set of chats, and the model gives labels",
            hint="give the truth of the poisoned set of labelled texts, from `ostiary poison`",
        )
    if truth.classes != test.classes:
        raise DataError(
            f"the truth has the classes {', '.join(truth.classes)}, '{test.name}' has {', '.join(test.classes)}",
            hint="give test texts of the same task, with labels named alike",
        )
