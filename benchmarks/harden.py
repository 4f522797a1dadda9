"""What trainings on suspect data do to a grid's backdoors, beside plain training on the same sets.

    make bench-grid GRID=scanners
    make bench-harden
    python -m benchmarks.harden --summary

Every poisoned set of the store, and the sets of the twins, are trained on by each method with the grid's recipe, in a
sealed process which is given the suspect set and the model's trusted images; truth joins afterwards. The plain model is
the store's own. Solved is an attack success below 10 % at a loss of accuracy below 3 points, of attacks that worked on
more than half of the images before. Methods are at their defaults, but for what a row names. Rows are kept one by one,
so that a stopped call goes on.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from benchmarks.common import HERE, Records, note, parse, parser
from benchmarks.scanners import WORKS, rate

from ostiary.api import Options, harden_training
from ostiary.core.records import Rate
from ostiary.core.seal import SealedProcess
from ostiary.core.store import load_artifact, read_record
from ostiary.data.packed import PackedSet
from ostiary.models.load import load_model
from ostiary.training import Recipe, accuracy

if TYPE_CHECKING:
    from ostiary.bench.cells import ModelSpec
    from ostiary.bench.store import Store

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "abl": ("abl", {}),
    "asd": ("asd", {}),
    "nab": ("nab", {}),
    "adversarial, fast": ("adversarial", {"fast": True}),
    "mixup": ("mixup", {}),
    "cutmix": ("cutmix", {}),
    "dp-sgd": ("dp-sgd", {}),
    "dp-sgd, clip 4": ("dp-sgd", {"clip": 4.0}),
}
"""What a row names, the method, its parameters."""
TABLE, SUMMARY = "models", "summary"
SOLVED, KEPT = 0.1, 0.03


def harden(name: str, data: Path, trusted: Path, out: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """What the sealed process runs: trains, writes the model to `out`, and gives what the record says of it."""
    method, params = METHODS[name]
    record = harden_training(
        PackedSet(data),
        out,
        method=method,
        params={method: params},
        arch=spec["arch"],
        width=spec["width"],
        recipe=Recipe(**spec["recipe"]),
        trusted=PackedSet(trusted),
        options=Options(seed=spec["seed"]),
    )
    (result,) = record.results
    found: dict[str, Any] = {"status": result.status, "reason": result.reason, "seconds": result.seconds}
    if result.evidence is not None:
        found["selected"] = dict(getattr(result.evidence, "selected", {}))
    if (artifact := f"{method}-suspected") in record.artifacts:
        found["suspected"] = load_artifact(record, read_record(record.id)[1], artifact).astype(bool)
    return found


def measured(store: "Store", model: "ModelSpec", path: Path) -> dict[str, Any]:
    """Accuracy and attack success of a model on the test part."""
    from ostiary.attacks.truth import load_truth
    from ostiary.bench.metrics import attack_rates
    from ostiary.core.run import Run

    subject, test = load_model(path), PackedSet(store.set_dir(model.data.part_key("test")))
    figures: dict[str, Any] = {"accuracy": accuracy(subject, test)}
    if model.kind == "attack":
        figures["attack success"] = attack_rates(
            subject, test, load_truth(store.truth_dir(model.key)), run=Run()
        ).success
    return figures


def examine(store: "Store", model: "ModelSpec", name: str, budget: int, threads: int, records: Records) -> None:
    """Train on one set by one method, and keep the row."""
    from ostiary.attacks.truth import load_truth
    from ostiary.bench.store import DATA, MODEL

    begun, folder = time.monotonic(), store.model_dir(model.key)
    trusted = store.set_dir(model.data.trusted_key(budget, "same", model.seed))
    spec = {"arch": model.arch, "width": model.width, "recipe": model.recipe, "seed": model.seed}
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "hardened.safetensors"
        with SealedProcess(threads=threads) as process:
            found = process.submit(harden, name, folder / DATA, trusted, out, spec).result()
        figures: dict[str, Any] = {"method": name, "kind": model.kind, "attack": model.name, "rate": model.rate}
        figures |= {f"{key}, plain": value for key, value in measured(store, model, folder / MODEL).items()}
        figures |= {"status": found["status"], "reason": found["reason"], "training, s": found["seconds"]}
        if out.exists():
            figures |= measured(store, model, out)
    figures |= found.get("selected", {})
    if "suspected" in found and model.kind == "attack":
        planted = np.isin(list(PackedSet(folder / DATA).ids), list(load_truth(store.truth_dir(model.key)).poisoned))
        hit = int((planted & found["suspected"]).sum())
        figures["poison among the suspected"] = Rate(k=hit, n=int(found["suspected"].sum()))
    n = len(PackedSet(folder / DATA))
    records.add(TABLE, _key(model, name), figures, seeds=[model.seed], n=n, seconds=time.monotonic() - begun)


def _key(model: "ModelSpec", name: str) -> str:
    share = "" if model.rate is None else f" {100 * model.rate:g} %"
    return f"{model.data.name}, {model.model}, {model.name}{share}, seed {model.seed}, {name}"


def _value(figure: dict[str, Any]) -> float:
    return Rate.model_validate(figure).value or 0.0


def summarise(records: Records) -> None:
    """Per method: attacks solved, mean success and loss of accuracy; and what it costs where nothing was planted."""
    rows = [row["figures"] for row in records.document["rows"] if row["table"] == TABLE]
    for name in METHODS:
        own = [row for row in rows if row["method"] == name and "accuracy" in row]
        lost = [100 * (_value(row["accuracy, plain"]) - _value(row["accuracy"])) for row in own]
        bad = [
            at for at, row in enumerate(own) if row["kind"] == "attack" and _value(row["attack success, plain"]) > WORKS
        ]
        twins = [at for at, row in enumerate(own) if row["kind"] == "twin"]
        figures: dict[str, Any] = {}
        if bad:
            success = {at: _value(own[at]["attack success"]) for at in bad}
            figures["solved"] = rate(success[at] < SOLVED and lost[at] < 100 * KEPT for at in bad)
            figures["mean attack success"] = statistics.mean(success.values())
            figures["mean loss, points"] = statistics.mean(lost[at] for at in bad)
        if twins:
            figures["mean loss on twins, points"] = statistics.mean(lost[at] for at in twins)
        if figures:
            figures["median training, s"] = statistics.median(row["training, s"] for row in own)
            records.add(SUMMARY, name, figures, seeds=[], n=len(own), seconds=0.0)


def _all(args: argparse.Namespace, records: Records) -> None:
    from ostiary.bench.cells import has_data
    from ostiary.bench.runner import make_plan
    from ostiary.bench.store import DATA, Store

    plan, store = make_plan(HERE / "grids" / f"{args.grid}.toml"), Store(args.store)
    for model in plan.models:
        made = store.model(model.key) is not None and (store.model_dir(model.key) / DATA).exists()
        wanted = model.kind == "attack" and has_data(model)
        twin = model.kind == "twin" and model.seed in args.twins
        named = not args.attack or model.name in args.attack or twin
        if not (made and (wanted or twin) and named):
            continue
        for name in args.method or METHODS:
            if not records.has(TABLE, _key(model, name)):
                note(_key(model, name))
                examine(store, model, name, plan.grid.trusted[-1], args.threads or 1, records)


def main() -> None:
    """Train what is not recorded yet, and sum up."""
    made = parser(__doc__, summary=True)
    made.add_argument("--grid", default="scanners", help="name of a grid in benchmarks/grids (default scanners)")
    made.add_argument("--store", type=Path, help="where that grid was run")
    made.add_argument("--method", nargs="*", choices=METHODS, help="only these methods")
    made.add_argument("--attack", nargs="*", help="only these attacks, by their names in the grid")
    made.add_argument("--twins", nargs="*", type=int, default=[300, 301], help="seeds of the twins to train on")
    args = parse(made)
    if not args.summary and args.store is None:
        made.error("--store is missing")
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("harden", "Training on suspect data", about, args)
    if not args.summary:
        with tempfile.TemporaryDirectory() as runs:
            os.environ |= {"OSTIARY_RUNS": runs, "OSTIARY_CACHE_LIMIT": "0"}
            _all(args, records)
    summarise(records)
    records.show()


if __name__ == "__main__":
    main()
