"""`ostiary key`."""

import os
import sys
from typing import Any

import click

from ostiary.cli import common
from ostiary.core.errors import ConfigError

ENVIRONMENT = "OSTIARY_PASSPHRASE"

EPILOG = """\b
Examples:
  ostiary key new --out release
  ostiary key new --out release --passphrase
  ostiary key show release.pub

NAME.key signs and stays with its owner; NAME.pub is handed to those who verify, on a way that they trust.
"""


NEW = """\b
Examples:
  ostiary key new --out release
  ostiary key new --out release --passphrase
  ostiary key new --out release --kind ecdsa

ECDSA keys are for signatures in the form of OpenSSF Model Signing (`ostiary sign --oms`), which knows no Ed25519.
"""

SHOW = """\b
Examples:
  ostiary key show release.pub
  ostiary key show keys/vendor.pub
  ostiary key show ../release.pub

The id is the SHA-256 of the key; a trust store names it under `revoked`.
"""


@click.group("key", epilog=EPILOG)
def command() -> None:
    """Make and show the keys that sign models."""


@command.command("new", epilog=NEW)
@click.option("--out", "name", required=True, metavar="NAME", help="Write NAME.key and NAME.pub.")
@click.option("--kind", type=click.Choice(["ed25519", "ecdsa"]), default="ed25519", show_default=True)
@click.option("--passphrase", is_flag=True, help=f"Encrypt NAME.key; asked for, or taken from {ENVIRONMENT}.")
@common.global_options()
@click.pass_context
def new(ctx: click.Context, /, name: str, kind: Any, passphrase: bool, **o: Any) -> None:
    """Write a new pair of keys, NAME.key for its owner alone."""
    call = common.call_settings(ctx, **o)
    common.check_outputs(f"{name}.key", f"{name}.pub")
    from ostiary.provenance.keys import new_key, read_public

    secret = ask("passphrase of the new key", confirm=True) if passphrase else None
    private, public = new_key(name, kind, passphrase=secret)
    click.echo(f"{public}  {read_public(public).keyid}")
    call.note(f"wrote '{private}', which signs and is for you alone, and '{public}', which is for everybody")


@command.command("show", epilog=SHOW)
@click.argument("public")
@common.global_options()
@click.pass_context
def show(ctx: click.Context, /, public: str, **o: Any) -> None:
    """Print the id of a public key, as trust stores revoke it."""
    common.call_settings(ctx, **o)
    from ostiary.provenance.keys import read_public

    key = read_public(public)
    click.echo(f"{public}  {key.keyid}  {key.scheme}")


def ask(what: str, *, confirm: bool = False) -> bytes:
    """A passphrase from the environment, else from the terminal; raises ConfigError without either."""
    if given := os.environ.get(ENVIRONMENT):
        return given.encode()
    if not sys.stdin.isatty():
        raise ConfigError(f"no terminal to ask for the {what}", hint=f"set {ENVIRONMENT}")
    return str(click.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True)).encode()


def open_private(path: str) -> Any:
    """The signer in a private key file; a passphrase is asked for only where there is one."""
    from ostiary.provenance.keys import NeedsPassphrase, read_private

    try:
        return read_private(path)
    except NeedsPassphrase:
        return read_private(path, passphrase=ask(f"passphrase of '{path}'"))
