"""What stands in the columns of a leaderboard, and what models and defences are called there."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from ostiary.bench import sheet
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
    told_apart,
)
from ostiary.bench.leaderboard import Counted, Detections, Models, Repairs, Scans, effectiveness, short_of_bar
from ostiary.bench.published import Published
from ostiary.bench.sheet import DASH, Cell, words
from ostiary.core.records import Rate

T = TypeVar("T")
Columns = tuple[tuple[str, Callable[[T], Cell]], ...]


class Names:
    """What things are called on this page: short where that is enough, longer where it would be ambiguous."""

    def __init__(self, board: Board) -> None:
        places = list(dict.fromkeys(one.place for one in board.entries))
        self._varying = [name for name in ("role", "data", "model") if len({getattr(p, name) for p in places}) > 1]
        treatments = list(dict.fromkeys(one.treatment for one in board.entries))
        defences = list(dict.fromkeys(by for one in board.entries if (by := one.defence) is not None))
        self._treatments, self._defences = told_apart(treatments), told_apart(defences)
        attacks = [self._treatments[one] for one in treatments if one.kind == "attack"]
        self._slugs = _slugs("attack", attacks) | _slugs("defence", [self._defences[one] for one in defences])
        budgets = {(one.trusted, one.source) for one in defences}
        self._budgets = len(budgets) > 1

    def treatment(self, treatment: Treatment) -> str:
        """An attack with its rate, a hard-benign kind, or the twin."""
        if treatment.kind == "twin":
            return "twin"
        rate = "" if treatment.rate is None else f" {100 * treatment.rate:g} %"
        kind = "hard-benign " if treatment.kind == "benign" else ""
        return kind + self._treatments[treatment] + rate

    def attack(self, treatment: Treatment) -> str:
        """An attack without its rate."""
        return self._treatments[treatment]

    def defence(self, defence: Defence) -> str:
        """A defence; its trusted images and its place stand in columns of their own."""
        return self._defences[defence]

    def budgeted(self, defence: Defence) -> str:
        """A defence with its trusted images, where several budgets or sources are on this page."""
        budget = f", {trusted(defence).text} trusted" if self._budgets else ""
        return f"{self._defences[defence]}{budget} ({defence.verb})"

    def model(self, one: Entry) -> str:
        """One model."""
        return " ".join([self.treatment(one.treatment), f"seed {one.seed}", *(c.text for c in self.place(one.place))])

    def slug(self, kind: str, name: str) -> str:
        """Where the section of an attack or a defence lies."""
        return self._slugs.get((kind, name), "")

    @property
    def place_head(self) -> tuple[str, ...]:
        """Columns for what differs between the models of this page."""
        return tuple({"model": "network"}.get(name, name) for name in self._varying)

    def place(self, place: Place) -> tuple[Cell, ...]:
        """The cells under `place_head`."""
        return tuple(words(getattr(place, name)) for name in self._varying)


def _slugs(kind: str, names: Sequence[str]) -> dict[tuple[str, str], str]:
    """A slug for each name: letters, digits and hyphens alone, none twice."""
    found: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(names):
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
        slug = f"{kind}-{plain or len(found)}"
        found[kind, name] = f"{slug}-{len(found)}" if slug in found.values() else slug
    return found


# --- columns --------------------------------------------------------------------------------------


def _seeds(seeds: Sequence[int]) -> Cell:
    return words(", ".join(map(str, seeds)))


def trusted(defence: Defence) -> Cell:
    """How many images per class a defence gets, and from where if that is not where the models' come from."""
    source = "" if defence.source == "same" else f" {defence.source}"
    return Cell(f"{defence.trusted:,}{source}", sort=defence.trusted)


def solved_cell(value: Rate) -> Cell:
    """How many a repair solves, toned."""
    cell = sheet.out_of(value)
    tone = "" if not value.n else "all" if value.k == value.n else "some" if value.k else "none"
    return Cell(cell.text, cell.spread, cell.sort, cell.span, tone=tone)


def _failed(counted: Counted) -> Cell:
    return sheet.lost(len(counted.failed), len(counted.entries))


