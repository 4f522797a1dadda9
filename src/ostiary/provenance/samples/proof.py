"""Proofs that a sample is in a set, which whoever knows the root of the set checks without the set."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ostiary.core.errors import DataError
from ostiary.core.records import Frozen
from ostiary.provenance import strict
from ostiary.provenance.envelope import first_error
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.samples.leaf import (
    MAX_ID,
    MAX_NAME,
    Kind,
    Sample,
    Tree,
    beside,
    leaf_of,
    odd,
    parent,
    root_of,
)
from ostiary.provenance.samples.manifest import SampleManifest, Summary, leaf_maker

MAX_PROOF = 2**20


class ProvedSample(Frozen):
    """The sample that a proof is about."""

    id: Annotated[str, Field(min_length=1, max_length=MAX_ID)]
    content: strict.Hex
    label: Annotated[str, Field(min_length=1, max_length=MAX_NAME)] | None
    source: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


class Proof(Frozen):
    """An audit path as in RFC 6962: the hashes beside the way from a leaf up to the root of `count` samples."""

    format: Literal["ostiary sample proof 1"] = "ostiary sample proof 1"
    kind: Kind
    sample: ProvedSample
    index: Annotated[int, Field(ge=0, lt=2**40)]
    count: Annotated[int, Field(ge=1, le=2**40)]
    path: Annotated[tuple[strict.Hex, ...], Field(max_length=64)]
    root: strict.Hex

    def to_json(self) -> str:
        """The proof as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def prove(path: Path | str, identity: str) -> Proof:
    """The proof that the sample with this id is in the set of a manifest, which is read twice.

    Raises DataError when there is no such sample, and as `SampleManifest.records`.
    """
    manifest = SampleManifest(path)
    found: list[tuple[int, Sample]] = []
    summaries: list[Summary] = []
    for at, sample in enumerate(manifest.samples(done=summaries.append)):
        if sample.id == identity:
            found.append((at, sample))
    if not found:
        raise DataError(f"'{manifest.where}' has no sample {identity[:80]!a}", hint="`ostiary trace` finds ids")
    ((index, sample),) = found
    hashes = _hashes(manifest, index)
    stated = ProvedSample(id=sample.id, content=sample.content.hex(), label=sample.label, source=sample.source or "")
    proof = Proof(
        kind=manifest.head.kind,
        sample=stated,
        index=index,
        count=manifest.head.count,
        path=tuple(one.hex() for one in hashes),
        root=summaries[0].root.hex(),
    )
    check_proof(proof, proof.root, manifest.where)
    return proof


def read_proof(data: bytes, where: str) -> Proof:
    """A proof as it stands in a file. Raises Refused: JSON (OS720 to OS722), no proof (OS759)."""
    strict.parse(data, where, limit=MAX_PROOF)
    try:
        found = Proof.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise Refused([Reason("OS759", where, f"it is no proof: {first_error(error)}")]) from error
    for text, limit in (
        (found.sample.id, MAX_ID),
        (found.sample.label or "-", MAX_NAME),
        (found.sample.source, MAX_NAME),
    ):
        if problem := odd(text, limit):
            raise Refused([Reason("OS759", where, f"it is no proof: {problem}")])
    return found


def check_proof(proof: Proof, root: str, where: str) -> None:
    """Check that a proof leads from its sample to `root`, which must be known from elsewhere.

    Raises Refused (OS759) when it leads to another root, or nowhere.
    """
    sample = Sample(proof.sample.id, bytes.fromhex(proof.sample.content), proof.sample.label, proof.sample.source)
    reason = "its path does not lead to its root"
    if proof.index < proof.count:
        way = list(beside(proof.index, proof.count))
        node = leaf_of(proof.kind, sample)
        for (_, _, left), other in zip(way, proof.path, strict=False):
            node = parent(bytes.fromhex(other), node) if left else parent(node, bytes.fromhex(other))
        if len(way) == len(proof.path) and root_of(proof.count, node).hex() == proof.root:
            if proof.root == root:
                return
            reason = f"it is of the set {proof.root[:12]}, not {root[:12]}"
    raise Refused([Reason("OS759", where, reason)], hint="ask for a proof of the set that was signed")


def _hashes(manifest: SampleManifest, index: int) -> list[bytes]:
    """The hashes of the subtrees beside a leaf, from the leaf up, in one pass over the manifest."""
    way = list(beside(index, manifest.head.count))
    trees = {span: Tree() for span in way}
    spans = sorted(way)
    leaf, at = leaf_maker(manifest.head), 0
    for number, record in enumerate(manifest.records()):
        if at < len(spans) and number >= spans[at][1]:
            at += 1
        if at < len(spans) and spans[at][0] <= number < spans[at][1]:
            trees[spans[at]].add(leaf(record))
    return [trees[span].hash() for span in way]
