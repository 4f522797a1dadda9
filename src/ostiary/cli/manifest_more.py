"""`ostiary manifest prove`, `check-proof`, `trained` and `index`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostiary.cli import common
from ostiary.cli.key import open_private
from ostiary.core.errors import ConfigError
from ostiary.core.text import one_line

if TYPE_CHECKING:
    from ostiary.provenance.samples.statements import Link

PROVE = """\b
Examples:
  ostiary manifest prove train.manifest cat/0001.png -o proof.json
  ostiary manifest prove train.manifest train:17 -o proof.json
  ostiary manifest prove reviews.manifest row-3 -o proof.json

The proof shows that the sample is in the set to whoever knows the set's root, without the other samples.
"""

CHECK = """\b
Examples:
  ostiary manifest check-proof proof.json --signature train.manifest.sig --trust owner.pub
  ostiary manifest check-proof proof.json --root ROOT
  ostiary manifest check-proof proof.json --signature train.manifest.sig --trust trust.toml

The root must come from somebody you trust: from what the data owner signed, or by hand.
"""

TRAINED = """\b
Examples:
  ostiary manifest trained model/ --data train.manifest --key release.key -o model.trained
  ostiary manifest trained adapter/ --base model/ --data talks.manifest --key release.key -o adapter.trained
  ostiary manifest trained merged/ --base model/ --base adapter/ --key release.key -o merged.trained
  ostiary manifest trained model/ --data train=ROOT --seed 7 --recipe "16 epochs" --key release.key -o model.trained

Add it to an index, and `ostiary impact` finds the model from any of these sets, and from their sources.
"""

INDEX = """\b
Examples:
  ostiary manifest index train.manifest.sig train.manifest model.trained --trust trust.toml
  ostiary manifest index *.trained --trust trust.toml --index lineage
  ostiary manifest index train.manifest.sig --trust owner.pub

