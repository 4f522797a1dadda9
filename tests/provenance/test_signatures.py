"""Every way a signature or a model may differ from what was signed, each beside the same without the defect."""

import base64
import copy
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from signed_case import Signed, flip, make_signed, payload_of

from ostiary.core.codes import CODES
from ostiary.core.errors import ConfigError, FormatError
from ostiary.provenance import envelope as envelopes
from ostiary.provenance.envelope import opened, sign
from ostiary.provenance.refusal import Refused
from ostiary.provenance.sign import add_signature, sign_model
from ostiary.provenance.trust import read_trust
from ostiary.provenance.verify import verify


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return make_signed(tmp_path)


def codes(signed: Signed, **how: Any) -> list[str]:
    """The codes of the reasons against a model; empty when it is accepted."""
    try:
        verify(signed.folder, signed.signature, read_trust(signed.public()), **how)
    except Refused as error:
        found = [reason.code for reason in error.reasons]
    else:
        return []
    assert set(found) <= set(CODES)
    return found


def rename_to(name: str) -> Callable[[Signed], object]:
    return lambda it: os.rename(it.folder / "config.json", it.folder / name)


def swap(it: Signed) -> None:
    one, two = it.folder / "model-1.safetensors", it.folder / "model-2.safetensors"
    one.rename(it.folder / "x")
    two.rename(one)
    (it.folder / "x").rename(two)


def other_folder(it: Signed) -> None:
    """Another model's folder in place of the signed one, under its name."""
    shutil.rmtree(it.folder)
    it.folder.mkdir()
    (it.folder / "weights").write_bytes(b"other")


