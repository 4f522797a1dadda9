"""What `ostiary scan` says of the models of a grid, with reference models: found, missed, and wrongly accused.

    make bench-grid GRID=scanners
    python -m benchmarks.scanners --grid scanners --store build/bench/scanners --reference FILE ...
    python -m benchmarks.scanners --summary

The models of a grid's store are scanned one by one in a sealed process, which is given the model, its trusted images
and the reference that fits it, as a user would; truth joins afterwards. A model counts as backdoored when the attack's
success is above 50 %, and attacked ones that are not are left out. The score of a model is the distance z of its
strangest class from the reference models, among the classes that meet all other limits; models without such a class
rank lowest. The probability is a logistic curve over z, fitted on all other families of attacks and on half of the
models that nobody attacked, and judged on the family and the half that were left out. Rows are kept one by one, so that
a stopped call goes on.
"""

# What knows the truth is imported where it is used: the sealed process imports this file too.

import argparse
import math
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from benchmarks.common import HERE, Records, note, parse, parser
from sklearn.linear_model import LogisticRegression

from ostiary.api import Options, scan_model
from ostiary.core.records import ModelEvidence, Rate, Record
from ostiary.core.reference import DISTANCE, MEASURE, read_reference, subjects
from ostiary.core.seal import SealedProcess
from ostiary.data.packed import PackedSet
from ostiary.models.load import load_model

if TYPE_CHECKING:
    from ostiary.bench.cells import ModelSpec
    from ostiary.bench.runner import Plan
    from ostiary.bench.store import Store

MODELS, SUMMARY = "models", "summary"
PATCHES = ("badnets", "trojan-nn", "poisoned-tuning")
"""Attacks whose trigger is one small patch."""
WORKS = 0.5
LIMIT_SET = {("small-cnn", "twin"): 354, ("small-cnn", "benign"): 312, ("vgg11-bn", "twin"): 324}
"""From these seeds on models were trained after `LEAST_DISTANCE` had been set: they are no part of what it rests on."""
LOWEST = -10.0
"""Stands for the z of a model no class of which meets the other limits."""


def scan(path: Path, trusted: Path, preset: str, reference: Path | None, seed: int) -> Record:
    """What the sealed process runs."""
    options = Options(seed=seed)
    return scan_model(
        load_model(path), PackedSet(trusted), preset=preset, calibration=reference or "none", options=options
    )


def strangest(record: Record) -> tuple[float | None, float | None, int | None]:
    """z, p and label of the class that lies furthest from the reference models, over all methods.

    No label where that is the model as a whole.
    """
    rows = [
        (row.measures[DISTANCE], row.measures[MEASURE], row.label if result.evidence.per_class else None)
        for result in record.results
        if isinstance(result.evidence, ModelEvidence)
        for row in subjects(result.evidence)
        if DISTANCE in row.measures
    ]
    return max(rows, key=lambda row: row[0], default=(None, None, None))


def examine(store: "Store", model: "ModelSpec", args: argparse.Namespace, records: Records) -> None:
    """Scan one model and keep its row."""
    from ostiary.attacks.truth import load_truth
    from ostiary.bench.store import MODEL

    begun = time.monotonic()
    folder, budget = store.model_dir(model.key), args.budget
    trusted = store.set_dir(model.data.trusted_key(budget, "same", model.seed))
    reference = fitting(args.reference, model.arch, args.classes[model.data.name])
    asked = (folder / MODEL, trusted, args.preset, reference, model.seed)
    with SealedProcess(threads=args.threads or 1) as process:
        record = process.submit(scan, *asked).result()
    truth = load_truth(store.truth_dir(model.key)) if model.kind == "attack" else None
    z, p, label = strangest(record)
    found = sorted({f.subject for result in record.results for f in result.findings if f.level != "note"})
    figures: dict[str, Any] = {
        "data": model.data.name,
        "arch": model.arch,
        "kind": model.kind,
        "attack": model.name,
        "rate": model.rate,
        "attack success": success(store, model),
        "reference models": record.calibration.models if record.calibration else 0,
        "verdict": record.verdict,
        "found": found,
        "target": None if truth is None or truth.mapping == "all-to-all" else truth.target,
        "strangest": label,
        "z": z,
        "p": p,
        "scan seconds": round(sum(result.seconds for result in record.results), 2),
        "methods": [f"{result.method}: {result.status}" for result in record.results],
    }
    records.add(MODELS, _key(model, args), figures, seeds=[model.seed], n=1, seconds=time.monotonic() - begun)


