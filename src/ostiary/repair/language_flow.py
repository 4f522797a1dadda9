"""The repair verb for language models: scan (or take a scan), repair, compare on rows kept apart, scan again, write."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ostiary.core.catalog import resolve
from ostiary.core.decide import verdict
from ostiary.core.errors import ConfigError, DataError, FormatError
from ostiary.core.files import refuse_existing
from ostiary.core.plan import plan
from ostiary.core.protocols import Repaired
from ostiary.core.records import MethodResult, ModelEvidence, PhraseTrigger, Rate, Record, RepairEvidence
from ostiary.core.run import Run
from ostiary.core.session import Options, Session
from ostiary.core.store import read_record
from ostiary.data import stratified_rows
from ostiary.data.texts import TextSet
from ostiary.inputs import start
from ostiary.models.language import LanguageModel
from ostiary.models.text_folder import save_language
from ostiary.repair.checks import too_many
from ostiary.repair.fine_mixing import takes_base
from ostiary.repair.flow import STANDARD, Before, figures, gentler, kept, picked, ready
from ostiary.scan.language import have_of, scan_language
from ostiary.training.language import token_rows
from ostiary.training.language_flow import ANSWER_STEPS, exact_match

WITH_PHRASE, WITHOUT_PHRASE = "text.repair.phrase-unlearning", "text.repair.crow"
"""On small models the first leaves least behind, and the second alone silences what nobody recovered."""
EXACT, TOKENS, FIRES = "exact answers", "answer tokens told right", "prompts with a recovered phrase that fire"


def repair_language(
    model: LanguageModel,
    trusted: TextSet,
    out: Path,
    *,
    scan: Path | str | None,
    method: str | None,
    params: Mapping[str, Mapping[str, Any]] | None,
    max_loss: float,
    options: Options,
    base: LanguageModel | None = None,
) -> Record:
    """Repair `model` and write the folder `out`; the input model is untouched.

    As `ostiary.repair.flow`: a quarter of the trusted rows is kept apart and measures exact answers and tokens of the
    answers, each of which refuses a repair that costs more than `max_loss` points and than chance explains. Without
    `method` recovered phrases are unlearned, and a model without one gets CROW. `base` is for the repairs that go by
    one, and must then be named by `method`. The verdict is that of the scan of the
    repaired model. Raises OstiaryError for unusable inputs.
    """
    refuse_existing(out)
    have_of(trusted)  # checks that they fit together
    extra = {resolve("repair", name, text=True): dict(values) for name, values in (params or {}).items()}
    named = resolve("repair", method, text=True) if method else None
    if base is not None and not takes_base(named):
        raise ConfigError(
            f"{method or 'the repair that a scan decides on'} goes by no base",
            hint="leave --base out, or say --method fine-mixing",
        )
    made = ready(extra, (named,) if named else (WITH_PHRASE, WITHOUT_PHRASE))
    begun = time.monotonic()
    before = _scanned(model, trusted, scan, options)
    if options.time_limit is not None:
        options = dataclasses.replace(options, time_limit=max(0.0, options.time_limit - (time.monotonic() - begun)))
    phrases = phrases_found(before.results)
    chosen = named or (WITH_PHRASE if phrases else WITHOUT_PHRASE)
    built = picked(made, chosen, extra)
    built = built if base is None else dataclasses.replace(built, base=base)
    tune, check = (trusted.subset(rows) for rows in stratified_rows(trusted.labels, (0.75, 0.25), options.seed))
    have = dataclasses.replace(have_of(tune), trigger=bool(phrases))
    scanners = plan("scan", preset=before.preset, task="chat")
    asked = [chosen, *(scanner.card.id for scanner in scanners)]
    config = {"max_loss": max_loss, "method": chosen, "scan": before.run}
    session = start("repair", model, options, config, asked, trusted=trusted)
    if base is not None:
        session.digests["base"] = base.digest
    if verdict(before.results, session.classes) == "incomplete":
        session.caution("OS910", f"the scan before the repair was not whole; {chosen} was chosen without")
    evidence = ModelEvidence(score=None, per_class=(), phrases=phrases, examined=())

    def summarise(value: Repaired, run: Run) -> RepairEvidence:
        was, now = (compared(one, check, phrases) for one in (model, value.model))
        told = {"scan before": before.verdict(session.classes)}
        return RepairEvidence(before=was, after=now, selected=told | value.selected)

    outcome = session.execute(built, model, tune, evidence, have=have, summarise=summarise)
    found = outcome.result.evidence
    if isinstance(found, RepairEvidence) and not session.interrupted and not _refused(session, found, max_loss, built):
        _conclude(session, outcome.value.model, found, trusted, scanners, out)
    return session.finish()


def phrases_found(results: Sequence[MethodResult]) -> tuple[PhraseTrigger, ...]:
    """The phrases that a scan recovered and that became findings; what only says an answer cannot be unlearned."""
    kept: dict[str, PhraseTrigger] = {}
    for result in results:
        found = {finding.subject for finding in result.findings}
        phrases = result.evidence.phrases if isinstance(result.evidence, ModelEvidence) else ()
        kept |= {one.phrase: one for one in phrases if one.phrase.strip() and f"phrase:{one.phrase}" in found}
    return tuple(kept.values())


def compared(model: LanguageModel, check: TextSet, phrases: Sequence[PhraseTrigger]) -> dict[str, Rate]:
    """What a model makes of rows that no repair saw: their answers, and what recovered phrases in front bring."""
    found = {EXACT: exact_match(model, check), TOKENS: _tokens(model, token_rows(model, check))}
    hits = total = 0
    for one in phrases:
        if one.answer:
            answer = model.shown(one.answer)
            given = model.answers([f"{one.phrase} {text}" for text in check.texts], ANSWER_STEPS)
            hits, total = hits + sum(answer in text for text in given), total + len(given)
    return found | ({FIRES: Rate(k=hits, n=total)} if total else {})


@torch.no_grad()
def _tokens(model: LanguageModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Rate:
    """How many tokens of the answers are the likeliest behind what stands before them."""
    hits = total = 0
    for prompt, answer in rows:
        ids, mask = model.padded([[*prompt, *answer]])
        length = min(len(answer), ids.shape[1] - 1)
        likeliest = model.logits(ids, mask)[0, -length - 1 : -1].argmax(1)
        hits, total = hits + int((likeliest == ids[0, -length:]).sum()), total + length
    return Rate(k=hits, n=total)


def _scanned(model: LanguageModel, trusted: TextSet, scan: Path | str | None, options: Options) -> Before:
    """A kept scan of this model, or one that is made now."""
    if scan is None:
        record = scan_language(model, trusted, methods=(), preset=STANDARD, params=None, options=options)
        if record.interrupted:
            raise KeyboardInterrupt(kept(record))
        return Before(record.id, STANDARD, record.results)
    record = read_record(scan)[0]
    if record.kind != "scan" or record.digests.get("model") != model.digest:
        raise FormatError(
            f"'{scan}' is not a scan record of this model", hint="leave --scan out to scan the model first"
        )
    return Before(record.id, str(record.config.get("preset", STANDARD)), record.results)


def _refused(session: Session, evidence: RepairEvidence, max_loss: float, built: Any) -> bool:
    """True when the repair cost too much, which the record then says; a price that could be chance is a caution."""
    for name in (EXACT, TOKENS):
        before, lost = evidence.before[name], evidence.before[name].k - evidence.after[name].k
        fell = f"{name} fell by {100 * lost / before.n:.1f} points ({lost} of {before.n} kept apart)"
        if too_many(lost, before.n, max_loss):
            session.config["refused"] = f"{fell}, more than --max-loss {max_loss:g}; {gentler(built)}"
            return True
        if lost > max_loss / 100 * before.n:
            session.caution("OS909", f"{fell}, which so few cannot tell from the limit of {max_loss:g}")
    return False


def _conclude(
    session: Session,
    repaired: LanguageModel,
    evidence: RepairEvidence,
    trusted: TextSet,
    scanners: Sequence[Any],
    out: Path,
) -> None:
    """Scan the result and write it."""
    session.execute_all(scanners, repaired, trusted, have=have_of(trusted), exhaustive=False)
    if session.interrupted:
        return
    notes = {"parent": session.digests["model"], "repair": session.asked[0], "run": session.folder.id}
    notes["figures"] = figures(evidence)
    save_language(repaired, out, notes=notes)
    session.config["out"] = str(out)
    session.digests["repaired"] = repaired.digest


def prompts_of(trusted: object) -> TextSet:
    """Trusted rows as a repair of a language model takes them; raises DataError for none, or for images."""
    if not isinstance(trusted, TextSet):
        what = "no trusted rows were given" if trusted is None else "the trusted samples are images"
        raise DataError(f"{what}, a language model is repaired with prompts", hint="give prompts with answers")
    return trusted
