"""`ostiary bom`."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common
from ostiary.cli.reading import reading
from ostiary.core.errors import ConfigError
from ostiary.core.text import one_line

if TYPE_CHECKING:
    from ostiary.provenance.bom.complete import Completeness
    from ostiary.provenance.bom.document import Bom
    from ostiary.provenance.refusal import Reason

EPOCH = "SOURCE_DATE_EPOCH"
MOST = 50

EPILOG = """\b
Examples:
  ostiary bom make model/ --card card.toml --record 3f9a12cd -o model.cdx.json
  ostiary bom check model.cdx.json --model model/ --level minimum
  ostiary bom diff old.cdx.json model.cdx.json

A bill of materials says what a model was made of, how it was examined, and what nobody told. It is CycloneDX JSON that
other tools read, and is checked without network.
"""

MAKE = """\b
Examples:
  ostiary bom make model.safetensors -o model.cdx.json
  ostiary bom make model/ --card card.toml --record 3f9a12cd --record 77b0c1e2 -o model.cdx.json
  ostiary bom make tuned/ --base base-model/ --data chats=chats.manifest --environment -o tuned.cdx.json
  ostiary bom make tuned/ --base llama@9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 -o t.cdx.json
  ostiary bom make model/ --format spdx --created 2026-01-01T00:00:00Z -o model.spdx.json

Records of scans, repairs, evaluations and trainings must be of this very model, or of how it came to be; for that the
model is loaded, with the options that it was examined with. What no file tells (author, licence, purpose) stands in the
card. Same inputs and same --created (or SOURCE_DATE_EPOCH): same bytes.
"""

CHECK = """\b
Examples:
  ostiary bom check model.cdx.json
  ostiary bom check model.cdx.json --model model/
  ostiary bom check model.cdx.json --model model/ --level full --format json

Exit code 1 and every reason: what the official schema does not allow, references that lead nowhere, hashes of other
bytes, evidence that has expired or speaks against the model, elements that the level asks for. A BOM proves nothing by
itself; it is as good as whoever signed it.
"""

DIFF = """\b
Examples:
  ostiary bom diff old.cdx.json new.cdx.json
  ostiary bom diff old.cdx.json new.cdx.json --format json
  ostiary bom diff vendor-1.cdx.json vendor-2.cdx.json --color never

Exit code 0 when they say the same, 1 with every difference: parts, data sets, hashes, metrics, verdicts, licences.
Serial number and time are left out.
"""

VIEW = """\b
Examples:
  ostiary bom view model.cdx.json
  ostiary bom view vendor.cdx.json
  ostiary bom view model.cdx.json --color never
