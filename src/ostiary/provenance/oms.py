"""Signatures of OpenSSF Model Signing v1.0, read and written: sigstore bundles around in-toto statements.

https://github.com/ossf/model-signing-spec. Stricter than the specification: what a signer ignored is not ignored here,
links are not followed, the older predicate is refused, and every file must be in the manifest. Of its two ways to list
files only `files` is read, not `shards`.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from ostiary.core.errors import ConfigError
from ostiary.provenance import strict
from ostiary.provenance.certificates import certified
from ostiary.provenance.envelope import (
    MAX_ENVELOPE,
    PAYLOAD_TYPE,
    Opened,
    decoded,
    encoded,
    first_error,
    sign,
    signed_by,
)
from ostiary.provenance.keys import public_pem
from ostiary.provenance.manifest import FileDigest, Manifest
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.statement import STATEMENT, Claim, is_digest, name_reasons
from ostiary.provenance.trust import Identity, Trust

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE = "https://model_signing/signature/v1.0"


class _Open(BaseModel):
    """Base of parts in which the specification lets readers pass over what they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Raw(_Open):
    rawBytes: str  # noqa: N815 - the specification's name


class _PublicKey(_Open):
    hint: str | None = None
    rawBytes: str | None = None  # noqa: N815


class _Chain(_Open):
    certificates: Annotated[list[_Raw], Field(min_length=1, max_length=16)]


class _Material(_Open):
    publicKey: _PublicKey | None = None  # noqa: N815
    x509CertificateChain: _Chain | None = None  # noqa: N815
    certificate: _Raw | None = None
    tlogEntries: list[Any] = []  # noqa: N815


class _Signature(_Open):
    sig: str
    keyid: str | None = None


class _Envelope(_Open):
    payload: str
    payloadType: str  # noqa: N815
    signatures: Annotated[list[_Signature], Field(max_length=1)]


class _Bundle(_Open):
    mediaType: Annotated[str, Field(pattern=r"^application/vnd\.dev\.sigstore\.bundle")]  # noqa: N815
    verificationMaterial: _Material  # noqa: N815
    dsseEnvelope: _Envelope  # noqa: N815


class _Resource(_Open):
    name: Annotated[str, Field(max_length=4096)]
    digest: str
    algorithm: str


class _Serialization(_Open):
    method: str
    hash_type: str
    allow_symlinks: bool
    ignore_paths: list[str] = []


class _Predicate(_Open):
    resources: Annotated[list[_Resource], Field(min_length=1)]
    serialization: _Serialization


class _Subject(_Open):
    name: str
    digest: dict[str, str]


class _Statement(_Open):
    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[list[_Subject], Field(min_length=1, max_length=1)]
    predicate: _Predicate


def prove_bundle(
    data: bytes, trust: Trust, now: datetime, where: str
) -> tuple[Claim, Mapping[str, tuple[Identity, ...]]]:
    """What a bundle claims, and whom of those in `trust` it is proved to be from.

    Raises Refused: as for envelopes and statements (OS720 to OS732), and OS713 to OS716 and OS770 to OS774 for what
    only certificates and sigstore can lack.
    """
    try:
        bundle = _Bundle.model_validate(strict.parse(data, where, limit=MAX_ENVELOPE))
    except ValidationError as error:
        raise Refused([Reason("OS721", where, f"it is no bundle: {first_error(error)}")]) from error
    envelope = bundle.dsseEnvelope
    if envelope.payloadType != PAYLOAD_TYPE:
        raise Refused([Reason("OS723", where, f"its payload is of type {envelope.payloadType[:80]!r}")])
    if not envelope.signatures:
        raise Refused([Reason("OS726", where, "it holds no signature")])
    payload, signature = decoded(envelope.payload, where), decoded(envelope.signatures[0].sig, where)
    material = bundle.verificationMaterial
    given = [material.publicKey, material.x509CertificateChain, material.certificate]
    if sum(one is not None for one in given) != 1:
        raise Refused([Reason("OS721", where, "it names not exactly one key, chain or certificate")])
    if material.publicKey is not None:
        by = _by_key(material.publicKey, payload, signature, trust, where)
    elif material.x509CertificateChain is not None:
        chain = [decoded(one.rawBytes, where) for one in material.x509CertificateChain.certificates]
        by = certified(chain, payload, signature, trust, now, where)
    else:
        from ostiary.provenance.keyless import keyless

        by = keyless(data, payload, trust, where)
    return _claim(payload, where), by


