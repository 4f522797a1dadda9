"""Whom one trusts: stores, roles, expiry, revocation, thresholds; and what this machine remembers of them."""

import contextlib
import hashlib
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signed_case import Signed, make_signed, payload_of

from ostiary.core.errors import ConfigError, FormatError, OstiaryError, OutputError
from ostiary.provenance import keys
from ostiary.provenance.keys import new_key, read_private, read_public
from ostiary.provenance.memory import state_folder
from ostiary.provenance.refusal import Refused
from ostiary.provenance.sign import sign_model
from ostiary.provenance.trust import read_trust
from ostiary.provenance.verify import verify

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "state"))
    return make_signed(tmp_path, version=3)


def codes(signed: Signed, store: Path, **how: Any) -> list[str]:
    """The codes of the reasons against a model under a store; empty when it is accepted."""
    try:
        verify(signed.folder, signed.signature, read_trust(store), **how)
    except Refused as error:
        return [reason.code for reason in error.reasons]
    return []


def day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("good", "bad", "code"),
    [
        ({}, {"roles": '["scanner", "data-owner"]'}, "OS745"),
        ({"identity": f"expires = {day(NOW + DAY)}"}, {"identity": f"expires = {day(NOW - DAY)}"}, "OS744"),
        ({"identity": f"not_before = {day(NOW - DAY)}"}, {"identity": f"not_before = {day(NOW + DAY)}"}, "OS744"),
        ({"identity": 'models = ["mod*"]'}, {"identity": 'models = ["resnet*"]'}, "OS746"),
        ({"text": "max_age_days = 1"}, {"text": "max_age_days = 0.0000001"}, "OS747"),
        ({"text": "floor = {model = 3}"}, {"text": "floor = {model = 4}"}, "OS749"),
    ],
)
def test_a_rule_of_the_store_lets_one_pass_and_refuses_another(
    signed: Signed, good: dict[str, str], bad: dict[str, str], code: str
) -> None:
    assert codes(signed, signed.store(version=1, **good)) == []
    # A moment later, for the age.
    assert codes(signed, signed.store(version=2, **bad), now=datetime.now(UTC) + timedelta(seconds=100)) == [code]


def test_a_model_without_a_version_is_below_every_floor(signed: Signed) -> None:
    signed.signature.write_bytes(sign_model(signed.folder, [signed.keys["producer"]]).to_json())
    assert codes(signed, signed.store()) == []
    assert codes(signed, signed.store("floor = {model = 0}", version=2)) == ["OS749"]


def test_revoked_keys_and_models_are_refused(signed: Signed) -> None:
    key = signed.keys["producer"].public_key.keyid
    root = payload_of(signed.signature)["subject"][0]["digest"]["ostiaryRootV1"]
    oms = payload_of(signed.signature)["predicate"]["omsRoot"]
    other = "0" * 64
    assert codes(signed, signed.store(f'revoked = {{keys = ["{other}"], models = ["{other}"]}}')) == []
    assert codes(signed, signed.store(f'revoked = {{keys = ["{key}"]}}', version=2)) == ["OS740"]
    assert codes(signed, signed.store(f'revoked = {{models = ["{root}"]}}', version=3)) == ["OS741"]
    assert codes(signed, signed.store(f'revoked = {{models = ["{oms}"]}}', version=4)) == ["OS741"]


def two(signed: Signed, count: int, version: int, roles: str = '["producer"]') -> Path:
    store = signed.store(f"threshold = {{producer = {count}}}", version=version)
    second = f'[[identity]]\nname = "second"\nkey = "second.pub"\nroles = {roles}\n'
    store.write_text(store.read_text() + second)
    return store


def test_two_of_two_are_two_keys(signed: Signed) -> None:
    assert codes(signed, two(signed, 1, 1)) == []
    assert codes(signed, two(signed, 2, 2)) == ["OS727"]
    both = sign_model(signed.folder, [signed.keys["producer"], signed.keys["second"]])
    signed.signature.write_bytes(both.to_json())
    assert codes(signed, two(signed, 2, 2)) == []
    signed.edit(lambda e: e["signatures"].pop())
    assert codes(signed, two(signed, 2, 2)) == ["OS727"]


