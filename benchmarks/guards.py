"""What guards flag of a grid's triggered inputs and of plain ones, and what they cost per input.

    make bench-grid GRID=scanners
    make bench-guards

For every model of the store whose attack works on more than half of the images, each guard is fitted at a false
rejection of 5 % on the model's trusted images (IBD-PSC has a limit of its own) and scores test images, plain and with
the trigger; of the triggered ones those count that the model is fooled by. Fitting and scoring see neither truth nor
trigger: the inputs are made first. The cost is the median time of one input by itself, and of 128 together, beside the
bare prediction of as many.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import HERE, Records, note, parse, parser
from benchmarks.scanners import WORKS, success, trusted_of
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ostiary.attacks.truth import load_truth
from ostiary.bench.bootstrap import mean
from ostiary.bench.metrics import quantised
from ostiary.bench.runner import make_plan
from ostiary.bench.store import MODEL, Store
from ostiary.core.catalog import make
from ostiary.core.errors import NotMet
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.data.packed import PackedSet
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model

GUARDS: dict[str, dict[str, Any]] = {
    "strip": {"false_rejection": 0.05},
    "mahalanobis": {"false_rejection": 0.05},
    "ibd-psc": {},
    "scale-up": {"false_rejection": 0.05},
    "ted": {"false_rejection": 0.05},
}
TABLE, SUMMARY, COST = "models", "summary", "cost per input"
INPUTS = 500


def timed(model: TorchClassifier, score: Any, x: Tensor, repeats: int = 15) -> float:
    """Median milliseconds per input."""
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        score(model, x)
        seconds.append(time.perf_counter() - begun)
    return 1000 * statistics.median(seconds) / len(x)


def judge(guard: Any, model: TorchClassifier, plain: Tensor, fooled: Tensor) -> dict[str, Any]:
    """TPR, FPR and AUROC of a fitted guard."""
    low, high = guard.score(model, plain), guard.score(model, fooled)
    hits, alarms = guard.flagged(high), guard.flagged(low)
    return {
        "TPR": Rate(k=int(hits.sum()), n=len(hits)),
        "FPR": Rate(k=int(alarms.sum()), n=len(alarms)),
        "AUROC": float(roc_auc_score([0] * len(low) + [1] * len(high), torch.cat([low, high]))),
    }


def summarise(records: Records) -> None:
    """Means over models, and how many models meet 95 % at the rate of false alarms that was measured."""
    rows = [row["figures"] for row in records.document["rows"] if row["table"] == TABLE]
    for name in GUARDS:
        own = [row for row in rows if row["guard"] == name]
        if not own:
            continue
        area = mean([row["AUROC"] for row in own])
        rates = {key: [Rate.model_validate(row[key]).value or 0.0 for row in own] for key in ("TPR", "FPR")}
        figures = {
            "mean AUROC": f"{area.value:.3f} [{area.low:.3f}, {area.high:.3f}]" if area.low is not None else area.value,
            "TPR at least 95 %": Rate(k=sum(value >= 0.95 for value in rates["TPR"]), n=len(own)),
            "median TPR": statistics.median(rates["TPR"]),
            "mean FPR": statistics.mean(rates["FPR"]),
        }
        records.add(SUMMARY, name, figures, seeds=[], n=len(own), seconds=0.0)


def main() -> None:
    """Fit and measure what is not recorded yet."""
    made = parser(__doc__)
    made.add_argument("--grid", default="scanners", help="name of a grid in benchmarks/grids (default scanners)")
    made.add_argument("--store", type=Path, required=True, help="where that grid was run")
    args = parse(made)
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("guards", "Guards", about, args)
    grid, store = make_plan(HERE / "grids" / f"{args.grid}.toml"), Store(args.store)
    for spec in grid.models:
        if spec.kind != "attack" or store.model(spec.key) is None or (success(store, spec) or 0.0) <= WORKS:
            continue
        key = f"{spec.data.name}, {spec.model}, {spec.name}, seed {spec.seed}"
        if all(records.has(TABLE, f"{key}, {name}") for name in GUARDS):
            continue
        note(key)
        model, truth = load_model(store.model_dir(spec.key) / MODEL), load_truth(store.truth_dir(spec.key))
        test = PackedSet(store.set_dir(spec.data.part_key("test")))
        test = test.subset(list(range(0, len(test), max(1, len(test) // INPUTS))))
        x, wanted = test.take(range(len(test))), truth.relabel(test.labels)
        rows = test.labels == truth.source if truth.mapping == "source-specific" else wanted != test.labels
        stamped = quantised(truth.trigger(x[rows], rng=torch.Generator().manual_seed(spec.seed)))  # type: ignore[misc]
        fooled = stamped[model.predict(stamped).argmax(1) == wanted[rows]]
        trusted = trusted_of(store, spec, grid.grid.trusted[0])
        for name, params in GUARDS.items():
            if records.has(TABLE, f"{key}, {name}"):
                continue
            begun = time.monotonic()
            try:
                guard = make("guard", f"guard.{name}", params).fit(model, trusted, run=Run(seed=spec.seed))
            except NotMet as reason:
                note(f"{name}: {reason}")
                continue
            figures = {"guard": name, "attack": spec.name, **judge(guard, model, x, fooled)}
            records.add(TABLE, f"{key}, {name}", figures, seeds=[spec.seed], n=len(x), seconds=time.monotonic() - begun)
            if not records.has(COST, f"{spec.model}, {name}"):
                bare = {n: timed(model, lambda m, y: m.predict(y), x[:n]) for n in (1, 128)}
                cost = {n: timed(model, guard.score, x[:n], 5) for n in (1, 128)}
                figures = {f"{n} at once, ms": cost[n] for n in cost} | {
                    f"bare, {n} at once, ms": bare[n] for n in bare
                }
                records.add(COST, f"{spec.model}, {name}", figures, seeds=[spec.seed], n=128, seconds=0.0)
    summarise(records)
    records.show()


if __name__ == "__main__":
    main()