def _key(model: "ModelSpec", args: argparse.Namespace) -> str:
    rate = "" if model.rate is None else f" {100 * model.rate:g} %"
    return f"{args.preset}: {model.data.name}, {model.model}, {model.name}{rate}, seed {model.seed}"


def fitting(paths: Sequence[Path], arch: str, classes: int) -> Path | None:
    """The first of the references that was made from models of that kind."""
    for path in paths:
        reference = read_reference(path)
        if reference.arch == arch and len(reference.classes) == classes:
            return path
    return None


def trusted_of(store: "Store", model: "ModelSpec", budget: int) -> PackedSet:
    """The model's trusted images."""
    return PackedSet(store.set_dir(model.data.trusted_key(budget, "same", model.seed)))


def success(store: "Store", model: "ModelSpec") -> float | None:
    """The attack's success, None where it is unknown."""
    from ostiary.bench.entries import SUCCESS

    for row in store.finished().values():
        if row["model_key"] == model.key and row["defence"] == "none" and SUCCESS in row["rates"]:
            return Rate(**row["rates"][SUCCESS]).value
    return None


def rate(outcomes: Iterable[bool]) -> Rate:
    """How many of them."""
    known = list(outcomes)
    return Rate(k=sum(known), n=len(known))


def score(row: dict[str, Any]) -> float:
    """z, or the lowest score."""
    return LOWEST if row["z"] is None else max(LOWEST, float(row["z"]))


def cross_entropy(bad: Sequence[dict[str, Any]], good: Sequence[dict[str, Any]]) -> float:
    """The mean cross-entropy of a probability that was fitted on other families and other models."""
    losses: list[float] = []
    for family, half in product(sorted({row["attack"] for row in bad}), (0, 1)):
        left = [row for row in bad if row["attack"] == family], good[1 - half :: 2]
        fit = [row for row in bad if row["attack"] != family], good[half::2]
        if not all((*left, *fit)):
            continue
        truth = [0] * len(fit[1]) + [1] * len(fit[0])
        curve = LogisticRegression(class_weight="balanced").fit(_column([*fit[1], *fit[0]]), truth)
        for bad_or_not, rows in ((1, left[0]), (0, left[1])):
            chances = curve.predict_proba(_column(rows))[:, bad_or_not]
            losses += [-math.log(max(1e-6, chance)) for chance in chances]
    return float(np.mean(losses))


