"""What a model learnt from as a rule of a policy: told by an index of trusted statements, and nothing of it revoked."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from signed_case import Signed, make_signed

import ostiary
from ostiary.core.errors import ConfigError
from ostiary.provenance.envelope import sign
from ostiary.provenance.manifest import digest
from ostiary.provenance.origin import data_reasons
from ostiary.provenance.policy import read_policy
from ostiary.provenance.samples.index import Index
from ostiary.provenance.samples.leaf import Sample, content_of_bytes
from ostiary.provenance.samples.manifest import About, write_manifest
from ostiary.provenance.samples.statements import Link, state_set, state_training
from ostiary.provenance.trust import read_trust


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "state"))
    return make_signed(tmp_path)


def store(signed: Signed, version: int, text: str = "") -> Path:
    path = signed.folder.parent / "trust.toml"
    path.write_text(
        f'id = "team"\nversion = {version}\nexpires = 2099-01-01T00:00:00Z\n'
        '[[identity]]\nname = "release"\nkey = "producer.pub"\nroles = ["producer"]\n'
        f'[[identity]]\nname = "owner"\nkey = "second.pub"\nroles = ["data-owner"]\n{text}\n'
    )
    return path


def fill(signed: Signed) -> str:
    """An index that tells of a set from two sources and of the model that learnt from it; gives the set's root."""
    trust, folder = read_trust(store(signed, 1)), signed.folder.parent
    index = Index(folder / "index")
    samples = [
        Sample(one, content_of_bytes(one.encode()), "a", source) for one, source in (("p", "web"), ("q", "shop"))
    ]
    summary = write_manifest(folder / "photos.manifest", About(name="photos", kind="text"), samples)
    index.add_statement(sign(state_set(summary), [signed.keys["second"]]).to_json(), trust, "set")
    index.add_manifest(folder / "photos.manifest", trust)
    root, own = summary.root.hex(), digest(signed.folder).root.hex()
    payload = state_training("model", own, data=[Link(name="photos", root=root)], bases=[])
    index.add_statement(sign(payload, [signed.keys["producer"]]).to_json(), trust, "training")
    return root


def codes(signed: Signed) -> list[str]:
    """The codes against the model under the rule for data; empty where it is met."""
    path = signed.folder.parent / "policy.toml"
    path.write_text('version = 1\ntrust = "trust.toml"\n[data]\nindex = "index"\n')
    found = ostiary.admit(signed.folder, policy=path)
    (ruling,) = [one for one in found.rules if one.rule == "data"]
    assert (ruling.outcome == "met") == (not ruling.reasons) == bool(ruling.told)
    assert (found.decision == "admitted") == (not found.reasons)
    return [ground.code for ground in ruling.reasons]


def test_a_policy_wants_to_know(signed: Signed) -> None:
    store(signed, 1)
    assert codes(signed) == ["OS785"]
    fill(signed)
    assert codes(signed) == []


def test_a_source_or_a_set_that_was_revoked_after_training(signed: Signed) -> None:
    root = fill(signed)
    store(signed, 2, '[revoked]\nsources = ["elsewhere"]')
    assert codes(signed) == []
    store(signed, 3, '[revoked]\nsources = ["web"]')
    assert codes(signed) == ["OS768"]
    store(signed, 4, f'[revoked]\nsets = ["{root}"]')
    assert codes(signed) == ["OS768"]


def test_statements_that_do_not_count_any_more(signed: Signed) -> None:
    fill(signed)
    key = signed.keys["second"].public_key.keyid
    store(signed, 2, f'[revoked]\nkeys = ["{key}"]')
    assert codes(signed) == ["OS740"]
    for one in (signed.folder.parent / "index" / "statements").iterdir():
        one.unlink()
    assert codes(signed) == ["OS701", "OS701", "OS785"]


def test_the_rule_needs_a_place(signed: Signed) -> None:
    path = signed.folder.parent / "policy.toml"
    path.write_text('version = 1\ntrust = "producer.pub"\n[data]\n')
    with pytest.raises(ConfigError, match="is no policy"):
        read_policy(path)


def test_an_adapter_was_made_from_the_base_at_hand(signed: Signed) -> None:
    fill(signed)
    assert codes(signed) == []
    policy = read_policy(signed.folder.parent / "policy.toml")
    root, now = digest(signed.folder).root.hex(), datetime.now(UTC)
    assert [one.code for one in data_reasons(root, policy, now=now, base="b" * 64)[0]] == ["OS787"]
    payload = state_training("model", root, data=[], bases=[Link(name="base", root="b" * 64)])
    said = sign(payload, [signed.keys["producer"]]).to_json()
    Index(signed.folder.parent / "index").add_statement(said, policy.trust, "training")
    assert "OS787" not in [one.code for one in data_reasons(root, policy, now=now, base="b" * 64)[0]]