def _skipped(counted: Counted) -> Cell:
    return Cell(f"{len(counted.skipped)} of {len(counted.entries)}", sort=len(counted.skipped))


def _incomplete(counted: Counted) -> Cell:
    return sheet.lost(len(counted.failed) + len(counted.skipped), len(counted.entries))


REPAIRS: Columns[Repairs] = (
    ("solved", lambda f: solved_cell(f.solved)),
    ("skipped", lambda f: _skipped(f.counted)),
    ("failed", lambda f: _failed(f.counted)),
    ("DER", lambda f: sheet.percent(f.effectiveness)),
    ("ASR after", lambda f: sheet.share(f.success)),
    ("ACC after", lambda f: sheet.share(f.accuracy)),
    ("RA after", lambda f: sheet.share(f.robust)),
    ("re-activated ASR", lambda f: sheet.share(f.reactivated)),
    ("the twin's re-activated ASR", lambda f: sheet.share(f.twin_reactivated)),
    ("loss on twins, points", lambda f: sheet.points(f.loss_twins)),
    ("loss on hard-benign, points", lambda f: sheet.points(f.loss_benign)),
    ("seconds", lambda f: sheet.seconds(f.counted.seconds)),
    ("peak memory", lambda f: sheet.memory(f.counted.peak_bytes)),
    ("seeds", lambda f: _seeds(f.counted.seeds)),
)
SCANS: Columns[Scans] = (
    ("found", lambda f: sheet.out_of(f.found)),
    ("target found", lambda f: sheet.out_of(f.target_found)),
    ("incomplete", lambda f: _incomplete(f.counted)),
    ("false alarms on twins", lambda f: sheet.out_of(f.false_twins)),
    ("false alarms on hard-benign", lambda f: sheet.out_of(f.false_benign)),
    ("AUROC against twins", lambda f: sheet.plain(f.auroc_twins, drawn=True)),
    ("AUROC against hard-benign", lambda f: sheet.plain(f.auroc_benign, drawn=True)),
    ("cross-entropy", lambda f: sheet.plain(f.cross_entropy)),
    ("Brier", lambda f: sheet.plain(f.brier)),
    ("seconds", lambda f: sheet.seconds(f.counted.seconds)),
    ("peak memory", lambda f: sheet.memory(f.counted.peak_bytes)),
    ("seeds", lambda f: _seeds(f.counted.seeds)),
)
DETECTIONS: Columns[Detections] = (
    ("TPR", lambda f: sheet.share(f.true_positive)),
    ("FPR", lambda f: sheet.share(f.false_positive)),
    ("AUROC", lambda f: sheet.plain(f.auroc, drawn=True)),
    ("AP", lambda f: sheet.plain(f.precision, drawn=True)),
    ("incomplete", lambda f: _incomplete(f.counted)),
    ("FPR on twins", lambda f: sheet.share(f.false_twins)),
    ("FPR on hard-benign", lambda f: sheet.share(f.false_benign)),
    ("TPR, pooled", lambda f: sheet.rate(f.true_positive_pooled)),
    ("FPR, pooled", lambda f: sheet.rate(f.false_positive_pooled)),
    ("FPR on twins, pooled", lambda f: sheet.rate(f.false_twins_pooled)),
    ("FPR on hard-benign, pooled", lambda f: sheet.rate(f.false_benign_pooled)),
    ("unscored", lambda f: sheet.whole(f.unscored)),
    ("seconds", lambda f: sheet.seconds(f.counted.seconds)),
    ("peak memory", lambda f: sheet.memory(f.counted.peak_bytes)),
    ("seeds", lambda f: _seeds(f.counted.seeds)),
)
PUBLISHED: Columns[Published] = (
    ("defence", lambda f: words(f.defence)),
    ("measured by", lambda f: words(f.origin)),
    ("data", lambda f: words(f.dataset)),
    ("network", lambda f: words(f.architecture)),
    ("rate", lambda f: Cell(f"{100 * f.rate:g} %", sort=f.rate)),
    ("solved", lambda f: sheet.out_of(f.solved)),
    ("DER", lambda f: sheet.percent(f.effectiveness)),
    ("ASR after", lambda f: sheet.share(f.success)),
    ("ACC after", lambda f: sheet.share(f.accuracy)),
    ("RA after", lambda f: sheet.share(f.robust)),
    ("blank", lambda f: sheet.lost(f.blank, f.blank + f.solved.n)),
)
MODELS: Columns[Models] = (
    ("ACC", lambda f: sheet.share(f.accuracy)),
    ("the twin's ACC", lambda f: sheet.share(f.twin_accuracy)),
    ("ASR", lambda f: sheet.share(f.success)),
    ("the twin's ASR", lambda f: sheet.share(f.twin_success)),
    ("RA", lambda f: sheet.share(f.robust)),
    ("implanted", lambda f: sheet.out_of(f.implanted)),
    ("seeds", lambda f: _seeds(f.seeds)),
    ("failed", lambda f: sheet.lost(len(f.failed), len(f.failed) + f.accuracy.n)),
)


