"""OpenSSF Model Signing both ways, with keys, certificates and sigstore; what other verifiers accept is refused."""

import base64
import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from signed_case import Signed, flip, make_signed

from ostiary.core.errors import ConfigError
from ostiary.provenance import oms
from ostiary.provenance.envelope import PAYLOAD_TYPE, sign
from ostiary.provenance.loader import Evidence, load_verified
from ostiary.provenance.manifest import digest
from ostiary.provenance.oms import MEDIA_TYPE, PREDICATE
from ostiary.provenance.refusal import Refused
from ostiary.provenance.sign import sign_oms
from ostiary.provenance.trust import read_trust
from ostiary.provenance.verify import prove, verify

NOW = dt.datetime.now(dt.UTC)
VECTORS = os.environ.get("OSTIARY_OMS_VECTORS")


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    """The model, with a bundle of OMS by the second key in place of its signature."""
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "state"))
    made = make_signed(tmp_path)
    made.signature.write_bytes(sign_oms(made.folder, made.keys["second"]))
    return made


def codes(signed: Signed, trust: Path | None = None, **how: Any) -> list[str]:
    try:
        verify(signed.folder, signed.signature, read_trust(trust or signed.public("second")), **how)
    except Refused as error:
        return [reason.code for reason in error.reasons]
    return []


def edit(signed: Signed, change: Callable[[dict[str, Any]], Any]) -> None:
    bundle = json.loads(signed.signature.read_bytes())
    made = change(bundle)
    signed.signature.write_bytes(made if isinstance(made, bytes) else json.dumps(bundle).encode())


def resign(signed: Signed, change: Callable[[dict[str, Any]], Any], key: str = "second") -> None:
    """Sign the statement anew with something changed in it."""

    def within(bundle: dict[str, Any]) -> None:
        envelope = bundle["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"]))
        made = change(statement)
        payload = made if isinstance(made, bytes) else json.dumps(statement).encode()
        (pair,) = sign(payload, [signed.keys[key]]).signatures
        envelope["payload"] = base64.b64encode(payload).decode()
        envelope["signatures"][0]["sig"] = base64.b64encode(pair[1]).decode()

    edit(signed, within)


def model_signing(*args: Any) -> int:
    """The exit code of the command of the model-signing package, without network."""
    pytest.importorskip("model_signing")
    call = [sys.executable, "-m", "model_signing", *map(str, args)]
    return subprocess.run(call, capture_output=True, check=False, timeout=100).returncode


def test_model_signing_verifies_what_we_sign(signed: Signed) -> None:
    call = ("verify", "key", signed.folder, "--signature", signed.signature, "--public_key", signed.public("second"))
    assert codes(signed) == [] and model_signing(*call) == 0
    flip(signed.folder / "config.json", 1)
    assert codes(signed) == ["OS707"] and model_signing(*call) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_we_verify_what_model_signing_signs(signed: Signed, inside: bool) -> None:
    """Its habit is to put the signature inside of the folder."""
    signature = signed.folder / "model.oms" if inside else signed.signature.with_name("x.oms")
    private = signed.folder.parent / "second.key"
    assert model_signing("sign", "key", signed.folder, "--private_key", private, "--signature", signature) == 0
    found = verify(signed.folder, signature, read_trust(signed.public("second")))
    assert found.signers == ("second",) and found.claim.created is None
    assert load_verified(signed.folder, signed.public("second"), evidence=Evidence(signature)).state.keys() == {
        "a.weight",
        "b.weight",
    }


def test_the_roots_agree(signed: Signed) -> None:
    hashing = pytest.importorskip("model_signing.hashing")
    manifest = hashing.Config().hash(signed.folder)
    ours = digest(signed.folder)
    theirs = {one.identifier: one.digest.digest_value for one in manifest.resource_descriptors()}
    assert theirs == {file.path: file.digest for file in ours.files}


def test_a_signer_who_leaves_the_weights_out_leaves_them_unsigned(signed: Signed) -> None:
    """model-signing accepts any weights there."""
    weights = signed.folder / "model-1.safetensors"
    private, signature = signed.folder.parent / "second.key", signed.signature.with_name("x.oms")
    call = ("sign", "key", signed.folder, "--private_key", private, "--signature", signature)
    assert model_signing(*call, "--ignore-paths", weights) == 0
    flip(weights, -1)
    public = signed.public("second")
    assert model_signing("verify", "key", signed.folder, "--signature", signature, "--public_key", public) == 0
    with pytest.raises(Refused, match=r"OS709 model-1\.safetensors"):
        verify(signed.folder, signature, read_trust(public))


