"""Bills of materials as signed statements: what a policy asks of them, and every way that one can fail."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bom_case import BESIDE, made, scan, train
from signed_case import TEAM, Signed, flip, make_signed

import ostiary
from ostiary.core.errors import ConfigError, FormatError
from ostiary.provenance.bill import BILL, attest_bom, bom_reasons
from ostiary.provenance.bom.card import ModelCardFile
from ostiary.provenance.envelope import opened, sign
from ostiary.provenance.manifest import digest
from ostiary.provenance.policy import read_policy
from ostiary.provenance.refusal import Refused
from ostiary.provenance.statement import ROOT

LONG = 3650


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "state"))
    made = make_signed(tmp_path)
    (tmp_path / "trust.toml").write_text(TEAM)
    return made


def state_bom(signed: Signed, key: str = "producer", *, folder: Path | None = None, **facts: Any) -> Path:
    """A signed bill of materials beside the model; `folder` holds the model that it is really about."""
    whole = made(folder or signed.folder.parent, **{"days": LONG, **facts})
    about = (folder or signed.folder.parent) / "model"
    where = Path(f"{signed.folder}.bom")
    where.write_bytes(attest_bom(about, json.dumps(whole).encode(), [signed.keys[key]]).to_json())
    return where


def codes(signed: Signed, level: str = "minimum", **how: Any) -> list[str]:
    """The codes that speak against the model under the rule for bills of materials; empty where it is met."""
    path = signed.folder.parent / "policy.toml"
    path.write_text(f'version = 1\ntrust = "trust.toml"\n[bom]\nlevel = "{level}"\n')
    found = ostiary.admit(signed.folder, policy=path, **how)
    (ruling,) = [one for one in found.rules if one.rule == "bom"]
    assert (ruling.outcome == "met") == (not ruling.reasons) == bool(ruling.told)
    assert (found.decision == "admitted") == (not found.reasons)
    return [ground.code for ground in ruling.reasons]


def test_a_policy_wants_one(signed: Signed) -> None:
    assert codes(signed) == ["OS784"]
    state_bom(signed)
    assert codes(signed) == [] == codes(signed, "full")


def test_it_is_a_statement_about_the_model(signed: Signed) -> None:
    payload = json.loads(opened(state_bom(signed).read_bytes(), "bom").payload)
    assert payload["predicateType"] == BILL and payload["predicate"]["bomFormat"] == "CycloneDX"
    assert payload["subject"] == [{"name": "model", "digest": {ROOT: digest(signed.folder).root.hex()}}]


def test_a_name_that_cannot_be_signed_is_no_crash(signed: Signed) -> None:
    data = json.dumps(made(signed.folder.parent, days=LONG)).encode()
    with pytest.raises(ConfigError, match="no name of a model"):
        attest_bom(signed.folder, data, [signed.keys["producer"]], name="a/b")


def test_only_producers_sign_it(signed: Signed) -> None:
    state_bom(signed, "second")
    assert codes(signed) == ["OS745"]
    state_bom(signed, "stranger")
    assert codes(signed) == ["OS725"]


def test_a_producer_of_other_models_signs_none_under_another_name(signed: Signed) -> None:
    (signed.folder.parent / "trust.toml").write_text(
        TEAM.replace('roles = ["scanner"]', 'roles = ["producer"]\nmodels = ["cats-*"]')
    )
    where = state_bom(signed, "second")
    assert codes(signed) == ["OS746"]
    statement = json.loads(opened(where.read_bytes(), "bom").payload)
    statement["subject"][0]["name"] = "cats-1"
    where.write_bytes(sign(json.dumps(statement).encode(), [signed.keys["second"]]).to_json())
    assert codes(signed) == ["OS746"]


def test_of_other_bytes(signed: Signed, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    made(other)
    (other / "model" / "config.json").write_text("{}")
    state_bom(signed, folder=other)
    assert codes(signed) == ["OS793", "OS793"]  # its statement, and the document in it
    with pytest.raises(Refused, match="OS793"):
        attest_bom(signed.folder, json.dumps(made(other, days=LONG)).encode(), [signed.keys["producer"]])


def test_levels(signed: Signed) -> None:
    state_bom(signed, card=ModelCardFile(author="A. Author", supplier="Example Institute", licence="MIT"))
    assert codes(signed) == [] and set(codes(signed, "full")) == {"OS795"}
    state_bom(signed, card=ModelCardFile())
    assert set(codes(signed)) == {"OS795"}


def test_evidence_against_the_model_is_signed_and_refuses(signed: Signed) -> None:
    state_bom(signed, records=(train(), scan("suspect")))
    assert codes(signed) == ["OS798"]


def test_evidence_that_has_expired(signed: Signed, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    days = (now - datetime(2026, 5, 3, tzinfo=UTC)).days + 5
    state_bom(signed, days=days)
    assert codes(signed) == []
    file, manifest = Path(f"{signed.folder}.bom"), digest(signed.folder)
    policy = read_policy(signed.folder.parent / "policy.toml")
    reasons, told = bom_reasons(
        file, manifest, None, policy, name="model", now=now + timedelta(days=9), state=tmp_path / "later"
    )
    assert "OS794" in {one.code for one in reasons} and told == []
    for base, expected in (("c" * 64, set()), ("d" * 64, {"OS787"})):
        reasons, _ = bom_reasons(file, manifest, base, policy, name="model", now=now)
        assert {one.code for one in reasons} == expected


def test_what_a_base_was_made_from_is_no_base(signed: Signed) -> None:
    where = state_bom(signed)
    statement = json.loads(opened(where.read_bytes(), "bom").payload)
    (base,) = statement["predicate"]["metadata"]["component"]["pedigree"]["ancestors"]
    older = {"type": base["type"], "name": "older", "properties": [{"name": "ostiary:root", "value": "d" * 64}]}
    base["pedigree"] = {"ancestors": [older]}
    where.write_bytes(sign(json.dumps(statement).encode(), [signed.keys["producer"]]).to_json())
    assert codes(signed) == []
    policy, now = read_policy(signed.folder.parent / "policy.toml"), datetime.now(UTC)
    for root, expected in (("c" * 64, []), ("d" * 64, ["OS787"])):
        reasons, _ = bom_reasons(where, digest(signed.folder), root, policy, name="model", now=now)
        assert [one.code for one in reasons] == expected


def test_a_bill_that_tells_no_base_says_nothing_of_it(signed: Signed) -> None:
    file = state_bom(signed, beside=replace(BESIDE, ancestors=()))
    codes(signed)
    policy = read_policy(signed.folder.parent / "policy.toml")
    assert bom_reasons(file, digest(signed.folder), "d" * 64, policy, name="model", now=datetime.now(UTC))[0] == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: s.update(predicateType="https://cyclonedx.org/bom/v1.4"), "OS729"),
        (lambda s: s["subject"][0]["digest"].update({ROOT: "0" * 64}), "OS793"),
        (lambda s: s["predicate"].update(bomFormat="SPDX"), "OS788"),
        (lambda s: s["predicate"].update(specVersion="1.5"), "OS788"),
        (lambda s: s["predicate"].update(surprise=1), "OS789"),
        (lambda s: s["predicate"]["dependencies"].append({"ref": "nobody"}), "OS791"),
        (lambda s: s["predicate"]["metadata"]["component"]["components"].pop(), "OS797"),
    ],
)
def test_statements_that_are_none(signed: Signed, change: Callable[[dict[str, Any]], Any], code: str) -> None:
    where = state_bom(signed)
    statement = json.loads(opened(where.read_bytes(), "bom").payload)
    change(statement)
    where.write_bytes(sign(json.dumps(statement).encode(), [signed.keys["producer"]]).to_json())
    assert code in codes(signed)


def test_a_changed_bit_and_a_missing_file(signed: Signed, tmp_path: Path) -> None:
    where = state_bom(signed)
    flip(where, len(where.read_bytes()) // 2)
    assert codes(signed) and codes(signed) != ["OS784"]
    with pytest.raises(FormatError):
        codes(signed, bom=tmp_path / "none.bom")


def test_a_bill_about_two_models_says_of_neither_what_it_says(signed: Signed) -> None:
    where = state_bom(signed)
    statement = json.loads(opened(where.read_bytes(), "bom").payload)
    bom = statement["predicate"]
    own = bom["metadata"].pop("component")
    other = {"type": "machine-learning-model", "name": "other", "bom-ref": "other"}
    bom["components"] = [own, other, *bom.get("components", [])]
    where.write_bytes(sign(json.dumps(statement).encode(), [signed.keys["producer"]]).to_json())
    assert "OS793" in codes(signed)
