"""The repair verb for models of texts: scan (or take a scan), repair, compare on rows kept apart, scan again, write."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ostiary.core.catalog import resolve
from ostiary.core.decide import verdict
from ostiary.core.errors import ConfigError, FormatError
from ostiary.core.files import refuse_existing
from ostiary.core.plan import plan
from ostiary.core.protocols import Repaired
from ostiary.core.records import MethodResult, ModelEvidence, PhraseTrigger, Record, RepairEvidence
from ostiary.core.run import Run
from ostiary.core.session import Options, Session
from ostiary.core.store import read_record
from ostiary.data import Data, stratified_rows
from ostiary.data.texts import TextSet
from ostiary.inputs import start
from ostiary.repair.checks import pay_alone, too_many
from ostiary.repair.fine_mixing import takes_base
from ostiary.repair.flow import STANDARD, Before, figures, gentler, kept, picked, ready
from ostiary.repair.text_kinds import CLASSIFIER, WITH_PHRASE, Kind, kind_of, rows_for
from ostiary.repair.text_tune import TextModel


def repair_texts(
    model: TextModel,
    given: Data | None,
    out: Path,
    *,
    scan: Path | str | None,
    method: str | None,
    params: Mapping[str, Mapping[str, Any]] | None,
    max_loss: float,
    options: Options,
    base: TextModel | None = None,
) -> Record:
    """Repair `model`, a language model or a classifier of texts, and write the folder `out`; the input is untouched.

    As `ostiary.repair.flow`: a quarter of the trusted rows is kept apart and measures exact answers and tokens of the
    answers, or the accuracy, each of which refuses a repair that costs more than `max_loss` points and than chance
    explains; a class that pays alone is a caution. Without `method` the phrases that the scan accuses are unlearned. A
    language model without one gets CROW, of a classifier tokens are pruned; unlearning that is named takes of it the
    phrases that turn most texts to a class where none is accused, with a caution. Where unlearning that nobody named is
    refused of a classifier, tokens are pruned in a second run, with a caution. `base` is for the repairs that go by
    one, and must then be named by `method`. The verdict is that of the scan of the repaired model. Raises OstiaryError
    for unusable inputs.
    """
    begun = time.monotonic()
    asked: dict[str, Any] = {"method": method, "params": params, "base": base, "scan": scan}
    record = _once(model, given, out, **asked, max_loss=max_loss, options=options)
    pruning = CLASSIFIER.without_phrase
    if (
        kind_of(model) is not CLASSIFIER
        or method
        or "refused" not in record.config
        or record.config["method"] == pruning
    ):
        return record
    why = f"{record.config['method']} was refused, run {record.id}: {record.config['refused']}"
    own = {name: values for name, values in (params or {}).items() if resolve("repair", name, text=True) == pruning}
    asked |= {"method": pruning, "params": own, "scan": scan or record.config["scan"]}
    return _once(model, given, out, **asked, max_loss=max_loss, options=_left(options, begun), refused=why)


def _once(
    model: TextModel,
    given: Data | None,
    out: Path,
    *,
    scan: Path | str | None,
    method: str | None,
    params: Mapping[str, Mapping[str, Any]] | None,
    max_loss: float,
    options: Options,
    base: TextModel | None,
    refused: str = "",
) -> Record:
    """One scan and one repair; `refused` says which repair was before it, and why it was not taken."""
    refuse_existing(out)
    kind, trusted = kind_of(model), rows_for(model, given)
    extra = {resolve("repair", name, text=True): dict(values) for name, values in (params or {}).items()}
    named = resolve("repair", method, text=True) if method else None
    _check_named(kind, named, base)
    made = ready(extra, (named,) if named else (WITH_PHRASE, kind.without_phrase))
    begun = time.monotonic()
    before = _scanned(model, kind, trusted, scan, options)
    options = _left(options, begun)
    accused = phrases_found(before.results)
    chosen = named or (WITH_PHRASE if accused else kind.without_phrase)
    searched = kind is CLASSIFIER and named == WITH_PHRASE
    phrases = accused or (phrases_searched(before.results) if searched else ())
    built = picked(made, chosen, extra)
    built = built if base is None else dataclasses.replace(built, base=base)
    tune, check = (trusted.subset(rows) for rows in stratified_rows(trusted.labels, (0.75, 0.25), options.seed))
    have = dataclasses.replace(kind.have(model, tune), trigger=bool(phrases))
    scanners = plan("scan", preset=before.preset, task=kind.task)
    asked = [chosen, *(scanner.card.id for scanner in scanners)]
    config = {"max_loss": max_loss, "method": chosen, "scan": before.run}
    session = start("repair", model, options, config, asked, trusted=trusted)
    if base is not None:
        session.digests["base"] = base.digest
    if verdict(before.results, session.classes) == "incomplete":
        session.caution("OS910", f"the scan before the repair was not whole; {chosen} was chosen without")
    if refused:
        session.caution("OS952", refused)
    if phrases and not accused:
        told = ", ".join(f"'{one.phrase}'" for one in phrases)
        session.caution("OS945", f"the scan accused nothing; what is unlearned only turns most texts: {told}")
    evidence = ModelEvidence(score=None, per_class=(), phrases=phrases, examined=())

    def summarise(value: Repaired, run: Run) -> RepairEvidence:
        found = kind.compare(model, value, check, phrases)
        told = {"scan before": before.verdict(session.classes)}
        return found.model_copy(update={"selected": told | found.selected})

    outcome = session.execute(built, model, tune, evidence, have=have, summarise=summarise)
    found = outcome.result.evidence
    if not isinstance(found, RepairEvidence) or session.interrupted:
        return session.finish()
    if not _refused(session, kind, found, max_loss, built):
        _conclude(session, kind, outcome.value.model, found, trusted, scanners, out)
    return session.finish()


def _left(options: Options, begun: float) -> Options:
    """The same options with what is left of their time."""
    if options.time_limit is None:
        return options
    return dataclasses.replace(options, time_limit=max(0.0, options.time_limit - (time.monotonic() - begun)))


def _check_named(kind: Kind, named: str | None, base: TextModel | None) -> None:
    """Raise ConfigError for a repair that takes no such model, and for a base where none is gone by."""
    possible = (WITH_PHRASE, kind.without_phrase, *kind.methods)
    if named is not None and named not in possible:
        short = ", ".join(one.rpartition(".")[2] for one in possible)
        what = "classifiers of texts" if kind is CLASSIFIER else "language models"
        raise ConfigError(f"'{named}' takes no {what}", hint=f"say --method with one of {short}")
    if base is not None and not takes_base(named):
        raise ConfigError(
            f"{named or 'the repair that a scan decides on'} goes by no base",
            hint="leave --base out, or say --method fine-mixing",
        )


def phrases_found(results: Sequence[MethodResult]) -> tuple[PhraseTrigger, ...]:
    """The phrases that a scan recovered and that became findings; what only says an answer cannot be unlearned."""
    kept: dict[str, PhraseTrigger] = {}
    for result in results:
        found = {finding.subject for finding in result.findings}
        phrases = result.evidence.phrases if isinstance(result.evidence, ModelEvidence) else ()
        kept |= {one.phrase: one for one in phrases if one.phrase.strip() and f"phrase:{one.phrase}" in found}
    return tuple(kept.values())


def phrases_searched(results: Sequence[MethodResult]) -> tuple[PhraseTrigger, ...]:
    """The phrases that a scan made, one for each class, whether or not they became findings."""
    found = [result.evidence for result in results if isinstance(result.evidence, ModelEvidence)]
    return tuple(one for evidence in found for one in evidence.phrases if one.phrase.strip())


def _scanned(model: TextModel, kind: Kind, trusted: TextSet, scan: Path | str | None, options: Options) -> Before:
    """A kept scan of this model, or one that is made now."""
    if scan is None:
        record = kind.scan(model, trusted, methods=(), preset=STANDARD, params=None, options=options)
        if record.interrupted:
            raise KeyboardInterrupt(kept(record))
        return Before(record.id, STANDARD, record.results)
    record = read_record(scan)[0]
    if record.kind != "scan" or record.digests.get("model") != model.digest:
        raise FormatError(
            f"'{scan}' is not a scan record of this model", hint="leave --scan out to scan the model first"
        )
    return Before(record.id, str(record.config.get("preset", STANDARD)), record.results)


def _refused(session: Session, kind: Kind, evidence: RepairEvidence, max_loss: float, built: Any) -> bool:
    """True when the repair cost too much, which the record then says; a price that could be chance is a caution."""
    for name in kind.bounded:
        before, lost = evidence.before[name], evidence.before[name].k - evidence.after[name].k
        fell = f"{name} fell by {100 * lost / before.n:.1f} points ({lost} of {before.n} kept apart)"
        if too_many(lost, before.n, max_loss):
            session.config["refused"] = f"{fell}, more than --max-loss {max_loss:g}; {gentler(built)}"
            return True
        if lost > max_loss / 100 * before.n:
            session.caution("OS909", f"{fell}, which so few cannot tell from the limit of {max_loss:g}")
    pay_alone(session, evidence, max_loss)
    return False


def _conclude(
    session: Session,
    kind: Kind,
    repaired: TextModel,
    evidence: RepairEvidence,
    trusted: TextSet,
    scanners: Sequence[Any],
    out: Path,
) -> None:
    """Scan the result and write it."""
    session.execute_all(scanners, repaired, trusted, have=kind.have(repaired, trusted), exhaustive=False)
    if session.interrupted:
        return
    notes = {"parent": session.digests["model"], "repair": session.asked[0], "run": session.folder.id}
    notes["figures"] = figures(evidence)
    kind.save(repaired, out, notes=notes)
    session.config["out"] = str(out)
    session.digests["repaired"] = repaired.digest