MODELS: dict[str, tuple[Callable[[Signed], object], list[str]]] = {
    "no signature": (lambda it: it.signature.unlink(), ["OS701"]),
    "an empty signature": (lambda it: it.signature.write_bytes(b" \n"), ["OS701"]),
    "one flipped bit of the weights": (lambda it: flip(it.folder / "model-1.safetensors", -1), ["OS707"]),
    "one flipped bit of the config": (lambda it: flip(it.folder / "config.json", 3), ["OS707"]),
    "one flipped bit of the tokenizer": (lambda it: flip(it.folder / "tokenizer/tokenizer.json", 3), ["OS707"]),
    "a missing shard": (lambda it: (it.folder / "model-2.safetensors").unlink(), ["OS708"]),
    "an extra script": (lambda it: (it.folder / "modeling.py").write_text("pass"), ["OS709"]),
    "an extra file in .git": (
        lambda it: ((it.folder / ".git").mkdir(), (it.folder / ".git/hook").write_text("")),
        ["OS709"],
    ),
    "an extra .gitignore": (lambda it: (it.folder / ".gitignore").write_text("*"), ["OS709"]),
    "an empty folder": (lambda it: (it.folder / "empty").mkdir(), ["OS710"]),
    "two shards swapped": (swap, ["OS707", "OS707"]),
    "a file renamed": (rename_to("other.json"), ["OS708", "OS709"]),
    "a link to outside": (lambda it: (it.folder / "link").symlink_to("/etc/hostname"), ["OS702"]),
    "a weight file that is a link": (
        lambda it: (
            (it.folder / "config.json").rename(it.folder.parent / "c"),
            (it.folder / "config.json").symlink_to("../c"),
        ),
        ["OS702"],
    ),
    "a pipe": (lambda it: os.mkfifo(it.folder / "pipe"), ["OS702"]),
    "another model under the name": (other_folder, ["OS708"] * 4 + ["OS709"]),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_is_not_the_signed_one_is_refused(signed: Signed, case: str) -> None:
    change, wanted = MODELS[case]
    assert codes(signed) == []
    change(signed)
    assert codes(signed) == wanted


def test_a_folder_under_another_models_name_is_refused_unless_that_name_is_asked_for(signed: Signed) -> None:
    moved = signed.folder.rename(signed.folder.parent / "bert")
    trust = read_trust(signed.public())
    with pytest.raises(Refused, match="OS712"):
        verify(moved, signed.signature, trust)
    assert verify(moved, signed.signature, trust, name="model").claim.name == "model"
    with pytest.raises(Refused, match="OS712"):
        verify(moved, signed.signature, trust, name="bert")


def test_a_model_of_one_file_may_not_be_renamed(signed: Signed) -> None:
    file = signed.folder / "model-1.safetensors"
    signed.signature.write_bytes(sign_model(file, [signed.keys["producer"]]).to_json())
    trust = read_trust(signed.public())
    assert verify(file, signed.signature, trust).signers == ("producer",)
    other = file.rename(file.with_name("renamed.safetensors"))
    with pytest.raises(Refused, match="OS712"):
        verify(other, signed.signature, trust)
    with pytest.raises(Refused, match="OS708"):
        verify(other, signed.signature, trust, name="model-1.safetensors")


def model_of(statement: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = statement["predicate"]
    return found


def first(statement: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = model_of(statement)["files"][0]
    return found


def duplicate(statement: dict[str, Any]) -> None:
    files = model_of(statement)["files"]
    files.insert(0, {**files[0], "digest": "0" * 64})


def twice(statement: dict[str, Any]) -> bytes:
    text = json.dumps(statement)
    return text.replace('"predicateType"', '"predicateType": "ostiary:model/v1", "predicateType"', 1).encode()


STATEMENTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an older predicate": (lambda it: it.update(predicateType="https://model_signing/Digests/v0.1"), "OS729"),
    "an unknown predicate": (lambda it: it.update(predicateType="ostiary:model/v2"), "OS729"),
    "no predicate type": (lambda it: it.pop("predicateType"), "OS729"),
    "another statement type": (lambda it: it.update(_type="https://in-toto.io/Statement/v0.1"), "OS730"),
    "an unknown field": (lambda it: model_of(it).update(ignorePaths=["config.json"]), "OS730"),
    "a missing field": (lambda it: model_of(it).pop("files"), "OS730"),
    "no subject": (lambda it: it.update(subject=[]), "OS730"),
    "two subjects": (lambda it: it["subject"].append(it["subject"][0]), "OS730"),
    "a subject of another name": (lambda it: it["subject"][0].update(name="other"), "OS730"),
    "a size below nothing": (lambda it: first(it).update(size=-1), "OS730"),
    "a size that is a text": (lambda it: first(it).update(size="3"), "OS730"),
    "a name with a slash": (lambda it: model_of(it).update(name="../x"), "OS730"),
    "a time without a zone": (lambda it: model_of(it).update(created="2026-01-01T00:00:00"), "OS730"),
    "MD5": (lambda it: model_of(it).update(algorithm="md5"), "OS730"),
    "a digest of two letters": (lambda it: first(it).update(digest="zz"), "OS731"),
    "a digest cut short": (lambda it: first(it).update(digest=first(it)["digest"][:62]), "OS731"),
    "a digest in capitals": (lambda it: first(it).update(digest="A" * 64), "OS731"),
    "a root under a common name": (lambda it: it["subject"][0].update(digest={"sha256": "0" * 64}), "OS731"),
    "two roots": (lambda it: it["subject"][0]["digest"].update(sha256="0" * 64), "OS731"),
    "a file twice": (duplicate, "OS732"),
    "files out of order": (lambda it: model_of(it)["files"].reverse(), "OS732"),
    "a name that leads out": (lambda it: first(it).update(path="../config.json"), "OS703"),
    "an absolute name": (lambda it: first(it).update(path="/etc/passwd"), "OS703"),
    "a name with NUL": (lambda it: first(it).update(path="\x00a"), "OS703"),
    "names that differ by capitals": (
        lambda it: model_of(it)["files"].insert(0, {**first(it), "path": "Config.json"}),
        "OS704",
    ),
    "a size that the root does not fit": (
        lambda it: first(it).update(size=first(it)["size"] + 1),
        "OS711",
    ),
    "another OMS root": (lambda it: model_of(it).update(omsRoot="0" * 64), "OS711"),
    "a key twice in the JSON": (twice, "OS722"),
    "no JSON": (lambda it: b"{", "OS721"),
    "NaN": (lambda it: json.dumps(it).replace('"version": null', "").replace("{", '{"x": NaN, ', 1).encode(), "OS721"),
    "a number for a statement": (lambda it: b"7", "OS730"),
    "JSON a thousand deep": (lambda it: b"[" * 100_000, "OS720"),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_a_statement_that_is_odd_is_refused_though_a_trusted_key_signed_it(signed: Signed, case: str) -> None:
    change, wanted = STATEMENTS[case]
    signed.resign(lambda _: None)
    assert codes(signed) == []
    signed.resign(change)
    assert codes(signed) == [wanted]


def no_pae(it: Signed) -> None:
    """A signature over the payload alone, without the encoding that binds its type."""

    class Bare(Envelope):
        def pae(self) -> bytes:
            return bytes(self.payload)

    made = Bare(opened(it.signature.read_bytes(), "").payload, envelopes.PAYLOAD_TYPE, {})
    made.sign(it.keys["producer"])
    it.signature.write_bytes(json.dumps(made.to_dict()).encode())


def with_own_key(it: Signed) -> None:
    """A stranger's signature with the stranger's public key in the envelope."""
    it.resign(lambda _: None, key="stranger")
    it.edit(lambda e: e["signatures"][0].update(cert=it.public("stranger").read_text()))


def as_somebody(it: Signed) -> None:
    """A stranger's signature under the key id of the producer."""
    it.resign(lambda _: None, key="stranger")
    it.edit(lambda e: e["signatures"][0].update(keyid=it.keys["producer"].public_key.keyid))


def other_payload(envelope: dict[str, Any]) -> None:
    payload = bytearray(base64.b64decode(envelope["payload"]))
    payload[-5] ^= 1
    envelope["payload"] = base64.b64encode(payload).decode()


def loose_base64(envelope: dict[str, Any]) -> None:
    """Bits behind the last byte that decoders drop: another text for the same signature."""
    text = envelope["signatures"][0]["sig"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    at = len(text.rstrip("=")) - 1
    envelope["signatures"][0]["sig"] = text[:at] + alphabet[alphabet.index(text[at]) + 1] + text[at + 1 :]


ENVELOPES: dict[str, tuple[Callable[[Signed], object], str]] = {
    "signed by an unknown key": (lambda it: it.resign(lambda _: None, key="stranger"), "OS725"),
    "an unknown key that comes along": (with_own_key, "OS721"),
    "an unknown key under a known id": (as_somebody, "OS724"),
    "another payload type": (lambda it: it.edit(lambda e: e.update(payloadType="application/json")), "OS723"),
    "a signature without PAE": (no_pae, "OS724"),
    "another payload": (lambda it: it.edit(other_payload), "OS724"),
    "no signatures": (lambda it: it.edit(lambda e: e.update(signatures=[])), "OS726"),
    "a key twice": (lambda it: it.edit(lambda e: e["signatures"].append(e["signatures"][0])), "OS728"),
    "a field twice": (
        lambda it: it.edit(lambda e: json.dumps(e).replace("{", '{"payload": "", ', 1).encode()),
        "OS722",
    ),
    "no envelope": (lambda it: it.edit(lambda e: b"[]"), "OS721"),
    "an unknown field": (lambda it: it.edit(lambda e: e.update(publicKey="x")), "OS721"),
    "no payload": (lambda it: it.edit(lambda e: e.pop("payload")), "OS721"),
    "damaged base64": (lambda it: it.edit(lambda e: e.update(payload="!" + e["payload"])), "OS721"),
    "base64 in another form": (lambda it: it.edit(loose_base64), "OS721"),
    "too many signatures": (
        lambda it: it.edit(lambda e: e.update(signatures=[{"keyid": str(i), "sig": "AA=="} for i in range(65)])),
        "OS720",
    ),
}


@pytest.mark.parametrize("case", ENVELOPES)
def test_an_envelope_that_is_odd_is_refused(signed: Signed, case: str) -> None:
    change, wanted = ENVELOPES[case]
    assert codes(signed) == []
    change(signed)
    assert codes(signed) == [wanted]


def test_an_envelope_larger_than_the_limit_is_refused(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelopes, "MAX_ENVELOPE", 1000)
    assert codes(signed) == ["OS720"]


def test_every_signature_of_a_trusted_key_must_fit(signed: Signed, tmp_path: Path) -> None:
    """One good signature is enough; one good and one bad of two trusted keys are not."""
    both = tmp_path / "trust.toml"
    both.write_text(
        'id = "t"\nversion = 1\nexpires = 2099-01-01T00:00:00Z\n'
        '[[identity]]\nname = "a"\nkey = "producer.pub"\nroles = ["producer"]\n'
        '[[identity]]\nname = "b"\nkey = "second.pub"\nroles = ["producer"]\n'
    )
    trust = read_trust(both)
    verify(signed.folder, signed.signature, trust, state=tmp_path / "state")
    made = add_signature(signed.folder, signed.signature.read_bytes(), [signed.keys["second"]])
    signed.signature.write_bytes(made.to_json())
    assert verify(signed.folder, signed.signature, trust, state=tmp_path / "state").signers == ("a", "b")
    signed.edit(lambda e: e["signatures"][1].update(sig=e["signatures"][0]["sig"]))
    with pytest.raises(Refused, match="OS724"):
        verify(signed.folder, signed.signature, trust, state=tmp_path / "state")


def test_a_further_signature_is_given_to_what_was_signed_alone(signed: Signed) -> None:
    envelope = signed.signature.read_bytes()
    with pytest.raises(ConfigError, match="signed already"):
        add_signature(signed.folder, envelope, [signed.keys["producer"]])
    flip(signed.folder / "config.json", 0)
    with pytest.raises(Refused, match="OS707"):
        add_signature(signed.folder, envelope, [signed.keys["second"]])


def test_one_key_may_be_given_once(signed: Signed) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        sign_model(signed.folder, [signed.keys["second"], signed.keys["second"]])


def test_a_statement_from_the_future_is_refused(signed: Signed) -> None:
    assert codes(signed, now=datetime.now(UTC)) == []
    assert codes(signed, now=datetime(2020, 1, 1, tzinfo=UTC)) == ["OS747"]


def test_ecdsa_keys_sign_as_well(signed: Signed) -> None:
    signed.signature.write_bytes(sign_model(signed.folder, [signed.keys["second"]]).to_json())
    assert codes(signed) == ["OS725"]
    assert verify(signed.folder, signed.signature, read_trust(signed.public("second"))).signers == ("second",)


def test_the_envelope_is_read_by_the_library_alone_and_signatures_repeat(signed: Signed) -> None:
    found = Envelope.from_dict(copy.deepcopy(json.loads(signed.signature.read_bytes())))
    assert found.verify([signed.keys["producer"].public_key], 1)
    statement = payload_of(signed.signature)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert next(file["path"] for file in statement["predicate"]["files"]) == "config.json"
    assert sign(found.payload, [signed.keys["producer"]]).to_json() == signed.signature.read_bytes()


def test_what_is_ignored_is_the_callers_choice(signed: Signed) -> None:
    (signed.folder / ".git").mkdir()
    (signed.folder / ".git" / "config").write_text("x")
    assert codes(signed) == ["OS709"] and codes(signed, ignore=[".git"]) == []
    assert codes(signed, ignore=[".git/conf"]) == ["OS709"]
    assert codes(signed, ignore=[".git", "config.json"]) == ["OS708"], "a signed file is never left out"


def test_a_signature_that_cannot_be_read_is_no_refusal(signed: Signed) -> None:
    signed.signature.unlink()
    signed.signature.mkdir()
    with pytest.raises(FormatError, match="cannot read"):
        codes(signed)


ANYWHERE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANYWHERE
@given(st.data())
def test_any_change_of_a_byte_of_any_file_is_refused(signed: Signed, data: st.DataObject) -> None:
    files = sorted(path for path in signed.folder.rglob("*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    at = data.draw(st.integers(0, file.stat().st_size - 1))
    before = file.read_bytes()
    flip_with = data.draw(st.integers(1, 255))
    try:
        changed = bytearray(before)
        changed[at] ^= flip_with
        file.write_bytes(changed)
        assert codes(signed) == ["OS707"]
    finally:
        file.write_bytes(before)


@ANYWHERE
@given(st.data())
def test_any_change_of_a_byte_of_the_signature_is_refused(signed: Signed, data: st.DataObject) -> None:
    before = signed.signature.read_bytes()
    changed = bytearray(before)
    changed[data.draw(st.integers(0, len(before) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        signed.signature.write_bytes(changed)
        assert codes(signed)
    finally:
        signed.signature.write_bytes(before)


@ANYWHERE
@given(st.permutations(range(4)))
def test_any_other_order_of_contents_is_refused(signed: Signed, order: list[int]) -> None:
    files = sorted(path for path in signed.folder.rglob("*") if path.is_file())
    before = [file.read_bytes() for file in files]
    try:
        for file, source in zip(files, order, strict=True):
            file.write_bytes(before[source])
        assert bool(codes(signed)) == (list(order) != sorted(order))
    finally:
        for file, content in zip(files, before, strict=True):
            file.write_bytes(content)


@ANYWHERE
@given(
    st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
)
def test_anything_else_in_place_of_a_signature_is_refused(signed: Signed, found: bytes | str) -> None:
    before = signed.signature.read_bytes()
    try:
        signed.signature.write_bytes(found if isinstance(found, bytes) else found.encode())
        assert codes(signed)
    finally:
        signed.signature.write_bytes(before)
