"""Whether a BOM holds together, is about these bytes, and is still to be relied upon."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ostiary.provenance.bom.complete import Completeness, Level, completeness
from ostiary.provenance.bom.document import MODEL, ROOT, Bom, Component, bom_roots, prop, read_bom
from ostiary.provenance.bom.references import reference_reasons
from ostiary.provenance.bom.schema import moment
from ostiary.provenance.files import bad_name, shown
from ostiary.provenance.manifest import FileDigest, Manifest
from ostiary.provenance.refusal import Reason

__all__ = ["Completeness", "Level", "bom_roots", "check", "completeness", "lacking", "match_model", "read_bom"]

SIZE, EMPTY = "ostiary:size", "ostiary:emptyFolder"
"""Properties: the bytes of a file; an empty folder of a model."""
LENGTHS = {"SHA-256": 64, "SHA-384": 96, "SHA-512": 128, "SHA3-256": 64, "SHA3-384": 96, "SHA3-512": 128}
LENGTHS |= {"BLAKE2b-256": 64, "BLAKE2b-384": 96, "BLAKE2b-512": 128, "BLAKE3": 64}
LENGTHS |= {"Streebog-256": 64, "Streebog-512": 128}
WEAK = {"MD5": 32, "SHA-1": 40}
SKEW = timedelta(minutes=5)


def check(bom: Bom, *, now: datetime | None = None, where: str = "bom") -> list[Reason]:
    """Every reason not to rely on a BOM, by itself; none where it holds together.

    References (OS790 to OS792), hashes that are none, or contradict each other (OS797), evidence that has expired or
    is of the future (OS794), evidence against a claim (OS798). `now` is the moment to judge by.
    """
    reasons = reference_reasons(bom, where)
    for pointer, one in bom.components:
        reasons += _hash_reasons(pointer, one, where)
    reasons += _evidence_reasons(bom, now or datetime.now(UTC), where)
    return reasons


def match_model(bom: Bom, manifest: Manifest, where: str = "bom") -> list[Reason]:
    """Reasons (OS793) why a BOM is not about the files of a manifest in SHA-256; none where it is.

    Its own root decides; where another tool wrote no root, every file must be listed with its SHA-256.
    """
    found = [_model_reasons(one, manifest, where) for _, one in bom.models]
    if not found:
        return [Reason("OS793", where, "it lists no model")]
    return [] if [] in found else found[0]


def lacking(
    bom: Bom, level: Level, *, signed: bool = False, now: datetime | None = None, where: str = "bom"
) -> list[Reason]:
    """One reason (OS795) for each element that a level of completeness asks for and the BOM does not have.

    `signed` and `now` are those of `completeness`.
    """
    return [
        Reason("OS795", where, f"{one.cluster}: {one.name} is absent")
        for one in completeness(bom, signed=signed, now=now).absent(level)
    ]


def manifest_of(component: Component) -> Manifest | None:
    """The manifest that a model's parts tell; None where one of them has no SHA-256 or no size."""
    files = []
    for part in component.get("components", []):
        digest, size = _sha256(part), prop(part, SIZE) or ""
        if part["type"] != "file" or digest is None or not (size.isascii() and size.isdigit()):
            return None
        files.append(FileDigest(part["name"], int(size[:19]), bytes.fromhex(digest)))
    files.sort(key=lambda file: file.path.encode(errors="surrogatepass"))
    empty = [one.get("value", "") for one in component.get("properties", []) if one["name"] == EMPTY]
    return Manifest("sha256", tuple(files), tuple(sorted(empty, key=lambda name: name.encode(errors="surrogatepass"))))


def _sha256(component: Component) -> str | None:
    found = (one["content"].lower() for one in component.get("hashes", []) if one["alg"] == "SHA-256")
    return next((text for text in found if len(text) == LENGTHS["SHA-256"]), None)


def _hash_reasons(pointer: str, component: Component, where: str) -> Iterator[Reason]:
    hashes = component.get("hashes", [])
    for one in hashes:
        if len(one["content"]) != (LENGTHS | WEAK)[one["alg"]]:
            yield Reason("OS797", where, f"{pointer}: {one['content'][:20]}… is no {one['alg']}")
    if hashes and component["type"] in (MODEL, "file") and all(one["alg"] in WEAK for one in hashes):
        yield Reason("OS797", where, f"{pointer}: it has {hashes[0]['alg']} alone, which others can meet")
    if component["type"] != MODEL:
        return
    names = [part["name"] for part in component.get("components", []) if part["type"] == "file"]
    for name in names:
        if why := bad_name(name):
            yield Reason("OS797", where, f"{pointer}: the file '{shown(name)[:120]}' {why}")
    if len(set(names)) < len(names):
        yield Reason("OS797", where, f"{pointer}: it lists a file twice")
        return
    root = prop(component, ROOT)
    if root is None or not names or any(map(bad_name, names)):
        return
    told = manifest_of(component)
    if told is None or told.root.hex() != root:
        yield Reason("OS797", where, f"{pointer}: its {ROOT} is not that of the files it lists")


def _evidence_reasons(bom: Bom, now: datetime, where: str) -> Iterator[Reason]:
    declared = bom.value.get("declarations", {})
    names = {}
    for one in declared.get("evidence", []):
        name = names[one.get("bom-ref")] = str(one.get("description") or one.get("bom-ref") or "evidence")[:200]
        created, expires = moment(one.get("created")), moment(one.get("expires"))
        if expires is not None and expires <= now:
            yield Reason("OS794", where, f"{name}: it expired at {one['expires'][:40]}")
        if created is not None and created > now + SKEW:
            yield Reason("OS794", where, f"{name}: it is of {one['created'][:40]}, which is to come")
        if created is not None and expires is not None and expires <= created:
            yield Reason("OS794", where, f"{name}: it expires before it was made")
    for claim in declared.get("claims", []):
        for ref in claim.get("counterEvidence", []):
            yield Reason("OS798", where, names.get(ref, f"{ref[:120]!r}"))
    proved = {claim.get("bom-ref") for claim in declared.get("claims", []) if claim.get("counterEvidence")}
    counter = [
        ref
        for attestation in declared.get("attestations", [])
        for part in attestation.get("map", [])
        for ref in part.get("counterClaims", [])
    ]
    for ref in dict.fromkeys(counter):
        if ref not in proved:
            yield Reason("OS798", where, f"{ref[:120]!r} is a counter-claim")


def _model_reasons(component: Component, manifest: Manifest, where: str) -> list[Reason]:
    root, told = prop(component, ROOT), _files(component)
    if root is not None and root == manifest.root.hex():
        return []
    given = {file.path: file.digest.hex() for file in manifest.files}
    if len(given) == 1 and not told and (own := _sha256(component)):
        told = dict.fromkeys(given, own)
    if not told:
        return [Reason("OS793", where, "it tells no SHA-256 of the model's files")]
    found = [f"'{shown(name)}' is not in the BOM" for name in given if name not in told]
    found += [f"'{shown(name)[:200]}' is not in the model" for name in told if name not in given]
    found += [f"'{shown(name)}' has another digest" for name in given if name in told and told[name] != given[name]]
    if not found and root is not None:
        found = [f"the model's root is {manifest.root.hex()}, not {root[:64]}"]
    return [Reason("OS793", where, text) for text in found]


def _files(component: Component) -> Mapping[str, Any]:
    """The SHA-256 of each file that a model's parts name; None where a part has none."""
    return {part["name"]: _sha256(part) for part in component.get("components", []) if part["type"] == "file"}