def test_files_that_it_always_ignores_count(signed: Signed) -> None:
    (signed.folder / ".git").mkdir()
    (signed.folder / ".git" / "hook.py").write_text("pass")
    public = signed.public("second")
    assert model_signing("verify", "key", signed.folder, "--signature", signed.signature, "--public_key", public) == 0
    assert codes(signed) == ["OS709"] and codes(signed, ignore=[".git"]) == []


def test_ed25519_is_not_for_oms(signed: Signed) -> None:
    with pytest.raises(ConfigError, match="ECDSA keys alone"):
        sign_oms(signed.folder, signed.keys["producer"])


def resources(statement: dict[str, Any]) -> Any:
    return statement["predicate"]["resources"]


def form(statement: dict[str, Any]) -> Any:
    return statement["predicate"]["serialization"]


STATEMENTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "the older predicate": (lambda it: it.update(predicateType="https://model_signing/Digests/v0.1"), "OS729"),
    "no subject": (lambda it: it.update(subject=[]), "OS730"),
    "shards": (lambda it: form(it).update(method="shards", shard_size=10), "OS713"),
    "links followed": (lambda it: form(it).update(allow_symlinks=True), "OS713"),
    "BLAKE2": (lambda it: form(it).update(hash_type="blake2b"), "OS731"),
    "an algorithm of one file": (lambda it: resources(it)[0].update(algorithm="md5"), "OS731"),
    "an odd digest": (lambda it: resources(it)[0].update(digest="zz"), "OS731"),
    "a name twice": (lambda it: resources(it).insert(0, {**resources(it)[0], "digest": "0" * 64}), "OS732"),
    "names out of order": (lambda it: resources(it).reverse(), "OS732"),
    "a name that leads out": (lambda it: resources(it)[0].update(name="../x"), "OS703"),
    "another root": (lambda it: it["subject"][0].update(digest={"sha256": "0" * 64}), "OS711"),
    "another name": (lambda it: it["subject"][0].update(name="bert"), "OS712"),
    "nothing": (lambda it: resources(it).clear(), "OS730"),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_an_odd_statement_is_refused_though_a_trusted_key_signed_it(signed: Signed, case: str) -> None:
    change, wanted = STATEMENTS[case]
    resign(signed, lambda it: it["predicate"].update(note="readers pass over what they do not know"))
    assert codes(signed) == []
    resign(signed, change)
    assert codes(signed) == [wanted]


BUNDLES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no envelope": (lambda it: it.pop("dsseEnvelope"), "OS721"),
    "no verification material": (lambda it: it.pop("verificationMaterial"), "OS721"),
    "no key": (lambda it: it["verificationMaterial"].pop("publicKey"), "OS721"),
    "a key and a certificate": (lambda it: it["verificationMaterial"].update(certificate={"rawBytes": ""}), "OS721"),
    "another media type": (lambda it: it.update(mediaType="text/plain"), "OS721"),
    "another payload type": (lambda it: it["dsseEnvelope"].update(payloadType="x"), "OS723"),
    "no signature": (lambda it: it["dsseEnvelope"].update(signatures=[]), "OS726"),
    "a hint to another key": (lambda it: it["verificationMaterial"]["publicKey"].update(hint="0" * 64), "OS725"),
    "a key twice": (lambda it: json.dumps(it).replace("{", '{"mediaType": "x", ', 1).encode(), "OS722"),
    "another payload": (
        lambda it: it["dsseEnvelope"].update(payload=base64.b64encode(b"{}").decode()),
        "OS724",
    ),
}


@pytest.mark.parametrize("case", BUNDLES)
def test_an_odd_bundle_is_refused(signed: Signed, case: str) -> None:
    change, wanted = BUNDLES[case]
    edit(signed, lambda it: it.update(more="ignored"))
    assert codes(signed) == []
    edit(signed, change)
    assert codes(signed) == [wanted]


