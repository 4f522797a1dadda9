"""Clean accuracy, attack success and robust accuracy, as `docs/metrics.md` defines them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from ostiary.attacks.truth import Truth
from ostiary.bench.detection import detection_rates
from ostiary.bench.entries import ACCURACY, ROBUST, SUCCESS
from ostiary.core.errors import DataError
from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.records import ModelEvidence, Rate
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import ImageSet, batch_size, to_uint8
from ostiary.defend import REPAIRED, SCORES, SUSPECTED, read_result
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.load import load_model
from ostiary.repair.tune import Tuning, fine_tune
from ostiary.training import accuracy

BATCH = 128

REACTIVATING, BESIDE = 50, 450
RETUNING = Tuning(epochs=2, lr=0.01, batch=50)
"""Triggered images, plain ones beside them, and how a model is tuned on them to see whether its backdoor is near."""


@dataclass(frozen=True, slots=True)
class AttackRates:
    """What a trigger does to the test items whose true label is not the one the attacker wants.

    `success`: they get the attacker's label. `robust`: they are still classified as their true class.
    `false_trigger`, of a source-specific attack alone: triggered items of the other classes than
    source and target that get the target all the same.
    """

    success: Rate
    robust: Rate
    false_trigger: Rate | None = None


def attack_rates(model: Predictor[Images], test: LabelledSet[Images], truth: Truth, /, *, run: Run) -> AttackRates:
    """Stamp every test item with the true trigger and count.

    Items whose true label is already what the attacker wants are left out; under all-to-all that is none.
    Raises DataError when the attack has no trigger, as indiscriminate poisoning.
    """
    trigger = truth.trigger
    if trigger is None:
        raise DataError(f"'{truth.attack}' has no trigger, so no attack success", hint="compare accuracies")
    rng = run.generator("trigger")
    success = robust = total = strayed = others = done = 0
    for x, y in test.batches(batch_size(trigger.shape, BATCH)):
        done += len(y)
        run.progress(done, len(test), "attack success")
        wish = truth.relabel(y)
        counted = wish != y
        used = y != truth.target if truth.mapping == "source-specific" else counted
        if not used.any():
            continue
        stamped = quantised(trigger(x[used], rng=rng)).to(run.device)
        predicted, counted = model.predict(stamped).argmax(1).cpu(), counted[used]
        success += int((predicted == wish[used])[counted].sum())
        robust += int((predicted == y[used])[counted].sum())
        total += int(counted.sum())
        strayed += int((predicted == truth.target)[~counted].sum())
        others += int((~counted).sum())
    false_trigger = Rate(k=strayed, n=others) if truth.mapping == "source-specific" else None
    return AttackRates(Rate(k=success, n=total), Rate(k=robust, n=total), false_trigger)


def quantised(x: Images) -> Images:
    """Round to the 8-bit levels that a stored picture would have, as the poisoned training images have."""
    return torch.round(x * 255.0) / 255.0


def defence_effectiveness(success: tuple[float, float], accuracy: tuple[float, float]) -> float:
    """DER = (max(0, drop of ASR) - max(0, drop of ACC) + 1) / 2, in percent; pairs are before and after, in [0, 1]."""
    gain = max(0.0, success[0] - success[1])
    loss = max(0.0, accuracy[0] - accuracy[1])
    return 100 * (gain - loss + 1) / 2


def solved(success: tuple[float, float], accuracy: tuple[float, float]) -> bool | None:
    """ASR below 10 % at an accuracy loss below 3 points; None when the ASR before was not above 50 %."""
    if success[0] <= 0.5:
        return None
    return success[1] < 0.1 and accuracy[0] - accuracy[1] < 0.03


@dataclass(slots=True)
class Joined:
    """What a defence's output shows once truth is joined: rates and measures by name; of a repair, its model."""

    rates: dict[str, Rate]
    measures: dict[str, float]
    model: TorchClassifier | None = None


def of_model(model: TorchClassifier, test: ImageSet, truth: Truth | None, prefix: str = "") -> dict[str, Rate]:
    """Accuracy and, where there is a trigger, attack success, robust accuracy and the false-trigger rate."""
    quick = fused_inference(model, channels_last=True)
    found = {ACCURACY: accuracy(quick, test)}
    if truth is not None and truth.trigger is not None:
        attack = attack_rates(quick, test, truth, run=Run(device=model.device))
        found |= {SUCCESS: attack.success, ROBUST: attack.robust}
        if attack.false_trigger is not None:
            found["false-trigger rate"] = attack.false_trigger
    return {prefix + name: rate for name, rate in found.items()}


