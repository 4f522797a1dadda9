"""One run of one verb: executes methods, keeps the record on disk up to date after each of them."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import ostiary
from ostiary.core.card import Card, Have
from ostiary.core.decide import BUILT_IN, WITHIN_MODEL, verdict
from ostiary.core.errors import OutputError
from ostiary.core.execute import Outcome, Summarise, execute, skipped
from ostiary.core.records import (
    SCHEMA_VERSION,
    Calibration,
    Caution,
    Coverage,
    Environment,
    Kind,
    MethodResult,
    Record,
    Verdict,
)
from ostiary.core.reference import Null
from ostiary.core.run import Progress, Run
from ostiary.core.store import RunFolder

JUDGED: tuple[Kind, ...] = ("scan", "screen", "repair")
"""Verbs whose record carries a verdict."""
FEW_NAMED = 2
"""A scan that names more classes is cautioned."""
DECIDED = "a backdoor is confirmed already; ask for this method by name, or for the preset 'thorough', to go on"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What every verb takes: seed, device, time limit in seconds, where progress goes, the command to quote."""

    seed: int = 0
    device: str = "cpu"
    time_limit: float | None = None
    progress: Progress | None = None
    command: tuple[str, ...] = ()

    def run(self) -> Run:
        """A Run with these options, its deadline counted from now."""
        run = Run(seed=self.seed, device=torch.device(self.device))
        if self.time_limit is not None:
            run.deadline = time.monotonic() + self.time_limit
        if self.progress is not None:
            run.on_progress = self.progress
        return run


def environment(device: torch.device) -> Environment:
    """Where this process runs."""
    return Environment(
        ostiary=ostiary.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        platform=f"{platform.system()} {platform.machine()}",
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        cpu=_cpu_name(),
    )


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        name = ""
    return f"{name or platform.processor() or 'unknown'}, {os.cpu_count()} cores"


@dataclass(slots=True)
class Session:
    """A record in the making. `results` grow method by method; `finish` gives the record."""

    kind: Kind
    subject: str
    classes: tuple[str, ...]
    options: Options
    config: dict[str, Any]
    digests: dict[str, str]
    asked: tuple[str, ...]
    null: Null | None = None
    calibration: Calibration | None = None
    run: Run = field(init=False)
    folder: RunFolder = field(init=False)
    results: list[MethodResult] = field(default_factory=list)
    interrupted: bool = False

    def __post_init__(self) -> None:
        self.run = self.options.run()
        self.folder = RunFolder.create(self.kind)
        try:
            self.write()
        except OutputError:
            shutil.rmtree(self.folder.path, ignore_errors=True)
            raise

    def execute(
        self, method: Any, *subjects: Any, have: Have, summarise: Summarise | None = None, call: str | None = None
    ) -> Outcome:
        """Execute one method and keep its result, artifacts and limits at once.

        Raises what made an input or output unusable, after it was kept as the reason of the failure.
        """
        run = self.run.child()
        outcome = execute(
            method,
            *subjects,
            run=run,
            have=have,
            classes=self.classes,
            summarise=summarise,
            call=call,
            null=self.null,
        )
        if method.card.limits and outcome.result.evidence is not None:
            self._note_limits(method.card)
        self.results.append(outcome.result)
        self.interrupted |= outcome.interrupted
        self.folder.keep(run.artifacts)
        self.write()
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def execute_all(self, methods: Sequence[Any], *subjects: Any, have: Have, exhaustive: bool = True) -> None:
        """Execute methods one after the other until Ctrl-C; else as `execute`.

        Unless `exhaustive`, those that are left once a backdoor is confirmed are skipped.
        """
        for method in methods:
            if self.interrupted:
                return
            if not exhaustive and self.verdict == "backdoor":
                self.results.append(skipped(method, self.run, DECIDED))
                self.write()
            else:
                self.execute(method, *subjects, have=have)

    def _note_limits(self, card: Card) -> None:
        """Keep the limits of a method that measured, and where they come from."""
        null = self.null if self.null is not None and card.id in self.null.methods else None
        limits = card.limits if null is None else null.limits(card)
        self.config.setdefault("limits", {})[card.id] = {
            limit.measure: {"low": limit.low, "high": limit.high} for limit in limits
        }
        if self.kind == "screen" or card.needs.modality == "text":
            self.calibration = BUILT_IN
        elif null is not None:
            self.calibration = null.calibration()
        else:
            self.calibration = self.calibration or WITHIN_MODEL
            if self.null is not None:
                self.caution("OS902", f"the reference models were not scanned with {card.id} as it is set here")

    def caution(self, code: str, text: str) -> None:
        """Note something that may make the whole run's measurements invalid."""
        self.run.caution(code, text)

    def write(self) -> Record:
        """Write the record as it stands."""
        record = self._record()
        self.folder.write(record)
        return record

    def finish(self) -> Record:
        """The final record, written."""
        self.folder.keep(self.run.artifacts)
        if self.kind == "scan":
            self._count_named()
        return self.write()

    def _count_named(self) -> None:
        """A scan that names many classes says so."""
        findings = [finding for result in self.results for finding in result.findings if finding.level != "note"]
        named = {finding.subject for finding in findings if finding.subject.startswith("class:")}
        if len(named) > FEW_NAMED:
            self.caution("OS914", f"{len(named)} classes are named; a backdoor mostly has one target")

    @property
    def verdict(self) -> Verdict | None:
        """What the results so far come to; None for verbs that judge nothing."""
        if self.kind not in JUDGED:
            return None
        # A method without limits measures but cannot say that nothing was found; that one did not finish counts.
        judged = self.config.get("limits", {})
        counted = [r for r in self.results if r.findings or r.method in judged or r.status in ("partial", "failed")]
        found = verdict(counted, self.classes)
        return "incomplete" if found == "none-found" and self.interrupted else found

    def _record(self) -> Record:
        return Record(
            kind=self.kind,
            schema_version=SCHEMA_VERSION,
            id=self.folder.id,
            created=self.folder.created,
            command=self.options.command or tuple(sys.argv[:1]),
            config=self.config,
            subject=self.subject,
            digests=self.digests,
            environment=environment(self.run.device),
            seed=self.options.seed,
            calibration=self.calibration,
            coverage=_coverage(self.classes, self.asked, self.results),
            results=tuple(self.results),
            verdict=self.verdict,
            interrupted=self.interrupted,
            cautions=tuple(self.run.cautions) + _common_cautions(self.calibration),
            artifacts=dict(self.folder.artifacts),
        )


def _common_cautions(calibration: Calibration | None) -> tuple[Caution, ...]:
    if calibration != WITHIN_MODEL:
        return ()
    return (Caution(code="OS902", text=calibration.description),)


def _coverage(classes: tuple[str, ...], asked: tuple[str, ...], results: Sequence[MethodResult]) -> Coverage:
    def having(status: str) -> tuple[str, ...]:
        return tuple(result.method for result in results if result.status == status)

    return Coverage(
        classes=classes,
        asked=asked,
        ok=having("ok"),
        partial=having("partial"),
        skipped=having("skipped"),
        failed=having("failed"),
    )
