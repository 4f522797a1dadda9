"""`ostiary sign`."""

from pathlib import Path
from typing import Any

import click

from ostiary.cli import common
from ostiary.cli.key import open_private
from ostiary.cli.reading import reading
from ostiary.core.errors import ConfigError

EPILOG = """\b
Examples:
  ostiary sign model/ --key release.key -o model.sig
  ostiary sign model.safetensors --key release.key --model-version 3 -o model.sig
  ostiary sign model/ --key second.key --add-to model.sig -o both.sig
  ostiary sign model/ --key ecdsa.key --oms -o model.oms

The signature is a DSSE envelope around an in-toto statement: every file by name, size and digest. It proves who
signed these bytes, and that they are unchanged; it does not prove that the model does no harm.
"""


@click.command("sign", epilog=EPILOG)
@click.argument("path")
@click.option("--key", "keys", multiple=True, required=True, metavar="FILE", help="A private key (repeatable).")
@click.option("-o", "out", required=True, metavar="FILE", help="Where the signature goes, outside of PATH.")
@click.option("--name", metavar="NAME", help="Name of the model.  [default: that of PATH]")
@click.option("--model-version", type=click.IntRange(min=0), metavar="N", help="Counts up with each release.")
@click.option("--algorithm", type=click.Choice(["sha256", "blake3"]), default=None, help="[default: sha256]")
@click.option("--oms", is_flag=True, help="Write a bundle of OpenSSF Model Signing; takes one ECDSA key.")
@click.option("--add-to", metavar="FILE", help="Add to the signatures in this file instead.")
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, path: str, keys: tuple[str, ...], out: str, **o: Any) -> None:
    """Sign PATH, a model's file or folder."""
    call = common.call_settings(ctx, **o)
    common.check_outputs(out)
    check_outside(out, path)
    check_fitting(keys, o)
    from ostiary.core.files import write_text
    from ostiary.provenance.sign import add_signature, sign_model, sign_oms
    from ostiary.provenance.verify import read_signature

    signers = [open_private(key) for key in keys]
    how = {"name": o["name"], "algorithm": o["algorithm"] or "sha256"}
    with reading(call, path) as on_bytes:
        if o["oms"]:
            made = sign_oms(path, signers[0], **how, on_bytes=on_bytes)
        elif o["add_to"]:
            made = add_signature(path, read_signature(o["add_to"]), signers, on_bytes=on_bytes).to_json()
        else:
            made = sign_model(path, signers, version=o["model_version"], **how, on_bytes=on_bytes).to_json()
    write_text(Path(out), made.decode() + "\n")
    click.echo(f"wrote {out}")


def check_fitting(keys: tuple[str, ...], o: dict[str, Any]) -> None:
    """Raises ConfigError for options that do not go together."""
    new = [f"--{key.replace('_', '-')}" for key in ("name", "model_version", "algorithm") if o[key] is not None]
    if o["add_to"] and new:
        raise ConfigError(f"{' and '.join(new)} stand in the statement already", hint="leave them out with --add-to")
    if o["oms"] and (o["add_to"] or o["model_version"] is not None or len(keys) > 1):
        raise ConfigError("--oms takes one key, no version and no --add-to", hint="its format has no place for them")


def check_outside(out: str, path: str) -> None:
    """Raises ConfigError for an output inside the model, where it would be a file that nobody signed."""
    if Path(out).resolve().is_relative_to(Path(path).resolve()):
        raise ConfigError(f"'{out}' lies inside of '{path}'", hint="put it beside the model")