def test_a_threshold_counts_keys_in_the_role_alone(signed: Signed) -> None:
    both = sign_model(signed.folder, [signed.keys["producer"], signed.keys["second"]])
    signed.signature.write_bytes(both.to_json())
    with pytest.raises(ConfigError, match="asks for 2 signatures as producer and has 1 keys"):
        read_trust(two(signed, 2, 1, '["scanner"]'))
    assert codes(signed, two(signed, 1, 1, '["scanner"]')) == []


def test_one_key_under_two_names_is_one_key(signed: Signed) -> None:
    store = signed.store("threshold = {producer = 2}")
    again = '[[identity]]\nname = "again"\nkey = "producer.pub"\nroles = ["producer"]\n'
    store.write_text(store.read_text() + again)
    with pytest.raises(ConfigError, match="has 1 keys"):
        read_trust(store)


def test_the_identities_named_are_those_that_hold(signed: Signed) -> None:
    """One key under two names, of which one has expired."""
    store = signed.store(identity=f"expires = {day(NOW - DAY)}")
    store.write_text(store.read_text() + '[[identity]]\nname = "now"\nkey = "producer.pub"\nroles = ["producer"]\n')
    assert verify(signed.folder, signed.signature, read_trust(store)).signers == ("now",)


def test_a_key_renewed_with_a_time_of_overlap(signed: Signed) -> None:
    """The old key runs out tomorrow, the new one counts since yesterday: both sign today, one the day after."""
    store = signed.store(identity=f"expires = {day(NOW + DAY)}")
    new = f'[[identity]]\nname = "new"\nkey = "second.pub"\nroles = ["producer"]\nnot_before = {day(NOW - DAY)}\n'
    store.write_text(store.read_text() + new)
    assert codes(signed, store) == []
    assert codes(signed, store, now=NOW + 2 * DAY) == ["OS744"]
    signed.signature.write_bytes(sign_model(signed.folder, [signed.keys["second"]]).to_json())
    assert codes(signed, store, now=NOW + 2 * DAY) == []


def test_an_expired_store_is_refused(signed: Signed) -> None:
    store = signed.store()
    assert codes(signed, store) == []
    assert codes(signed, store, now=datetime(2099, 1, 2, tzinfo=UTC)) == ["OS743"]


def test_an_older_store_and_a_changed_one_of_the_same_version_are_refused(signed: Signed) -> None:
    store = signed.store(version=2)
    assert codes(signed, store) == codes(signed, store) == []
    assert codes(signed, signed.store(version=1)) == ["OS742"]
    assert codes(signed, signed.store("max_age_days = 9", version=2)) == ["OS742"]
    assert codes(signed, signed.store(version=3)) == []


def test_a_clock_set_back_is_noticed(signed: Signed) -> None:
    store = signed.store()
    assert codes(signed, store, now=NOW + DAY) == []
    assert codes(signed, store, now=NOW + DAY - timedelta(minutes=4)) == []
    assert codes(signed, store) == ["OS748"]


