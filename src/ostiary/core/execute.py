"""Run one method: check its needs, time it, catch what it throws, validate what it returns."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ostiary.core.card import Card, Have
from ostiary.core.decide import decide
from ostiary.core.errors import DataError, FormatError, NotMet, OstiaryError, OutOfTime, OutputError
from ostiary.core.memory import peak_rss
from ostiary.core.records import EVIDENCE, Evidence, MethodResult, ModelEvidence, SampleEvidence, Status
from ostiary.core.reference import Null
from ostiary.core.run import Run


@dataclass(frozen=True, slots=True)
class Outcome:
    """A method's result for the record, and the value it made (a repaired model, a fitted guard).

    `error` is set when an input or output turned out to be unusable: no failure of the method's own,
    so the caller raises it once the result is kept.
    """

    result: MethodResult
    value: Any = None
    interrupted: bool = False
    error: OstiaryError | None = None


STATUS_OF: dict[type[OstiaryError], Status] = {NotMet: "skipped", OutOfTime: "partial"}
"""Errors that are no failure of the method."""

Summarise = Callable[[Any, Run], Evidence]


def peak_bytes(device: torch.device) -> int:
    """The memory high-water mark: of the CUDA allocator there, else of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_rss()


def execute(
    method: Any,
    *subjects: Any,
    run: Run,
    have: Have,
    classes: Sequence[str] = (),
    summarise: Summarise | None = None,
    call: str | None = None,
    null: Null | None = None,
) -> Outcome:
    """Call `method`'s verb on `subjects` and turn whatever happens into a MethodResult.

    Unmet needs give `skipped` with the reason, an exception `failed`, a passed deadline that left
    classes unexamined or the work unfinished `partial`, Ctrl-C `partial` and `interrupted`.
    `summarise` makes the evidence of verbs whose value is not evidence itself. `call` names the verb
    where it differs from the card's (a guard is fitted). `null` is what reference models say; evidence
    is judged by them where they know the method.
    """
    card: Card = method.card
    unmet = card.needs.unmet(have)
    if unmet is not None:
        return Outcome(skipped(method, run, unmet))
    begun = time.perf_counter()
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    try:
        value = getattr(method, call or card.verb)(*subjects, run=run)
        evidence: Evidence = summarise(value, run) if summarise else value
        if not isinstance(evidence, EVIDENCE):
            raise TypeError(f"'{card.id}' gave {type(evidence).__name__}, not evidence")
        if null is not None and isinstance(evidence, ModelEvidence) and card.id in null.methods:
            evidence = null.judge(evidence, card)
        findings = decide(evidence, card, classes, null)
    except KeyboardInterrupt:
        seconds = time.perf_counter() - begun
        return Outcome(_result(method, run, "partial", seconds, reason="interrupted"), interrupted=True)
    except OstiaryError as error:
        status: Status = next((word for kind, word in STATUS_OF.items() if isinstance(error, kind)), "failed")
        unusable = error if isinstance(error, FormatError | DataError | OutputError) else None
        reason = f"{error}; {error.hint}" if error.hint else str(error)
        return Outcome(_result(method, run, status, time.perf_counter() - begun, reason=reason), error=unusable)
    except Exception as error:
        if os.environ.get("OSTIARY_DEBUG") == "1":
            raise
        reason = f"{type(error).__name__}: {error}"
        return Outcome(_result(method, run, "failed", time.perf_counter() - begun, reason=reason))
    seconds = time.perf_counter() - begun
    # What examines parts of the model, not its classes one by one, is done when it returns.
    by_class = isinstance(evidence, ModelEvidence | SampleEvidence) and all(
        subject.startswith("class:") for subject in evidence.examined
    )
    cut = by_class and run.out_of_time and len(evidence.examined) < len(classes)
    result = _result(
        method,
        run,
        "partial" if cut else "ok",
        seconds,
        reason="the time limit cut coverage" if cut else None,
        evidence=evidence,
    )
    return Outcome(result.model_copy(update={"findings": findings}), value)


def skipped(method: Any, run: Run, reason: str) -> MethodResult:
    """The result of a method that was left out."""
    return _result(method, run, "skipped", 0.0, reason=reason)


def params_of(method: Any) -> dict[str, Any]:
    """A method's hyper-parameters: its plain fields. What a fitted method carries beside them is left out.

    What a method has in `recorded` takes the place of the fields of these names: a file's digest for its path, say.
    """
    values = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    plain = {k: value for k, value in values.items() if isinstance(value, str | int | float | tuple | list | None)}
    return plain | getattr(method, "recorded", {})


def _result(
    method: Any, run: Run, status: Status, seconds: float, *, reason: str | None, evidence: Evidence | None = None
) -> MethodResult:
    return MethodResult(
        method=method.card.id,
        version=method.card.version,
        params=params_of(method),
        status=status,
        reason=reason,
        examined=evidence.examined if evidence is not None else (),
        evidence=evidence,
        findings=(),
        cautions=tuple(run.cautions),
        seconds=round(seconds, 3),
        peak_bytes=peak_bytes(run.device),
    )