# --- one model at a time --------------------------------------------------------------------------

ONE = tuple[tuple[str, Callable[[Board, Entry], Cell]], ...]


def status(one: Entry) -> Cell:
    """What became of an entry."""
    return words(one.status, tone="" if one.status == "ok" else "bad")


def _seconds(_: Board, one: Entry) -> Cell:
    return sheet.seconds(one.seconds if one.status == "ok" else None)


def _before(name: str) -> Callable[[Board, Entry], Cell]:
    return lambda board, one: sheet.rate(found.rates.get(name) if (found := board.before.get(one.model_key)) else None)


def _after(name: str) -> Callable[[Board, Entry], Cell]:
    """A rate of the repaired model; of a skipped repair that of the model as it is."""
    return lambda board, one: _before(name)(board, one) if one.status == "skipped" else sheet.rate(one.rates.get(name))


def _own(name: str) -> Callable[[Board, Entry], Cell]:
    return lambda _, one: sheet.rate(one.rates.get(name))


def _measure(name: str) -> Callable[[Board, Entry], Cell]:
    return lambda _, one: sheet.number(one.measures.get(name))


def _answer(name: str) -> Callable[[Board, Entry], Cell]:
    return lambda _, one: sheet.yes_no(one.measures[name] > 0 if name in one.measures else None)


def _der(board: Board, one: Entry) -> Cell:
    found = effectiveness(board, one)
    return DASH if found is None else Cell(f"{found[0]:.1f} %", sort=found[0])


def _solved(board: Board, one: Entry) -> Cell:
    found = effectiveness(board, one)
    if found is None:
        return DASH
    return Cell("yes" if found[1] else "no", sort=float(found[1]), tone="all" if found[1] else "none")


def _implanted(_: Board, one: Entry) -> Cell:
    short = short_of_bar(one)
    return DASH if short is None else Cell("no: " + "; ".join(short) if short else "yes", sort=float(not short))


ONE_MODEL: ONE = (
    ("ACC", _own(ACCURACY)),
    ("the twin's ACC", _own(f"twin {ACCURACY}")),
    ("ASR", _own(SUCCESS)),
    ("the twin's ASR", _own(f"twin {SUCCESS}")),
    ("RA", _own(ROBUST)),
    ("implanted", _implanted),
)
ONE_REPAIR: ONE = (
    ("solved", _solved),
    ("DER", _der),
    ("ASR after", _after(SUCCESS)),
    ("ACC after", _after(ACCURACY)),
    ("RA after", _after(ROBUST)),
    ("re-activated ASR", _own(REACTIVATED)),
    ("the twin's re-activated ASR", _before(f"twin {REACTIVATED}")),
    ("seconds", _seconds),
)
ONE_SCAN: ONE = (
    ("found", _answer("found")),
    ("target found", _answer("target found")),
    ("score", _measure("score")),
    ("probability", _measure("probability")),
    ("seconds", _seconds),
)
ONE_DETECTION: ONE = (
    ("TPR", _own(TPR)),
    ("FPR", _own(FPR)),
    ("AUROC", _measure("AUROC")),
    ("AP", _measure("AP")),
    ("seconds", _seconds),
)
ONE_OF = {"repair": ONE_REPAIR, "scan": ONE_SCAN, "screen": ONE_DETECTION, "guard": ONE_DETECTION}
