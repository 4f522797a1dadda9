"""`ostiary train`."""

import sys
from pathlib import Path
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary train digits -o model.safetensors
  ostiary train cifar10/train.parquet --test cifar10/test.parquet --arch resnet18 --width 16 --flip -o model.safetensors
  ostiary train images/ --epochs 30 --checkpoint run.ckpt -o model.safetensors

With --checkpoint an interrupted training goes on when the same command is given again.
"""


@click.command("train", epilog=EPILOG)
@click.argument("data")
@click.option("-o", "out", metavar="MODEL", required=True, help="Where the model goes (safetensors).")
@common.training_options
@click.option("--test", metavar="DATA", help="Measure accuracy on this set afterwards.")
@click.option("--checkpoint", metavar="FILE", help="Save every epoch here, and go on from it.")
@common.output_options()
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, data: str, **o: Any) -> None:
    """Train a zoo model on DATA."""
    call = common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"], o["out"])

    from ostiary.data import open_data
    from ostiary.training import Recipe
    from ostiary.training.flow import train_model

    recipe = Recipe(**{key: o[key] for key in common.RECIPE})
    with call.options() as options:
        record = train_model(
            open_data(data),
            Path(o["out"]),
            arch=o["arch"],
            width=o["width"],
            recipe=recipe,
            test=common.open_test(o["test"]) if o["test"] else None,
            checkpoint=Path(o["checkpoint"]) if o["checkpoint"] else None,
            options=options,
        )
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=True))
