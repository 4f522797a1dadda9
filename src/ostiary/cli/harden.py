"""`ostiary harden`."""

import sys
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary harden poisoned --method abl -o model.safetensors
  ostiary harden train.parquet --method abl --trusted validation/ --test test.parquet --flip -o model.safetensors
  ostiary harden images/ --method asd --trusted validation/ --limit 100 --epochs 30 -o model.safetensors

`ostiary methods --kind harden` lists the methods; docs/harden.md says when to use which, and what each costs. Screen
the data first where you can: a hardened training changes what is learned, and says little of what was planted.
"""


@click.command("harden", epilog=EPILOG)
@click.argument("data")
@click.option("-o", "out", metavar="MODEL", required=True, help="Where the model goes (safetensors).")
@click.option("--method", metavar="ID", required=True, help="How to train.")
@click.option("--set", "sets", multiple=True, metavar="ID.KEY=VALUE", help="Set a parameter of the method.")
@click.option("--trusted", metavar="DATA", help="Samples you trust, with labels; some methods need them.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Draw N of the trusted samples, class by class.")
@common.training_options
@click.option("--test", metavar="DATA", help="Measure accuracy on this set afterwards; no method sees it.")
@common.output_options()
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, data: str, **o: Any) -> None:
    """Train a zoo model on the suspect DATA so that poison in it does not take."""
    call = common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"], o["out"])
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.api import harden_training
    from ostiary.core.plan import parse_sets
    from ostiary.training import Recipe

    with call.options() as options:
        record = harden_training(
            data,
            o["out"],
            method=o["method"],
            params=parse_sets(o["sets"]),
            arch=o["arch"],
            width=o["width"],
            recipe=Recipe(**{key: o[key] for key in common.RECIPE}),
            trusted=common.open_trusted(o["trusted"], o["limit"], call["seed"]),
            test=common.open_test(o["test"]) if o["test"] else None,
            options=options,
        )
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=True))
