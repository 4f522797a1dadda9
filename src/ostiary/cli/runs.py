"""`ostiary runs`."""

import json
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary runs
  ostiary runs --json
  OSTIARY_RUNS=/data/runs ostiary runs
"""


@click.command("runs", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **o: Any) -> None:
    """List the kept runs, oldest first."""
    common.call_settings(ctx, **o)
    from ostiary.core.errors import FormatError
    from ostiary.core.store import read_record, runs_root

    rows = []
    for folder in sorted(runs_root().glob("*-*-*")):
        try:
            record, _ = read_record(folder)
        except FormatError as error:
            click.echo(f"unreadable: {error}", err=True)
            continue
        state = "interrupted" if record.interrupted else record.verdict or "-"
        rows.append({"id": record.id, "created": record.created, "kind": record.kind, "verdict": state})
        rows[-1]["subject"] = record.subject
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"no runs in '{runs_root()}'", err=True)
    for row in rows:
        click.echo(f"{row['id']}  {row['created']}  {row['kind']:<9} {row['verdict']:<12} {row['subject']}")
