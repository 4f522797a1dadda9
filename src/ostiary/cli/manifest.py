"""`ostiary manifest`: making, checking and comparing manifests of data sets."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common
from ostiary.cli.key import open_private
from ostiary.cli.manifest_more import check_proof, index, prove, trained
from ostiary.cli.progress import Progress, wants_bar
from ostiary.core.errors import ConfigError
from ostiary.core.text import one_line

if TYPE_CHECKING:
    from ostiary.provenance.samples.compare import Change
    from ostiary.provenance.samples.manifest import Summary
    from ostiary.provenance.samples.near import Near
    from ostiary.provenance.samples.reading import Reading

SHOWN = 50
"""Differences and groups that are told one by one as text; all are counted, and JSON holds all."""
MANY = 100_000
"""Reading fewer samples than these takes no time worth a bar."""

EPILOG = """\b
Examples:
  ostiary manifest make train/ -o train.manifest --key owner.key
  ostiary manifest verify train/ train.manifest --signature train.manifest.sig --trust owner.pub
  ostiary manifest diff old.manifest new.manifest
  ostiary manifest prove train.manifest cat/0001.png -o proof.json

A manifest names every sample by id, content digest, label and source, under one root. `ostiary trace` and
`ostiary impact` ask what was signed about sets and models.
"""

MAKE = """\b
Examples:
  ostiary manifest make train/ -o train.manifest
  ostiary manifest make train.parquet -o train.manifest --source-field origin --key owner.key
  ostiary manifest make reviews.jsonl -o reviews.manifest --name reviews --set-version 3 --source shop
  ostiary manifest make train.parquet -o train.manifest --croissant train.json

With --key the statement of the data owner goes to FILE.sig. A set in another order has the same root. Samples without a
label are named as such; a damaged sample, or an id that names two, ends it.
"""

VERIFY = """\b
Examples:
  ostiary manifest verify train/ train.manifest
  ostiary manifest verify train/ train.manifest --signature train.manifest.sig --trust owner.pub
  ostiary manifest verify train/ train.manifest --format json

Exit code 1 and every sample that differs. Without --signature the set is held against the manifest alone, whoever
wrote it.
"""

DIFF = """\b
Examples:
  ostiary manifest diff old.manifest new.manifest
  ostiary manifest diff old.manifest new.manifest --format json
  ostiary manifest diff vendor.manifest mine.manifest -q

Exit code 1 where anything differs: added, removed, altered (content), relabelled, moved (from another source).
"""

REPORT = """\b
Examples:
  ostiary manifest report train.manifest
  ostiary manifest report train.manifest --format json
  ostiary manifest report train.manifest --near train.jsonl

