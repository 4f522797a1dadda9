"""The evaluate verb: what a model does on clean and on triggered test data, beside its clean-trained twin."""

from dataclasses import dataclass
from typing import ClassVar

from ostiary.attacks.truth import Truth
from ostiary.bench.entries import ACCURACY, ROBUST, SUCCESS
from ostiary.bench.metrics import attack_rates
from ostiary.core.card import Card, Needs
from ostiary.core.errors import DataError
from ostiary.core.records import ClassScore, RatesEvidence, Record
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data import ImageSet
from ostiary.inputs import check_fit, have_of, start
from ostiary.models.classifier import TorchClassifier
from ostiary.training import per_class, predictions, rate


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy, attack success rate and robust accuracy of a model, with its twin's as the baseline."""

    card: ClassVar[Card] = Card(
        id="bench.evaluate",
        summary="accuracy, attack success rate and robust accuracy",
        paper="docs/metrics.md",
        needs=Needs(access="probabilities", modality="images"),
        cost="one forward pass per test item, two with a trigger",
    )

    def evaluate(
        self,
        model: TorchClassifier,
        test: ImageSet,
        truth: Truth | None,
        twin: TorchClassifier | None,
        /,
        *,
        run: Run,
    ) -> RatesEvidence:
        """Measure; without a trigger there is no attack success."""
        predicted = predictions(model, test, run=run)
        rates = {ACCURACY: rate(predicted == test.labels)}
        triggered = truth is not None and truth.trigger is not None
        if truth is not None and triggered:
            attack = attack_rates(model, test, truth, run=run)
            rates |= {SUCCESS: attack.success, ROBUST: attack.robust}
            if attack.false_trigger is not None:
                rates["false-trigger rate"] = attack.false_trigger
        if twin is not None:
            rates["accuracy of the clean-trained model"] = rate(predictions(twin, test, run=run) == test.labels)
            if truth is not None and triggered:
                baseline = attack_rates(twin, test, truth, run=run)
                rates[f"{SUCCESS} of the clean-trained model"] = baseline.success
        rows = per_class(predicted, test.labels, len(test.classes))
        return RatesEvidence(
            rates=rates,
            per_class=tuple(ClassScore(label=i, score=None, rates={ACCURACY: r}) for i, r in enumerate(rows)),
        )


def evaluate_model(
    model: TorchClassifier,
    test: ImageSet,
    *,
    truth: Truth | None = None,
    twin: TorchClassifier | None = None,
    options: Options | None = None,
) -> Record:
    """Evaluate `model` on `test`; raises DataError when test set, truth and models do not fit together."""
    options = options or Options()
    check_fit(model, test)
    if twin is not None:
        check_fit(twin, test)
    if truth is not None:
        _check_truth(truth, test)
    session = start("evaluate", model, options, {}, [Evaluation.card.id], data=test)
    session.execute(Evaluation(), model, test, truth, twin, have=have_of(model, None), call="evaluate")
    return session.finish()


def _check_truth(truth: Truth, test: ImageSet) -> None:
    if len(truth.classes) != len(test.classes):
        raise DataError(f"the truth has {len(truth.classes)} classes, '{test.name}' {len(test.classes)}")
    if truth.trigger is not None and truth.trigger.shape != tuple(test.shape):
        raise DataError(f"the trigger is for images of {truth.trigger.shape}, '{test.name}' has {tuple(test.shape)}")
