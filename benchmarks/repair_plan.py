"""What `ostiary repair MODEL --trusted DATA` makes of the models of a grid, without a method being named.

    make bench-grid GRID=repairs ARGS="--store build/bench/scanners"
    make bench-repair-plan
    make bench-grid GRID=reference-models
    make bench-repair-plan ARGS="--grid reference-models --store build/bench/reference-models --rate 0.01"
    python -m benchmarks.repair_plan --summary

Each model is given to the command's own code in a sealed process, with its trusted images and nothing else: it is
scanned, a repair is picked by what the scan says, the copy is measured on a quarter of the trusted images, scanned
again and written. Where the scan accuses nothing but a class stands out, the same is done once more with unlearning
named, which takes what stands out. Truth joins afterwards, on the test part. Where nothing was written, because
accuracy fell by more than 2 points and than chance explains, the model counts as it came. A model that nobody attacked
shows what the command costs where it was not needed. Rows are kept one by one, so that a stopped call goes on.
"""

# What knows the truth is imported where it is used: the sealed process imports this file too.

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import HERE, Records, note, parse, parser
from benchmarks.scanners import WORKS, rate, success

from ostiary.api import Options, repair_model
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.seal import SealedProcess
from ostiary.data.packed import PackedSet
from ostiary.models.load import load_model
from ostiary.training import accuracy

if TYPE_CHECKING:
    from ostiary.bench.cells import ModelSpec
    from ostiary.bench.store import Store

MODELS, NAMED, SUMMARY = "models", "what only stands out, unlearned", "summary"
UNLEARNING = "trigger-unlearning"


def repair(path: Path, trusted: Path, out: Path, seed: int, method: str | None) -> dict[str, Any]:
    """What the sealed process runs."""
    record = repair_model(load_model(path), PackedSet(trusted), out, method=method, options=Options(seed=seed))
    return {
        "method": record.config["method"],
        "verdict afterwards": record.verdict,
        "refused": record.config.get("refused", ""),
        "stands out": any(caution.code == "OS936" for caution in record.cautions),
        "triggers": record.results[0].evidence.selected.get("triggers", "") if record.results[0].evidence else "",
    }


def measured(store: "Store", model: "ModelSpec", path: Path) -> tuple[Rate, Rate | None]:
    """Accuracy and attack success of a model file on the test part."""
    from ostiary.attacks.truth import load_truth
    from ostiary.bench.metrics import attack_rates

    subject, test = load_model(path), PackedSet(store.set_dir(model.data.part_key("test")))
    if model.kind != "attack":
        return accuracy(subject, test), None
    truth = load_truth(store.truth_dir(model.key))
    return accuracy(subject, test), attack_rates(subject, test, truth, run=Run()).success


def examine(
    store: "Store", model: "ModelSpec", budget: int, threads: int, records: Records, method: str | None = None
) -> None:
    """Repair one model, and keep what the test part says of it before and after; a named `method` apart."""
    from ostiary.bench.metrics import solved
    from ostiary.bench.store import MODEL

    begun, path = time.monotonic(), store.model_dir(model.key) / MODEL
    trusted = store.set_dir(model.data.trusted_key(budget, "same", model.seed))
    with tempfile.TemporaryDirectory() as folder, SealedProcess(threads=threads) as process:
        out = Path(folder) / "repaired.safetensors"
        told = process.submit(repair, path, trusted, out, model.seed, method).result()
        seconds = time.monotonic() - begun
        before = measured(store, model, path)
        after = measured(store, model, out) if out.exists() else before
    figures: dict[str, Any] = {"kind": model.kind, "attack": model.name, "rate": model.rate, "budget": budget, **told}
    figures |= {"accuracy before": before[0], "accuracy": after[0]}
    if before[1] is not None and after[1] is not None:
        pairs = [(was.value or 0.0, now.value or 0.0) for was, now in ((before[1], after[1]), (before[0], after[0]))]
        figures |= {"attack success before": before[1], "attack success": after[1], "solved": solved(*pairs)}
    figures["seconds"] = round(seconds, 1)
    table, n = NAMED if method else MODELS, len(PackedSet(trusted))
    records.add(table, _key(model, budget), figures, seeds=[model.seed], n=n, seconds=seconds)