Statements are kept once enough trusted identities signed them: data owners of sets, producers of trainings. Give the
manifest of a set, too, so that `ostiary trace` finds its samples.
"""


@click.command("prove", epilog=PROVE)
@click.argument("manifest")
@click.argument("sample")
@click.option("-o", "out", required=True, metavar="FILE", help="Where the proof goes.")
@common.global_options()
@click.pass_context
def prove(ctx: click.Context, /, manifest: str, sample: str, out: str, **o: Any) -> None:
    """Write the proof that the sample with the id SAMPLE is in the set of MANIFEST."""
    common.call_settings(ctx, **o)
    common.check_outputs(out)
    from ostiary.core.files import write_text
    from ostiary.provenance.samples import proof

    found = proof.prove(manifest, sample)
    write_text(Path(out), found.to_json())
    click.echo(f"wrote {out}   root {found.root}")


@click.command("check-proof", epilog=CHECK)
@click.argument("proof")
@click.option("--root", metavar="HEX", help="The root of the set, as its owner told it.")
@click.option("--signature", metavar="FILE", help="What the data owner signed; needs --trust.")
@click.option("--trust", metavar="FILE", help="A public key, or a trust store in TOML.")
@click.option("--pin", metavar="SHA256", help="The digest that the trust store must have.")
@common.global_options()
@click.pass_context
def check_proof(ctx: click.Context, /, proof: str, root: str | None, **o: Any) -> None:
    """Check that PROOF shows its sample to be in a set whose root is known."""
    common.call_settings(ctx, **o)
    signature, trust = o["signature"], o["trust"]
    if (root is None) == (signature is None) or (signature is None) != (trust is None):
        raise ConfigError("a proof needs a root that you trust", hint="give --root, or --signature with --trust")
    from ostiary.provenance.files import read_small
    from ostiary.provenance.samples import proof as proofs
    from ostiary.provenance.samples.statements import hear_set
    from ostiary.provenance.trust import read_trust
    from ostiary.provenance.verify import read_signature

    where = Path(proof).name
    found = proofs.read_proof(read_small(Path(proof), proofs.MAX_PROOF), where)
    if root is None:
        root = hear_set(read_signature(signature), read_trust(trust, pin=o["pin"]), Path(signature).name).root
    proofs.check_proof(found, root.lower(), where)
    sample = found.sample
    label = "no label" if sample.label is None else f"label {sample.label}"
    click.echo(one_line(f"in the set  {sample.id}   {label}, from {sample.source}, content {sample.content}"))


@click.command("trained", epilog=TRAINED)
@click.argument("model")
@click.option("--data", "sets", multiple=True, metavar="MANIFEST|NAME=ROOT", help="A set it learnt from (repeatable).")
@click.option("--base", "bases", multiple=True, metavar="PATH|NAME=ROOT", help="A model it began with (repeatable).")
@click.option("--name", metavar="NAME", help="Name of the model.  [default: that of MODEL]")
@click.option("--recipe", metavar="TEXT", help="How it was trained, in a line.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The seed of the training.")
@click.option("--key", "keys", multiple=True, required=True, metavar="FILE", help="A private key (repeatable).")
@click.option("-o", "out", required=True, metavar="FILE", help="Where the statement goes.")
@common.global_options()
@click.pass_context
def trained(ctx: click.Context, /, model: str, out: str, keys: tuple[str, ...], **o: Any) -> None:
    """Sign what MODEL, a file or folder, was trained on and began with."""
    common.call_settings(ctx, **o)
    common.check_outputs(out)
    from ostiary.core.files import write_text
    from ostiary.provenance.envelope import sign
    from ostiary.provenance.manifest import digest
    from ostiary.provenance.samples.statements import state_training

    signers = [open_private(key) for key in keys]
    sets, bases = [set_link(one) for one in o["sets"]], [model_link(one) for one in o["bases"]]
    name, root = o["name"] or Path(model).resolve().name, digest(model).root.hex()
    payload = state_training(name, root, data=sets, bases=bases, recipe=o["recipe"], seed=o["seed"])
    write_text(Path(out), sign(payload, signers).to_json().decode() + "\n")
    click.echo(f"wrote {out}   model root {root}")


def set_link(text: str) -> "Link":
    """The set that a manifest is of, or that NAME=ROOT names."""
    from ostiary.provenance.samples.manifest import SampleManifest
    from ostiary.provenance.samples.statements import Link

    if (named := named_root(text)) is not None:
        return named
    summary = SampleManifest(text).summary()
    return Link(name=summary.head.name, root=summary.root.hex())


def model_link(text: str) -> "Link":
    """The model at a path, or that NAME=ROOT names."""
    from ostiary.provenance.manifest import digest
    from ostiary.provenance.samples.statements import Link

    if (named := named_root(text)) is not None:
        return named
    return Link(name=Path(text).resolve().name, root=digest(text).root.hex())


def named_root(text: str) -> "Link | None":
    """What NAME=ROOT says; None for a path."""
    from pydantic import ValidationError

    from ostiary.provenance.samples.statements import Link

    name, _, root = text.rpartition("=")
    if not name or Path(text).exists():
        return None
    try:
        return Link(name=name, root=root)
    except ValidationError:
        raise ConfigError(f"{text[:200]!a} is neither a path nor NAME=ROOT", hint="a root is 64 hex digits") from None


@click.command("index", epilog=INDEX)
@click.argument("files", nargs=-1, required=True)
@click.option("--trust", required=True, metavar="FILE", help="A public key, or a trust store in TOML.")
@click.option("--pin", metavar="SHA256", help="The digest that the trust store must have.")
@click.option("--index", "folder", metavar="DIR", help="Folder of the index.  [default: in OSTIARY_STATE]")
@common.global_options()
@click.pass_context
def index(ctx: click.Context, /, files: tuple[str, ...], trust: str, **o: Any) -> None:
    """Add signed statements, and manifests of the sets they are about, to the index of this machine."""
    call = common.call_settings(ctx, **o)
    from ostiary.provenance.refusal import Reason, Refused
    from ostiary.provenance.samples.index import Index
    from ostiary.provenance.samples.manifest import is_manifest
    from ostiary.provenance.trust import read_trust
    from ostiary.provenance.verify import read_signature

    known, kept = read_trust(trust, pin=o["pin"]), Index(o["folder"])
    refused: list[Reason] = []
    # Statements first: a manifest is kept only where one is about it.
    for file in sorted(files, key=is_manifest):
        where = Path(file).name
        try:
            if is_manifest(file):
                summary = kept.add_manifest(file, known)
                said = f"{summary.head.count} samples of {summary.head.name}"
            else:
                found = kept.add_statement(read_signature(file), known, where)
                said = f"{type(found.what).__name__} {found.what.name}, by {', '.join(found.by)}"
        except Refused as error:
            refused += error.reasons
            continue
        click.echo(one_line(f"added  {file}   {said}"))
    for reason in refused:
        click.echo(one_line(f"{reason}"))
    if refused:
        call.note(f"{len(refused)} refused; the others were added")
    sys.exit(1 if refused else 0)