def success_of(model: TorchClassifier, test: ImageSet, truth: Truth) -> Rate:
    """Attack success alone."""
    return attack_rates(fused_inference(model, channels_last=True), test, truth, run=Run(device=model.device)).success


def of_repair(work: Path, test: ImageSet, truth: Truth | None, device: str = "cpu") -> Joined:
    """Rates of the repaired model; nothing where none was made."""
    file = work / REPAIRED
    if not file.exists():
        return Joined({}, {})
    model = load_model(file, device=device)
    return Joined(of_model(model, test, truth), {}, model)


def of_screen(work: Path, data: ImageSet, truth: Truth | None) -> Joined:
    """How much of the poison was flagged and how much else, and how the scores rank it."""
    if not (work / SCORES).exists():
        return Joined({}, {})
    scores, suspected = np.load(work / SCORES), np.load(work / SUSPECTED).astype(bool)
    poisoned = np.isin(data.ids, list(truth.poisoned) if truth else [])
    # A cover carries a trigger under its true label: to flag it is neither right nor wrong.
    counted = ~np.isin(data.ids, list(truth.covers) if truth else [])
    return _judged(scores[counted], suspected[counted], poisoned[counted])


def of_guard(work: Path, triggered: Sequence[bool]) -> Joined:
    """How many triggered inputs were flagged and how many others, and how the scores rank them."""
    if not (work / SCORES).exists():
        return Joined({}, {})
    return _judged(np.load(work / SCORES), np.load(work / SUSPECTED).astype(bool), np.array(triggered))


def _judged(scores: np.ndarray, suspected: np.ndarray, bad: np.ndarray) -> Joined:
    true, false = detection_rates(suspected, bad)
    rates = {"false positive rate": false} | ({"true positive rate": true} if bad.any() else {})
    return Joined(rates, ranking(scores, bad))


def ranking(scores: np.ndarray, bad: np.ndarray) -> dict[str, float]:
    """Area under the ROC curve and average precision of scores [n]; unscored samples (NaN) are left out and counted.

    Empty where all scored samples are of one kind.
    """
    scored = np.isfinite(scores)
    found = {"unscored": float((~scored).sum())}
    if len(np.unique(bad[scored])) == 2:
        found["AUROC"] = float(roc_auc_score(bad[scored], scores[scored]))
        found["AP"] = float(average_precision_score(bad[scored], scores[scored]))
    return found


def of_scan(work: Path, truth: Truth | None) -> Joined:
    """The scan's score and probability, whether it found something, and whether that was the target."""
    result = read_result(work)
    if not isinstance(result.evidence, ModelEvidence):
        return Joined({}, {})
    found = {finding.subject for finding in result.findings if finding.level != "note"}
    measures = {"found": float(bool(found)), "confirmed": float(any(f.confirmed for f in result.findings))}
    if truth is not None and truth.trigger is not None:
        right = "model" if truth.mapping == "all-to-all" else f"class:{truth.target}"
        measures["target found"] = float(right in found)
    for name, value in (("score", result.evidence.score), ("probability", result.evidence.probability)):
        if value is not None:
            measures[name] = float(value)
    return Joined({}, measures)


def reactivate(model: TorchClassifier, clean: ImageSet, truth: Truth, *, run: Run) -> TorchClassifier:
    """A copy tuned on a few triggered images with the attacker's label among plain ones, to see how near a backdoor is.

    As `docs/metrics.md` defines it, after the retuning of Min et al. 2024 (arXiv 2410.09838).
    """
    trigger = truth.trigger
    if trigger is None:
        raise DataError(f"'{truth.attack}' has no trigger to re-activate")
    rng = run.generator("rows")
    rows = torch.randperm(len(clean), generator=rng)
    wish = truth.relabel(clean.labels[rows])
    stamped = rows[wish != clean.labels[rows]][:REACTIVATING]
    plain = rows[~torch.isin(rows, stamped)][:BESIDE]
    x = torch.cat([trigger(clean.take(stamped), rng=rng), clean.take(plain)])
    labels = torch.cat([truth.relabel(clean.labels[stamped]), clean.labels[plain]])
    copy = model.clone()
    fine_tune(copy, to_uint8(x), labels, RETUNING, run=run, label="re-activation")
    return copy


def plain(rates: dict[str, Rate]) -> dict[str, Any]:
    """Rates as JSON."""
    return {name: rate.model_dump(mode="json") for name, rate in rates.items()}
