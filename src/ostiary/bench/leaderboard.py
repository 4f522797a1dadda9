"""The figures of a leaderboard, from entries alone; what each one means is in `docs/metrics.md`.

A figure counts models; one that was not measured is None or has n 0, never a zero. What failed is
counted and named, and stays out of the means. A repair that was skipped left the model as it is:
it stays in, and does not count as solved.
"""

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ostiary.bench.bootstrap import Estimate, auroc, mean
from ostiary.bench.entries import (
    ACCURACY,
    FPR,
    REACTIVATED,
    ROBUST,
    SUCCESS,
    TPR,
    Board,
    Defence,
    Entry,
    Place,
    Treatment,
)
from ostiary.bench.metrics import defence_effectiveness, solved
from ostiary.core.records import Rate

K = TypeVar("K", bound=Hashable)

WORKS = 0.5
"""A backdoor whose ASR is not above this is not there to be found or closed."""

EASED = frozenset({"attack.wanet", "attack.adaptive-blend", "attack.adaptive-patch"})
"""Warping and adaptive attacks, which trade success for being hard to see."""

CLEAN_LABEL = frozenset({"attack.sig", "attack.label-consistent", "attack.narcissus"})
"""Clean-label attacks, unless their parameters name another map."""

ROUNDING = 1e-9
CLIP = 1e-6
"""A probability of 0 or 1 that is wrong would cost infinitely much."""


# --- models ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """What an attack must reach to count as implanted, as shares of 1: loss of accuracy, ASR, the twin's ASR."""

    loss: float
    success: float
    twin_success: float = 0.2


def bar(treatment: Treatment) -> Bar:
    """The bar of `docs/conformance.md`."""
    mapping = '"mapping": "' in treatment.params
    clean_label = '"mapping": "clean-label"' in treatment.params if mapping else treatment.method in CLEAN_LABEL
    if clean_label:
        return Bar(0.03, 0.8)
    return Bar(0.02, 0.8 if treatment.method in EASED else 0.95)


def short_of_bar(model: Entry) -> tuple[str, ...] | None:
    """In what an attacked model falls short of its bar; empty when it is implanted, None when not measured."""
    if model.treatment.kind != "attack" or model.status != "ok":
        return None
    own, twin = model.share(ACCURACY), model.share(f"twin {ACCURACY}")
    success, twin_success = model.share(SUCCESS), model.share(f"twin {SUCCESS}")
    if own is None or twin is None or success is None or twin_success is None:
        return None
    least, short = bar(model.treatment), []
    if twin - own > least.loss + ROUNDING:
        short.append(f"accuracy {100 * (twin - own):.1f} points below the twin's")
    if success < least.success - ROUNDING:
        short.append(f"ASR {100 * success:.1f} %, below {100 * least.success:.0f} %")
    if twin_success > least.twin_success + ROUNDING:
        short.append(f"the twin's ASR {100 * twin_success:.1f} %")
    return tuple(short)


@dataclass(frozen=True, slots=True)
class Models:
    """All models of one treatment, the seeds together. `implanted` counts those that were measured."""

    place: Place
    treatment: Treatment
    seeds: tuple[int, ...]
    accuracy: Estimate
    twin_accuracy: Estimate
    success: Estimate
    twin_success: Estimate
    robust: Estimate
    implanted: Rate
    short: tuple[tuple[Entry, tuple[str, ...]], ...]
    failed: tuple[Entry, ...]


def models(board: Board) -> tuple[Models, ...]:
    """A row for every treatment of every place."""
    return tuple(_models(group) for group in _grouped(board.models, lambda one: (one.place, one.treatment)).values())


def _models(group: Sequence[Entry]) -> Models:
    judged = [(one, short) for one in group if (short := short_of_bar(one)) is not None]
    return Models(
        place=group[0].place,
        treatment=group[0].treatment,
        seeds=_seeds(group),
        accuracy=mean(one.share(ACCURACY) for one in group),
        twin_accuracy=mean(one.share(f"twin {ACCURACY}") for one in group),
        success=mean(one.share(SUCCESS) for one in group),
        twin_success=mean(one.share(f"twin {SUCCESS}") for one in group),
        robust=mean(one.share(ROBUST) for one in group),
        implanted=Rate(k=sum(not short for _, short in judged), n=len(judged)),
        short=tuple((one, short) for one, short in judged if short),
        failed=tuple(one for one in group if one.status != "ok"),
    )


