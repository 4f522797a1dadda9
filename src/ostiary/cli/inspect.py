"""`ostiary inspect`."""

import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common
from ostiary.cli.output import FORMS, KINDS, KINDS_HELP, in_form
from ostiary.core.files import write_text
from ostiary.core.text import one_line

if TYPE_CHECKING:
    from ostiary.provenance.decision import Ground
    from ostiary.provenance.inspection import InspectedFile, Inspections
    from ostiary.report import Outcome

EPILOG = """\b
Examples:
  ostiary inspect model.safetensors
  ostiary inspect checkpoint.pt other.pt --format json
  ostiary inspect model/ --report inspect.sarif
  ostiary inspect model/ --format junit

An allowlist: a file passes when every byte of it is of a kind that weights consist of. Exit code 1 and every reason
for what does not, and for formats that cannot be looked at; 3 where a folder holds no weights at all. That a file
passes says nothing of what its weights do: that is what `ostiary scan` looks for.
"""


@click.command("inspect", epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--format", "form", type=click.Choice(FORMS), default="text", help="Form on stdout.")
@click.option("--report", "reports", multiple=True, metavar="FILE", help=KINDS_HELP)
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, paths: tuple[str, ...], **o: Any) -> None:
    """Say what is in files of weights, without running any of it.

    PATH is a file, or a folder, of which everything that is weights by its bytes or its name is looked at.
    """
    common.call_settings(ctx, **o)
    reports = common.check_reports(o["reports"], kinds=KINDS)
    from ostiary.provenance.inspection import inspect_paths

    found = inspect_paths(paths).model_copy(update={"command": ("ostiary", *sys.argv[1:])})
    for report in reports:
        write_text(report, in_form(found, KINDS[report.suffix], text_of, outcome_of))
    click.echo(in_form(found, o["form"], text_of, outcome_of), nl=False)
    sys.exit({"allowed": 0, "refused": 1, "incomplete": 3}[found.decision])


def text_of(found: "Inspections") -> str:
    """An inspection as lines for a terminal."""
    lines = []
    for file in found.files:
        lines += [f"{one.code} {file.path}: {_told(file, one)}" for one in file.reasons]
        word = "refused" if file.reasons else "allowed" if file.weights else "no weights"
        lines.append(f"{word:<10} {file.path}   {file.format}")
    if found.decision == "incomplete":
        lines.append("nothing was examined: there are no weights here")
    return "\n".join(map(one_line, lines))


def _told(file: "InspectedFile", one: "Ground") -> str:
    """A reason, with what it is about inside of the file or folder."""
    return one.message if one.subject == PurePosixPath(file.path).name else f"{one.subject}: {one.message}"


def outcome_of(found: "Inspections") -> "Outcome":
    """An inspection in the terms of SARIF and JUnit: one check for each file."""
    from ostiary.report.outcome import Check, Issue, Outcome, relative, relative_uri, unfinished
    from ostiary.report.words import show

    checks = []
    for file in found.files:
        uri = relative_uri(file.path)
        name = show(relative(file.path))
        issues = tuple(
            Issue(one.code, "error", name, show(_told(file, one)), uri, file.sha256 or "", one.subject)
            for one in file.reasons
        )
        if file.weights:
            checks.append(Check(found.kind, "ok", None, (name,), issues))
        else:
            checks.append(Check(found.kind, "skipped", f"{name} is no file of weights, and was not examined", (name,)))
    gaps = ("there are no weights here",) if found.decision == "incomplete" else ()
    first = found.files[0].path if found.files else "."
    uri = relative_uri(first)
    if gaps:
        checks.append(unfinished(found.kind, gaps, uri))
    subject = show(relative(first)) if len(found.files) == 1 else f"{len(found.files)} files"
    return Outcome(found.kind, found.ostiary, subject, uri, found.created, tuple(checks), gaps)
