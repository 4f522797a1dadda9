"""`ostiary screen`."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ostiary.cli import common
from ostiary.core.errors import ConfigError
from ostiary.engines import ENGINES, make_engine

if TYPE_CHECKING:
    from ostiary.core.records import Record, SampleEvidence
    from ostiary.data import ImageSet

EPILOG = """\b
Examples:
  ostiary screen train.parquet --model model.safetensors
  ostiary screen train.parquet --model model.safetensors --trusted validation/
  ostiary screen images/ --export-suspects ids.csv -o report.html
  ostiary screen train.npz --method spectral-signatures --format json
  ostiary screen parts/ --model model.safetensors --shards 64 --engine slurm

Without --model a small network is trained on DATA itself first, and the record says so. With --shards the images are
never held by one process: jobs compute the model's features, which are then judged class by class, to the same result.
"""


@click.command("screen", epilog=EPILOG)
@click.argument("data")
@click.option("--model", metavar="MODEL", help="The model trained on DATA.")
@common.model_options
@click.option("--trusted", metavar="DATA", help="A few samples you trust, with labels.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Draw N of the trusted samples, class by class.")
@common.method_options()
@click.option("-o", "out", metavar="FILE", help="Write the report here (.html, .json or .md).")
@click.option("--export-suspects", metavar="FILE", help="Write id, label, score, method and nearest sample as CSV.")
@click.option("--export-kept", metavar="FILE", help="Write the samples that no method suspects as Parquet.")
@click.option("--shards", type=click.IntRange(min=1), help="Compute features in so many jobs; takes --model.")
@click.option("--engine", type=click.Choice(tuple(ENGINES)), help="Where the jobs run.  [default: local]")
@click.option("--dry-run", is_flag=True, help="Print the plan, then stop.")
@common.output_options()
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, data: str, **o: Any) -> None:
    """Rank the samples of DATA by how much they look like planted ones.

    DATA is a class-per-folder image tree, .npz, Parquet, MNIST IDX or the built-in name digits.
    """
    call = common.call_settings(ctx, **o)
    if not o["model"] and o["shards"]:
        raise ConfigError("--shards needs --model", hint="train one on a part of the set, or leave out --shards")
    if o["engine"] and not o["shards"]:
        raise ConfigError("--engine needs --shards", hint="say how many jobs there are to be: --shards N")
    exports = (o["export_suspects"], o["export_kept"])
    reports = common.check_reports([*o["reports"], *([o["out"]] if o["out"] else [])], *exports)
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.api import screen_data
    from ostiary.core.card import Have
    from ostiary.core.plan import parse_sets
    from ostiary.data import open_data, per_class_counts

    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    chosen = {"methods": o["methods"], "preset": call["preset"], "params": parse_sets(o["sets"])}
    with call.options() as options:
        opened = open_data(data)
        trusted = common.open_trusted(o["trusted"], o["limit"], call["seed"])
        alone = o["model"] and not o["shards"]
        model = common.open_model(o["model"], call["device"], **how) if alone else None
        if o["dry_run"]:
            rarest = min(per_class_counts(trusted)) if trusted is not None else 0
            have = Have(access="gradients", training_data=True, trusted_per_class=rarest)
            common.show_plan("screen", have, **chosen)
            return
        if o["shards"]:
            from ostiary.screen.shards import screen_shards

            loading = common.load_options(**how)
            with make_engine(o["engine"] or "local") as engine:
                record = screen_shards(
                    data,
                    o["model"],
                    engine,
                    shards=o["shards"],
                    trusted=trusted,
                    how=loading,
                    options=options,
                    **chosen,
                )
        else:
            record = screen_data(opened, model, trusted=trusted, options=options, **chosen)
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
