"""DSSE envelopes around in-toto statements: https://github.com/secure-systems-lab/dsse, protocol 1.0."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from ostiary.core.records import Frozen
from ostiary.provenance import strict
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.strict import first_error as first_error  # noqa: PLC0414 - others take it from here

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE = 512 * 2**20
"""A million files take about 200 bytes each, a third more in base64."""
MAX_SIGNATURES = 64


class _Signature(Frozen):
    keyid: Annotated[str, Field(max_length=256)] = ""
    sig: Annotated[str, Field(max_length=4096)]


class _Envelope(Frozen):
    payload: str
    payloadType: str  # noqa: N815 - the specification's name
    signatures: tuple[_Signature, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope that was read; nothing in it is to be believed before `signers` has said whose it is."""

    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    def to_json(self) -> bytes:
        """The envelope as it is written to a file."""
        return strict.canonical(
            {
                "payload": encoded(self.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"keyid": key, "sig": encoded(sig)} for key, sig in self.signatures],
            }
        )


def opened(data: bytes, where: str) -> Opened:
    """The payload and the signatures of an envelope.

    Raises Refused: no signature file worth the name (OS701), too large (OS720), not an envelope (OS721), a key twice
    in the JSON (OS722), another payload type than in-toto (OS723), no signature in it (OS726), one key twice (OS728).
    """
    if not data.strip():
        raise Refused([Reason("OS701", where, "the signature is an empty file")])
    try:
        found = _Envelope.model_validate(strict.parse(data, where, limit=MAX_ENVELOPE))
    except ValidationError as error:
        raise Refused([Reason("OS721", where, f"it is no DSSE envelope: {first_error(error)}")]) from error
    if found.payloadType != PAYLOAD_TYPE:
        raise Refused([Reason("OS723", where, f"its payload is of type {found.payloadType[:80]!r}")])
    if not found.signatures:
        raise Refused([Reason("OS726", where, "it holds no signature")])
    if len(found.signatures) > MAX_SIGNATURES:
        raise Refused([Reason("OS720", where, f"it holds more than {MAX_SIGNATURES} signatures")])
    ids = [signature.keyid for signature in found.signatures]
    if len(set(ids)) < len(ids):
        raise Refused([Reason("OS728", where, "it holds two signatures of one key")])
    pairs = tuple((signature.keyid, decoded(signature.sig, where)) for signature in found.signatures)
    return Opened(decoded(found.payload, where), pairs)


def sign(payload: bytes, keys: Sequence[CryptoSigner]) -> Opened:
    """`payload` signed by each of `keys`."""
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    for key in keys:
        envelope.sign(key)
    return Opened(payload, tuple((key, bytes.fromhex(made.signature)) for key, made in envelope.signatures.items()))


def signers(envelope: Opened, known: Mapping[str, SSlibKey], where: str) -> frozenset[str]:
    """The ids of those `known` keys that signed the payload, at least one; keys inside the envelope count for nothing.

    Raises Refused when a signature under a known key does not verify (OS724), or when no known key signed (OS725).
    """
    ours = [key for key, _ in envelope.signatures if key in known]
    if bad := [key for key in ours if not signed_by(known[key], envelope)]:
        raise Refused(
            [Reason("OS724", where, f"the signature of key {key[:12]} does not fit the payload") for key in bad]
        )
    if not ours:
        ids = ", ".join(shorten(key) for key, _ in envelope.signatures)
        raise Refused([Reason("OS725", where, f"no trusted key signed it; signed by {ids}")])
    return frozenset(ours)


def signed_by(key: SSlibKey, envelope: Opened) -> bool:
    """Whether an envelope holds a signature of `key` that fits its payload."""
    pairs = {one: Signature(one, signature.hex()) for one, signature in envelope.signatures if one == key.keyid}
    try:
        return key.keyid in Envelope(envelope.payload, PAYLOAD_TYPE, pairs).verify([key], 1)
    except (VerificationError, UnverifiedSignatureError):
        return False


def shorten(key: str) -> str:
    """The beginning of a key id that may hold anything."""
    return key[:12] if key.isascii() and key.isalnum() else "a key without an id"


def encoded(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode()


def decoded(text: str, where: str) -> bytes:
    """The bytes of a base64 text. Raises Refused (OS721) for one that is damaged or not in the standard form."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused([Reason("OS721", where, "its base64 is damaged")]) from error
    # One text for one value: bits that decoding drops would let the file differ under one signature.
    if encoded(found) != text:
        raise Refused([Reason("OS721", where, "its base64 is not in the standard form")])
    return found