def test_memory_that_is_damaged_or_cannot_be_kept_is_an_error(
    signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = signed.store()
    assert codes(signed, store) == []
    (state_folder() / "seen.json").write_text("{")
    with pytest.raises(FormatError, match="is damaged"):
        codes(signed, store)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot keep"):
        codes(signed, store)


def test_memory_lies_where_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OSTIARY_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "ostiary"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_folder() == Path.home() / ".local/state/ostiary"


def test_a_pinned_store_is_that_file(signed: Signed) -> None:
    store = signed.store()
    pin = hashlib.sha256(store.read_bytes()).hexdigest()
    assert read_trust(store, pin=pin).digest == pin
    store.write_text(store.read_text() + "\n")
    with pytest.raises(Refused, match="OS750"):
        read_trust(store, pin=pin)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("version = 1", "version = 0"), "version"),
        (lambda text: text.replace("version = 1\n", ""), "version"),
        (lambda text: text + 'colour = "red"\n', "colour"),
        (lambda text: text.replace('["producer"]', "[]"), "roles"),
        (lambda text: text.replace('["producer"]', '["king"]'), "roles"),
        (lambda text: text.replace("expires = 2099-01-01T00:00:00Z", "expires = 2099-01-01T00:00:00"), "expires"),
        (lambda text: text.partition("[[identity]]")[0], "identity"),
        (lambda text: text.replace("version = 1\n", "version = 1\nthreshold = {producer = 0}\n"), "threshold"),
        (lambda text: text + 'models = ["*"]\n', "fits every name"),
        (lambda text: text + 'models = [".*"]\n', "fits every name"),
        (lambda text: text + 'subject = "a@b.c"\n', "give `key`"),
        (lambda text: text.replace('key = "producer.pub"', 'issuer = "https://a"'), "give `key`"),
        (lambda text: text.replace('id = "team"', 'id = "team'), "neither a public key nor TOML"),
        (lambda text: text.replace("version = 1\n", "version = 1\nversion = 2\n"), "neither a public key nor TOML"),
    ],
)
def test_a_store_that_is_ill_formed_is_an_error(signed: Signed, change: Any, words: str) -> None:
    store = signed.store()
    read_trust(store)
    store.write_text(change(store.read_text()))
    with pytest.raises(ConfigError, match=words):
        read_trust(store)


def test_a_store_may_hold_its_keys_itself(signed: Signed) -> None:
    store = signed.store()
    store.write_text(store.read_text().replace('"producer.pub"', f'"""\n{signed.public().read_text()}"""'))
    signed.public().unlink()
    assert codes(signed, store) == []


def test_missing_keys_and_stores_are_named(signed: Signed) -> None:
    store = signed.store()
    signed.public().unlink()
    for path in (store, signed.public()):
        with pytest.raises(FormatError, match="no such file"):
            read_trust(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)), st.integers(0, 200), st.booleans())
def test_no_store_makes_reading_fail_in_another_way(signed: Signed, noise: bytes | str, at: int, insert: bool) -> None:
    given_bytes = noise if isinstance(noise, bytes) else noise.encode(errors="replace")
    text = signed.store().read_bytes()
    path = signed.folder.parent / "fuzzed.toml"
    path.write_bytes(text[:at] + given_bytes + text[at:] if insert else given_bytes)
    with contextlib.suppress(OstiaryError):
        read_trust(path)


def test_private_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    private, public = new_key(tmp_path / "k")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert read_private(private).public_key.keyid == read_public(public).keyid
    private.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        read_private(private)
    with pytest.raises(OutputError, match="exists already"):
        new_key(tmp_path / "k")


def test_a_passphrase_is_needed_where_there_is_one(tmp_path: Path) -> None:
    private, _ = new_key(tmp_path / "k", "ecdsa", passphrase=b"open")
    assert b"ENCRYPTED" in private.read_bytes()
    assert read_private(private, passphrase=b"open")
    for wrong, words in ((None, "needs a passphrase"), (b"shut", "cannot open")):
        with pytest.raises(ConfigError, match=words):
            read_private(private, passphrase=wrong)
    plain, _ = new_key(tmp_path / "plain")
    with pytest.raises(ConfigError, match="has no passphrase"):
        read_private(plain, passphrase=b"open")


def test_other_keys_are_refused(tmp_path: Path) -> None:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    for name, key in (
        ("rsa", rsa.generate_private_key(65537, 2048)),
        ("k1", ec.generate_private_key(ec.SECP256K1())),
    ):
        path = tmp_path / name
        path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
        with pytest.raises(FormatError, match=r"no Ed25519 or ECDSA key|on the curve"):
            read_public(path)
        plain = serialization.NoEncryption()
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        path.chmod(0o600)
        with pytest.raises(FormatError):
            read_private(path)
        with pytest.raises(FormatError, match="holds a private key"):
            read_public(path)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(content)
    path.chmod(0o600)
    for read in (read_public, read_private):
        with pytest.raises(FormatError):
            read(path)


def test_a_key_file_that_is_huge_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "k"
    with path.open("wb") as stream:
        os.truncate(stream.fileno(), keys.MAX_PEM + 1)
    with pytest.raises(FormatError, match="too large"):
        read_public(path)