# --- defences -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counted:
    """The entries of a defence (with `treatment`: of that alone) by what they count for.

    `bad` are models with a working backdoor, `weak` attacked ones whose backdoor does not work, which
    count nowhere; `twins` and `benign` were not attacked. What was `skipped`, and what `failed` or
    was cut, is in none of these, but for a skipped repair.
    """

    defence: Defence
    treatment: Treatment | None
    entries: tuple[Entry, ...]
    bad: tuple[Entry, ...]
    weak: tuple[Entry, ...]
    twins: tuple[Entry, ...]
    benign: tuple[Entry, ...]
    skipped: tuple[Entry, ...]
    failed: tuple[Entry, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all entries."""
        return _seeds(self.entries)

    @property
    def seconds(self) -> float | None:
        """The median over the entries that ran to their end."""
        ran = [one.seconds for one in self.entries if one.status == "ok" and one.seconds is not None]
        return statistics.median(ran) if ran else None

    @property
    def peak_bytes(self) -> int | None:
        """The most that an entry took."""
        return max((one.peak_bytes for one in self.entries if one.peak_bytes is not None), default=None)


@dataclass(frozen=True, slots=True)
class Repairs:
    """Rates of the repaired models; `twin_reactivated` is over the same models as `reactivated`.

    DER (`effectiveness`) is in percent; `loss_twins` and `loss_benign` are the accuracy that models
    lose which were not attacked, as shares of 1.
    """

    counted: Counted
    accuracy: Estimate
    success: Estimate
    robust: Estimate
    effectiveness: Estimate
    solved: Rate
    reactivated: Estimate
    twin_reactivated: Estimate
    loss_twins: Estimate
    loss_benign: Estimate


@dataclass(frozen=True, slots=True)
class Scans:
    """How often a scan has a finding, and the target, on backdoored models; and on twins and hard-benign ones.

    `cross_entropy` and `brier` judge the probability over all models, where the method gives one.
    """

    counted: Counted
    found: Rate
    target_found: Rate
    false_twins: Rate
    false_benign: Rate
    auroc_twins: Estimate
    auroc_benign: Estimate
    cross_entropy: Estimate
    brier: Estimate


@dataclass(frozen=True, slots=True)
class Detections:
    """What a screen does to samples and a guard to inputs: means over models; pooled, all samples are one."""

    counted: Counted
    true_positive: Estimate
    true_positive_pooled: Rate
    false_positive: Estimate
    false_positive_pooled: Rate
    auroc: Estimate
    precision: Estimate
    false_twins: Estimate
    false_twins_pooled: Rate
    false_benign: Estimate
    false_benign_pooled: Rate
    unscored: int


def repairs(board: Board, *, by_treatment: bool = False) -> tuple[Repairs, ...]:
    """A row for every repair, or for every repair and treatment."""
    return tuple(_repairs(board, one) for one in _counted(board, "repair", by_treatment=by_treatment))


def scans(board: Board, *, by_treatment: bool = False) -> tuple[Scans, ...]:
    """A row for every scan, or for every scan and treatment; scores are ranked against all twins either way."""
    whole = {one.defence: one for one in _counted(board, "scan")}
    return tuple(_scans(one, whole[one.defence]) for one in _counted(board, "scan", by_treatment=by_treatment))


def detections(board: Board, verb: str, *, by_treatment: bool = False) -> tuple[Detections, ...]:
    """A row for every screen or guard, or for each of these and treatment."""
    return tuple(_detections(one) for one in _counted(board, verb, by_treatment=by_treatment))


def works(board: Board, one: Entry) -> bool:
    """Whether the backdoor of an entry's model works before a defence touches it: ASR above 50 %."""
    before = board.before.get(one.model_key)
    success = None if before is None else before.share(SUCCESS)
    return success is not None and success > WORKS


def after(board: Board, one: Entry, name: str) -> float | None:
    """A rate of the model that a repair leaves; one that was skipped left what was there before."""
    return (board.before[one.model_key] if one.status == "skipped" else one).share(name)


def effectiveness(board: Board, one: Entry) -> tuple[float, bool] | None:
    """DER in percent, and whether it is solved, of a repair of a model with a working backdoor; None without."""
    before = board.before.get(one.model_key)
    if before is None or not works(board, one):
        return None
    success, accuracy = ((before.share(name), after(board, one, name)) for name in (SUCCESS, ACCURACY))
    if success[0] is None or success[1] is None or accuracy[0] is None or accuracy[1] is None:
        return None
    pairs = (success[0], success[1]), (accuracy[0], accuracy[1])
    return defence_effectiveness(*pairs), bool(solved(*pairs))


def _counted(board: Board, verb: str, *, by_treatment: bool = False) -> Iterator[Counted]:
    for defence, entries in _grouped(board.of_verb(verb), lambda one: one.defence).items():
        if defence is None:
            continue
        if not by_treatment:
            yield _sort(board, verb, defence, None, entries)
            continue
        for treatment, some in _grouped(entries, lambda one: one.treatment).items():
            yield _sort(board, verb, defence, treatment, some)


def _sort(board: Board, verb: str, defence: Defence, treatment: Treatment | None, entries: Sequence[Entry]) -> Counted:
    piles = _grouped(entries, lambda one: _pile(board, verb, one))
    unknown = tuple(replace(one, reason="the model itself was not measured") for one in piles.get("unknown", ()))
    return Counted(
        defence=defence,
        treatment=treatment,
        entries=tuple(entries),
        bad=tuple(piles.get("bad", ())),
        weak=tuple(piles.get("weak", ())),
        twins=tuple(piles.get("twin", ())),
        benign=tuple(piles.get("benign", ())),
        skipped=tuple(one for one in entries if one.status == "skipped"),
        failed=(*piles.get("failed", ()), *unknown),
    )


def _pile(board: Board, verb: str, one: Entry) -> str:
    """What an entry counts for."""
    kind, known = one.treatment.kind, one.model_key in board.before
    if verb == "repair":
        judged = one.status == "skipped" or ACCURACY in one.rates
    else:
        judged = one.status == "ok" and ("found" in one.measures if verb == "scan" else FPR in one.rates)
    if not judged:
        return "skipped" if one.status == "skipped" else "failed"
    if kind == "attack" and verb == "screen" and TPR in one.rates:
        return "bad"  # a poisoned set is there to be screened whether or not the model learned its backdoor
    if not known and (verb == "repair" or kind == "attack"):
        return "unknown"
    if kind == "attack":
        return "bad" if works(board, one) else "weak"
    return kind


def _repairs(board: Board, counted: Counted) -> Repairs:
    judged = [(one, found) for one in counted.bad if (found := effectiveness(board, one)) is not None]
    bad = [one for one, _ in judged]
    tuned = [one for one in bad if one.share(REACTIVATED) is not None]
    return Repairs(
        counted=counted,
        accuracy=mean(after(board, one, ACCURACY) for one in bad),
        success=mean(after(board, one, SUCCESS) for one in bad),
        robust=mean(after(board, one, ROBUST) for one in bad),
        effectiveness=mean(der for _, (der, _) in judged),
        solved=_share(is_solved for _, (_, is_solved) in judged),
        reactivated=mean(one.share(REACTIVATED) for one in tuned),
        twin_reactivated=mean(board.before[one.model_key].share(f"twin {REACTIVATED}") for one in tuned),
        loss_twins=mean(_loss(board, one) for one in counted.twins),
        loss_benign=mean(_loss(board, one) for one in counted.benign),
    )


def _loss(board: Board, one: Entry) -> float | None:
    was, now = board.before[one.model_key].share(ACCURACY), after(board, one, ACCURACY)
    return None if was is None or now is None else was - now


def _scans(counted: Counted, whole: Counted) -> Scans:
    good = (*counted.twins, *counted.benign)
    odds = [(p, True) for one in counted.bad if (p := one.measures.get("probability")) is not None]
    odds += [(p, False) for one in good if (p := one.measures.get("probability")) is not None]
    score = {
        name: _scores(some) for name, some in (("bad", counted.bad), ("twins", whole.twins), ("benign", whole.benign))
    }
    return Scans(
        counted=counted,
        found=_share(one.measures["found"] > 0 for one in counted.bad),
        target_found=_share(one.measures["target found"] > 0 for one in counted.bad if "target found" in one.measures),
        false_twins=_share(one.measures["found"] > 0 for one in counted.twins),
        false_benign=_share(one.measures["found"] > 0 for one in counted.benign),
        auroc_twins=auroc(score["bad"], score["twins"]),
        auroc_benign=auroc(score["bad"], score["benign"]),
        cross_entropy=mean(-math.log(min(max(p if bad else 1 - p, CLIP), 1 - CLIP)) for p, bad in odds),
        brier=mean((p - bad) ** 2 for p, bad in odds),
    )


def _scores(entries: Iterable[Entry]) -> list[float]:
    return [score for one in entries if (score := one.measures.get("score")) is not None]


def _detections(counted: Counted) -> Detections:
    judged = (*counted.bad, *counted.twins, *counted.benign)
    return Detections(
        counted=counted,
        true_positive=mean(one.share(TPR) for one in counted.bad),
        true_positive_pooled=_pooled(counted.bad, TPR),
        false_positive=mean(one.share(FPR) for one in counted.bad),
        false_positive_pooled=_pooled(counted.bad, FPR),
        auroc=mean(one.measures.get("AUROC") for one in counted.bad),
        precision=mean(one.measures.get("AP") for one in counted.bad),
        false_twins=mean(one.share(FPR) for one in counted.twins),
        false_twins_pooled=_pooled(counted.twins, FPR),
        false_benign=mean(one.share(FPR) for one in counted.benign),
        false_benign_pooled=_pooled(counted.benign, FPR),
        unscored=int(sum(one.measures.get("unscored", 0.0) for one in judged)),
    )


def _pooled(entries: Iterable[Entry], name: str) -> Rate:
    found = [one.rates[name] for one in entries if name in one.rates]
    return Rate(k=sum(rate.k for rate in found), n=sum(rate.n for rate in found))


def _share(outcomes: Iterable[bool]) -> Rate:
    found = list(outcomes)
    return Rate(k=sum(found), n=len(found))


def _seeds(entries: Iterable[Entry]) -> tuple[int, ...]:
    return tuple(sorted({one.seed for one in entries}))


def _grouped(entries: Iterable[Entry], key: Callable[[Entry], K]) -> dict[K, list[Entry]]:
    found: dict[K, list[Entry]] = {}
    for one in entries:
        found.setdefault(key(one), []).append(one)
    return found
