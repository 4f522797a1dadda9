"""`ostiary explain`."""

from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary explain OS201
  ostiary explain os902
  ostiary explain all
"""


@click.command("explain", epilog=EPILOG)
@click.argument("code")
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, code: str, **o: Any) -> None:
    """Say what a stable code means, what else can cause it and what to do; `all` lists every code."""
    common.call_settings(ctx, **o)
    from ostiary.core.codes import CODES, explain

    if code.lower() == "all":
        click.echo("\n".join(f"{entry.id}  {entry.title}" for entry in CODES.values()))
        return
    entry = explain(code)
    click.echo(f"{entry.id}  {entry.title}\n\n{entry.meaning}\n")
    click.echo(f"method        {entry.method}\nfalse alarms  {entry.false_alarms}\nnext step     {entry.next_step}")
