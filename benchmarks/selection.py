"""What a repair that picks its level by attack success on test data would gain over one that picks it honestly.

    make bench-grid GRID=repairs ARGS="--store build/bench/scanners"
    make bench-selection
    python -m benchmarks.selection --summary

Fine-Pruning, ANP and RNP prune until accuracy on trusted images kept apart falls by a tolerance. Here each is run at
several tolerances on every attacked model of a grid whose attack works, and every result is measured on the test part.
Honest is the result at the method's own tolerance, which no test image and no trigger had a part in. The oracle takes,
of all results, the one with the lowest attack success at a test accuracy of at most 2 points below the model's (the
model as it came where there is none), as public code and leaderboards do. Rows are kept one by one, so that a stopped
call goes on.
"""

# What knows the truth is imported where it is used: the sealed process imports this file too.

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import HERE, Records, note, parse, parser
from benchmarks.scanners import WORKS, rate, success

from ostiary.core.catalog import make
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.seal import SealedProcess
from ostiary.data.packed import PackedSet
from ostiary.models.load import load_model, save_model
from ostiary.training import accuracy

if TYPE_CHECKING:
    from ostiary.bench.cells import ModelSpec
    from ostiary.bench.store import Store

METHODS = ("fine-pruning", "anp", "rnp")
TOLERANCES = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""They hold the tolerances that the methods have by default."""
LEVELS, SUMMARY = "levels", "summary"
SOLVED, KEPT = 0.1, 0.02


def repair(path: Path, trusted: Path, method: str, folder: Path, seed: int) -> list[dict[str, str]]:
    """What the sealed process runs: writes a repaired model for each tolerance, and tells what was chosen."""
    model, images, run = load_model(path), PackedSet(trusted), Run(seed=seed)
    made, chosen = make("repair", method), []
    if hasattr(made, "at"):  # masks are learned once for all tolerances
        every = made.at(model, images, TOLERANCES, run=run)
    else:
        tried = (make("repair", method, {"tolerance": tolerance}) for tolerance in TOLERANCES)
        every = (one.repair(model, images, None, run=Run(seed=seed)) for one in tried)
    for number, found in enumerate(every):
        save_model(found.model, folder / f"{number}.safetensors")
        chosen.append(dict(found.selected))
    return chosen


def measured(store: "Store", model: "ModelSpec", path: Path) -> tuple[Rate, Rate]:
    """Accuracy and attack success of a model file on the test part."""
    from ostiary.attacks.truth import load_truth
    from ostiary.bench.metrics import attack_rates

    subject, test = load_model(path), PackedSet(store.set_dir(model.data.part_key("test")))
    truth = load_truth(store.truth_dir(model.key))
    return accuracy(subject, test), attack_rates(subject, test, truth, run=Run()).success


def examine(store: "Store", model: "ModelSpec", method: str, budget: int, threads: int, records: Records) -> None:
    """Repair one model at every tolerance, and keep what the test part says of each result."""
    from ostiary.bench.store import MODEL

    path = store.model_dir(model.key) / MODEL
    trusted = store.set_dir(model.data.trusted_key(budget, "same", model.seed))
    keys = [f"{_key(model)}, {budget} a class, {method}, tolerance {tolerance:g}" for tolerance in TOLERANCES]
    if all(records.has(LEVELS, key) for key in keys):
        return
    note(f"{_key(model)}, {budget} a class, {method}")
    begun, plain, known = time.monotonic(), measured(store, model, path), dict[str, tuple[Rate, Rate]]()
    with tempfile.TemporaryDirectory() as folder, SealedProcess(threads=threads) as process:
        every = process.submit(repair, path, trusted, method, Path(folder), model.seed).result()
        for number, (key, tolerance, selected) in enumerate(zip(keys, TOLERANCES, every, strict=True)):
            said = str(selected)  # the same choice is the same model
            known[said] = known.get(said) or measured(store, model, Path(folder) / f"{number}.safetensors")
            figures: dict[str, Any] = {
                "method": method,
                "attack": model.name,
                "model": _key(model),
                "budget": budget,
                "tolerance": tolerance,
                "honest": tolerance == make("repair", method).tolerance,
                "accuracy before": plain[0],
                "attack success before": plain[1],
                "accuracy": known[said][0],
                "attack success": known[said][1],
                **selected,
            }
            seconds, begun = time.monotonic() - begun, time.monotonic()
            records.add(LEVELS, key, figures, seeds=[model.seed], n=len(PackedSet(trusted)), seconds=seconds)


def _key(model: "ModelSpec") -> str:
    share = "" if model.rate is None else f" {100 * model.rate:g} %"
    return f"{model.data.name}, {model.model}, {model.name}{share}, seed {model.seed}"


def summarise(records: Records) -> None:
    """Per method and budget: both choices side by side, over the models whose every tolerance was tried."""
    rows = [row["figures"] for row in records.document["rows"] if row["table"] == LEVELS]
    for method, budget in sorted({(row["method"], row["budget"]) for row in rows}):
        own = [row for row in rows if (row["method"], row["budget"]) == (method, budget)]
        models: dict[str, list[dict[str, Any]]] = {}
        for row in own:
            models.setdefault(row["model"], []).append(row)
        whole = [levels for levels in models.values() if len(levels) == len(TOLERANCES)]
        if not whole:
            continue
        honest = [_told(next(row for row in levels if row["honest"])) for levels in whole]
        oracle = [_oracle(levels) for levels in whole]
        figures: dict[str, Any] = {}
        for name, chosen in (("honest", honest), ("oracle", oracle)):
            figures[f"{name}: solved"] = rate(gone < SOLVED and lost <= KEPT for gone, lost in chosen)
            figures[f"{name}: mean attack success"] = statistics.mean(gone for gone, _ in chosen)
            figures[f"{name}: mean loss, points"] = 100 * statistics.mean(lost for _, lost in chosen)
        name = f"{method}, {budget} trusted images a class"
        records.add(SUMMARY, name, figures, seeds=[], n=len(whole), seconds=0.0)


def _told(row: dict[str, Any]) -> tuple[float, float]:
    """Attack success and what was lost in accuracy."""
    kept, before, gone = (_value(row[key]) for key in ("accuracy", "accuracy before", "attack success"))
    return gone, before - kept


def _oracle(levels: list[dict[str, Any]]) -> tuple[float, float]:
    as_it_came = (_value(levels[0]["attack success before"]), 0.0)
    return min([as_it_came, *(told for told in map(_told, levels) if told[1] <= KEPT)])


def _value(figure: dict[str, Any]) -> float:
    return Rate.model_validate(figure).value or 0.0


def _all(args: argparse.Namespace, records: Records) -> None:
    from ostiary.bench.runner import make_plan
    from ostiary.bench.store import Store

    plan, store = make_plan(HERE / "grids" / f"{args.grid}.toml"), Store(args.store)
    for model in plan.models:
        if model.kind != "attack" or store.model(model.key) is None or (success(store, model) or 0.0) <= WORKS:
            continue
        for method in args.method:
            examine(store, model, method, plan.grid.trusted[-1], args.threads or 1, records)


def main() -> None:
    """Repair what is not recorded yet, and sum up."""
    made = parser(__doc__, summary=True)
    made.add_argument("--grid", default="repairs", help="name of a grid in benchmarks/grids (default repairs)")
    made.add_argument("--store", type=Path, help="where that grid was run")
    made.add_argument("--method", nargs="*", choices=METHODS, default=list(METHODS), help="only these methods")
    args = parse(made)
    if not args.summary and args.store is None:
        made.error("--store is missing")
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("selection", "Honest and oracle selection of repairs", about, args)
    if not args.summary:
        _all(args, records)
    summarise(records)
    records.show()


if __name__ == "__main__":
    main()
