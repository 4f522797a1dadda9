"""Certificates that a CA one trusts issued for signing code; the chain in a signature is a way there, no more."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from ostiary.core.errors import FormatError
from ostiary.provenance.envelope import Opened, signed_by
from ostiary.provenance.keys import usable
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.trust import Identity, Trust


def certified(
    chain: Sequence[bytes], payload: bytes, signature: bytes, trust: Trust, now: datetime, where: str
) -> Mapping[str, tuple[Identity, ...]]:
    """The trusted identities whose CA certified the key that signed `payload`, by the id of that key.

    `chain` are certificates in DER, that of the signer first. There is no authority but those of the trust store.
    Raises Refused: damaged (OS721), not from a trusted authority (OS714), out of its time (OS770), not for signing
    code (OS771), of a subject that the store does not name (OS772), a signature that does not fit (OS724).
    """
    try:
        leaf, *between = [x509.load_der_x509_certificate(one) for one in chain]
        public = leaf.public_key()
        key = usable(public, where) if isinstance(public, ec.EllipticCurvePublicKey) else None
    except (ValueError, FormatError) as error:
        raise Refused([Reason("OS721", where, f"its certificate is damaged: {str(error)[:80]}")]) from error
    if key is None or not signed_by(key, Opened(payload, ((key.keyid, signature),))):
        raise Refused([Reason("OS724", where, "the signature does not fit the payload under its certificate")])
    known = trust.by_subject(_subjects(leaf))
    if not known and not trust.authorities:
        raise Refused([Reason("OS714", where, "signed under a certificate; the trust store names no authority")])
    if not known:
        subjects = ", ".join(sorted(_subjects(leaf)))[:120] or "nobody"
        raise Refused(
            [Reason("OS772", where, f"the certificate is for {subjects}, whom the trust store does not name")]
        )
    refusals = [_chain_refusal(leaf, between, trust.authorities[identity], now) for identity in known]
    good = tuple(identity for identity, reason in zip(known, refusals, strict=True) if reason is None)
    if not good:
        raise Refused([reason for reason in refusals if reason is not None])
    return {key.keyid: good}


def _chain_refusal(
    leaf: x509.Certificate, between: Sequence[x509.Certificate], authority: Sequence[x509.Certificate], now: datetime
) -> Reason | None:
    """Why a certificate is not one of `authority` for signing code at `now`; None when it is."""
    end = verification.ExtensionPolicy.permit_all().require_present(
        x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, _signs_code
    )
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(authority)))
        .time(now)
        .extension_policies(ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=end)
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, list(between))
    except verification.VerificationError as error:
        text = str(error)
        code = "OS770" if "not valid at validation time" in text else "OS771" if "2.5.29.37" in text else "OS714"
        code = "OS771" if _NO_CODE in text else code
        return Reason(code, "certificate", text.partition(" (encountered")[0][:160])
    return None


_NO_CODE = "not for signing code"


def _signs_code(
    policy: verification.Policy, certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None
) -> None:
    if usage is None or ExtendedKeyUsageOID.CODE_SIGNING not in list(usage):
        raise ValueError(_NO_CODE)


def _subjects(leaf: x509.Certificate) -> frozenset[str]:
    """The names that a certificate is for: those of its alternative names, else its common name."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        kinds = (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName)
        names = [str(name) for kind in kinds for name in found.get_values_for_type(kind)]
    except (x509.ExtensionNotFound, ValueError):
        names = [str(one.value) for one in leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return frozenset(names)
