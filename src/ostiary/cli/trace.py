"""`ostiary trace`."""

import sys
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common
from ostiary.core.errors import ConfigError
from ostiary.core.text import one_line

if TYPE_CHECKING:
    from ostiary.provenance.samples.lineage import Answer, Lineage

EPILOG = """\b
Examples:
  ostiary trace train:17 --trust trust.toml
  ostiary trace suspicious.png --trust trust.toml --format json
  ostiary trace cat/0001.png --trust trust.toml --index lineage
  ostiary trace --rebuild --trust trust.toml

A sample is its id, the SHA-256 of its content, or a file with these bytes. Only statements that are trusted now count;
exit code 3 where others, or manifests that are not there, leave a gap, and where nothing leads anywhere, since a name
may be mistyped; 1 where something reached is revoked or statements contradict each other.
"""


@click.command("trace", epilog=EPILOG)
@click.argument("sample", required=False)
@click.option("--trust", required=True, metavar="FILE", help="A public key, or a trust store in TOML.")
@click.option("--pin", metavar="SHA256", help="The digest that the trust store must have.")
@click.option("--index", "folder", metavar="DIR", help="Folder of the index.  [default: in OSTIARY_STATE]")
@click.option("--rebuild", is_flag=True, help="Make the databases of the index anew first.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Form on stdout.")
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, sample: str | None, trust: str, rebuild: bool, form: str, **o: Any) -> None:
    """Say which sources, sets and models SAMPLE is in."""
    call = common.call_settings(ctx, **o)
    if sample is None and not rebuild:
        raise ConfigError("nothing to trace", hint="give an id, a digest or a file, or --rebuild")
    if rebuild:
        from ostiary.provenance.samples.index import Index

        call.note(f"made the databases of {len(Index(o['folder']).rebuild())} sets anew")
    lineage = open_lineage(trust, o["pin"], o["folder"])
    if sample is None:
        for reason in lineage.known.uncounted:
            click.echo(one_line(f"not covered  {reason}"))
        sys.exit(3 if lineage.known.uncounted else 0)
    code = conclude(lineage.trace(sample), form)
    for root in lineage.index.mended:
        call.note(f"the database of the set {root[:12]} was damaged or missing; it was made again from its manifest")
    sys.exit(code)


def open_lineage(trust: str, pin: str | None, folder: str | None) -> "Lineage":
    """The graph that trusted statements in an index make."""
    from ostiary.provenance.samples.index import Index
    from ostiary.provenance.samples.lineage import Lineage
    from ostiary.provenance.trust import read_trust

    return Lineage(Index(folder), read_trust(trust, pin=pin))


def conclude(answer: "Answer", form: str) -> int:
    """Print an answer and give the exit code: 1 for reasons, 3 for gaps or where nothing is known; 1 dominates."""
    if form == "json":
        import json
        from dataclasses import asdict

        click.echo(json.dumps(asdict(answer), indent=2, ensure_ascii=True))
    else:
        click.echo("\n".join(map(one_line, lines_of(answer))))
    known = answer.places or answer.sets or answer.models
    return 1 if answer.reasons else 3 if answer.missing or not known else 0


def lines_of(answer: "Answer") -> list[str]:
    """An answer as lines for a terminal."""
    lines = [
        f"sample  {one.id}   in {one.set}, from {one.source}, "
        f"{'no label' if one.label is None else f'label {one.label}'}, content {one.content[:12]}"
        for one in answer.places
    ]
    lines += [f"set     {one.name}   root {one.root}" for one in answer.sets]
    lines += [
        f"model   {one.name}   root {one.root}, through {', '.join(one.through)}, said by {', '.join(one.by)}"
        for one in answer.models
    ]
    lines += [str(reason) for reason in answer.reasons]
    lines += [f"not covered  {one}" for one in answer.missing]
    if not answer.sets and not answer.models:
        lines.append(f"nothing in the index leads from {answer.asked} to a set or a model")
    if answer.missing:
        lines.append("the answer is not complete")
    return lines