"""


@click.group("bom", epilog=EPILOG)
def command() -> None:
    """Make, check, compare and show bills of materials of models."""


@command.command("make", epilog=MAKE)
@click.argument("model")
@click.option("-o", "out", required=True, metavar="FILE", help="The BOM, outside of MODEL.")
@click.option("--format", "form", type=click.Choice(["cyclonedx", "spdx"]), default="cyclonedx", show_default=True)
@click.option("--spec", type=click.Choice(["1.6", "1.7"]), default="1.6", show_default=True, help="Of CycloneDX.")
@click.option("--card", metavar="FILE", help="What no file tells, in TOML: author, licence, purpose, limits.")
@click.option("--base", "bases", multiple=True, metavar="PATH|NAME@ROOT", help="What it was made from (repeatable).")
@click.option("--adapter", "adapters", multiple=True, metavar="PATH|NAME@ROOT", help="Merged into it (repeatable).")
@click.option("--data", "data", multiple=True, metavar="NAME=FILE|ROOT", help="A data set's manifest (repeatable).")
@click.option("--record", "records", multiple=True, metavar="RECORD", help="Of this model; id or file (repeatable).")
@click.option(
    "--evidence-days", type=click.IntRange(1, 36500), default=90, show_default=True, help="How long it counts."
)
@click.option("--attestation", "attestations", multiple=True, metavar="FILE", help="A signed statement (repeatable).")
@click.option("--environment", is_flag=True, help="List the Python packages that are installed here.")
@click.option("--created", metavar="TIME", help=f"Time of the BOM, RFC 3339.  [default: {EPOCH}, else now]")
@common.model_options
@common.global_options()
@click.pass_context
def make(ctx: click.Context, /, model: str, **o: Any) -> None:
    """Write the bill of materials of MODEL, a file or a folder."""
    call = common.call_settings(ctx, **o)
    from ostiary.cli.sign import check_outside
    from ostiary.core.files import write_text
    from ostiary.core.store import read_record
    from ostiary.provenance.bom.card import ModelCardFile, read_card
    from ostiary.provenance.bom.cyclonedx import Facts, make_bom, to_bytes
    from ostiary.provenance.bom.environment import libraries
    from ostiary.provenance.bom.evidence import bind
    from ostiary.provenance.bom.facts import Beside, describe, read_ancestor, read_attestation, read_data
    from ostiary.provenance.bom.spdx import to_spdx

    common.check_outputs(o["out"])
    check_outside(o["out"], model)
    created = created_at(o["created"])
    card = read_card(o["card"]) if o["card"] else ModelCardFile()
    data = tuple(read_data(text) for text in o["data"])
    given = [read_record(one)[0] for one in o["records"]]
    with reading(call, model) as on_bytes:
        facts = describe(model, on_bytes=on_bytes)
    root = facts.manifest.root.hex()
    weights = loaded_digest(model, o) if given else None
    ancestors = [read_ancestor(role, one) for role in ("base", "adapter") for one in o[f"{role}s"]]
    beside = Beside(
        ancestors=tuple(ancestors),
        data=data,
        attestations=tuple(read_attestation(one, root) for one in o["attestations"]),
        libraries=libraries() if o["environment"] else (),
    )
    records = bind(given, weights) if weights else ()
    known = Facts(facts, beside, card, created, records, weights, o["evidence_days"])
    made = make_bom(known, o["spec"])
    write_text(Path(o["out"]), (to_spdx(made) if o["form"] == "spdx" else to_bytes(made)).decode())
    click.echo(f"wrote {o['out']}")
    if not given:
        call.note("no --record was given: the BOM tells of no examination for backdoors")


@command.command("check", epilog=CHECK)
@click.argument("file")
@click.option("--model", metavar="PATH", help="The model that it must be about.")
@click.option("--level", type=click.Choice(["minimum", "full"]), help="Completeness that it must have.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Form on stdout.")
@common.global_options()
@click.pass_context
def check(ctx: click.Context, /, file: str, model: str | None, level: Any, form: str, **o: Any) -> None:
    """Check that FILE, a CycloneDX BOM, is valid, whole, in time, and about the model."""
    call = common.call_settings(ctx, **o)
    from ostiary.provenance.bom import check as checks
    from ostiary.provenance.manifest import digest
    from ostiary.provenance.refusal import Refused

    data = read(file)
    try:
        bom = checks.read_bom(data, Path(file).name)
        reasons = checks.check(bom, where=Path(file).name)
        if model is not None:
            with reading(call, model) as on_bytes:
                reasons += checks.match_model(bom, digest(model, on_bytes=on_bytes), Path(file).name)
        if level is not None:
            reasons += checks.lacking(bom, level, where=Path(file).name)
    except Refused as error:
        bom, reasons = None, list(error.reasons)
    whole = None if bom is None else checks.completeness(bom)
    click.echo(json_of(bom, whole, reasons) if form == "json" else text_of(file, bom, whole, reasons))
    sys.exit(1 if reasons else 0)


@command.command("diff", epilog=DIFF)
@click.argument("old")
@click.argument("new")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Form on stdout.")
@common.global_options()
@click.pass_context
def diff(ctx: click.Context, /, old: str, new: str, form: str, **o: Any) -> None:
    """Print what differs between two CycloneDX BOMs."""
    common.call_settings(ctx, **o)
    from ostiary.provenance.bom.diff import diff as differences
    from ostiary.provenance.bom.document import read_bom

    found = differences(*(read_bom(read(one), one) for one in (old, new)))
    if form == "json":
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        for one in found:
            values = [text for text in (one.before, one.after) if text is not None]
            click.echo(one_line(f"{one.kind:<8} {one.section:<12} {one.where}: {' -> '.join(values)}"))
        click.echo(f"{len(found)} difference{'s' * (len(found) != 1)}")
    sys.exit(1 if found else 0)


@command.command("view", epilog=VIEW)
@click.argument("file")
@common.global_options()
@click.pass_context
def view(ctx: click.Context, /, file: str, **o: Any) -> None:
    """Print FILE, a CycloneDX BOM, for people to read."""
    common.call_settings(ctx, **o)
    from ostiary.provenance.bom.document import read_bom
    from ostiary.provenance.bom.view import lines_of

    for line in lines_of(read_bom(read(file), Path(file).name)):
        click.echo(one_line(line))


def read(file: str) -> bytes:
    """The bytes of a BOM's file, as far as the limit for one; raises FormatError when it cannot be read."""
    from ostiary.provenance.bom.document import MAX_BOM
    from ostiary.provenance.files import read_small

    return read_small(Path(file), MAX_BOM)


