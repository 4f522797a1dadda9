"""`ostiary guard fit` and `ostiary guard score`."""

import sys
from pathlib import Path
from typing import Any

import click

from ostiary.cli import common

FIT_EPILOG = """\b
Examples:
  ostiary guard fit model.safetensors --trusted validation/ -o guard.safetensors
  ostiary guard fit model.safetensors --trusted digits --method strip -o guard.safetensors
  ostiary guard fit tuned-model/ --trusted chats.jsonl -o guard.safetensors
  ostiary guard fit classifier/ --trusted reviews.csv --method rap -o guard.safetensors
  ostiary guard fit net.pth --arch wrn-16-1 --trusted test.parquet -o guard.safetensors
"""

SCORE_EPILOG = """\b
Examples:
  ostiary guard score inputs.parquet --model model.safetensors --guard guard.safetensors
  ostiary guard score inputs/ --model model.safetensors --guard guard.safetensors --format json
  ostiary guard score inputs.npz --model model.safetensors --guard guard.safetensors --report flagged.html
  ostiary guard score reviews.csv --model classifier/ --guard guard.safetensors
  ostiary guard score asked.jsonl --model tuned-model/ --guard guard.safetensors

Every input above the guard's limit is a finding, so exit code 1 means that at least one was flagged.
"""

EPILOG = """\b
Examples:
  ostiary guard fit model.safetensors --trusted validation/ -o guard.safetensors
  ostiary guard score inputs.parquet --model model.safetensors --guard guard.safetensors
  ostiary guard score --help
"""


@click.group("guard", epilog=EPILOG)
def command() -> None:
    """Filter the inputs of a running model: fit a guard, then score inputs with it."""


@command.command("fit", epilog=FIT_EPILOG)
@click.argument("model")
@click.option("--trusted", metavar="DATA", required=True, help="Samples you trust, with labels.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Draw N of the trusted samples, class by class.")
@click.option("-o", "out", metavar="FILE", required=True, help="Where the guard goes (safetensors).")
@click.option(
    "--method",
    metavar="ID",
    help="Guard to fit (default: mahalanobis; strip where that cannot be; onion of text classifiers).",
)
@click.option("--set", "sets", multiple=True, metavar="ID.KEY=VALUE", help="Set a parameter of the guard.")
@common.model_options
@common.output_options()
@common.run_options()
@click.pass_context
def fit(ctx: click.Context, /, model: str, **o: Any) -> None:
    """Fit an input filter to MODEL on samples you trust."""
    call = common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"], o["out"])
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.api import fit_guard
    from ostiary.core.plan import parse_sets

    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    with call.options() as options:
        subject = common.open_text_model(model, call["device"], **how)
        if common.is_text_classifier(model):
            opened = common.open_labelled_texts
        else:
            opened = common.open_prompts if common.is_language(model) else common.open_trusted
        trusted = opened(o["trusted"], o["limit"], call["seed"])
        record = fit_guard(
            subject, trusted, o["out"], method=o["method"], params=parse_sets(o["sets"]), options=options
        )
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=True))


@command.command("score", epilog=SCORE_EPILOG)
@click.argument("data")
@click.option("--model", metavar="MODEL", required=True, help="The model the guard was fitted to.")
@click.option("--guard", metavar="FILE", required=True, help="The fitted guard.")
@common.model_options
@common.output_options()
@common.run_options()
@click.pass_context
def score(ctx: click.Context, /, data: str, **o: Any) -> None:
    """Score every input in DATA and flag those above the guard's limit."""
    call = common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"])
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.data import open_any
    from ostiary.guard.fitted import load_guard
    from ostiary.guard.flow import score as score_inputs

    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    with call.options() as options:
        texts = common.is_language(o["model"]) or common.is_text_classifier(o["model"])
        opened = open_any(data, "ask" if texts else None)
        guard = load_guard(Path(o["guard"]))
        subject = common.open_text_model(o["model"], call["device"], **how)
        record = score_inputs(subject, guard, opened, options=options)
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=True))