def oms_bundle(manifest: Manifest, name: str, key: CryptoSigner) -> bytes:
    """A bundle that signs a manifest with an ECDSA key. Raises ConfigError for other keys: OMS knows no Ed25519."""
    public = _curve(key.public_key)
    if public is None:
        raise ConfigError("OpenSSF Model Signing takes ECDSA keys alone", hint="`ostiary key new --kind ecdsa`")
    resources = [
        {"name": file.path, "digest": file.digest.hex(), "algorithm": manifest.algorithm} for file in manifest.files
    ]
    serialization: dict[str, Any] = {
        "method": "files",
        "hash_type": manifest.algorithm,
        "allow_symlinks": False,
        "ignore_paths": [],
    }
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": manifest.oms_root.hex()}}],
        "predicateType": PREDICATE,
        "predicate": {"resources": resources, "serialization": serialization},
    }
    made = sign(strict.canonical(statement), [key])
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _hint(public)}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": encoded(made.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": encoded(made.signatures[0][1]), "keyid": ""}],
        },
    }
    return strict.canonical(bundle)


def _by_key(
    given: _PublicKey, payload: bytes, signature: bytes, trust: Trust, where: str
) -> Mapping[str, tuple[Identity, ...]]:
    """Whose of the trusted ECDSA keys signed; the key inside a bundle of an older form is never used."""
    curves = {key: public for key, known in trust.keys.items() if (public := _curve(known)) is not None}
    meant = [key for key, public in curves.items() if not given.hint or _hint(public) == given.hint]
    if not meant:
        raise Refused([Reason("OS725", where, f"no trusted key signed it; signed by {(given.hint or '?')[:12]}")])
    for key in meant:
        if signed_by(trust.keys[key], Opened(payload, ((key, signature),))):
            return {key: trust.identities[key]}
    raise Refused([Reason("OS724", where, "the signature does not fit the payload under any key that it may be of")])


def _claim(payload: bytes, where: str) -> Claim:
    value = strict.parse(payload, where, limit=MAX_ENVELOPE)
    if isinstance(value, dict) and value.get("predicateType") != PREDICATE:
        raise Refused([Reason("OS729", where, f"it says {str(value.get('predicateType'))[:80]!r}, not {PREDICATE!r}")])
    try:
        found = _Statement.model_validate(value)
    except ValidationError as error:
        raise Refused([Reason("OS730", where, f"it is no statement of version 1: {first_error(error)}")]) from error
    predicate, subject = found.predicate, found.subject[0]
    form, algorithm = predicate.serialization, predicate.serialization.hash_type
    if form.method != "files" or form.allow_symlinks:
        what = "with symbolic links followed" if form.allow_symlinks else f"by {form.method[:20]!r}"
        raise Refused([Reason("OS713", where, f"its files are listed {what}, which is not read here")])
    if algorithm not in ("sha256", "blake3") or any(
        one.algorithm != algorithm or not is_digest(one.digest) for one in predicate.resources
    ):
        raise Refused(
            [Reason("OS731", where, f"its digests are of {algorithm[:20]!r} or not written as 64 hex digits")]
        )
    names = [one.name for one in predicate.resources]
    # Specified as the order of code points, which is that of the bytes of UTF-8.
    if names != sorted(set(names)):
        raise Refused([Reason("OS732", where, "it names a file twice, or not in the order of names")])
    if reasons := name_reasons(names):
        raise Refused(reasons)
    files = tuple(FileDigest(one.name, -1, bytes.fromhex(one.digest)) for one in predicate.resources)
    manifest = Manifest(algorithm, files)  # type: ignore[arg-type]
    if subject.digest != {"sha256": manifest.oms_root.hex()}:
        raise Refused([Reason("OS711", where, "its root is not that of the files that it names")])
    return Claim(subject.name, manifest, bound=False)


def _curve(key: SSlibKey) -> ec.EllipticCurvePublicKey | None:
    if key.keytype != "ecdsa":
        return None
    public = load_pem_public_key(key.keyval["public"].encode())
    return public if isinstance(public, ec.EllipticCurvePublicKey) else None


def _hint(public: ec.EllipticCurvePublicKey) -> str:
    return hashlib.sha256(public_pem(public).encode()).hexdigest()
