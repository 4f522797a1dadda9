"""What `ostiary screen` says of the suspect sets of a grid, method by method, and what training on the rest is worth.

    make bench-grid GRID=reference-models
    make bench-screens ARGS="--grid reference-models --store build/bench/reference-models"
    python -m benchmarks.screens --summary

Every suspect set is screened with its own model, once beside its trusted samples and once alone, in a sealed process
which is given what a user would have; truth joins afterwards. AUROC is that of a method's scores over the whole set,
poison against all others, and the accused classes are those of a method's findings. The estimate of the poisoned share
is the suspects' share by the fusion. With `--retrain` a model is trained on what each of the named methods leaves, by
the grid's own recipe, and the attack is measured on it. Sets whose attack works on less than half of the images are
screened too, but count in no summary: a model shows nothing of poison that it did not learn. Rows are kept one by one,
so that a stopped call goes on.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from benchmarks.common import HERE, Records, note, parse, parser
from benchmarks.scanners import WORKS, rate, success

from ostiary.api import Options, screen_data
from ostiary.core.records import Rate, SampleEvidence
from ostiary.core.seal import SealedProcess
from ostiary.core.store import load_artifact, read_record
from ostiary.data.packed import PackedSet
from ostiary.models.load import load_model

if TYPE_CHECKING:
    from ostiary.bench.cells import ModelSpec
    from ostiary.bench.runner import Plan
    from ostiary.bench.store import Store

METHODS = (
    "label-errors",
    "label-conflicts",
    "frequency",
    "activation-clustering",
    "spectral-signatures",
    "abl-isolation",
    "spectre",
    "scan",
    "mahalanobis",
    "beatrix",
    "psbd",
    "confusion-training",
    "fusion",
)
FUSION, STANDARD = METHODS[-1], ("scan", "fusion")
SHORT = ("accused", "AUROC", "status")
"""What a row tells of the other methods."""
BESIDE, ALONE, RETRAINED, SUMMARY = "beside trusted samples", "alone", "trained on what is kept", "summary"
CLEAN_LABEL = ("sig", "label-consistent")
TRAINING = ("input-aware", "trojan-nn", "poisoned-tuning", "blind", "subnet")
"""Attacks that hand over a model, not a set: nothing is planted in what they trained on."""


def screen(path: Path, data: Path, trusted: Path | None, seed: int) -> dict[str, Any]:
    """What the sealed process runs: accused classes, scores and suspects of every method."""
    known = None if trusted is None else PackedSet(trusted)
    record = screen_data(PackedSet(data), load_model(path), trusted=known, methods=METHODS, options=Options(seed=seed))
    folder, found = read_record(record.id)[1], {}
    for result in record.results:
        name = result.method.removeprefix("screen.")
        subjects = [one.subject for one in result.findings]  # where most classes are accused, the model is, too
        accused = sorted({int(one.removeprefix("class:")) for one in subjects if one.startswith("class:")})
        found[name] = {"status": result.status, "accused": accused}
        if isinstance(result.evidence, SampleEvidence):
            for part in ("scores", "suspected"):
                found[name][part] = load_artifact(record, folder, f"{name}-{part}")
    return found


def examine(store: "Store", model: "ModelSpec", args: argparse.Namespace, records: Records) -> None:
    """Screen one set both ways and keep its rows."""
    from ostiary.attacks.truth import load_truth
    from ostiary.bench.store import DATA, MODEL

    folder = store.model_dir(model.key)
    trusted = store.set_dir(model.data.trusted_key(args.budget, "same", model.seed))
    data = PackedSet(folder / DATA)
    truth = load_truth(store.truth_dir(model.key)) if model.kind == "attack" else None
    poisoned = np.isin(list(data.ids), list(truth.poisoned) if truth else [])
    for table, known in ((BESIDE, trusted), (ALONE, None)):
        if records.has(table, _key(model)):
            continue
        begun = time.monotonic()
        with SealedProcess(threads=args.threads or 1) as process:
            found = process.submit(screen, folder / MODEL, folder / DATA, known, model.seed).result()
        figures: dict[str, Any] = {
            "kind": model.kind,
            "attack": model.name,
            "rate": model.rate,
            "imbalance": model.data.imbalance,
            "attack success": success(store, model),
            "target": truth.target if truth and truth.mapping != "all-to-all" else None,
            "poisoned": Rate(k=int(poisoned.sum()), n=len(poisoned)),
        }
        for name in METHODS:
            told = _judged(found.get(name), poisoned)
            figures |= {f"{name}: {what}": value for what, value in told.items() if name == FUSION or what in SHORT}
        records.add(table, _key(model), figures, seeds=[model.seed], n=len(data), seconds=time.monotonic() - begun)
        if known is not None and poisoned.any() and (figures["attack success"] or 0.0) > WORKS:
            for name in args.retrain:
                _retrain(store, model, name, ~found[name]["suspected"].astype(bool), records)


def _judged(found: dict[str, Any] | None, poisoned: np.ndarray) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    if not found or "scores" not in found:
        return {"status": found["status"] if found else "missing"}
    suspected, scores = found["suspected"].astype(bool), np.nan_to_num(found["scores"], nan=-np.inf)
    told = {
        "accused": found["accused"],
        "of poison": Rate(k=int((suspected & poisoned).sum()), n=int(poisoned.sum())),
        "of others": Rate(k=int((suspected & ~poisoned).sum()), n=int((~poisoned).sum())),
    }
    lowest = np.nanmin(found["scores"][np.isfinite(found["scores"])]) - 1
    if poisoned.any():
        told["AUROC"] = float(roc_auc_score(poisoned, np.maximum(scores, lowest)))
    return told


def _retrain(store: "Store", model: "ModelSpec", method: str, kept: np.ndarray, records: Records) -> None:
    """Train on what a method leaves, as the grid trains, and measure the attack on the result."""
    from ostiary.attacks.truth import load_truth
    from ostiary.bench.metrics import attack_rates
    from ostiary.bench.store import DATA, MODEL
    from ostiary.core.run import Run
    from ostiary.training import Recipe, accuracy, train
    from ostiary.training.flow import new_model

    key = f"{_key(model)}, {method}"
    if records.has(RETRAINED, key):
        return
    begun = time.monotonic()
    test, truth = PackedSet(store.set_dir(model.data.part_key("test"))), load_truth(store.truth_dir(model.key))
    before = load_model(store.model_dir(model.key) / MODEL)
    data, fresh = PackedSet(store.model_dir(model.key) / DATA), before
    if not kept.all():  # a method that leaves nothing out leaves the model that there is
        data = data.subset(np.flatnonzero(kept).tolist())
        fresh = new_model(model.arch, data, width=model.width, seed=model.seed)
        train(fresh, data, Recipe(**model.recipe), run=Run(seed=model.seed))
    figures = {
        "method": method,
        "attack": model.name,
        "rate": model.rate,
        "attack success before": attack_rates(before, test, truth, run=Run()).success,
        "after": attack_rates(fresh, test, truth, run=Run()).success,
        "accuracy before": accuracy(before, test),
        "accuracy after": accuracy(fresh, test),
        "samples left out": int((~kept).sum()),
    }
    records.add(RETRAINED, key, figures, seeds=[model.seed], n=len(data), seconds=time.monotonic() - begun)


def _key(model: "ModelSpec") -> str:
    share = "" if model.rate is None else f" {100 * model.rate:g} %"
    return f"{model.data.name}, {model.model}, {model.name}{share}, seed {model.seed}"


def _mean(values: Sequence[float]) -> str:
    from ostiary.bench.bootstrap import mean

    found = mean(values)
    ends = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{ends}"


def summarise(records: Records) -> None:
    """Rows of the summary from all others."""
    for table, imbalanced in product((BESIDE, ALONE), (False, True)):
        where = f"{table}, classes of very different sizes" if imbalanced else table
        every = [row["figures"] for row in records.document["rows"] if row["table"] == table]
        rows = [row for row in every if (row.get("imbalance", 1) > 1) is imbalanced]
        bad = [row for row in rows if row["kind"] == "attack" and (row["attack success"] or 0.0) > WORKS]
        dirty = [row for row in bad if row["attack"] not in CLEAN_LABEL]
        groups = {
            "dirty-label, 5 to 10 %": [row for row in dirty if row["rate"] >= 0.05],
            "dirty-label, 1 %": [row for row in dirty if row["rate"] < 0.05],
            "clean-label": [row for row in bad if row["attack"] in CLEAN_LABEL],
        }
        for name, group in groups.items():
            if group:
                _found(records, f"{where}: {name}, mean AUROC", group)
        for name, kinds in (("nothing done", ("twin",)), ("hard-benign", ("benign",))):
            group = [row for row in rows if row["kind"] in kinds]
            if group:
                _false_alarms(records, f"{where}: {name}", group)
    _sum_retrained(records)


def _found(records: Records, name: str, group: list[dict[str, Any]]) -> None:
    figures: dict[str, Any] = {}
    for method in METHODS:
        areas = [row[f"{method}: AUROC"] for row in group if f"{method}: AUROC" in row]
        if areas:
            figures[method] = _mean(areas)
    figures["target accused by the fusion"] = rate(_accuses(row) for row in group)
    told = [_share(row["fusion: of poison"], row["fusion: of others"]) for row in group]
    gaps = [abs(share - _share(row["poisoned"])) for share, row in zip(told, group, strict=True)]
    figures["error of the estimated share"] = float(np.median(gaps))
    records.add(SUMMARY, name, figures, seeds=[], n=len(group), seconds=0.0)


def _accuses(row: dict[str, Any]) -> bool:
    accused = row.get("fusion: accused", [])
    return bool(accused) if row["target"] is None else row["target"] in accused


def _share(*parts: dict[str, int]) -> float:
    return sum(part["k"] for part in parts) / sum(part["n"] for part in parts)


def _false_alarms(records: Records, name: str, group: list[dict[str, Any]]) -> None:
    figures: dict[str, Any] = {}
    for method in METHODS:
        known = [row for row in group if f"{method}: accused" in row]
        if known:
            figures[f"{method}: sets"] = rate(bool(row[f"{method}: accused"]) for row in known)
    counts = [row["fusion: of others"] for row in group]
    figures["fusion: samples"] = Rate(k=sum(c["k"] for c in counts), n=sum(c["n"] for c in counts))
    figures["standard: sets"] = rate(any(row.get(f"{m}: accused") for m in STANDARD) for row in group)
    records.add(SUMMARY, f"{name}, false alarms", figures, seeds=[], n=len(group), seconds=0.0)


def _sum_retrained(records: Records) -> None:
    rows = [row["figures"] for row in records.document["rows"] if row["table"] == RETRAINED]
    for method in METHODS:
        own = [row for row in rows if row["method"] == method and row["rate"] >= 0.04]
        if own:
            rates = [Rate.model_validate(row["after"]).value or 0.0 for row in own]
            figures = {
                "attack success at most 5 %": rate(value <= 0.05 for value in rates),
                "mean attack success": float(np.mean(rates)),
                "mean accuracy": float(np.mean([Rate.model_validate(row["accuracy after"]).value for row in own])),
            }
            records.add(SUMMARY, f"trained on what {method} keeps", figures, seeds=[], n=len(own), seconds=0.0)


def _all(plan: "Plan", args: argparse.Namespace, records: Records) -> None:
    from ostiary.bench.store import DATA, Store

    store = Store(args.store)
    args.budget = plan.grid.trusted[0]
    for model in plan.models:
        done = store.model(model.key) is not None and (store.model_dir(model.key) / DATA).exists()
        wanted = model.kind in args.kind and model.name not in TRAINING
        if done and wanted and not (records.has(BESIDE, _key(model)) and records.has(ALONE, _key(model))):
            note(_key(model))
            examine(store, model, args, records)


def main() -> None:
    """Screen the sets that are not recorded yet, and sum up."""
    made = parser(__doc__, summary=True)
    made.add_argument("--grid", default="reference-models", help="name of a grid in benchmarks/grids")
    made.add_argument("--store", type=Path, help="where that grid was run")
    made.add_argument("--kind", nargs="*", default=["attack", "twin", "benign"], help="sets to screen")
    made.add_argument("--retrain", nargs="*", default=[], choices=METHODS, help="train on what these methods keep")
    args = parse(made)
    if not args.summary and args.store is None:
        made.error("--store is missing")
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("screens", "Screenings of suspect sets", about, args)
    if not args.summary:
        with tempfile.TemporaryDirectory() as runs:
            os.environ |= {"OSTIARY_RUNS": runs, "OSTIARY_CACHE_LIMIT": "0"}
            from ostiary.bench.runner import make_plan

            _all(make_plan(HERE / "grids" / f"{args.grid}.toml"), args, records)
    summarise(records)
    records.show()


if __name__ == "__main__":
    main()
