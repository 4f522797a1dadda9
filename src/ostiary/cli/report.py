"""`ostiary report`."""

from pathlib import Path
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary report 3f9a12cd -o report.html
  ostiary report ostiary-runs/20260101T120000Z-scan-3f9a12cd -o report.md
  ostiary report 3f9a12cd 77b0c1e2 -o comparison.html --no-samples

RUN is an id, a run folder or a record.json. Several become a comparison. The page needs no network and no JavaScript.
"""


@click.command("report", epilog=EPILOG)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("-o", "out", metavar="FILE", required=True, help="The report: .html or .md.")
@click.option("--no-samples", is_flag=True, help="Keep pictures of the data out.")
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, runs: tuple[str, ...], out: str, no_samples: bool, **o: Any) -> None:
    """Render kept records as one file."""
    common.call_settings(ctx, **o)
    common.check_outputs(out)
    from ostiary.core.errors import ConfigError
    from ostiary.core.files import write_text
    from ostiary.core.store import read_record
    from ostiary.report import render_markdown, write_html

    path = Path(out)
    records = [read_record(run) for run in runs]
    if path.suffix == ".md":
        write_text(path, render_markdown([record for record, _ in records]))
    elif path.suffix == ".html":
        write_html(records, path, samples=not no_samples)
    else:
        raise ConfigError(f"'{out}' is no kind of report", hint="name it with .html or .md")
    click.echo(f"wrote {path}")