Conflicts are samples of one content with two labels (exit code 1), duplicates those with one. Nearly equal are texts
that share four fifths of their sequences of three words; they change no exit code.
"""


@click.group("manifest", epilog=EPILOG)
def command() -> None:
    """Say what a data set holds, sample by sample, and hold data against it."""


FORMAT = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Form on stdout.")


@command.command("make", epilog=MAKE)
@click.argument("data")
@click.option("-o", "out", required=True, metavar="FILE", help="Where the manifest goes.")
@click.option("--name", metavar="NAME", help="Name of the set.  [default: that of DATA]")
@click.option(
    "--set-version", type=click.IntRange(min=0), metavar="N", help="Counts up with each release; needs --key."
)
@click.option("--part", type=click.Choice(["train", "test"]), default="train", show_default=True, help="Which part.")
@click.option("--source", metavar="NAME", help="Where all samples come from.  [default: the name of the set]")
@click.option("--source-field", metavar="COLUMN", help="Column of a table that says it for each sample.")
@click.option("--key", "keys", multiple=True, metavar="FILE", help="Sign with this private key (repeatable).")
@click.option("--croissant", metavar="FILE", help="Describe the set as Croissant JSON-LD, too.")
@common.global_options()
@click.pass_context
def make(ctx: click.Context, /, data: str, out: str, keys: tuple[str, ...], **o: Any) -> None:
    """Write the manifest of DATA, a data set as `ostiary screen` takes it or a Croissant description."""
    call = common.call_settings(ctx, **o)
    signature = f"{out}.sig" if keys else None
    common.check_outputs(out, signature, o["croissant"])
    if o["source"] is not None and o["source_field"] is not None:
        raise ConfigError("--source and --source-field say it twice", hint="leave one out")
    if o["set_version"] is not None and not keys:
        raise ConfigError("--set-version is a part of what is signed", hint="give --key")
    from ostiary.core.files import write_text
    from ostiary.provenance.samples.manifest import about_set, write_manifest
    from ostiary.provenance.samples.reading import read_samples

    signers = [open_private(key) for key in keys]
    reading = read_samples(data, o["part"], source=o["source"], source_field=o["source_field"])
    about = about_set(o["name"] or reading.name, reading.kind, o["part"], o["source_field"])
    with counting(call) as hear:
        summary = write_manifest(out, about, reading.samples, on_sample=hear)
    if signature:
        from ostiary.provenance.envelope import sign
        from ostiary.provenance.samples.statements import state_set

        payload = state_set(summary, version=o["set_version"])
        write_text(Path(signature), sign(payload, signers).to_json().decode() + "\n")
    if o["croissant"]:
        describe(Path(o["croissant"]), summary, reading, Path(out))
    unlabelled = summary.head.count - sum(summary.labels.values())
    if unlabelled and reading.kind != "talk":
        call.note(f"{unlabelled} of {summary.head.count} samples have no label")
    click.echo(
        f"wrote {out}{f' and {signature}' if signature else ''}   {summary.head.count} samples, "
        f"{len(summary.labels)} labels, {len(summary.sources)} source{'s' * (len(summary.sources) != 1)}\n"
        f"  root {summary.root.hex()}"
    )


def describe(out: Path, summary: "Summary", reading: "Reading", manifest: Path) -> None:
    """Write the Croissant description of a set."""
    import json

    from ostiary.core.files import write_text
    from ostiary.provenance.samples.croissant_write import described

    value = described(out, summary, reading, manifest)
    write_text(out, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@command.command("verify", epilog=VERIFY)
@click.argument("data")
@click.argument("manifest")
@click.option("--signature", metavar="FILE", help="What the data owner signed; needs --trust.")
@click.option("--trust", metavar="FILE", help="A public key, or a trust store in TOML.")
@click.option("--pin", metavar="SHA256", help="The digest that the trust store must have.")
@FORMAT
@common.global_options()
@click.pass_context
def verify(ctx: click.Context, /, data: str, manifest: str, **o: Any) -> None:
    """Check that DATA holds exactly the samples that MANIFEST names."""
    call = common.call_settings(ctx, **o)
    check_pair(o["signature"], o["trust"])
    from ostiary.provenance.refusal import Reason, Refused
    from ostiary.provenance.samples.compare import against_data
    from ostiary.provenance.samples.manifest import SampleManifest

    signers: tuple[str, ...] = ()
    reasons: list[Reason] = []
    summaries: list[Summary] = []
    try:
        sheet = SampleManifest(manifest)
        with counting(call) as hear:
            changes = against_data(sheet, data, on_sample=hear, done=summaries.append)
            reasons = [change.reason() for change in changes]
        if o["signature"]:
            signers = stated_by(o["signature"], o["trust"], o["pin"], summaries[0])
    except Refused as error:
        reasons += error.reasons
    found = {
        "decision": "refused" if reasons else "unchanged",
        "manifest": Path(manifest).name,
        "name": summaries[0].head.name if summaries else None,
        "root": summaries[0].root.hex() if summaries else None,
        "samples": summaries[0].head.count if summaries else None,
        "signers": list(signers),
        "reasons": [{"code": one.code, "subject": one.subject, "message": one.message} for one in reasons],
    }
    if o["form"] == "json":
        print_json(found)
    elif reasons:
        told(map(str, reasons), len(reasons))
        click.echo(one_line(f"refused  {data}   (`ostiary explain {reasons[0].code}` says what to do)"))
    else:
        by = f"signed by {', '.join(signers)}" if signers else "whose signature was not looked at"
        click.echo(one_line(f"unchanged  {data}   {found['samples']} samples as in {found['manifest']}, {by}"))
        click.echo(f"  root {found['root']}\na manifest proves unchanged; it does not prove that no sample is poisoned")
    sys.exit(1 if reasons else 0)


def stated_by(signature: str, trust: str, pin: str | None, summary: "Summary") -> tuple[str, ...]:
    """Who signed what a manifest comes to. Raises Refused."""
    from ostiary.provenance.samples.statements import check_stated, hear_set
    from ostiary.provenance.trust import read_trust
    from ostiary.provenance.verify import read_signature

    said = hear_set(read_signature(signature), read_trust(trust, pin=pin), Path(signature).name)
    check_stated(said, summary, "manifest")
    return said.by


@command.command("diff", epilog=DIFF)
@click.argument("before")
@click.argument("after")
@FORMAT
@common.global_options()
@click.pass_context
def diff(ctx: click.Context, /, before: str, after: str, form: str, **o: Any) -> None:
    """Say what differs from the manifest BEFORE to the manifest AFTER."""
    common.call_settings(ctx, **o)
    from dataclasses import asdict

    from ostiary.provenance.samples.compare import differences
    from ostiary.provenance.samples.manifest import SampleManifest

    found = list(differences(SampleManifest(before), SampleManifest(after)))
    counts = Counter(one.what for one in found)
    if form == "json":
        print_json({"counts": dict(sorted(counts.items())), "changes": [asdict(one) for one in found]})
    else:
        told(map(line_of, found), len(found))
        said = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        click.echo(said or "no sample differs")
    sys.exit(1 if found else 0)


@command.command("report", epilog=REPORT)
@click.argument("manifest")
@click.option("--near", metavar="FILE", help="Also list texts of FILE that are nearly equal; a file of any size.")
@FORMAT
@common.global_options()
@click.pass_context
def report(ctx: click.Context, /, manifest: str, near: str | None, form: str, **o: Any) -> None:
    """List the contents that more than one sample of MANIFEST has."""
    call = common.call_settings(ctx, **o)
    from ostiary.provenance.samples.compare import repeated
    from ostiary.provenance.samples.manifest import SampleManifest

    groups = list(repeated(SampleManifest(manifest)))
    conflicts = [one for one in groups if one.conflict]
    duplicates = [one for one in groups if not one.conflict]
    alike = [] if near is None else _near(near, call)
    if form == "json":
        rows: dict[str, Any] = {
            name: [{"content": one.content, "samples": [list(pair) for pair in one.samples]} for one in some]
            for name, some in (("conflicts", conflicts), ("duplicates", duplicates))
        }
        if near is not None:
            rows["near"] = [{"alike": one.alike, "samples": [list(pair) for pair in one.samples]} for one in alike]
        print_json(rows)
    else:
        for name, some in (("conflict", conflicts), ("duplicate", duplicates)):
            rows_ = (f"{name}  {one.content[:12]}  {_named(one.samples)}" for one in some)
            told(rows_, len(some))
        told((f"near       {one.alike:.0%} alike  {_named(one.samples)}: {one.text}" for one in alike), len(alike))
        click.echo(f"{len(conflicts)} contents with more than one label, {len(duplicates)} with one label, repeated")
        if near is not None:
            click.echo(f"{len(alike)} groups of texts that are nearly equal")
    sys.exit(1 if conflicts else 0)


def _named(samples: Sequence[tuple[str, str | None]]) -> str:
    """Ids with their labels."""
    return ", ".join(f"{identity} ({'no label' if label is None else label})" for identity, label in samples)


def _near(path: str, call: common.Call) -> "list[Near]":
    """The groups of nearly equal texts in a file; what could not be read of it is told."""
    from ostiary.data.text_files import is_texts
    from ostiary.provenance.samples.near import Counts, near_groups

    if not Path(path).is_file() or not is_texts(Path(path)):
        raise ConfigError(f"--near takes a file of texts, not '{path}'", hint="name the .jsonl, .csv or Parquet file")
    counts = Counts()
    found = list(near_groups(Path(path), counts))
    if counts.damaged:
        call.note(f"{counts.damaged} rows of {path} could not be read and were left out")
    return found


def line_of(change: "Change") -> str:
    """A difference as a line."""
    return f"{change.what:<10}  {change.id}  {change}"


def told(lines: Iterator[str], count: int) -> None:
    """Print the first of some lines, and how many are left."""
    for line in islice(lines, SHOWN):
        click.echo(one_line(line))
    if count > SHOWN:
        click.echo(f"and {count - SHOWN} more; --format json names all")


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=True))


def check_pair(signature: str | None, trust: str | None) -> None:
    """Raises ConfigError for a signature without trust, or trust without a signature."""
    if (signature is None) != (trust is None):
        raise ConfigError("--signature and --trust go together", hint="give both, or none")


@contextmanager
def counting(call: common.Call) -> Iterator[Callable[[int], None]]:
    """What counts samples as they are read, shown for as long as the block runs once they are many."""
    done = 0
    bar = wants_bar(call["no_progress"], bool(os.environ.get("CI")))
    with Progress(quiet=call["quiet"], bar=bar, times=call["verbose"]) as progress:

        def hear(more: int) -> None:
            nonlocal done
            done += more
            if done >= MANY:
                progress(done, done, "reading samples")

        yield hear


for more in (prove, check_proof, trained, index):
    command.add_command(more)
