"""`ostiary attest`."""

from pathlib import Path
from typing import Any

import click

from ostiary.cli import common
from ostiary.cli.key import open_private
from ostiary.cli.sign import check_outside

EPILOG = """\b
Examples:
  ostiary attest model.safetensors --record 1a2b3c4d --key scanner.key -o model.safetensors.scan
  ostiary attest model/ --record ostiary-runs/20270101T120000Z-scan-1a2b3c4d --key scanner.key -o model.scan --days 30
  ostiary attest adapter/ --base base-model/ --record 1a2b3c4d --key scanner.key -o adapter.scan
  ostiary attest model/ --record 1a2b3c4d --key scanner.key -o model.svr --form svr
  ostiary attest model/ --bom model.cdx.json --key release.key -o model.bom

The model is read and held against the record first: what is signed was found in these very bytes. Adverse results are
stated like others. --form svr and test-result are the same for engines that know no predicate of ours; of a scan that
found something there is no svr.
"""


@click.command("attest", epilog=EPILOG)
@click.argument("model")
@click.option("--record", metavar="RUN", help="The record of its scan: a run id, a folder or a record.json.")
@click.option("--bom", metavar="FILE", help="Sign this bill of materials for it instead.")
@click.option("--key", "keys", multiple=True, required=True, metavar="FILE", help="Private key (repeatable).")
@click.option("-o", "out", required=True, metavar="FILE", help="Where the statement goes; beside it as MODEL.scan.")
@click.option("--name", metavar="NAME", help="Name of the model.  [default: that of MODEL]")
@click.option("--base", metavar="DIR", help="The model that MODEL, an adapter, was scanned on.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Days until it expires.  [default: 90]")
@click.option("--form", type=click.Choice(["scan", "svr", "test-result"]), help="Predicate.  [default: scan]")
@common.model_options
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, model: str, keys: tuple[str, ...], out: str, **o: Any) -> None:
    """State, with a signature and an end, what a scan of MODEL found or what it was built from."""
    common.call_settings(ctx, **o)
    common.check_outputs(out)
    check_outside(out, model)
    _check_fitting(o)
    from ostiary.core.files import write_text

    signers = [open_private(key) for key in keys]
    made = _bom(model, o, signers) if o["bom"] else _scan(model, o, signers)
    write_text(Path(out), made.to_json().decode() + "\n")
    click.echo(f"wrote {out}")


def _check_fitting(o: dict[str, Any]) -> None:
    from ostiary.core.errors import ConfigError

    if (o["record"] is None) == (o["bom"] is None):
        raise ConfigError("nothing to state, or two things", hint="give --record RUN, or --bom FILE")
    extra = [f"--{key.rstrip('_')}" for key in ("base", "days", "form", *_HOW) if o[key] is not None]
    if o["bom"] and extra:
        raise ConfigError(f"{' and '.join(extra)} say nothing of a bill of materials", hint="leave them out")


_HOW = ("arch", "classes", "width", "normalize", "input_")


def _scan(model: str, o: dict[str, Any], signers: list[Any]) -> Any:
    from ostiary.core.store import read_record
    from ostiary.models.text_folder import is_text_classifier_folder, load_text_classifier
    from ostiary.provenance.attest import attest_scan
    from ostiary.provenance.scanned import EXPIRES_DAYS

    how = {key: o[key] for key in _HOW}

    def opener(path: Path, base: Path | None) -> Any:
        if base is not None:
            return common.open_adapter(str(path), str(base), "cpu", **how)
        if is_text_classifier_folder(path):
            return load_text_classifier(path)
        return common.open_model(str(path), "cpu", gradients=False, **how)

    record, _ = read_record(o["record"])
    form: Any = o["form"] or "scan"
    days = EXPIRES_DAYS if o["days"] is None else o["days"]
    return attest_scan(model, record, signers, opener, name=o["name"], base=o["base"], form=form, days=days)


def _bom(model: str, o: dict[str, Any], signers: list[Any]) -> Any:
    from ostiary.provenance.bill import attest_bom
    from ostiary.provenance.bom.document import MAX_BOM
    from ostiary.provenance.files import read_small

    file = Path(o["bom"])
    return attest_bom(model, read_small(file, MAX_BOM), signers, name=o["name"], where=file.name)
