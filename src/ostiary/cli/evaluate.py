"""`ostiary evaluate`."""

import sys
from pathlib import Path
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary evaluate model.safetensors digits
  ostiary evaluate model.safetensors digits --truth poisoned.truth --twin twin.safetensors
  ostiary evaluate tuned/ chats.jsonl --truth poisoned.truth --twin plain/
  ostiary evaluate classifier/ reviews.csv --truth poisoned.truth
  ostiary evaluate net.pth test.parquet --arch wrn-16-1 --format json

DATA should be test data that no training and no repair saw; its test part is taken where it has two. With --truth
(from `ostiary poison`) the true trigger is stamped on it: attack success is counted among items whose true label is
not the one the attacker wants, robust accuracy is the share of those still classified rightly. Of a language model
the share of right answers is measured, and of prompts that get the payload, with the trigger and without; of a
classifier of texts the accuracy, and how many texts of other classes that the trigger changes get the attacker's label,
with the trigger and without.
"""


@click.command("evaluate", epilog=EPILOG)
@click.argument("model")
@click.argument("data")
@click.option("--truth", metavar="DIR", help="The sealed truth that `ostiary poison` wrote.")
@click.option("--twin", metavar="MODEL", help="A model trained the same way on unpoisoned data, as the baseline.")
@common.model_options
@common.output_options()
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, model: str, data: str, **o: Any) -> None:
    """Measure accuracy, attack success and robust accuracy of MODEL on DATA."""
    call = common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"])
    from ostiary.attacks.truth import load_truth
    from ostiary.bench.evaluate import evaluate_model

    if common.is_language(model) or common.is_text_classifier(model):
        record = evaluate_texts(model, data, call, **o)
        sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=True))
    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    with call.options() as options:
        record = evaluate_model(
            common.open_model(model, call["device"], **how),
            common.open_trusted(data, None, call["seed"]),
            truth=load_truth(Path(o["truth"])) if o["truth"] else None,
            twin=common.open_model(o["twin"], call["device"], **how) if o["twin"] else None,
            options=options,
        )
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=True))


def evaluate_texts(model: str, data: str, call: common.Call, **o: Any) -> Any:
    """The record of the evaluation of a language model, or of a classifier of texts."""
    from ostiary.attacks.text_poison import load_text_truth
    from ostiary.bench.evaluate_language import evaluate_language
    from ostiary.bench.evaluate_texts import evaluate_text_classifier

    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    language = common.is_language(model)
    evaluated = evaluate_language if language else evaluate_text_classifier
    opened = common.open_prompts if language else common.open_labelled_texts
    loaded = common.open_model if language else common.open_text_model
    with call.options() as options:
        return evaluated(
            loaded(model, call["device"], **how),
            opened(data, None, call["seed"]),
            truth=load_text_truth(Path(o["truth"])) if o["truth"] else None,
            twin=loaded(o["twin"], call["device"], **how) if o["twin"] else None,
            options=options,
        )
