"""ostiary's presets against Neural Cleanse as published, on the same models, images and machine, in the same run.

    python -m benchmarks.peer_scan --store build/bench/scanners --reference FILE
    python -m benchmarks.peer_scan --summary

For each model of a grid's store, half of them attacked, the published procedure (`peers/neural_cleanse.py`) and the
preset's methods run one after the other on the same trusted images, on as many threads. The published score of a model
is its largest anomaly index among classes with a mask below the median, that of a preset the distance z of its
strangest class from the reference models, among the classes that meet the other limits. Image passes are images that
went forward and back. The preset's methods all run to the end, as they do on a model where nothing is confirmed. The
floor is the bare forward and backward pass, to the input, of as many images in batches of 128 through the fused network
in bf16 where the processor has it. Models whose attack works on less than half of the images are left out.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import HERE, Records, note, parse, parser
from benchmarks.peers import neural_cleanse as published
from benchmarks.scanners import WORKS, area, fitting, success, trusted_of

from ostiary.bench.runner import make_plan
from ostiary.bench.store import MODEL, Store
from ostiary.core.plan import plan
from ostiary.core.records import ModelEvidence
from ostiary.core.reference import DISTANCE, Null, read_reference
from ostiary.core.run import Run
from ostiary.data import split
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model
from ostiary.scan.outlier import anomaly_index
from ostiary.scan.recover import frozen

MODELS, SUMMARY = "models", "summary"
LOWEST = -10.0
BLOCK = 128


def run_published(model: TorchClassifier, x: torch.Tensor, seed: int) -> dict[str, Any]:
    """Score, passes and seconds of the published procedure."""
    begun = time.perf_counter()
    found = published.scan(model.clone(), x, seed)
    seconds = time.perf_counter() - begun
    sizes = np.array([one.size for one in found])
    index = np.where(sizes < np.median(sizes), np.abs(anomaly_index(sizes)), 0.0)
    return {
        "published: index": float(index.max()),
        "published: class": int(index.argmax()),
        "published: passes": sum(one.passes for one in found),
        "published: seconds": seconds,
    }


def run_preset(model: TorchClassifier, trusted: Any, preset: str, null: Null, seed: int) -> dict[str, Any]:
    """Score, passes and seconds of the preset, judged by reference models."""
    begun, passes, rows = time.perf_counter(), 0, []
    for method in plan("scan", preset=preset):
        evidence: ModelEvidence = method.scan(model, trusted, run=Run(seed=seed))
        passes += evidence.passes or 0
        if method.card.id in null.methods:
            rows += [row for row in null.judge(evidence, method.card).per_class if DISTANCE in row.measures]
    seconds = time.perf_counter() - begun
    top = max(rows, key=lambda row: row.measures[DISTANCE], default=None)
    return {
        "preset: z": LOWEST if top is None else top.measures[DISTANCE],
        "preset: class": None if top is None else top.label,
        "preset: passes": passes,
        "preset: seconds": seconds,
    }


def floor(model: TorchClassifier, passes: int, repeats: int = 20) -> float:
    """Seconds of the bare forward and backward pass of that many images."""
    quick, dtype = frozen(model, bf16=True)
    x = torch.rand(BLOCK, *model.input_shape).to(dtype).contiguous(memory_format=torch.channels_last)
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        quick.logits(x.detach().requires_grad_()).float().sum().backward()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * passes / BLOCK


def measure(args: argparse.Namespace, records: Records) -> None:
    """One row for each model that is not recorded yet."""
    plans, store = make_plan(HERE / "grids" / f"{args.grid}.toml"), Store(args.store)
    chosen = [m for m in plans.models if m.arch == args.arch and store.model(m.key) is not None]
    attacked = [m for m in chosen if m.kind == "attack" and (success(store, m) or 0.0) > WORKS]
    twins = [m for m in chosen if m.kind == "twin"]
    for model in [one for pair in zip(attacked[: args.models], twins[: args.models], strict=False) for one in pair]:
        key = f"{model.data.name}, {model.model}, {model.name}, seed {model.seed}"
        if records.has(MODELS, key):
            continue
        note(key)
        begun, trusted = time.monotonic(), trusted_of(store, model, args.budget or plans.grid.trusted[0])
        classifier = load_model(store.model_dir(model.key) / MODEL)
        half, _ = split(trusted, (0.5, 0.5), seed=model.seed)
        reference = fitting(args.reference, model.arch, len(trusted.classes))
        if reference is None:
            raise SystemExit(f"no reference fits {key}: make one with `ostiary calibrate`")
        null = Null(read_reference(reference), [m.card.id for m in plan("scan", preset=args.preset)], trusted.classes)
        figures = {"attack": model.name, "kind": model.kind}
        figures |= run_published(classifier, half.take(range(len(half))), model.seed)
        figures |= run_preset(classifier, trusted, args.preset, null, model.seed)
        figures["preset: floor seconds"] = floor(classifier, figures["preset: passes"])
        records.add(MODELS, key, figures, seeds=[model.seed], n=len(trusted), seconds=time.monotonic() - begun)


def summarise(records: Records) -> None:
    """Ratios and areas over all rows."""
    rows = [row["figures"] for row in records.document["rows"] if row["table"] == MODELS]
    bad, good = ([row for row in rows if (row["kind"] == "attack") == is_bad] for is_bad in (True, False))
    if not bad or not good:
        return
    for name, score in (("published", "published: index"), ("preset", "preset: z")):
        figures = {
            "AUROC": area([row[score] for row in bad], [row[score] for row in good]),
            "median passes": statistics.median(row[f"{name}: passes"] for row in rows),
            "median seconds": statistics.median(row[f"{name}: seconds"] for row in rows),
        }
        if name == "preset":
            over = [row["preset: seconds"] / row["preset: floor seconds"] for row in rows]
            for part in ("passes", "seconds"):
                ratios = [row[f"published: {part}"] / row[f"preset: {part}"] for row in rows]
                figures[f"times fewer {part} (median, least)"] = f"{statistics.median(ratios):.1f}, {min(ratios):.1f}"
            figures["over the floor (median)"] = statistics.median(over)
        records.add(SUMMARY, name, figures, seeds=[], n=f"{len(bad)} attacked, {len(good)} not", seconds=0.0)


def arguments() -> argparse.Namespace:
    """The options."""
    made = parser(__doc__, summary=True)
    made.add_argument("--grid", default="scanners", help="name of a grid in benchmarks/grids (default scanners)")
    made.add_argument("--store", type=Path, help="where that grid was run")
    made.add_argument("--reference", type=Path, nargs="*", default=[], help="references, of which the fitting is taken")
    made.add_argument("--preset", default="standard", help="preset (default standard)")
    made.add_argument("--arch", default="small-cnn", help="architecture of the models (default small-cnn)")
    made.add_argument("--models", type=int, default=6, help="attacked models, and as many twins (default 6)")
    made.add_argument("--budget", type=int, default=None, help="trusted images per class (default: the grid's first)")
    args = parse(made)
    if not args.summary and args.store is None:
        made.error("--store is missing")
    return args


def main() -> None:
    """Measure what is not recorded yet, and sum up."""
    args = arguments()
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("peer_scan", "Against Neural Cleanse as published", about, args)
    if not args.summary:
        measure(args, records)
    summarise(records)
    records.show()


if __name__ == "__main__":
    main()
