"""Results that others published, beside ours and never mixed with them: other data, other models, other training."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ostiary.bench.backdoorbench import TheirRow
from ostiary.bench.bootstrap import Estimate, mean
from ostiary.bench.leaderboard import WORKS
from ostiary.bench.metrics import defence_effectiveness, solved
from ostiary.core.records import Rate

Setting = tuple[str, str, str, float]
UNDEFENDED = frozenset({"no defense", "none"})


@dataclass(frozen=True, slots=True)
class Published:
    """A defence over the attacks that worked before it (ASR above 50 %), as `origin` reports them.

    `blank` counts those of them for which no result was published.
    """

    origin: str
    dataset: str
    architecture: str
    rate: float
    defence: str
    accuracy: Estimate
    success: Estimate
    robust: Estimate
    effectiveness: Estimate
    solved: Rate
    blank: int


def published(cells: Iterable[TheirRow]) -> tuple[Published, ...]:
    """A row for every origin, data set, network, poison rate and defence, against the models without defence."""
    kept = sorted(cells, key=lambda one: (*_setting(one), one.defence, one.attack))
    before = {(_setting(one), one.attack): one for one in kept if one.defence in UNDEFENDED}
    groups: dict[tuple[Setting, str], list[TheirRow]] = {}
    for one in kept:
        if one.defence not in UNDEFENDED:
            groups.setdefault((_setting(one), one.defence), []).append(one)
    return tuple(_one(before, group) for group in groups.values())


def _setting(one: TheirRow) -> Setting:
    return one.origin, one.dataset, one.architecture, one.rate


def _one(before: dict[tuple[Setting, str], TheirRow], group: Sequence[TheirRow]) -> Published:
    judged, judgements, blank = [], [], 0
    for one in group:
        was = before.get((_setting(one), one.attack))
        if was is None or was.success is None or was.accuracy is None or was.success <= WORKS:
            continue
        if one.success is None or one.accuracy is None:
            blank += 1
            continue
        pairs = (was.success, one.success), (was.accuracy, one.accuracy)
        judged.append(one)
        judgements.append((defence_effectiveness(*pairs), bool(solved(*pairs))))
    return Published(
        origin=group[0].origin,
        dataset=group[0].dataset,
        architecture=group[0].architecture,
        rate=group[0].rate,
        defence=group[0].defence,
        accuracy=mean(one.accuracy for one in judged),
        success=mean(one.success for one in judged),
        robust=mean(one.robust for one in judged),
        effectiveness=mean(der for der, _ in judgements),
        solved=Rate(k=sum(is_solved for _, is_solved in judgements), n=len(judged)),
        blank=blank,
    )
