"""A leaderboard as one page of plain data: an overview, then a section for each attack and each defence."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ostiary.bench import columns, sheet
from ostiary.bench import leaderboard as figures
from ostiary.bench.backdoorbench import TheirRow
from ostiary.bench.columns import ONE, Columns, Names, T
from ostiary.bench.entries import Board, Defence, Entry, Place, Treatment
from ostiary.bench.leaderboard import Counted, Repairs
from ostiary.bench.published import published
from ostiary.bench.sheet import DASH, Cell, Page, Section, Table, words
from ostiary.bench.store import Row
from ostiary.core.errors import ConfigError
from ostiary.core.records import Rate

VERBS = {"repair": "Repairs", "scan": "Scans", "screen": "Screens", "guard": "Guards"}
ABOUT = (
    "Figures are defined in docs/metrics.md. An interval is at 95 %: Wilson's for k of n, a bootstrap over the models "
    "for a mean; over few models the latter is too narrow. Where nothing was measured there is a dash."
)
NOTES = {
    "repair": (
        "Counted are the models whose ASR was above 50 % before. A skipped repair leaves the model as it is and solves "
        "nothing; what failed is in no mean. Re-activated: ASR after tuning on 50 triggered images, beside what the "
        "same tuning makes of the twin. Seconds and memory are the repair's own: one that builds on a scan needs the "
        "scan's too."
    ),
    "scan": (
        "Counted are the models whose ASR is above 50 %, the twins, and the hard-benign models. AUROC ranks the scores "
        "of the first against those of the others. Cross-entropy and Brier score judge the probability that a scan "
        "gives; a dash where it gives none. Incomplete: skipped, failed, or cut by the time limit."
    ),
    "screen": (
        "Every poisoned set counts, whether or not a model learned its backdoor. Rates are means over the sets; "
        "pooled, the samples of all sets count as one. AUROC and AP rank the scores of poisoned against other samples."
    ),
    "guard": (
        "Counted are the models whose ASR is above 50 %. Rates are means over the models; pooled, the inputs of all "
        "models count as one. AUROC and AP rank the scores of triggered against plain inputs."
    ),
}


def leaderboard(rows: Iterable[Row], *, theirs: Iterable[TheirRow] = ()) -> Page:
    """The page about `rows`, as `index.rows` gives them.

    `theirs` are results that others published; they stand in a table of their own and count nowhere else.
    """
    board = Board.of(rows)
    names = Names(board)
    sections = [
        _repairs(board, names, theirs),
        _glance(board, names),
        *(Section(f"{verb}s", VERBS[verb], "overview", (_summary(board, names, verb),)) for verb in list(VERBS)[1:]),
        _models(board, names),
        _unfinished(board, names),
        *_attacks(board, names),
        *_defences(board, names),
    ]
    filled = (replace(one, tables=tuple(table for table in one.tables if table.rows)) for one in sections)
    return Page(
        title="Attacks and defences, measured",
        facts=_facts(board),
        notes=(ABOUT, *_roles(board)),
        sections=tuple(one for one in filled if one.tables),
    )


def select(page: Page, *, attack: str | None = None, defence: str | None = None) -> Page:
    """The section of one attack, of one defence, or of both, by name; without a name, the overview.

    Raises ConfigError for a name that the page does not have.
    """
    wanted = [("attack", attack), ("defence", defence)]
    if attack is None and defence is None:
        return replace(page, sections=tuple(one for one in page.sections if one.group == "overview"))
    found = []
    for group, name in wanted:
        if name is None:
            continue
        known = {one.title: one for one in page.sections if one.group == group}
        if name not in known:
            raise ConfigError(f"no {group} '{name}' in this store", hint=f"known: {', '.join(known) or 'none'}")
        found.append(known[name])
    return replace(page, sections=tuple(found))


def _facts(board: Board) -> tuple[tuple[str, str], ...]:
    models, measured = board.models, [one for one in board.entries if one.defence is not None]
    kinds = [sum(one.treatment.kind == kind for one in models) for kind in ("attack", "twin", "benign")]
    places = [one.place for one in board.entries]
    return (
        ("models", f"{kinds[0]} attacked, {kinds[1]} twins, {kinds[2]} hard-benign"),
        ("cells", f"{len(board.entries):,}, of these {len(measured):,} with a defence"),
        ("role", ", ".join(sorted({place.role for place in places})) or "-"),
        ("data", ", ".join(sorted({place.data for place in places})) or "-"),
        ("network", ", ".join(sorted({place.model for place in places})) or "-"),
        ("machine", "; ".join(board.machines) or "-"),
    )


def _roles(board: Board) -> tuple[str, ...]:
    others = sorted({one.place.role for one in board.entries} - {"report"})
    if not others:
        return ()
    return (f"Role {' and '.join(others)}: methods and limits may have been chosen on these models.",)


# --- overview -------------------------------------------------------------------------------------


def _glance(board: Board, names: Names) -> Section:
    """Every attack against every defence, in one table."""
    found: dict[tuple[Treatment, Place], dict[str, Cell]] = {}
    heads: dict[str, None] = {}
    for counted, cell in _outcomes(board):
        name = names.budgeted(counted.defence)
        heads[name] = None
        if counted.treatment is not None:
            found.setdefault((counted.treatment, counted.defence.place), {})[name] = cell
    rows = []
    for one in figures.models(board):
        if one.treatment.kind == "attack":
            own = found.get((one.treatment, one.place), {})
            first = _attack_cells(names, one.treatment, one.place)
            rows.append((*first, sheet.share(one.success), *(own.get(name, DASH) for name in heads)))
    note = (
        "Repairs: how many of the models they solve, and the mean ASR after. Scans: on how many they find something. "
        "Screens and guards: the mean TPR, and the FPR."
    )
    head = ("attack", *names.place_head, "ASR", *heads)
    keys = 1 + len(names.place_head)
    table = Table("Every attack against every defence", head, tuple(rows) if heads else (), (note,), keys)
    return Section("glance", "Attack by attack", "overview", (table,))


def _outcomes(board: Board) -> Iterator[tuple[Counted, Cell]]:
    """The outcome of every defence on every treatment, in two short lines."""
    for one in figures.repairs(board, by_treatment=True):
        yield (
            one.counted,
            _outcome(one.counted, columns.solved_cell(one.solved), f"ASR {sheet.share(one.success).text}"),
        )
    for scan in figures.scans(board, by_treatment=True):
        target = f"target {sheet.out_of(scan.target_found).text}"
        yield scan.counted, _outcome(scan.counted, sheet.out_of(scan.found), target)
    for verb in ("screen", "guard"):
        for some in figures.detections(board, verb, by_treatment=True):
            false = f"FPR {sheet.share(some.false_positive).text}"
            yield some.counted, _outcome(some.counted, sheet.share(some.true_positive), false)


def _outcome(counted: Counted, cell: Cell, beside: str) -> Cell:
    lost = [*counted.failed, *(one for one in counted.skipped if counted.defence.verb != "repair")]
    why = ", ".join(dict.fromkeys(one.status for one in lost))
    told = f"{len(lost)} of {len(counted.entries)} lost: {why}" if lost else ""
    if cell.sort is None and told:
        return Cell(told, tone="bad")
    if cell.sort is None:
        return Cell("not counted", "no ASR above 50 %") if counted.weak else DASH
    return replace(cell, spread="; ".join(filter(None, (beside, told))), span=None)


def _repairs(board: Board, names: Names, theirs: Iterable[TheirRow]) -> Section:
    return Section(
        "repairs", "Repairs", "overview", (_summary(board, names, "repair"), _by_rate(board, names), _theirs(theirs))
    )


def _by_rate(board: Board, names: Names) -> Table:
    """Solved models by poison rate: few poisoned samples are the harder case."""
    counts: dict[Defence, dict[float, Rate]] = {}
    for one in figures.repairs(board, by_treatment=True):
        treatment = one.counted.treatment
        if treatment is not None and treatment.kind == "attack" and treatment.rate is not None:
            own = counts.setdefault(one.counted.defence, {})
            before = own.get(treatment.rate, Rate(k=0, n=0))
            own[treatment.rate] = Rate(k=before.k + one.solved.k, n=before.n + one.solved.n)
    rates = sorted({rate for own in counts.values() for rate in own})
    rows = tuple(
        (*_defence_cells(names, by), *(columns.solved_cell(own.get(rate, Rate(k=0, n=0))) for rate in rates))
        for by, own in counts.items()
    )
    keys = _defence_head(names, "repair")
    head = (*keys, *(f"at {100 * rate:g} %" for rate in rates))
    return Table("Solved by poison rate", head, rows if len(rates) > 1 else (), keys=len(keys))


def _theirs(theirs: Iterable[TheirRow]) -> Table:
    found = published(theirs)
    origins = ", ".join(sorted({one.origin for one in found}))
    note = (
        f"Measured by {origins}, not here: their data, networks, training and trusted images. DER and solved are "
        "computed as for ours, over the attacks whose ASR was above 50 % before; 'blank' counts those of them for "
        "which no result is given."
    )
    rows = tuple(_cells(columns.PUBLISHED, one) for one in found)
    return Table(f"Published by {origins}, not measured here", _head(columns.PUBLISHED), rows, (note,), keys=5)


def _summary(board: Board, names: Names, verb: str) -> Table:
    """All defences of a verb, a row each."""
    rows = tuple((*_defence_cells(names, counted.defence), *cells) for counted, cells in _figures(board, verb))
    title = {"repair": "All repairs", "scan": "All scans", "screen": "All screens", "guard": "All guards"}[verb]
    keys = _defence_head(names, verb)
    return Table(title, (*keys, *HEADS[verb]), rows, (NOTES[verb],), keys=len(keys))


def _models(board: Board, names: Names) -> Section:
    found = figures.models(board)
    rows = tuple((*_attack_cells(names, one.treatment, one.place), *_cells(columns.MODELS, one)) for one in found)
    note = (
        "Implanted: accuracy within 2 points of the twin's (clean-label: 3), ASR at least 95 % (clean-label, warping "
        "and adaptive attacks: 80 %), the twin's ASR at most 20 %."
    )
    keys = ("model", *names.place_head)
    every = Table("All models", (*keys, *_head(columns.MODELS)), rows, (note,), keys=len(keys))
    short = Table(
        "Models in which the attack did not implant",
        ("model", "falls short in", "counted in DER and solved"),
        tuple(
            (words(names.model(model)), words("; ".join(why)), sheet.yes_no(figures.works(board, model)))
            for one in found
            for model, why in one.short
        ),
    )
    return Section("models", "Models", "overview", (every, short))


def _unfinished(board: Board, names: Names) -> Section:
    """Everything that is not ok, by name: a failure is never a blank."""
    rows = tuple(
        (
            words(names.budgeted(one.defence) if one.defence else "the model itself"),
            words(names.model(one)),
            columns.status(one),
            words(one.reason),
        )
        for one in board.entries
        if one.status != "ok"
    )
    table = Table("What was skipped, cut or failed", ("defence", "model", "status", "reason"), rows)
    return Section("unfinished", "Not finished", "overview", (table,))


# --- one attack, one defence ----------------------------------------------------------------------


def _attacks(board: Board, names: Names) -> Iterator[Section]:
    attacked = [one for one in board.entries if one.treatment.kind == "attack"]
    for name in dict.fromkeys(names.attack(one.treatment) for one in attacked):
        own = [one for one in attacked if names.attack(one.treatment) == name]
        models = [one for one in own if one.defence is None]
        tables = [_one_by_one("The models", board, names, models, columns.ONE_MODEL)]
        for verb, title in VERBS.items():
            some = [one for one in own if one.defence is not None and one.defence.verb == verb]
            tables.append(_one_by_one(title, board, names, some, columns.ONE_OF[verb]))
        facts = (("method", own[0].treatment.method), ("parameters", own[0].treatment.params))
        yield Section(names.slug("attack", name), name, "attack", tuple(tables), facts)


def _one_by_one(title: str, board: Board, names: Names, entries: Sequence[Entry], shown: ONE) -> Table:
    """One row for every model and, but for the models as they stand, defence."""
    defended = any(one.defence is not None for one in entries)
    rows = []
    for one in sorted(entries, key=lambda one: names.defence(one.defence) if one.defence else ""):
        who = () if one.defence is None else _defence_cells(names, one.defence, place=False)
        rate = one.treatment.rate
        what = (Cell(f"{100 * rate:g} %", sort=rate) if rate is not None else DASH, sheet.whole(one.seed))
        rest = (columns.status(one), *(get(board, one) for _, get in shown))
        rows.append((*who, *what, *names.place(one.place), *rest))
    first = ("defence", "trusted per class") if defended else ()
    keys = (*first, "rate", "seed", *names.place_head)
    return Table(title, (*keys, "status", *(name for name, _ in shown)), tuple(rows), keys=len(keys))


def _defences(board: Board, names: Names) -> Iterator[Section]:
    for verb in VERBS:
        found = list(_figures(board, verb, by_treatment=True))
        for name in dict.fromkeys(names.defence(counted.defence) for counted, _ in found):
            own = [(counted, cells) for counted, cells in found if names.defence(counted.defence) == name]
            rows = []
            for counted, cells in own:
                if (treatment := counted.treatment) is not None:
                    first = _attack_cells(names, treatment, counted.defence.place)
                    rows.append((*first, columns.trusted(counted.defence), *cells))
            keys = ("model", *names.place_head, "trusted per class")
            by = own[0][0].defence
            facts = (("method", by.method), ("parameters", by.params))
            head = (*keys, *HEADS[verb])
            table = Table(f"{name} against every attack", head, tuple(rows), (NOTES[verb],), keys=len(keys))
            yield Section(names.slug("defence", name), name, "defence", (table,), facts)


# --- rows -----------------------------------------------------------------------------------------


def _head(shown: Columns[T]) -> tuple[str, ...]:
    return tuple(name for name, _ in shown)


def _cells(shown: Columns[T], figure: T) -> tuple[Cell, ...]:
    return tuple(get(figure) for _, get in shown)


HEADS = {
    "repair": _head(columns.REPAIRS),
    "scan": _head(columns.SCANS),
    "screen": _head(columns.DETECTIONS),
    "guard": _head(columns.DETECTIONS),
}


def _figures(board: Board, verb: str, *, by_treatment: bool = False) -> list[tuple[Counted, tuple[Cell, ...]]]:
    """The entries behind a row, and its cells under `HEADS`; repairs begin with the best."""
    if verb == "repair":
        found = figures.repairs(board, by_treatment=by_treatment)
        ordered = found if by_treatment else sorted(found, key=_best_first)
        return [(one.counted, _cells(columns.REPAIRS, one)) for one in ordered]
    if verb == "scan":
        return [(one.counted, _cells(columns.SCANS, one)) for one in figures.scans(board, by_treatment=by_treatment)]
    some = figures.detections(board, verb, by_treatment=by_treatment)
    return [(one.counted, _cells(columns.DETECTIONS, one)) for one in some]


def _best_first(one: Repairs) -> tuple[float, float]:
    share, der = one.solved.value, one.effectiveness.value
    return (-share if share is not None else 1.0, -der if der is not None else 0.0)


def _defence_head(names: Names, verb: str) -> tuple[str, ...]:
    return (verb, *names.place_head, "trusted per class")


def _defence_cells(names: Names, defence: Defence, *, place: bool = True) -> tuple[Cell, ...]:
    name = names.defence(defence)
    first = words(name, link=names.slug("defence", name))
    return (first, *(names.place(defence.place) if place else ()), columns.trusted(defence))


def _attack_cells(names: Names, treatment: Treatment, place: Place) -> tuple[Cell, ...]:
    link = names.slug("attack", names.attack(treatment)) if treatment.kind == "attack" else ""
    return (words(names.treatment(treatment), link=link), *names.place(place))
