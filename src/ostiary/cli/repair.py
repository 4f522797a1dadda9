"""`ostiary repair`."""

import sys
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary repair model.safetensors --trusted validation/ -o repaired.safetensors
  ostiary repair model.safetensors --trusted digits --scan 3f9a12cd -o repaired.safetensors
  ostiary repair net.pth --arch wrn-16-1 --trusted test.parquet --method fine-pruning -o repaired.safetensors
  ostiary repair model.safetensors -o pruned.safetensors
  ostiary repair tuned-model/ --trusted chats.jsonl -o repaired-model
  ostiary repair tuned-model/ --trusted chats.jsonl --method fine-mixing --base base-model/ -o repaired-model
  ostiary repair review-model/ --trusted reviews.csv -o repaired-model

MODEL is scanned first unless --scan names a kept scan of it. A quarter of the trusted samples only measures; trusted
images that look planted are a caution (OS918). Without --trusted the weights alone are pruned, nothing is measured.
Exit code 1: the accuracy fell by more than --max-loss, and than chance explains, and nothing was written; or the scan
of the repaired model still finds something. Exit code 3: it could not be examined whole.
"""


@click.command("repair", epilog=EPILOG)
@click.argument("model")
@click.option(
    "--trusted", metavar="DATA", help="Samples you trust, with labels; without them the weights alone are pruned."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Draw N of the trusted samples, class by class.")
@click.option("-o", "out", metavar="NEW", required=True, help="Where the repaired model goes (a file, or a folder).")
@click.option("--scan", metavar="RUN", help="A kept scan of this very model (id or folder).")
@click.option("--method", metavar="ID", help="Repair to use; without it the scan's result decides.")
@click.option("--base", metavar="DIR", help="The model of texts that MODEL was tuned from, which is trusted.")
@click.option("--set", "sets", multiple=True, metavar="ID.KEY=VALUE", help="Set a parameter of the repair.")
@click.option("--max-loss", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Points of accuracy.")
@common.model_options
@common.output_options()
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, model: str, **o: Any) -> None:
    """Write a repaired copy of MODEL and scan it again; MODEL itself is untouched."""
    call = common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"], o["out"])
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.api import repair_model
    from ostiary.core.plan import parse_sets

    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    with call.options() as options:
        subject = common.open_text_model(model, call["device"], **how)
        opened = common.open_trusted
        if common.is_language(model):
            opened = common.open_prompts
        elif common.is_text_classifier(model):
            opened = common.open_labelled_texts
        trusted = opened(o["trusted"], o["limit"], call["seed"])
        record = repair_model(
            subject,
            trusted,
            o["out"],
            scan=o["scan"],
            method=o["method"],
            params=parse_sets(o["sets"]),
            max_loss=o["max_loss"],
            base=o["base"],
            options=options,
        )
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=False))