def test_without_a_hint_every_trusted_key_is_tried(signed: Signed) -> None:
    edit(signed, lambda it: it["verificationMaterial"].update(publicKey={"rawBytes": "AAAA"}))
    assert codes(signed) == []
    resign(signed, lambda _: None)
    assert codes(signed, signed.public("stranger")) == ["OS725"]


def test_a_store_that_asks_for_an_age_or_a_version_gets_neither_from_oms(signed: Signed) -> None:
    def with_second(text: str, version: int) -> Path:
        store = signed.store(text, version=version)
        store.write_text(store.read_text().replace("producer.pub", "second.pub"))
        return store

    assert codes(signed, with_second("", 1)) == []
    assert codes(signed, with_second("max_age_days = 9", 2)) == ["OS747"]
    assert codes(signed, with_second("floor = {model = 0}", 3)) == ["OS749"]


class Authority:
    """A CA, and the certificates it issues."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name
        self.certificate = self.issue(name, self.key, usage=None, ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CODE_SIGNING,
        email: str | None = None,
        days: tuple[float, float] = (-1, 1),
        ca: bool = False,
    ) -> x509.Certificate:
        def called(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        made = (
            x509.CertificateBuilder()
            .subject_name(called(name))
            .issuer_name(called(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + dt.timedelta(days=days[0]))
            .not_valid_after(NOW + dt.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if usage is not None:
            made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if email is not None:
            made = made.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=False)
        return made.sign(self.key, hashes.SHA256())


CA, OTHER = Authority("the CA"), Authority("another CA")
GOOD: dict[str, Any] = {"email": "ml@example.org"}
CERTIFICATES: dict[str, tuple[Authority, dict[str, Any], str]] = {
    "expired": (CA, {**GOOD, "days": (-9, -1)}, "OS770"),
    "not yet valid": (CA, {**GOOD, "days": (1, 9)}, "OS770"),
    "of a web server": (CA, {**GOOD, "usage": ExtendedKeyUsageOID.SERVER_AUTH}, "OS771"),
    "without a purpose": (CA, {**GOOD, "usage": None}, "OS771"),
    "of somebody else": (CA, {"email": "web@example.org"}, "OS772"),
    "of somebody by common name alone": (CA, {"email": None}, "OS772"),
    "of another authority": (OTHER, GOOD, "OS714"),
}


def certify(signed: Signed, authority: Authority, how: dict[str, Any], chain: list[Authority] | None = None) -> None:
    """The bundle signed under a certificate for the second key."""
    from ostiary.provenance.envelope import encoded

    pem = (signed.folder.parent / "second.key").read_bytes()
    private = serialization.load_pem_private_key(pem, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    leaf = authority.issue("model team", private, **how)
    der = [one.public_bytes(serialization.Encoding.DER) for one in (leaf, *(a.certificate for a in chain or []))]
    edit(
        signed,
        lambda it: it.update(
            verificationMaterial={
                "x509CertificateChain": {"certificates": [{"rawBytes": encoded(one)} for one in der]},
                "tlogEntries": [],
            }
        ),
    )


def authority_store(signed: Signed) -> Path:
    (signed.folder.parent / "ca.pem").write_text(CA.pem)
    path = signed.folder.parent / "trust.toml"
    path.write_text(
        'id = "team"\nversion = 1\nexpires = 2099-01-01T00:00:00Z\n'
        '[[identity]]\nname = "ml"\nauthority = "ca.pem"\nsubject = "ml@example.org"\nroles = ["producer"]\n'
    )
    return path


@pytest.mark.parametrize("case", CERTIFICATES)
def test_a_certificate_must_be_valid_now_for_code_and_of_whom_one_named(signed: Signed, case: str) -> None:
    authority, how, wanted = CERTIFICATES[case]
    certify(signed, CA, GOOD)
    store = authority_store(signed)
    assert codes(signed, store) == []
    certify(signed, authority, how, [authority])
    assert codes(signed, store) == [wanted]


def test_without_an_authority_in_the_store_no_certificate_counts(signed: Signed) -> None:
    """There is no fall back to the authorities of the web."""
    certify(signed, CA, GOOD, [CA])
    assert codes(signed) == ["OS714"]
    assert codes(signed, authority_store(signed)) == []


def test_a_signature_under_a_certificate_must_fit(signed: Signed) -> None:
    certify(signed, CA, GOOD)
    store = authority_store(signed)
    resign(signed, lambda _: None, key="stranger")
    assert codes(signed, store) == ["OS724"]
    edit(
        signed,
        lambda it: it["verificationMaterial"]["x509CertificateChain"]["certificates"][0].update(rawBytes="AAAA"),
    )
    assert codes(signed, store) == ["OS721"]


def keyless_store(signed: Signed, extra: str = "") -> Path:
    path = signed.folder.parent / "trust.toml"
    path.write_text(
        f'id = "team"\nversion = 1\nexpires = 2099-01-01T00:00:00Z\n{extra}\n[[identity]]\nname = "ci"\n'
        'issuer = "https://accounts.example.org"\nsubject = "ci@example.org"\nroles = ["producer"]\n'
    )
    return path


def keyless(signed: Signed, entries: list[Any]) -> None:
    """A bundle in the form of sigstore, with a certificate that sigstore never issued."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = CA.issue("x", key, email="ci@example.org").public_bytes(serialization.Encoding.DER)
    raw = {"rawBytes": base64.b64encode(leaf).decode()}
    edit(signed, lambda it: it.update(verificationMaterial={"certificate": raw, "tlogEntries": entries}))


