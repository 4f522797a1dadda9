"""A bill of materials as a signed statement about a model, and whether it lets the model pass."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from ostiary.provenance.attested import MAX_STATEMENT, Said, heard, name_reasons, say
from ostiary.provenance.bom.check import check, lacking, match_model
from ostiary.provenance.bom.document import MODEL, ROOT, Bom, prop, read_bom
from ostiary.provenance.envelope import Opened, sign
from ostiary.provenance.files import read_small
from ostiary.provenance.manifest import Manifest, digest
from ostiary.provenance.policy import Policy
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.scanned import subject_of
from ostiary.provenance.strict import canonical
from ostiary.provenance.trust import Role

BILL = "https://cyclonedx.org/bom"
"""The predicate type that in-toto has for CycloneDX: https://github.com/in-toto/attestation."""
SIGNER: Role = "producer"
ADVERSE = "OS798"


def attest_bom(
    path: Path | str, data: bytes, keys: Sequence[CryptoSigner], *, name: str | None = None, where: str = "bom"
) -> Opened:
    """Sign a CycloneDX document as what the model at `path` was made of, once it is about these very bytes.

    Evidence against the model is signed like any other. Raises ConfigError for a name that is none, what `read_bom` and
    `digest` raise, and Refused when the document does not hold together or is about other bytes.
    """
    path = Path(path)
    bom, manifest = read_bom(data, where), digest(path)
    reasons = [one for one in check(bom, where=where) if one.code != ADVERSE]
    if reasons := reasons + match_model(bom, manifest, where):
        raise Refused(reasons, hint="make it anew with `ostiary bom make`")
    return sign(say([subject_of(manifest, name or path.resolve().name)], BILL, bom.value), keys)


def bom_reasons(
    file: Path | None,
    manifest: Manifest,
    base: str | None,
    policy: Policy,
    *,
    now: datetime,
    name: str,
    state: Path | None = None,
) -> tuple[list[Reason], list[str]]:
    """Why the bill of materials in `file` does not let the model pass, and what it says of itself where it does.

    `manifest` is that of the model in SHA-256, `base` the root of the model that it, an adapter, is loaded on, `name`
    the one under which it is to be used, for which the signer must be trusted. Raises FormatError for a file that
    cannot be read.
    """
    rules = policy.rules.bom
    if rules is None:
        return [], []
    if file is None:
        return [Reason("OS784", "model", "the policy asks for a signed bill of materials, and none is here")], []
    data, where = read_small(file, MAX_STATEMENT), file.name
    try:
        said = heard(data, policy.trust, SIGNER, [BILL], where, now=now, state=state)
        bom = read_bom(canonical(dict(said.predicate)), where)
    except Refused as error:
        return list(error.reasons), []
    reasons = name_reasons(said, policy.trust, SIGNER, name, now, where)
    reasons += _subject_reasons(said, manifest, where)
    reasons += check(bom, now=now, where=where) + match_model(bom, manifest, where)
    reasons += lacking(bom, rules.level, signed=True, now=now, where=where)
    if len(bom.models) != 1:
        text = f"it is about {len(bom.models)} models, and of which of them it tells what is not known"
        reasons.append(Reason("OS793", where, text))
    if base is not None and (told := _bases(bom)) and base not in told:
        reasons.append(Reason("OS787", where, f"it was made from {told[0][:12]}, the base at hand is {base[:12]}"))
    sets = f"{len(bom.data_sets)} data set{'s' * (len(bom.data_sets) != 1)}"
    words = f"{', '.join(said.signers)} signed it: CycloneDX {bom.version}, {sets}, {rules.level}"
    return reasons, [] if reasons else [words]


def _subject_reasons(said: Said, manifest: Manifest, where: str) -> list[Reason]:
    """A reason (OS793) where the statement around the document is about something else; other tools know no root."""
    own = subject_of(manifest, "model").digest
    if any(set(one.digest.items()) & set(own.items()) for one in said.subjects):
        return []
    return [Reason("OS793", where, "the subject of its statement has another digest than the model")]


def _bases(bom: Bom) -> list[str]:
    """The roots of the models that those of a BOM were made from at once, as far as it tells them."""
    above = (old for _, one in bom.models for old in one.get("pedigree", {}).get("ancestors", []))
    return [root for one in above if one["type"] == MODEL and (root := prop(one, ROOT))]
