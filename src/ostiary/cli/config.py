"""`ostiary config show`."""

import json
from typing import Any

import click

from ostiary.cli import common, settings

EPILOG = """\b
Examples:
  ostiary config show
  OSTIARY_SEED=7 ostiary config show
  ostiary config show --json

A flag wins over the environment (OSTIARY_SEED), that over ostiary.toml or [tool.ostiary] in pyproject.toml.
"""


@click.group("config", epilog=EPILOG)
def command() -> None:
    """Show settings and where each comes from."""


@command.command("show", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common.global_options()
@click.pass_context
def show(ctx: click.Context, /, as_json: bool, **o: Any) -> None:
    """Print every setting with its value and origin."""
    found = common.found_settings(ctx, **o)
    if as_json:
        click.echo(json.dumps({key: {"value": f.value, "origin": f.origin} for key, f in found.items()}, indent=2))
        return
    for key, item in found.items():
        value = "-" if item.value is None else str(item.value).lower() if isinstance(item.value, bool) else item.value
        click.echo(f"{key.replace('_', '-'):<12} {value!s:<14} {item.origin:<18} {settings.SETTINGS[key].help}")
