"""One defence on files, in a process that has closed its seal: what the bench calls, on any machine.

A defence gets a model, a declared number of trusted images, the suspect data and inputs to judge,
each as a path; never the truth, the recipe of the model or another method's rates. What it makes
goes into one new folder: `result.json` (its MethodResult), arrays as `.npy`, `repaired.safetensors`.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostiary.core.catalog import make
from ostiary.core.decide import triggers_found, verdict
from ostiary.core.errors import JobFailed
from ostiary.core.execute import Outcome, execute
from ostiary.core.files import atomic
from ostiary.core.protocols import Repaired
from ostiary.core.records import GuardEvidence, MethodResult, ModelEvidence, RepairEvidence
from ostiary.core.run import Run
from ostiary.data import ImageSet
from ostiary.data.packed import PackedSet
from ostiary.inputs import have_of
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model, save_model
from ostiary.scan.forms import with_arrays
from ostiary.screen.summary import summariser

RESULT, REPAIRED, SCORES, SUSPECTED = "result.json", "repaired.safetensors", "scores.npy", "suspected.npy"


@contextmanager
def _no_cache() -> Iterator[None]:
    """Keep nothing on the disk: a method's seconds would depend on what ran before it."""
    before = os.environ.get("OSTIARY_CACHE_LIMIT")
    os.environ["OSTIARY_CACHE_LIMIT"] = "0"
    try:
        yield
    finally:
        os.environ.pop("OSTIARY_CACHE_LIMIT")
        if before is not None:
            os.environ["OSTIARY_CACHE_LIMIT"] = before


def defend(
    *,
    verb: str,
    method: str,
    params: dict[str, Any],
    out: str,
    model: str,
    trusted: str,
    data: str | None = None,
    inputs: str | None = None,
    scan: str | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Run one method on what lies at the given paths and write what it made into the new folder `out`.

    `model` is a safetensors file, `trusted`, `data` (suspect training data, for screeners) and
    `inputs` (for guards) are packed sets, `scan` is the folder that a scanner wrote for this model
    and these trusted images. Gives the method's status, reason and the seconds it took by itself.
    Raises JobFailed when the method fails, so that nothing of it is kept.
    """
    run = Run(seed=seed, device=torch.device(device))
    subject = load_model(model, device=device)
    built = make(verb, method, params)
    with _no_cache():
        outcome = VERBS[verb](built, subject, PackedSet(Path(trusted)), _Paths(data, inputs, scan), run)
    if outcome.interrupted or outcome.error is not None:
        raise outcome.error or KeyboardInterrupt
    result = outcome.result
    if result.status == "failed":
        raise JobFailed(result.reason or "no reason given")
    with atomic(Path(out)) as folder:
        folder.mkdir()
        (folder / RESULT).write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for name, array in run.artifacts.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        if isinstance(outcome.value, Repaired):
            save_model(outcome.value.model, folder / REPAIRED)
    return {
        "status": result.status,
        "reason": result.reason,
        "arithmetic": result.seconds,
        "verdict": verdict([result], subject.classes) if verb == "scan" else None,
    }


class _Paths:
    """Where the parts lie that not every verb needs."""

    def __init__(self, data: str | None, inputs: str | None, scan: str | None) -> None:
        self._found = {"data": data, "inputs": inputs, "scan": scan}

    def packed(self, role: str) -> ImageSet:
        """The set of a role; ValueError when the job names none."""
        if (path := self._found[role]) is None:
            raise ValueError(f"the job names no {role}")
        return PackedSet(Path(path))

    def evidence(self) -> ModelEvidence | None:
        """What the scan found, with its arrays; None when no scan was run or it found nothing."""
        path = self._found["scan"]
        return None if path is None else read_scan(Path(path))


def read_result(folder: Path) -> MethodResult:
    """The result that a defence wrote into `folder`."""
    return MethodResult.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))


def read_scan(folder: Path) -> ModelEvidence | None:
    """The evidence of a kept scan, cut down to the triggers that became findings; None when none did."""

    def read(name: str) -> np.ndarray:
        return np.asarray(np.load(folder / f"{name}.npy", allow_pickle=False))

    candidates = [with_arrays(one, read) for one in triggers_found(read_result(folder))]
    return ModelEvidence(score=None, per_class=(), candidates=tuple(candidates), examined=()) if candidates else None


def _screen(built: Any, model: TorchClassifier, trusted: ImageSet, paths: _Paths, run: Run) -> Outcome:
    data = paths.packed("data")
    have = dataclasses.replace(have_of(model, trusted), training_data=True)
    outcome = execute(
        built, data, model, trusted, run=run, have=have, classes=model.classes, summarise=summariser(data, built.card)
    )
    for kind, name in (("scores", SCORES), ("suspected", SUSPECTED)):
        if (key := f"{built.card.name}-{kind}") in run.artifacts:
            run.artifacts[name.removesuffix(".npy")] = run.artifacts.pop(key)
    return outcome


def _scan(built: Any, model: TorchClassifier, trusted: ImageSet, paths: _Paths, run: Run) -> Outcome:
    return execute(built, model, trusted, run=run, have=have_of(model, trusted), classes=model.classes)


def _repair(built: Any, model: TorchClassifier, trusted: ImageSet, paths: _Paths, run: Run) -> Outcome:
    def summarise(value: Repaired, _: Run) -> RepairEvidence:
        return RepairEvidence(before={}, after={}, selected=value.selected)

    evidence = paths.evidence()
    have = have_of(model, trusted, trigger=evidence is not None)
    return execute(built, model, trusted, evidence, run=run, have=have, classes=model.classes, summarise=summarise)


def _guard(built: Any, model: TorchClassifier, trusted: ImageSet, paths: _Paths, run: Run) -> Outcome:
    """Fit on the trusted images, then judge the inputs; the seconds are those of both."""

    def fitted_evidence(value: Any, _: Run) -> GuardEvidence:
        return GuardEvidence(threshold=value.threshold, false_rejection=value.false_rejection)

    have = have_of(model, trusted)
    fitted = execute(built, model, trusted, run=run, have=have, summarise=fitted_evidence, call="fit")
    if fitted.value is None:
        return fitted
    begun = time.perf_counter()
    scores = fitted.value.score_all(model, paths.packed("inputs"), run=run)
    run.artifacts["scores"] = scores.double().numpy()
    run.artifacts["suspected"] = fitted.value.flagged(scores).numpy().astype(np.uint8)
    seconds = round(fitted.result.seconds + time.perf_counter() - begun, 3)
    return Outcome(fitted.result.model_copy(update={"seconds": seconds}))


VERBS: dict[str, Callable[[Any, TorchClassifier, ImageSet, _Paths, Run], Outcome]] = {
    "screen": _screen,
    "scan": _scan,
    "repair": _repair,
    "guard": _guard,
}
"""What each verb does with a built method."""
