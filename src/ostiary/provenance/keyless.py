"""Keyless signatures of sigstore, checked offline with a trust configuration that is on this machine."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ostiary.core.errors import MissingExtra
from ostiary.provenance.keys import key_id
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.trust import Identity, Trust


def keyless(data: bytes, payload: bytes, trust: Trust, where: str) -> Mapping[str, tuple[Identity, ...]]:
    """The trusted identities, by subject and sign-in service, that `payload`, as we read it from a bundle, is from.

    The sigstore package reads the bundle for itself; what it verified must be what was read here, or one reader could
    be shown what the other never verified.

    Time comes from the transparency log in the bundle. The trust configuration is the store's `sigstore`, else that
    which comes with the sigstore package; nothing is fetched.

    Raises Refused: nobody with a sign-in service in the trust store (OS725), no entry of a log (OS773), other subjects
    or services (OS772), no trust configuration (OS774), anything else that does not verify (OS724). MissingExtra
    without sigstore.
    """
    try:
        from sigstore.errors import Error
        from sigstore.models import Bundle, ClientTrustConfig
        from sigstore.verify import Verifier, policy
    except ImportError as error:
        raise MissingExtra("keyless signatures need sigstore", hint="pip install 'ostiary[sigstore]'") from error
    known = [one for one in (trust.store.identity if trust.store else ()) if one.issuer is not None]
    if not known:
        raise Refused([Reason("OS725", where, "it is keyless, and the trust store names no sign-in service")])
    if not json.loads(data)["verificationMaterial"].get("tlogEntries"):
        raise Refused([Reason("OS773", where, "no entry of a transparency log is in it")])
    with _quiet():
        try:
            config = trust.sigstore
            found = ClientTrustConfig.from_json(config) if config else ClientTrustConfig.production(offline=True)
            verifier = Verifier(trusted_root=found.trusted_root)
        except Exception as error:  # the package raises many kinds for a configuration that is missing or damaged
            raise Refused([Reason("OS774", where, f"no trust configuration: {_first_line(error)}")]) from error
        reasons = []
        for identity in known:
            try:
                bundle = Bundle.from_json(data)
                who = policy.Identity(identity=identity.subject or "", issuer=identity.issuer)
                verified = verifier.verify_dsse(bundle, who)[1]
            except (Error, ValueError) as error:
                reasons.append(Reason(_code(str(error)), where, _first_line(error)))
                continue
            if verified != payload:
                raise Refused([Reason("OS724", where, "two readers see two payloads in it")])
            fits = trust.by_subject(frozenset({identity.subject or ""}), issuer=identity.issuer)
            return {key_id(bundle.signing_certificate.public_key()): fits}
        raise Refused(reasons)


def _code(text: str) -> str:
    if "do not match" in text or "does not match (got" in text:
        return "OS772"
    if any(word in text.lower() for word in ("inclusion", "tlog", "timestamp", "checkpoint")):
        return "OS773"
    return "OS724"


def _first_line(error: Exception) -> str:
    return (str(error).partition("\n")[0] or type(error).__name__)[:160]


@contextmanager
def _quiet() -> Iterator[None]:
    """The package logs that it is offline, which is what was asked of it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
