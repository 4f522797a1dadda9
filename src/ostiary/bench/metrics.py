"""Clean accuracy, attack success and robust accuracy, as `docs/metrics.md` defines them."""

from dataclasses import dataclass

import torch

from ostiary.attacks.truth import Truth
from ostiary.core.errors import DataError
from ostiary.core.protocols import LabelledSet, Predictor
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Images
from ostiary.data import batch_size

BATCH = 256


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
