"""`ostiary screen`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common
from ostiary.core.errors import ConfigError
from ostiary.engines import ENGINES, make_engine

if TYPE_CHECKING:
    from ostiary.core.records import Record
    from ostiary.data import Data

EPILOG = """\b
Examples:
  ostiary screen train.parquet --model model.safetensors
  ostiary screen train.parquet --model model.safetensors --trusted validation/
  ostiary screen images/ --export-suspects ids.csv -o report.html
  ostiary screen train.parquet --model model.safetensors --trusted validation/ --retrain new.safetensors
  ostiary screen train.npz --method spectral-signatures --format json
  ostiary screen images/ --method frequency --method label-errors
  ostiary screen parts/ --model model.safetensors --shards 64 --engine slurm
  ostiary screen instructions.jsonl --export-kept kept.jsonl -o report.html
  ostiary screen instructions.jsonl --model base-model/ --trusted chats.jsonl
  ostiary screen reviews.csv --task classify --format json
  ostiary screen reviews.csv --model classifier/ -o report.html
  ostiary screen reviews.csv --method onion --trusted known-reviews.csv

Without --model a small network is trained on DATA itself first, and the record says so; none is where all methods
that are named look at the data alone (label-errors, label-conflicts, frequency). With --shards the images are
never held by one process: jobs compute the model's features, which are then judged class by class, to the same result.

Texts are screened by themselves, for phrases that decide the answer or the label of the rows that hold them; prompts
with answers also with the language model that is to be fine-tuned on them, beside trusted ones, and texts with labels
with a classifier that was trained on them (`--method bki` and `cube` train a small one where none is given).
`--method onion` looks for words that disturb row after row, beside trusted texts.

What is exported, kept and trained on goes by the list of `screen.fusion` where it finished, else by all methods.
"""

TOGETHER = ("retrain", "shards")
"""What is for images."""


@click.command("screen", epilog=EPILOG)
@click.argument("data")
@click.option("--model", metavar="MODEL", help="The model trained on DATA.")
@common.model_options
@click.option("--trusted", metavar="DATA", help="A few samples you trust, with labels.")
@click.option("--task", type=click.Choice(("classify", "chat")), help="What texts with labels and answers are for.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Draw N of the trusted samples, class by class.")
@common.method_options()
@click.option("-o", "out", metavar="FILE", help=common.REPORT_HELP)
@click.option("--export-suspects", metavar="FILE", help="Write id, label, score, reasons and nearest sample as CSV.")
@click.option("--export-kept", metavar="DIR", help="Write what is not suspected (or name a .parquet or .jsonl).")
@click.option("--retrain", metavar="FILE", help="Train anew on what is kept, write that model, and compare.")
@click.option("--shards", type=click.IntRange(min=1), help="Compute features in so many jobs; takes --model.")
@click.option("--engine", type=click.Choice(tuple(ENGINES)), help="Where the jobs run.  [default: local]")
@click.option("--dry-run", is_flag=True, help="Print the plan, then stop.")
@common.output_options()
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, data: str, **o: Any) -> None:
    """Rank the samples of DATA by how much they look like planted ones.

    DATA is a class-per-folder image tree, .npz, Parquet, MNIST IDX or the built-in name digits; or a file of texts,
    .jsonl, .csv, .tsv (also .gz) or Parquet, with a label or an answer in each row.
    """
    call = common.call_settings(ctx, **o)
    if not o["model"] and o["shards"]:
        raise ConfigError("--shards needs --model", hint="train one on a part of the set, or leave out --shards")
    if o["engine"] and not o["shards"]:
        raise ConfigError("--engine needs --shards", hint="say how many jobs there are to be: --shards N")
    if o["retrain"] and o["shards"]:
        raise ConfigError("--retrain does not go with --shards", hint="export what is kept, and train on it")
    exports = (o["export_suspects"], o["export_kept"], o["retrain"])
    reports = common.check_reports([*o["reports"], *([o["out"]] if o["out"] else [])], *exports)
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.api import screen_data
    from ostiary.core.card import Have
    from ostiary.core.plan import parse_sets
    from ostiary.data import TextSet, open_any, per_class_counts
    from ostiary.screen.texts import have_of, refuse_beside

    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    chosen = {"methods": o["methods"], "preset": call["preset"], "params": parse_sets(o["sets"])}
    with call.options() as options:
        opened = open_any(data, o["task"])
        texts = opened if isinstance(opened, TextSet) else None
        if texts:
            refuse_beside(**{key: o[key] for key in _images_only(o["model"])})
        drawn = (o["trusted"], o["limit"], call["seed"])
        trusted = common.open_prompts(*drawn, task=texts.task) if texts else common.open_trusted(*drawn)
        alone = o["model"] and not o["shards"]
        model = common.open_text_model(o["model"], call["device"], **how) if alone else None
        if o["dry_run"]:
            rarest = min(per_class_counts(trusted)) if trusted is not None else 0
            have = Have(access="gradients", training_data=True, trusted_per_class=rarest)
            common.show_plan(
                "screen", have_of(model, trusted) if texts else have, **chosen, task=texts.task if texts else None
            )
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
            record = screen_data(opened, model, trusted=trusted, retrain=o["retrain"], options=options, **chosen)
    finished = not record.interrupted and bool(record.coverage.ok)
    if finished:
        _export(record, opened, o)
    elif any(exports):
        call.note("nothing was exported: no method finished, or the run was interrupted")
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=bool(o["methods"])))


def _images_only(model: str | None) -> tuple[str, ...]:
    """The options that texts have no use for beside this model."""
    from ostiary.models.text_folder import is_text_classifier_folder

    of_texts = model and (is_text_classifier_folder(Path(model)) or common.is_language(model))
    return TOGETHER if of_texts else ("model", *TOGETHER)


def _export(record: "Record", data: "Data", o: dict[str, Any]) -> None:
    from ostiary.screen.exports import export_kept, export_suspects

    if o["export_suspects"]:
        export_suspects(record, data, Path(o["export_suspects"]))
    if o["export_kept"]:
        export_kept(record, data, Path(o["export_kept"]))
