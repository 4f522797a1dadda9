"""`ostiary screen`."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ostiary.cli import common

if TYPE_CHECKING:
    from ostiary.core.records import Record, SampleEvidence
    from ostiary.data import ImageSet

EPILOG = """\b
Examples:
  ostiary screen train.parquet --model model.safetensors
  ostiary screen images/ --export-suspects ids.csv -o report.html
  ostiary screen train.npz --method spectral-signatures --format json

Without --model a small network is trained on DATA itself first, and the record says so.
"""


@click.command("screen", epilog=EPILOG)
@click.argument("data")
@click.option("--model", metavar="MODEL", help="The model trained on DATA.")
@common.model_options
@common.method_options()
@click.option("-o", "out", metavar="FILE", help="Write the report here (.html, .json or .md).")
@click.option("--export-suspects", metavar="FILE", help="Write id, label, score, method and nearest sample as CSV.")
@click.option("--export-kept", metavar="FILE", help="Write the samples that no method suspects as Parquet.")
@click.option("--dry-run", is_flag=True, help="Print the plan, then stop.")
@common.output_options()
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, data: str, **o: Any) -> None:
    """Rank the samples of DATA by how much they look like planted ones.

    DATA is a class-per-folder image tree, .npz, Parquet, MNIST IDX or the built-in name digits.
    """
    call = common.call_settings(ctx, **o)
    exports = (o["export_suspects"], o["export_kept"])
    reports = common.check_reports([*o["reports"], *([o["out"]] if o["out"] else [])], *exports)
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.api import screen_data
    from ostiary.core.card import Have
    from ostiary.core.plan import parse_sets
    from ostiary.data import open_data

    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    chosen = {"methods": o["methods"], "preset": call["preset"], "params": parse_sets(o["sets"])}
    with call.options() as options:
        opened = open_data(data)
        model = common.open_model(o["model"], call["device"], **how) if o["model"] else None
        if o["dry_run"]:
            common.show_plan("screen", Have(access="gradients", training_data=True), **chosen)
            return
        record = screen_data(opened, model, options=options, **chosen)
    finished = not record.interrupted and bool(record.coverage.ok)
    if o["export_suspects"] and finished:
        _export_suspects(record, opened, Path(o["export_suspects"]))
    if o["export_kept"] and finished:
        _export_kept(record, opened, Path(o["export_kept"]))
    if any(exports) and not finished:
        call.note("nothing was exported: no method finished, or the run was interrupted")
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=bool(o["methods"])))


def _export_suspects(record: "Record", data: "ImageSet", path: Path) -> None:
    """Every suspected sample, most suspicious first within each method."""
    from ostiary.core.files import atomic

    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "label", "score", "method", "nearest"])
        for method, evidence, suspected, scores in _artifacts(record):
            nearest = {suspect.id: suspect.nearest for suspect in evidence.suspects}
            for row in np.flatnonzero(suspected)[np.argsort(-scores[suspected], kind="stable")]:
                sample = data.ids[row]
                writer.writerow(
                    [sample, int(data.labels[row]), f"{scores[row]:.6g}", method, nearest.get(sample) or ""]
                )


def _export_kept(record: "Record", data: "ImageSet", path: Path) -> None:
    from ostiary.data import write_parquet

    marks = [suspected for _, _, suspected, _ in _artifacts(record)]
    write_parquet(path, data.subset(np.flatnonzero(~np.any(marks, axis=0)).tolist()))


def _artifacts(record: "Record") -> Iterator[tuple[str, "SampleEvidence", "np.ndarray", "np.ndarray"]]:
    """Per method that finished: its id, its evidence, which samples it suspects [n] and all scores [n]."""
    from ostiary.core.records import SampleEvidence
    from ostiary.core.store import load_artifact, read_record

    folder = read_record(record.id)[1]
    for result in record.results:
        if isinstance(result.evidence, SampleEvidence):
            parts = (load_artifact(record, folder, f"{result.evidence.artifact}-{p}") for p in ("suspected", "scores"))
            suspected, scores = parts
            yield result.method, result.evidence, suspected.astype(bool), scores