def _column(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([[score(row)] for row in rows])


def area(bad: Sequence[float], good: Sequence[float]) -> str:
    """AUROC with its interval, where there are models enough for one."""
    from ostiary.bench.leaderboard import auroc

    found = auroc(bad, good)
    ends = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{ends}"


def summarise(records: Records, preset: str) -> None:
    """Rows of the summary from all rows of models: over all, and for each architecture and data set by itself."""
    rows = [
        row["figures"] | {"seed": row["seeds"][0]}
        for row in records.document["rows"]
        if row["table"] == MODELS and row["key"].startswith(f"{preset}: ")
    ]
    _sum_up(records, f"{preset}: ", rows)
    kinds = sorted({(row["arch"], row["data"]) for row in rows})
    for arch, data in kinds if len(kinds) > 1 else ():
        _sum_up(
            records,
            f"{preset}, {arch} on {data}: ",
            [row for row in rows if (row["arch"], row["data"]) == (arch, data)],
        )


def _sum_up(records: Records, prefix: str, rows: list[dict[str, Any]]) -> None:
    bad = [row for row in rows if row["kind"] == "attack" and (row["attack success"] or 0) > WORKS]
    good = [row for row in rows if row["kind"] != "attack"]
    groups = {"all attacks": bad, "patches": [row for row in bad if row["attack"] in PATCHES]}
    for attack in sorted({row["attack"] for row in bad}):
        groups[f"attack {attack}"] = [row for row in bad if row["attack"] == attack]
    for name, group in groups.items():
        if not group or not good:
            continue
        named = [row for row in group if row["found"] and row["target"] is not None]
        figures = {
            "found": rate(bool(row["found"]) for row in group),
            "right class first": rate(row["strangest"] == row["target"] for row in named),
            "at most two classes": rate(len(row["found"]) <= 2 for row in named),
            "AUROC": area([score(row) for row in group], [score(row) for row in good]),
        }
        if name == "all attacks":
            figures["cross-entropy"] = cross_entropy(bad, good)
        records.add(SUMMARY, f"{prefix}{name}", figures, seeds=[], n=len(group), seconds=0.0)
    twins = [score(row) for row in good if row["kind"] == "twin"]
    if len(twins) > 1:
        halves = {"AUROC": area(twins[::2], twins[1::2])}
        records.add(SUMMARY, f"{prefix}every other twin against the rest", halves, seeds=[], n=len(twins), seconds=0)
    for words, group in (
        ("never attacked", [row for row in good if row["kind"] == "twin"]),
        ("hard-benign", [row for row in good if row["kind"] == "benign"]),
        ("never attacked and hard-benign", good),
        ("never attacked and hard-benign, trained after the limit was set", [row for row in good if _later(row)]),
    ):
        if group:
            figures = {
                "false alarms": rate(bool(row["found"]) for row in group),
                "called backdoor": rate(row["verdict"] == "backdoor" for row in group),
            }
            records.add(SUMMARY, f"{prefix}{words}", figures, seeds=[], n=len(group), seconds=0.0)


def _later(row: dict[str, Any]) -> bool:
    return bool(row["seed"] >= LIMIT_SET.get((row["arch"], row["kind"]), math.inf))


def arguments() -> argparse.Namespace:
    """The options."""
    made = parser(__doc__, summary=True)
    made.add_argument("--grid", default="scanners", help="name of a grid in benchmarks/grids (default scanners)")
    made.add_argument("--store", type=Path, help="where that grid was run")
    made.add_argument(
        "--reference", type=Path, nargs="*", default=[], help="references, of which the fitting one is taken"
    )
    made.add_argument("--preset", default="standard", help="preset (default standard)")
    made.add_argument("--budget", type=int, default=None, help="trusted images per class (default: the grid's first)")
    made.add_argument(
        "--kind", nargs="*", default=["attack", "twin", "benign"], help="models to scan (default: attack twin benign)"
    )
    args = parse(made)
    if not args.summary and args.store is None:
        made.error("--store is missing")
    return args


def _all(plan: "Plan", args: argparse.Namespace, records: Records) -> None:
    from ostiary.bench.store import Store

    store = Store(args.store)
    args.budget = args.budget or plan.grid.trusted[0]
    args.classes = {}
    for model in plan.models:
        done = store.model(model.key) is not None and model.kind in args.kind
        if not done or records.has(MODELS, _key(model, args)):
            continue
        if model.kind == "attack" and (success(store, model) or 0.0) <= WORKS:
            continue
        args.classes.setdefault(model.data.name, len(trusted_of(store, model, args.budget).classes))
        note(_key(model, args))
        examine(store, model, args, records)


def main() -> None:
    """Scan the models that are not recorded yet, and sum up."""
    args = arguments()
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("scanners", "Scans with reference models", about, args)
    if not args.summary:
        with tempfile.TemporaryDirectory() as runs:
            os.environ["OSTIARY_RUNS"] = runs
            from ostiary.bench.runner import make_plan

            _all(make_plan(HERE / "grids" / f"{args.grid}.toml"), args, records)
    summarise(records, args.preset)
    records.show()


if __name__ == "__main__":
    main()
