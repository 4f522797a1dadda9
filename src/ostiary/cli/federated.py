"""`ostiary federated`."""

import sys
from pathlib import Path
from typing import Any

import click

from ostiary.cli import common
from ostiary.core.text import one_line

EPILOG = """\b
Examples:
  ostiary federated run study.toml -o study/
  ostiary federated run study.toml -o study/ --key server.key --keep-refused 3 --report study.html
  ostiary federated check study/ --trust server.pub
"""

RUN_EPILOG = """\b
Examples:
  ostiary federated run study.toml -o study/
  ostiary federated run study.toml -o study/ --seed 7 --report study.html
  ostiary federated run study.toml -o study/ --key server.key --keep-refused 3

CONFIG is a TOML file: the data, who trains on what, the rule that aggregates, and who attacks how; docs/federated.md
shows one. DIR gets `global.safetensors`, which `ostiary scan` takes, one statement for each round in `rounds/`, signed
where there is a key, and with --keep-refused models of refused replies in `refused/`.
"""

CHECK_EPILOG = """\b
Examples:
  ostiary federated check study/ --trust server.pub
  ostiary federated check study/ --trust trust.toml --pin SHA256
  ostiary federated check study/ --trust trust.toml --format json

Each statement in `rounds/` must be signed by a producer that is trusted, follow the one before without a gap, and begin
with the model that it left; as many as were planned must be there, and the tensors in `global.safetensors` be those
that the last round left. Where no number was planned, or that file is not there, the last line says so and the exit
code is 3. What else is in the file's header (names of classes, normalisation, architecture) is not covered: sign the
file with `ostiary sign` for that.
"""


@click.group("federated", epilog=EPILOG)
@common.global_options()
def command(**_: Any) -> None:
    """Try rules of federated learning against clients that attack."""


@command.command("run", epilog=RUN_EPILOG)
@click.argument("config")
@click.option("-o", "out", metavar="DIR", required=True, help="Where models and statements go.")
@click.option("--key", "keys", multiple=True, metavar="FILE", help="Private key that signs each round (repeatable).")
@click.option("--keep-refused", type=click.IntRange(min=0), default=0, help="Keep so many models of refused replies.")
@common.output_options()
@common.run_options()
@click.pass_context
def run(ctx: click.Context, /, config: str, out: str, keys: tuple[str, ...], keep_refused: int, **o: Any) -> None:
    """Run the federation that CONFIG describes, in one process, and measure every round."""
    call = common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"], out)
    from ostiary.bench.federation import run_federation
    from ostiary.bench.federation_settings import read_settings
    from ostiary.bench.grid import data_path
    from ostiary.cli.key import open_private

    path = Path(config)
    settings = read_settings(path)
    signers = [open_private(key) for key in keys]
    with call.options() as options:
        record = run_federation(
            settings, data_path(settings.data, path), Path(out), signers=signers, keep=keep_refused, options=options
        )
    sys.exit(common.conclude(record, call, reports=reports, exit_zero=o["exit_zero"], named=True))


@command.command("check", epilog=CHECK_EPILOG)
@click.argument("folder")
@click.option("--trust", required=True, metavar="FILE", help="A public key, or a trust store in TOML.")
@click.option("--pin", metavar="SHA256", help="The digest that the trust store must have.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Form on stdout.")
@common.global_options()
def check(folder: str, trust: str, pin: str | None, form: str, **_: Any) -> None:
    """Check the signed rounds in FOLDER, one after the other, and say whom they refused."""
    import json

    from ostiary.federated.record import read_rounds, read_tensors
    from ostiary.provenance.trust import read_trust

    last = Path(folder) / "global.safetensors"
    tensors = read_tensors(last) if last.exists() else None
    rounds = read_rounds(Path(folder) / "rounds", read_trust(trust, pin=pin), tensors)
    missing = [] if rounds[0].planned else ["no number of rounds was planned: later ones may be missing"]
    missing += ["no global.safetensors here"] if tensors is None else []
    if form == "json":
        click.echo(json.dumps([one.model_dump(mode="json") for one in rounds], indent=2))
    else:
        for one in rounds:
            for client in one.clients:
                if not client.accepted:
                    click.echo(one_line(f"round {one.round}  {client.code} {client.client}: {client.reason}"))
    text = f"{len(rounds)} rounds, signed and without a gap"
    click.echo("; ".join([text, *(missing or ["the last left global.safetensors"])]), err=form == "json")
    sys.exit(3 if missing else 0)
