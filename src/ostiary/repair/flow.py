"""The repair verb: scan (or take a scan), repair, compare on trusted images kept apart, scan again, write."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ostiary.core.card import Have
from ostiary.core.catalog import make, method_class, resolve
from ostiary.core.decide import triggers_found, verdict
from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.files import refuse_existing
from ostiary.core.plan import plan
from ostiary.core.protocols import Repaired
from ostiary.core.records import Candidate, MethodResult, ModelEvidence, Rate, Record, RepairEvidence
from ostiary.core.reference import DISTANCE, MEASURE, subjects
from ostiary.core.run import Run
from ostiary.core.session import Options, Session
from ostiary.core.store import load_artifact, read_record
from ostiary.core.types import Images, Labels
from ostiary.data import ImageSet, split
from ostiary.inputs import class_names, have_of, start
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import save_model
from ostiary.models.user import is_user_arch
from ostiary.models.zoo import ZOO
from ostiary.repair.checks import look_at_trusted, pay_alone, too_many
from ostiary.scan.calibration import null_for
from ostiary.scan.forms import lay_over, with_arrays
from ostiary.training import per_class, predicted, predictions, rate

FLIP = "flip rate of the recovered trigger"
WITH_TRIGGER = "repair.trigger-unlearning"
WITHOUT_TRIGGER = "repair.clp"
"""Of the repairs that cost two points of accuracy or less in the mean over the grid `repairs`, the one that leaves the
least attack success, whichever attack is left out; and the one that needs no images."""
STRANGE, SMALLER = 1.0, 2.0
"""Where a scan accuses no class, those stand out whose triggers lie so far from reference models (the strangest class
of one of these in ten does), or without any are so many times smaller than those of the other classes."""
STANDARD = "standard"
"""The preset of a scan that the repair makes itself."""


@dataclass(frozen=True, slots=True)
class Before:
    """The scan of the model as it came: the id of its run, its preset, its results, and its limits by its methods."""

    run: str
    preset: str
    results: Sequence[MethodResult]
    limits: Mapping[str, Any] = field(default_factory=dict)

    def verdict(self, classes: Sequence[str]) -> str:
        """Its verdict, and by which run."""
        return f"{verdict(self.results, classes)}, run {self.run}"


def repair(
    model: TorchClassifier,
    trusted: ImageSet | None,
    out: Path,
    *,
    scan: Path | str | None,
    method: str | None,
    params: Mapping[str, Mapping[str, Any]] | None,
    max_loss: float,
    options: Options,
) -> Record:
    """Repair `model` and write the result to `out`; the input model is untouched.

    A quarter of the trusted images is kept apart: accuracy and flip rates before and after are
    measured on it alone. Without `scan` (a kept scan record of this very model) the model is scanned
    first. Both scans use the reference models that come with the package, where some fit. Without
    `method`, the triggers of the classes that the scan accuses are unlearned, of whatever form; a model of which it
    accuses none is pruned by its weights. Unlearning that is named takes what only stands out, where nothing is
    accused.
    Nothing is written when accuracy falls by more than `max_loss` points and by more than chance explains
    on that many images; a fall that could be chance is a caution, and so is a class that pays alone.
    Trusted images are screened for poison first, and what looks planted among them is a caution.
    Without `trusted` the model is pruned by its weights alone; nothing is measured then, which is a caution.
    The record's verdict is that of the scan of the repaired model, by the preset of the scan before it, for which all
    trusted images serve, those that the repair learned from among them. Raises OstiaryError for unusable
    inputs, and for a model whose repaired copy could not be loaded again.
    """
    refuse_existing(out)
    if model.arch is not None and model.arch not in ZOO and not is_user_arch(model.arch):
        raise ConfigError(
            f"a repaired copy of '{model.name}' could not be loaded again: its architecture is '{model.arch}', "
            "and what is written are weights alone",
            hint="load its weights into a module of your own, and give that with --arch file.py:factory",
        )
    have_of(model, trusted)  # checks that they fit together
    extra = {resolve("repair", name): dict(values) for name, values in (params or {}).items()}
    named = resolve("repair", method) if method else None
    made = ready(extra, (named,) if named else (WITH_TRIGGER, WITHOUT_TRIGGER))
    begun = time.monotonic()
    before = _scan(model, trusted, options) if scan is None else _read_scan(scan, model)
    if options.time_limit is not None:
        options = dataclasses.replace(options, time_limit=max(0.0, options.time_limit - (time.monotonic() - begun)))
    accused, standing = _accused(before.results), _standing_out(before.results, before.limits)
    tune, check = (None, None) if trusted is None else split(trusted, (0.75, 0.25), seed=options.seed)
    chosen = named or choice(have_of(model, tune, trigger=bool(accused)))
    evidence = _evidence(accused or (standing if chosen == WITH_TRIGGER else ()))
    built = picked(made, chosen, extra)
    have = have_of(model, tune, trigger=bool(evidence.candidates))
    scanners = plan("scan", preset=before.preset)
    asked = [chosen, *(scanner.card.id for scanner in scanners)]
    config = {"max_loss": max_loss, "method": chosen, "scan": before.run}
    session = start("repair", model, options, config, asked, trusted=trusted)
    if standing and not accused:
        session.caution("OS936", _unaccused(standing, chosen))
    _caution(session, model, trusted, before.results)
    if session.interrupted:
        return session.finish()

    def summarise(value: Repaired, run: Run) -> RepairEvidence:
        found = RepairEvidence(before={}, after={}, selected=value.selected)
        found = found if check is None else compare(model, value, evidence.candidates, check)
        told = {"scan before": before.verdict(session.classes)}
        return found.model_copy(update={"selected": told | found.selected})

    outcome = session.execute(built, model, tune, evidence, have=have, summarise=summarise)
    if isinstance(outcome.result.evidence, RepairEvidence) and not session.interrupted:
        _conclude(session, outcome.value.model, outcome.result.evidence, trusted, scanners, out, max_loss, built)
    return session.finish()


def ready(extra: Mapping[str, Mapping[str, Any]], possible: Sequence[str]) -> dict[str, Any]:
    """The repairs that may be picked, by their ids, as they are set: what cannot run is told before a long scan.

    Raises ConfigError for parameters of other repairs, and for such as a repair has not.
    """
    if other := next((name for name in extra if name not in possible), None):
        names = " or ".join(f"'{name}'" for name in possible)
        raise ConfigError(f"'{other}' has parameters but {names} runs", hint="say --method, too")
    return {name: make("repair", name, dict(extra.get(name, {}))) for name in possible}


def picked(made: Mapping[str, Any], chosen: str, extra: Mapping[str, Any]) -> Any:
    """The chosen of the repairs that are ready. Raises ConfigError where another was set."""
    if other := next((name for name in extra if name != chosen), None):
        raise ConfigError(
            f"'{other}' has parameters, but by the scan '{chosen}' runs",
            hint=f"name it with --method {other.rpartition('.')[2]}, or leave its --set out",
        )
    return made[chosen]


def choice(have: Have) -> str:
    """The repair for what there is: a trigger that a scan recovered, and images enough to unlearn it on, or not."""
    return WITHOUT_TRIGGER if method_class("repair", WITH_TRIGGER).card.needs.unmet(have) else WITH_TRIGGER


def _unaccused(standing: Sequence[Candidate], chosen: str) -> str:
    """What stands out of a model that the scan does not accuse, and whether the repair went by it."""
    names = ", ".join(one.subject for one in standing)
    if chosen == WITH_TRIGGER:
        return f"the scan accused nothing; what is unlearned only stands out: {names}"
    return f"the scan accused nothing; what stands out, --method trigger-unlearning would unlearn: {names}"


def _caution(
    session: Session, model: TorchClassifier, trusted: ImageSet | None, before: Sequence[MethodResult]
) -> None:
    """Note what the choice of the repair, and what it learns from, rests on."""
    name = session.asked[0]
    if trusted is None:
        session.caution("OS920", f"without trusted images nothing tells what {name} cost")
        return
    if verdict(before, session.classes) == "incomplete":
        session.caution("OS910", f"the scan before the repair did not examine every class; {name} was chosen without")
    look_at_trusted(session, model, trusted)


def _conclude(
    session: Session,
    repaired: TorchClassifier,
    evidence: RepairEvidence,
    trusted: ImageSet | None,
    scanners: Sequence[Any],
    out: Path,
    max_loss: float,
    built: Any,
) -> None:
    """Refuse the result, or scan it and write it."""
    if trusted is not None and _refused(session, evidence, max_loss, built):
        return
    have = have_of(repaired, trusted)
    session.null = null_for(repaired, scanners, class_names(repaired, trusted), None)
    session.execute_all(scanners, repaired, trusted, have=have, exhaustive=False)
    if session.interrupted:
        return
    extra = {"repair": session.asked[0], "run": session.folder.id, "figures": figures(evidence)}
    save_model(repaired, out, parent=session.digests["model"], extra=extra)
    session.config["out"] = str(out)
    session.digests["repaired"] = repaired.digest


def _refused(session: Session, evidence: RepairEvidence, max_loss: float, built: Any) -> bool:
    """True when the repair cost too much, which the record then says; a price that could be chance is a caution."""
    before, after = evidence.before["accuracy"], evidence.after["accuracy"]
    lost = before.k - after.k
    fell = f"accuracy fell by {100 * lost / before.n:.1f} points ({lost} of {before.n} images kept apart)"
    if too_many(lost, before.n, max_loss):
        session.config["refused"] = f"{fell}, more than --max-loss {max_loss:g}; {gentler(built)}"
        return True
    if lost > max_loss / 100 * before.n:
        session.caution("OS909", f"{fell}, which so few cannot tell from the limit of {max_loss:g}")
    pay_alone(session, evidence, max_loss)
    return False


def figures(evidence: RepairEvidence) -> str:
    """The rates before and after, as the repaired model carries them: JSON, hits and counts by measure."""
    pairs = {name: (evidence.before[name], evidence.after[name]) for name in evidence.before}
    told = {name: {"before": [was.k, was.n], "after": [now.k, now.n]} for name, (was, now) in pairs.items()}
    return json.dumps(told, sort_keys=True)


def gentler(made: Any) -> str:
    """How to set a repair so that it changes the model less than as it is set."""
    name = f"--set {made.card.id.rpartition('.')[2]}"
    if hasattr(made, "tolerance"):
        return f"change less, as in {name}.tolerance={made.tolerance / 2:g}"
    if hasattr(made, "u"):
        return f"prune less, as in {name}.u={made.u + 1:g}"
    return f"try a lower rate, as in {name}.lr={made.lr / 3:.1g}"


def _scan(model: TorchClassifier, trusted: ImageSet | None, options: Options) -> Before:
    planned = plan("scan", preset=STANDARD)
    session = start("scan", model, options, {"preset": STANDARD}, [m.card.id for m in planned], trusted=trusted)
    session.null = null_for(model, planned, class_names(model, trusted), None)
    session.execute_all(planned, model, trusted, have=have_of(model, trusted), exhaustive=False)
    record = session.finish()
    if session.interrupted:
        raise KeyboardInterrupt(kept(record))
    return Before(record.id, STANDARD, session.results, session.config.get("limits", {}))


def kept(record: Record) -> str:
    """What is left of a scan that was interrupted before the repair."""
    return f"what was scanned is kept: --scan {record.id} goes by it without scanning the rest"


def _read_scan(where: Path | str, model: TorchClassifier) -> Before:
    """What of a kept scan is needed."""
    record, folder = read_record(where)
    if record.kind != "scan" or record.digests.get("model") != model.digest:
        raise FormatError(
            f"'{where}' is not a scan record of this model", hint="leave --scan out to scan the model first"
        )
    preset = str(record.config.get("preset", STANDARD))
    results = [_with_arrays(result, record, folder) for result in record.results]
    return Before(record.id, preset, results, record.config.get("limits", {}))


def _with_arrays(result: MethodResult, record: Record, folder: Path) -> MethodResult:
    if not isinstance(result.evidence, ModelEvidence):
        return result
    read = partial(load_artifact, record, folder)
    # Scans of earlier versions kept the arrays of patches alone.
    candidates = tuple(
        with_arrays(one, read) if one.form == "patch" or f"{one.artifact}-part0" in record.artifacts else one
        for one in result.evidence.candidates
    )
    evidence = result.evidence.model_copy(update={"candidates": candidates})
    return result.model_copy(update={"evidence": evidence})


def _accused(results: Sequence[MethodResult]) -> tuple[Candidate, ...]:
    """The triggers of classes that are findings; those whose arrays were not kept are left out."""
    return tuple(one for result in results for one in triggers_found(result) if one.whole)


def _standing_out(results: Sequence[MethodResult], limits: Mapping[str, Any]) -> tuple[Candidate, ...]:
    """Whole triggers that are strange against reference models, or else against other classes.

    `limits` are those that the scan applied, by its methods. Reference models judge only classes that meet the other
    limits of the method; without them these hold here.
    """
    found: list[Candidate] = []
    for result in results:
        if not isinstance(result.evidence, ModelEvidence):
            continue
        rows, every = {row.label: row.measures for row in subjects(result.evidence)}, result.evidence.candidates
        if MEASURE in limits.get(result.method, ()):
            found += [one for one in every if rows[one.row].get(DISTANCE, 0.0) >= STRANGE]
            continue
        small = [one for one in every if (one.score or 0.0) >= SMALLER]
        others = method_class("scan", result.method).card.limits[1:] if small else ()
        found += [one for one in small if all(limit.meets(rows[one.row].get(limit.measure)) for limit in others)]
    return tuple(one for one in found if one.whole)


def _evidence(candidates: tuple[Candidate, ...]) -> ModelEvidence:
    return ModelEvidence(score=None, per_class=(), candidates=candidates, examined=())


def compare(
    before: TorchClassifier, value: Repaired, candidates: tuple[Candidate, ...], check: ImageSet
) -> RepairEvidence:
    """Rates of both models on trusted images that no repair saw: accuracy, and flips by the recovered triggers."""
    rates: list[dict[str, Rate]] = []
    classes: list[tuple[Rate, ...]] = []
    for model in (before, value.model):
        predicted = predictions(model, check)
        found = {"accuracy": rate(predicted == check.labels)}
        if candidates:
            found[FLIP] = _flip_rate(model, candidates, check.take(range(len(check))), check.labels)
        rates.append(found)
        classes.append(per_class(predicted, check.labels, len(check.classes)))
    return RepairEvidence(
        before=rates[0],
        after=rates[1],
        per_class_before=classes[0],
        per_class_after=classes[1],
        selected=value.selected,
    )


def _flip_rate(model: TorchClassifier, candidates: tuple[Candidate, ...], x: Images, y: Labels) -> Rate:
    """How many images the triggers send where they lead; those that move every class count what changes its class."""
    hits = total = 0
    for candidate in candidates:
        if candidate.source is not None:
            others = x[y == candidate.source]
        else:
            others = x if candidate.target is None else x[y != candidate.target]
        answers = predicted(model, lay_over(others, candidate))
        meant = answers != predicted(model, others) if candidate.target is None else answers == candidate.target
        hits += int(meant.sum())
        total += len(others)
    return Rate(k=hits, n=total)