def created_at(text: str | None) -> str:
    """The time of a BOM in UTC: the one given, else that of the environment for repeatable builds, else now."""
    from ostiary.provenance.bom.schema import moment

    found = datetime.now(UTC)
    epoch = os.environ.get(EPOCH)
    if text is not None:
        told = moment(text)
        if told is None:
            raise ConfigError(f"--created takes a time with its zone, not '{text}'", hint="as 2026-01-01T00:00:00Z")
        found = told.astimezone(UTC)
    elif epoch is not None:
        if not (epoch.isascii() and epoch.isdigit() and len(epoch) < 12):
            raise ConfigError(f"{EPOCH} holds '{epoch}', which is no number of seconds", hint="unset it, or correct it")
        found = datetime.fromtimestamp(int(epoch), UTC)
    return found.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def loaded_digest(model: str, o: dict[str, Any]) -> str:
    """The digest that records have of a model, for which it must be loaded as it was for them."""
    from ostiary.models.adapter import is_adapter_folder
    from ostiary.models.text_folder import is_text_classifier_folder, load_text_classifier

    how = {key: o[key] for key in ("arch", "classes", "width", "normalize", "input_")}
    if is_adapter_folder(Path(model)):
        if len(o["bases"]) != 1:
            raise ConfigError("records of an adapter are of it on its base", hint="give that base's folder with --base")
        return str(common.open_adapter(model, o["bases"][0], "cpu", **how).digest)
    if is_text_classifier_folder(Path(model)):
        return str(load_text_classifier(model).digest)
    return str(common.open_model(model, "cpu", gradients=False, **how).digest)


def text_of(file: str, bom: "Bom | None", whole: "Completeness | None", reasons: "Sequence[Reason]") -> str:
    """What a check found, as lines for a terminal."""
    lines = [f"{one.code} {one.subject}: {one.message}" for one in reasons[:MOST]]
    if len(reasons) > MOST:
        lines.append(f"and {len(reasons) - MOST} more reasons (--format json tells all)")
    if whole is not None:
        for cluster in dict.fromkeys(one.cluster for one in whole.elements):
            rows = [one for one in whole.elements if one.cluster == cluster]
            absent = [one.name for one in rows if one.where is None]
            told = f"absent: {', '.join(absent)}" if absent else "all present"
            lines.append(f"  {cluster:<15} {len(rows) - len(absent):>2} of {len(rows):>2}  {told}")
        lines.append(f"  level           {whole.level or 'below minimum'}")
    if reasons:
        lines.append(f"refused  {file}   (`ostiary explain {reasons[0].code}` says what to do)")
    elif bom is not None:
        lines.append(
            f"valid    {file}   CycloneDX {bom.version}; a BOM says what its author says, and is not proof of it"
        )
    return "\n".join(map(one_line, lines))


def json_of(bom: "Bom | None", whole: "Completeness | None", reasons: "Sequence[Reason]") -> str:
    """What a check found, as JSON."""
    from ostiary.provenance.bom.document import bom_roots

    found = {
        "valid": not reasons,
        "reasons": [asdict(one) for one in reasons],
        "sha256": None if bom is None else bom.sha256,
        "roots": [] if bom is None else list(bom_roots(bom)),
        "level": None if whole is None else whole.level,
        "elements": [] if whole is None else [asdict(one) for one in whole.elements],
    }
    return json.dumps(found, indent=2)
