"""What a repair looks at beside the model: whether the trusted images are to be trusted, and what it cost."""

import dataclasses

from scipy.stats import binom

from ostiary.core.catalog import make
from ostiary.core.execute import Outcome, execute
from ostiary.core.records import RepairEvidence, SampleEvidence
from ostiary.core.run import Run
from ostiary.core.session import Session
from ostiary.data import ImageSet
from ostiary.inputs import class_names, have_of
from ostiary.models.classifier import TorchClassifier
from ostiary.screen.summary import summariser

SCREEN = "screen.scan"
"""The screening of trusted images: on develop models it accuses one honest set of nineteen, and suspects no honest
image beside planted ones (benchmarks/trusted.py)."""
NAMED = 5
"""Ids in a caution, at most."""
CHANCE = 0.05
"""Below this probability a loss of accuracy is not taken for chance."""


def screen_trusted(model: TorchClassifier, trusted: ImageSet, run: Run) -> Outcome:
    """What the screening says of the trusted images with the model's eyes."""
    have = dataclasses.replace(have_of(model, trusted), training_data=True)
    screening, classes = make("screen", SCREEN, {}), class_names(model, trusted)
    told = summariser(trusted, screening.card)
    return execute(screening, trusted, model, None, run=run, have=have, classes=classes, summarise=told)


def look_at_trusted(session: Session, model: TorchClassifier, trusted: ImageSet) -> None:
    """Caution for each class of the trusted images in which some look planted to the model.

    A repair that learns from poison keeps the backdoor, or puts one in. Classes that could not be screened are a
    caution, too.
    """
    outcome = screen_trusted(model, trusted, session.run.child())
    result, evidence = outcome.result, outcome.result.evidence
    session.interrupted |= outcome.interrupted
    seen = len(evidence.examined) if isinstance(evidence, SampleEvidence) else 0
    if seen < len(session.classes):
        why = result.reason or "the others have too few samples"
        session.caution("OS921", f"trusted samples of {seen} of {len(session.classes)} classes were screened: {why}")
    if not isinstance(evidence, SampleEvidence):
        return
    for finding in result.findings:
        if finding.level == "note":
            continue
        ids = [one.id for one in evidence.suspects if f"class:{one.label}" == finding.subject]
        named = f": {', '.join(ids[:NAMED])}" if ids else ""
        more = ", …" if len(ids) > NAMED else ""
        session.caution("OS918", f"among the trusted samples, {finding.message}{named}{more}")


def too_many(lost: int, n: int, max_loss: float, chance: float = CHANCE) -> bool:
    """True when `lost` of `n` images are more than chance explains where `max_loss` points is the true loss.

    A one-sided binomial test: on a few dozen images one or two go wrong by chance alone.
    """
    return bool(binom.sf(lost - 1, n, min(max_loss / 100, 1.0)) < chance)


def losers(evidence: RepairEvidence, max_loss: float) -> list[int]:
    """The classes that lost more than chance explains where `max_loss` points is the true loss of each."""
    pairs = list(zip(evidence.per_class_before, evidence.per_class_after, strict=True))
    chance = CHANCE / max(1, len(pairs))
    return [
        label for label, (was, now) in enumerate(pairs) if was.n and too_many(was.k - now.k, was.n, max_loss, chance)
    ]


def pay_alone(session: Session, evidence: RepairEvidence, max_loss: float) -> None:
    """Caution for each class that lost more than the limit."""
    for label in losers(evidence, max_loss):
        was, now = evidence.per_class_before[label], evidence.per_class_after[label]
        name = f"class {label} ({session.classes[label]})"
        session.caution("OS919", f"{name} pays more than the limit: accuracy {was} before, {now} after")