def test_a_keyless_bundle_needs_somebody_who_may_sign_so_and_a_log(signed: Signed) -> None:
    pytest.importorskip("sigstore")
    keyless(signed, [{}])
    assert codes(signed) == ["OS725"]
    keyless(signed, [])
    assert codes(signed, keyless_store(signed)) == ["OS773"]


def test_a_keyless_bundle_needs_a_trust_configuration(signed: Signed) -> None:
    pytest.importorskip("sigstore")
    keyless(signed, [{}])
    (signed.folder.parent / "sigstore.json").write_text("{}")
    assert codes(signed, keyless_store(signed, 'sigstore = "sigstore.json"')) == ["OS774"]


def test_what_sigstore_verified_must_be_what_was_read(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readers of one bundle: whatever the package verifies, another payload read here is refused."""
    sigstore = pytest.importorskip("sigstore.verify")
    keyless(signed, [{}])
    payload = base64.b64decode(json.loads(signed.signature.read_bytes())["dsseEnvelope"]["payload"])
    bundle = SimpleNamespace(signing_certificate=CA.certificate)
    monkeypatch.setattr("sigstore.models.Bundle.from_json", lambda _: bundle)
    monkeypatch.setattr(sigstore.Verifier, "verify_dsse", lambda *_: (PAYLOAD_TYPE, payload))
    assert codes(signed, keyless_store(signed)) == []
    monkeypatch.setattr(sigstore.Verifier, "verify_dsse", lambda *_: (PAYLOAD_TYPE, payload + b" "))
    assert codes(signed, keyless_store(signed)) == ["OS724"]


def test_two_authorities_under_one_name_are_two(signed: Signed) -> None:
    """Each vouches for its own subject alone."""
    store = authority_store(signed)
    (signed.folder.parent / "other.pem").write_text(OTHER.pem)
    other = '[[identity]]\nname = "ml"\nauthority = "other.pem"\nsubject = "web@example.org"\nroles = ["producer"]\n'
    store.write_text(store.read_text() + other)
    certify(signed, CA, GOOD)
    assert codes(signed, store) == []
    certify(signed, OTHER, {"email": "web@example.org"})
    assert codes(signed, store) == []
    for authority, how in ((OTHER, GOOD), (CA, {"email": "web@example.org"})):
        certify(signed, authority, how)
        assert codes(signed, store) == ["OS714"]


def test_a_revoked_key_is_revoked_under_a_certificate_too(signed: Signed) -> None:
    store = authority_store(signed)
    certify(signed, CA, GOOD)
    assert codes(signed, store) == []
    key = signed.keys["second"].public_key.keyid
    text = store.read_text().replace("version = 1\n", f'version = 2\nrevoked = {{keys = ["{key}"]}}\n')
    store.write_text(text)
    assert codes(signed, store) == ["OS740"]


@pytest.mark.skipif(VECTORS is None, reason="OSTIARY_OMS_VECTORS names no checkout of the specification")
class TestVectors:
    """The published vectors: `test-vectors/` of ossf/model-signing-spec, under `OSTIARY_OMS_VECTORS`."""

    @staticmethod
    def outcome(name: str, store: Path) -> list[str]:
        vector = next(Path(VECTORS or "").rglob(name))
        try:
            prove(vector.read_bytes(), read_trust(store), NOW, "signature")
        except Refused as error:
            return [reason.code for reason in error.reasons]
        return []

    @pytest.mark.parametrize(
        ("name", "wanted"),
        [
            ("empty.bundle.json", "OS701"),
            ("missing-envelope.bundle.json", "OS721"),
            ("missing-tlog-entries.bundle.json", "OS773"),
            ("missing-verification-material.bundle.json", "OS721"),
        ],
    )
    def test_the_invalid_ones_are_refused(self, signed: Signed, name: str, wanted: str) -> None:
        store = keyless_store(signed)
        key = '[[identity]]\nname = "k"\nkey = "second.pub"\nroles = ["producer"]\n'
        store.write_text(store.read_text() + key)
        found = self.outcome(name, store)
        assert found == [wanted]

    def test_the_one_with_another_predicate_is_refused_for_that_whoever_signed_it(self) -> None:
        vector = json.loads(next(Path(VECTORS or "").rglob("wrong-predicate.bundle.json")).read_bytes())
        with pytest.raises(Refused, match="OS729"):
            oms._claim(base64.b64decode(vector["dsseEnvelope"]["payload"]), "signature")

    def test_the_one_under_a_certificate_is_accepted_where_its_authority_is_trusted(self, signed: Signed) -> None:
        """Its own chain names the authority: here, and nowhere else, it is believed."""
        vector = json.loads(next(Path(VECTORS or "").rglob("certificate.bundle.json")).read_bytes())
        chain = vector["verificationMaterial"]["x509CertificateChain"]["certificates"]
        above = x509.load_der_x509_certificate(base64.b64decode(chain[1]["rawBytes"]))
        store = authority_store(signed)
        (signed.folder.parent / "ca.pem").write_bytes(above.public_bytes(serialization.Encoding.PEM))
        store.write_text(store.read_text().replace("ml@example.org", "intermediate-ca"))
        assert self.outcome("certificate.bundle.json", store) == []

    def test_two_forms_of_one_field_show_no_two_payloads(self, signed: Signed) -> None:
        """A forged envelope beside the real one, under the other habit of naming fields, proves nothing."""
        pytest.importorskip("sigstore")
        vector = json.loads(next(Path(VECTORS or "").rglob("sigstore.bundle.json")).read_bytes())
        real = vector["dsseEnvelope"]
        forged = {**real, "payload": base64.b64encode(b"{}").decode()}
        store = keyless_store(signed)
        text = store.read_text().replace("ci@example.org", "stefanb@us.ibm.com")
        store.write_text(text.replace("https://accounts.example.org", "https://sigstore.verify.ibm.com/oauth2"))
        for first, second in ((forged, real), (real, forged)):
            bundle = {**vector, "dsse_envelope": second, "dsseEnvelope": first}
            try:
                claim = prove(json.dumps(bundle).encode(), read_trust(store), NOW, "signature")[0]
            except Refused:
                continue
            assert first is real and claim.name == "v1.1.0-sigstore"

    def test_the_keyless_one_is_its_signers_and_nobody_elses(self, signed: Signed) -> None:
        pytest.importorskip("sigstore")
        store = keyless_store(signed)
        text = store.read_text().replace("ci@example.org", "stefanb@us.ibm.com")
        issuer = "https://sigstore.verify.ibm.com/oauth2"
        store.write_text(text.replace("https://accounts.example.org", issuer))
        assert self.outcome("sigstore.bundle.json", store) == []
        store.write_text(text)
        assert self.outcome("sigstore.bundle.json", store) == ["OS772"]
        store.write_text(text.replace("stefanb", "someone").replace("https://accounts.example.org", issuer))
        assert self.outcome("sigstore.bundle.json", store) == ["OS772"]


def test_the_forms_are_those_of_the_specification(signed: Signed) -> None:
    bundle = json.loads(signed.signature.read_bytes())
    assert bundle["mediaType"] == MEDIA_TYPE and bundle["dsseEnvelope"]["payloadType"] == PAYLOAD_TYPE
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert statement["predicateType"] == PREDICATE and form(statement)["method"] == "files"
