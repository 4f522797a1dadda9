"""A result in the form that was asked for, on stdout or in files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

if TYPE_CHECKING:
    from ostiary.core.records import Record
    from ostiary.report.outcome import Outcome, Severity

GATES = {".sarif": "sarif", ".xml": "junit"}
"""Forms for machines that gate, by suffix."""
KINDS = {".json": "json", **GATES}
FORMS = ("text", *KINDS.values())
"""What is no record is told in these."""
KINDS_HELP = "Write it to a file: .json, .sarif or .xml (JUnit)."
LOWEST: "dict[str, Severity]" = {"note": "note", "suspect": "warning", "backdoor": "error"}
"""What a level is called there."""


class Told(Protocol):
    """A decision, or another record without methods."""

    def to_json(self) -> str:
        """It as JSON."""
        ...


T = TypeVar("T", bound=Told)


def in_form(found: T, form: str, text: Callable[[T], str], outcome: Callable[[T], "Outcome"]) -> str:
    """What was found as `json`, as `text` tells it, or what `outcome` makes of it as `sarif` or `junit`."""
    if form == "json":
        return found.to_json()
    return text(found) + "\n" if form == "text" else gate_text(outcome(found), form)


def gate_text(outcome: "Outcome", form: str, fail_on: str = "suspect") -> str:
    """An outcome as `sarif` or `junit`; in the latter, findings from `fail_on` on are failures."""
    from ostiary.report import render_junit, render_sarif

    return render_sarif(outcome) if form == "sarif" else render_junit(outcome, lowest=LOWEST[fail_on])


def record_text(record: "Record", form: str, fail_on: str, *, named: bool) -> str:
    """A record as `sarif` or `junit`."""
    from ostiary.report import of_record

    return gate_text(of_record(record, named=named), form, fail_on)


def write_reports(record: "Record", paths: Sequence[Path], fail_on: str, *, named: bool) -> None:
    """Write a record's reports by suffix."""
    from ostiary.core.files import write_text
    from ostiary.core.store import read_record

    for path in paths:
        if path.suffix == ".json":
            write_text(path, record.to_json())
            continue
        if path.suffix in GATES:
            write_text(path, record_text(record, GATES[path.suffix], fail_on, named=named))
            continue
        from ostiary.report import render_markdown, write_html

        if path.suffix == ".md":
            write_text(path, render_markdown([record]))
        else:
            write_html([(record, read_record(record.id)[1])], path)


def print_record(record: "Record", form: str, fail_on: str, *, named: bool) -> None:
    """Print one record on stdout."""
    if form == "json":
        click.echo(record.to_json(), nl=False)
        return
    if form in GATES.values():
        click.echo(record_text(record, form, fail_on, named=named), nl=False)
        return
    if form == "md":
        from ostiary.report import render_markdown

        click.echo(render_markdown([record]), nl=False)
        return
    from ostiary.cli.render import render_text

    click.echo(render_text(record))
