"""Whether a repair sees that its trusted images are planted: the screening that `ostiary repair` makes of them.

    make bench-grid GRID=develop
    make bench-trusted ARGS="--store build/bench/develop"
    python -m benchmarks.trusted --summary

Every model of the grid is shown its trusted images, as they are and with some poisoned samples of its own suspect set
among them. Found is a caution for the target's class. The sets are small and the models those on which screening was
set, so that the figures say what the caution is worth at its best.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import HERE, Records, note, parse, parser
from benchmarks.scanners import rate, trusted_of

from ostiary.attacks.truth import load_truth
from ostiary.bench.runner import make_plan
from ostiary.bench.store import DATA, MODEL, Store
from ostiary.core.records import SampleEvidence
from ostiary.core.run import Run
from ostiary.data import ArraySet, ImageSet
from ostiary.data.packed import PackedSet
from ostiary.models.load import load_model
from ostiary.repair.checks import screen_trusted

PLANTED = (5, 10, 25)
SETS, SUMMARY = "sets", "summary"


def mixed(trusted: ImageSet, data: ImageSet, rows: np.ndarray) -> ImageSet:
    """The trusted images, and these of the suspect set, the last of all."""
    parts = (trusted, data.subset(rows.tolist()))
    pixels, labels = ([take(part) for part in parts] for take in (_pixels, lambda part: part.labels))
    return ArraySet(torch.cat(pixels), torch.cat(labels), classes=trusted.classes)


def _pixels(data: ImageSet) -> torch.Tensor:
    return data.pixels(range(len(data)))


def look(model: Any, images: ImageSet, planted: int) -> dict[str, Any]:
    """The accused classes, and how many of the planted and of the others are suspected."""
    found = screen_trusted(model, images, Run()).result
    if not isinstance(found.evidence, SampleEvidence):
        raise SystemExit(f"the screening gave nothing: {found.reason}")
    at = {name: row for row, name in enumerate(images.ids)}
    rows = [at[one.id] for one in found.evidence.suspects]
    late = sum(row >= len(images) - planted for row in rows)
    accused = sorted(int(one.subject.removeprefix("class:")) for one in found.findings if one.level != "note")
    return {"accused": accused, "planted suspected": late, "others suspected": len(rows) - late}


def measure(args: argparse.Namespace, records: Records) -> None:
    """A row for each model and number of planted images."""
    plans, store = make_plan(HERE / "grids" / f"{args.grid}.toml"), Store(args.store)
    rng = np.random.default_rng(0)
    for model in plans.models:
        if model.arch != args.arch or store.model(model.key) is None:
            continue
        folder, trusted = store.model_dir(model.key), trusted_of(store, model, plans.grid.trusted[0])
        poison, truth = np.empty(0, int), None
        if model.kind == "attack" and (folder / DATA).exists():
            data, truth = PackedSet(folder / DATA), load_truth(store.truth_dir(model.key))
            poison = np.flatnonzero(np.isin(list(data.ids), list(truth.poisoned)))
        for planted in (0, *PLANTED) if len(poison) else (0,):
            key = f"{model.data.name}, {model.model}, {model.name}, seed {model.seed}, {planted} planted"
            if records.has(SETS, key):
                continue
            note(key)
            begun, classifier = time.monotonic(), load_model(folder / MODEL)
            images = mixed(trusted, data, rng.choice(poison, planted, replace=False)) if planted else trusted
            target = None if truth is None or truth.mapping == "all-to-all" else truth.target
            figures = {"attack": model.name, "planted": planted, "target": target, **look(classifier, images, planted)}
            seconds = time.monotonic() - begun
            records.add(SETS, key, figures, seeds=[model.seed], n=len(images), seconds=seconds)


def summarise(records: Records) -> None:
    """How often the target is accused, by the number of planted images, and how often anything is without any."""
    rows = [row["figures"] for row in records.document["rows"] if row["table"] == SETS]
    for planted in sorted({row["planted"] for row in rows}):
        own = [row for row in rows if row["planted"] == planted]
        figures: dict[str, Any] = {"accused": rate(bool(row["accused"]) for row in own)}
        if planted:
            hit = [row["target"] in row["accused"] for row in own]
            figures = {
                "target accused": rate(hit),
                "honest images suspected": sum(row["others suspected"] for row in own),
            }
        records.add(SUMMARY, f"{planted} planted", figures, seeds=[], n=len(own), seconds=0.0)


def arguments() -> argparse.Namespace:
    """The options."""
    made = parser(__doc__, summary=True)
    made.add_argument("--grid", default="develop", help="name of a grid in benchmarks/grids (default develop)")
    made.add_argument("--store", type=Path, help="where that grid was run")
    made.add_argument("--arch", default="small-cnn", help="architecture of the models (default small-cnn)")
    args = parse(made)
    if not args.summary and args.store is None:
        made.error("--store is missing")
    return args


def main() -> None:
    """Measure what is not recorded yet, and sum up."""
    args = arguments()
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("trusted", "Planted trusted images, seen by a repair", about, args)
    if not args.summary:
        measure(args, records)
    summarise(records)
    records.show()


if __name__ == "__main__":
    main()