def _key(model: "ModelSpec", budget: int) -> str:
    share = "" if model.rate is None else f" {100 * model.rate:g} %"
    return f"{model.data.name}, {model.model}, {model.name}{share}, seed {model.seed}, {budget} a class"


def summarise(records: Records) -> None:
    """How many models are solved, by budget and poison rate, and what it costs."""
    rows, named = (
        {row["key"]: row["figures"] for row in records.document["rows"] if row["table"] == table}
        for table in (MODELS, NAMED)
    )
    for data, budget in sorted({(key.split(",")[0], row["budget"]) for key, row in rows.items()}):
        own = {key: row for key, row in rows.items() if (key.split(",")[0], row["budget"]) == (data, budget)}
        _summarise(records, f"{data}, {budget} a class", list(own.values()))
        if any(key in named for key in own):
            _summarise(
                records,
                f"{data}, {budget} a class, what stands out unlearned",
                [named.get(key, row) for key, row in own.items()],
            )


def _summarise(records: Records, title: str, rows: list[dict[str, Any]]) -> None:
    bad = [row for row in rows if row["kind"] == "attack"]
    groups = {
        "all attacks": bad,
        "at 1 %": [row for row in bad if row["rate"] <= 0.01],
        "above 1 %": [row for row in bad if row["rate"] > 0.01],
        "never attacked": [row for row in rows if row["kind"] != "attack"],
    }
    for name, group in groups.items():
        if not group:
            continue
        lost = [_value(row["accuracy before"]) - _value(row["accuracy"]) for row in group]
        figures: dict[str, Any] = {"mean loss, points": 100 * statistics.mean(lost)}
        figures["largest loss, points"] = 100 * max(lost)
        figures["refused"] = rate(bool(row["refused"]) for row in group)
        if name != "never attacked":
            figures["solved"] = rate(bool(row["solved"]) for row in group)
            figures["mean attack success"] = statistics.mean(_value(row["attack success"]) for row in group)
        records.add(SUMMARY, f"{title}: {name}", figures, seeds=[], n=len(group), seconds=0.0)


def _value(figure: dict[str, Any]) -> float:
    return Rate.model_validate(figure).value or 0.0


def _all(args: argparse.Namespace, records: Records) -> None:
    from ostiary.bench.runner import make_plan
    from ostiary.bench.store import Store

    plan, store = make_plan(HERE / "grids" / f"{args.grid}.toml"), Store(args.store)
    for model in plan.models:
        if model.kind == "benign" or store.model(model.key) is None:
            continue
        if model.kind == "attack" and (success(store, model) or 0.0) <= WORKS:
            continue
        if args.rate and model.kind == "attack" and model.rate not in args.rate:
            continue
        if model.kind != "attack" and model.seed != plan.grid.seeds[0]:
            continue
        for budget in args.budget or plan.grid.trusted:
            one, threads = _key(model, budget), args.threads or 1
            if not records.has(MODELS, one):
                note(one)
                examine(store, model, budget, threads, records)
            row = records.find(MODELS, one)
            if row is not None and row["figures"]["stands out"] and not records.has(NAMED, one):
                note(f"{one}, named")
                examine(store, model, budget, threads, records, UNLEARNING)


def main() -> None:
    """Repair what is not recorded yet, and sum up."""
    made = parser(__doc__, summary=True)
    made.add_argument("--grid", default="repairs", help="name of a grid in benchmarks/grids (default repairs)")
    made.add_argument("--store", type=Path, help="where that grid was run")
    made.add_argument("--budget", type=int, nargs="*", help="trusted images per class (default: the grid's)")
    made.add_argument("--rate", type=float, nargs="*", help="only attacks at these poison rates")
    args = parse(made)
    if not args.summary and args.store is None:
        made.error("--store is missing")
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("repair_plan", "What the repair command picks and solves", about, args)
    if not args.summary:
        with tempfile.TemporaryDirectory() as runs:
            os.environ["OSTIARY_RUNS"] = runs
            _all(args, records)
    summarise(records)
    records.show()


if __name__ == "__main__":
    main()
