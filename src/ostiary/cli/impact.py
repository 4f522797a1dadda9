"""`ostiary impact`."""

import sys
from typing import Any

import click

from ostiary.cli import common
from ostiary.cli.trace import conclude, open_lineage

EPILOG = """\b
Examples:
  ostiary impact scraped-2024 --trust trust.toml
  ostiary impact ROOT --trust trust.toml
  ostiary impact scraped-2024 --trust trust.toml --format json

Models that began with one of these, adapters and merged ones too, are named with them. Only statements that are trusted
now count; exit code 3 where others leave a gap, and where nothing leads anywhere, since a name may be mistyped; 1 where
something reached is revoked or statements contradict each other.
"""


@click.command("impact", epilog=EPILOG)
@click.argument("source")
@click.option("--trust", required=True, metavar="FILE", help="A public key, or a trust store in TOML.")
@click.option("--pin", metavar="SHA256", help="The digest that the trust store must have.")
@click.option("--index", "folder", metavar="DIR", help="Folder of the index.  [default: in OSTIARY_STATE]")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Form on stdout.")
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, source: str, trust: str, form: str, **o: Any) -> None:
    """Name every model that learnt from SOURCE, which is a source, or the root of a set, a model or a sample."""
    common.call_settings(ctx, **o)
    sys.exit(conclude(open_lineage(trust, o["pin"], o["folder"]).impact(source), form))
