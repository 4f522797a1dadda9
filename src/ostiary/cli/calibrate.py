"""`ostiary calibrate`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common
from ostiary.core.errors import ConfigError
from ostiary.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ostiary.core.reference import Reference

EPILOG = """\b
Examples:
  ostiary calibrate ours/*.safetensors --trusted validation/ -o ours.json
  ostiary calibrate runs/seed*/net.pth --arch wrn-16-1 --trusted cifar10/test.parquet --limit 500 -o wrn.json
  ostiary calibrate adapters/* --base base-model/ -o our-adapters.json
  ostiary scan theirs.safetensors --trusted validation/ --calibration ours.json

All models must be of one architecture, input shape and set of classes: retrain your own recipe with other seeds, the
more the better, at least 19. None of them should have seen data or weights of the model that is in question. A stopped
call goes on where it was when it is repeated.
"""


@click.command("calibrate", epilog=EPILOG)
@click.argument("models", nargs=-1, required=True)
@click.option("--trusted", metavar="DATA", help="A few samples you trust, with labels; adapters need none.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Draw N of the trusted samples, class by class.")
@click.option("--base", metavar="DIR", help="The language model that MODELS, LoRA adapters, are for.")
@common.model_options
@common.method_options()
@click.option("-o", "out", required=True, metavar="FILE", help="The reference; models are added to one that exists.")
@common.run_options()
@click.pass_context
def command(ctx: click.Context, /, models: tuple[str, ...], **o: Any) -> None:
    """Scan MODELS that nobody is known to have attacked, as the reference of later scans.

    Later scans with --calibration FILE say of every class how many of these models have one as strange, and their
    report states how often the limit would have accused one of these models.

    With --base MODELS are folders of LoRA adapters: their weights are measured, and a later scan says of another one
    whether it is unusual among them.
    """
    call = common.call_settings(ctx, **o)
    if o["base"] is not None:
        sys.exit(_adapters(call, models, **o))
    if o["trusted"] is None:
        raise ConfigError("models are scanned with a few samples that you trust", hint="give them with --trusted")
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.core.plan import parse_sets, plan
    from ostiary.scan.calibration import calibrate

    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    with call.options() as options:
        trusted = common.open_trusted(o["trusted"], o["limit"], call["seed"])
        planned = plan("scan", methods=o["methods"], preset=call["preset"], params=parse_sets(o["sets"]))
        reference, left = calibrate(
            [Path(model) for model in models],
            lambda path: common.open_model(str(path), call["device"], **how),
            trusted,
            Path(o["out"]),
            planned,
            options,
        )
    for one in left:
        click.echo(one_line(f"left out: {one.name}: {one.reason}"))
    click.echo("\n".join(one_line(line) for line in _summary(reference, [m.card.id for m in planned], o["out"])))
    sys.exit(3 if left else 0)


def _adapters(call: common.Call, folders: tuple[str, ...], **o: Any) -> int:
    """Make or extend a bank of adapters; the exit code."""
    from ostiary.core.reference import LEAST_MODELS
    from ostiary.core.seal import close_seal

    close_seal()
    from ostiary.scan.adapter_bank import furthest, make_bank

    used = ("base", "out")
    given = [key for key, value in o.items() if key not in (*used, *call.values) and value not in (None, ())]
    if given:
        option = {"sets": "set", "methods": "method"}.get(given[0], given[0].rstrip("_"))
        raise ConfigError(f"adapters are measured by their weights alone, without --{option}", hint="leave it out")
    with call.options() as options:
        base = common.open_base(o["base"], call["device"])
        bank, left = make_bank([Path(folder) for folder in folders], base, Path(o["out"]), options)
    lines = [f"left out: {one.name}: {one.reason}" for one in left]
    count = len(bank.adapters)
    lines.append(f"bank of {count} adapters of {base.name}")
    if count < LEAST_MODELS:
        lines.append(f"{LEAST_MODELS} of one rank, on the same layers, are needed before a scan can use it")
    if told := [f"{name} ({one.distance:.1f}, most in {one.layer})" for name, one in furthest(bank)[:3]]:
        lines.append(f"furthest from the others: {', '.join(told)}")
    click.echo("\n".join(one_line(line) for line in (*lines, f"wrote {o['out']}")))
    return 3 if left else 0


def _summary(reference: "Reference", methods: "Sequence[str]", out: str) -> list[str]:
    from ostiary.core.reference import ALPHA, LEAST_DISTANCE, LEAST_MODELS, Null

    count = len(reference.models)
    lines = [f"reference {reference.id}: {count} models of {reference.arch}, {len(reference.classes)} classes"]
    if count < LEAST_MODELS:
        return [*lines, f"{LEAST_MODELS - count} more are needed before a scan can use it", f"wrote {out}"]
    null = Null(reference, methods, reference.classes)
    strange = sorted(zip(null.statistics, reference.models, strict=True), key=lambda pair: -pair[0])[:3]
    lines.append(
        f"judged by one another, {null.false_positives} would be findings, at p <= {ALPHA} and z >= {LEAST_DISTANCE}"
    )
    lines.append("strangest: " + ", ".join(f"{model.name} (z {z:.1f})" for z, model in strange))
    return [*lines, f"wrote {out}"]
