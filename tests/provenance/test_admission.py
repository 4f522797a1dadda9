"""`admit`: every rule is looked at and told, and the decision is none better than the worst of them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from scanned_case import state_scan
from signed_case import TEAM, Signed, flip, make_signed

from ostiary.core.errors import ConfigError, FormatError
from ostiary.provenance.admission import admit
from ostiary.provenance.decision import Decision
from ostiary.provenance.loader import Evidence
from ostiary.provenance.manifest import digest
from ostiary.provenance.policy import READY, read_policy, read_rules
from ostiary.provenance.sign import sign_model
from ostiary.report.outcome import of_decision


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "state"))
    made = make_signed(tmp_path)
    (tmp_path / "trust.toml").write_text(TEAM)
    return made


def policy(signed: Signed, text: str = "[scan]") -> Path:
    path = signed.folder.parent / "policy.toml"
    path.write_text(f'version = 1\ntrust = "trust.toml"\n{text}\n')
    return path


def outcomes(decision: Decision) -> dict[str, tuple[str, list[str]]]:
    return {one.rule: (one.outcome, [ground.code for ground in one.reasons]) for one in decision.rules}


def test_what_meets_every_rule_is_admitted(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["second"])
    found = admit(signed.folder, policy(signed))
    assert (found.kind, found.decision, found.signers) == ("admit", "admitted", ("release",))
    assert found.root == digest(signed.folder).root.hex() and found.policy and found.trust
    assert outcomes(found) == {
        "signature": ("met", []),
        "scan": ("met", []),
        "bom": ("not-asked", []),
        "data": ("not-asked", []),
        "contents": ("met", []),
        "base": ("not-asked", []),
    }
    assert Decision.model_validate_json(found.to_json()) == found


def test_every_rule_is_told_at_once(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["second"], "suspect")
    signed.signature.unlink()
    (signed.folder / "model-3.safetensors").write_bytes(b"\x80\x04N.")
    found = admit(signed.folder, policy(signed))
    assert found.decision == "refused" and found.root
    assert outcomes(found)["signature"] == ("broken", ["OS701"])
    assert outcomes(found)["scan"] == ("broken", ["OS776"])  # the file was added after the scan
    assert outcomes(found)["contents"][0] == "broken"
    assert [ground.code for ground in found.reasons][:2] == ["OS701", "OS776"]


def test_values_are_looked_at_although_nobody_signed(signed: Signed) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a.weight": torch.tensor([float("nan")])}, signed.folder / "model-1.safetensors")
    found = outcomes(admit(signed.folder, policy(signed, "")))
    assert found["signature"] == ("broken", ["OS707"])
    assert found["contents"] == ("broken", ["OS763", "OS762"])  # another shape than the signed one, and no number


def test_a_scan_without_a_result_is_incomplete_and_no_pass(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["second"], "incomplete")
    found = admit(signed.folder, policy(signed))
    assert found.decision == "incomplete" and outcomes(found)["scan"] == ("undecided", ["OS779"])
    signed.signature.unlink()
    assert admit(signed.folder, policy(signed)).decision == "refused"


def test_a_missing_scan_refuses(signed: Signed) -> None:
    found = admit(signed.folder, policy(signed))
    assert found.decision == "refused" and outcomes(found)["scan"] == ("broken", ["OS775"])


def test_an_exemption_says_what_it_lets_pass(signed: Signed) -> None:
    root = digest(signed.folder).root.hex()
    until = "expires = 2099-01-01T00:00:00Z"
    exemption = f'[[exemption]]\nroot = "{root}"\ncodes = ["OS775"]\nreason = "scan is due on Monday"\n{until}'
    found = admit(signed.folder, policy(signed, f"[scan]\n{exemption}"))
    assert found.decision == "exempted" and "due on Monday" in str(found.exemption)
    assert outcomes(found)["scan"] == ("broken", ["OS775"])
    flip(signed.folder / "config.json", 3)
    assert admit(signed.folder, policy(signed, f"[scan]\n{exemption}")).decision == "refused"


def test_an_exempted_signature_makes_nobody_a_scanner_of_their_own_model(signed: Signed) -> None:
    trust = signed.folder.parent / "trust.toml"
    trust.write_text(TEAM.replace('roles = ["producer"]', 'roles = ["producer", "scanner"]') + "[floor]\nmodel = 7\n")
    state_scan(signed.folder, signed.keys["producer"])
    root = digest(signed.folder).root.hex()
    until = "expires = 2099-01-01T00:00:00Z"
    exemption = f'[[exemption]]\nroot = "{root}"\ncodes = ["OS749"]\nreason = "an old release"\n{until}'
    assert outcomes(admit(signed.folder, policy(signed, f"[scan]\n{exemption}")))["scan"] == ("broken", ["OS780"])
    assert admit(signed.folder, policy(signed, f"[scan]\nseparate = false\n{exemption}")).decision == "exempted"


@pytest.mark.skipif(find_spec("blake3") is None, reason="BLAKE3 is not installed")
def test_a_scan_speaks_of_a_model_in_sha256_whatever_it_is_signed_in(signed: Signed) -> None:
    signed.signature.write_bytes(sign_model(signed.folder, [signed.keys["producer"]], algorithm="blake3").to_json())
    state_scan(signed.folder, signed.keys["second"])
    found = admit(signed.folder, policy(signed))
    assert found.decision == "admitted" and found.root != digest(signed.folder).root.hex()
    flip(signed.folder / "config.json", 3)
    assert outcomes(admit(signed.folder, policy(signed)))["scan"] == ("broken", ["OS776"])


@pytest.mark.skipif(find_spec("blake3") is None, reason="BLAKE3 is not installed")
def test_a_model_that_is_revoked_by_its_root_is_so_whatever_it_is_signed_in(signed: Signed) -> None:
    store = signed.folder.parent / "trust.toml"
    store.write_text(f'{TEAM}[revoked]\nmodels = ["{digest(signed.folder).root.hex()}"]\n')
    assert outcomes(admit(signed.folder, policy(signed, "")))["signature"] == ("broken", ["OS741"])
    signed.signature.write_bytes(sign_model(signed.folder, [signed.keys["producer"]], algorithm="blake3").to_json())
    assert outcomes(admit(signed.folder, policy(signed, "")))["signature"] == ("broken", ["OS741"])


def make_part(signed: Signed, name: str, files: dict[str, bytes]) -> Path:
    """A further signed and scanned folder beside the model."""
    folder = signed.folder.parent / name
    folder.mkdir()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    Path(f"{folder}.sig").write_bytes(sign_model(folder, [signed.keys["producer"]]).to_json())
    return folder


def adapter(signed: Signed, name: str = "adapter") -> Path:
    weights = (signed.folder / "model-1.safetensors").read_bytes()
    files = {"adapter_config.json": b'{"base_model_name_or_path": "model"}', "adapter_model.safetensors": weights}
    return make_part(signed, name, files)


def test_an_adapter_is_admitted_on_its_base(signed: Signed) -> None:
    tuned = adapter(signed)
    state_scan(signed.folder, signed.keys["second"])
    state_scan(tuned, signed.keys["second"], base=signed.folder)
    found = admit(tuned, policy(signed), base=signed.folder)
    assert found.decision == "admitted" and [part.decision for part in found.parts] == ["admitted"]
    assert outcomes(admit(tuned, policy(signed)))["contents"] == ("broken", ["OS765"])
    assert outcomes(admit(tuned, policy(signed)))["scan"] == ("broken", ["OS776"])


def test_a_base_that_is_refused_refuses_what_stands_on_it(signed: Signed) -> None:
    tuned = adapter(signed)
    state_scan(tuned, signed.keys["second"], base=signed.folder)
    found = admit(tuned, policy(signed), base=signed.folder)
    assert found.decision == "refused" and outcomes(found)["base"] == ("broken", ["OS787"])
    assert "OS775" in found.rules[-1].reasons[0].message
    assert found.parts[0].decision == "refused"


def test_a_base_without_a_result_leaves_what_stands_on_it_open(signed: Signed) -> None:
    tuned = adapter(signed)
    state_scan(signed.folder, signed.keys["second"], "incomplete")
    state_scan(tuned, signed.keys["second"], base=signed.folder)
    found = admit(tuned, policy(signed), base=signed.folder)
    assert found.decision == "incomplete" and outcomes(found)["base"] == ("undecided", ["OS779"])


def test_adapters_are_held_against_the_model_that_they_are_for(signed: Signed) -> None:
    first, second = adapter(signed, "first"), adapter(signed, "second-adapter")
    state_scan(signed.folder, signed.keys["second"])
    for one in (first, second):
        state_scan(one, signed.keys["second"], base=signed.folder)
    found = admit(signed.folder, policy(signed), adapters=[first, second])
    assert found.decision == "admitted" and len(found.parts) == 2
    state_scan(second, signed.keys["second"], "backdoor", base=signed.folder)
    found = admit(signed.folder, policy(signed), adapters=[first, second])
    assert found.decision == "refused" and outcomes(found)["base"] == ("broken", ["OS787"])
    state_scan(second, signed.keys["second"], "incomplete", base=signed.folder)
    found = admit(signed.folder, policy(signed), adapters=[first, second])
    assert found.decision == "incomplete" and outcomes(found)["base"] == ("undecided", ["OS779"])


def test_a_signature_of_the_first_day_of_the_calendar_is_told_as_it_is(signed: Signed) -> None:
    signed.resign(lambda statement: statement["predicate"].update(created="0001-01-01T00:00:00+14:00"))
    found = admit(signed.folder, policy(signed, ""))
    assert found.decision == "admitted" and found.signed == "0001-01-01T00:00:00+14:00"


def test_a_swapped_file_is_told_by_name(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["second"])
    flip(signed.folder / "model-2.safetensors", -1)
    found = outcomes(admit(signed.folder, policy(signed)))
    assert found["signature"] == ("broken", ["OS707"]) and found["scan"] == ("broken", ["OS776"])


@pytest.mark.parametrize("name", READY)
def test_ready_policies(signed: Signed, name: str) -> None:
    rules, text = read_rules(name)
    assert rules.trust is None and text.startswith("#")
    with pytest.raises(ConfigError, match="whom to trust"):
        read_policy(name)
    found = admit(signed.folder, read_policy(name, trust=signed.folder.parent / "trust.toml"))
    assert found.decision == ("admitted" if name == "research" else "refused")


def test_whom_to_trust_is_not_said_twice(signed: Signed) -> None:
    key, store = signed.public(), signed.store()
    for file, other in ((key, store), (store, key)):
        assert read_policy(file).rules.scan is None
        with pytest.raises(ConfigError, match="says it, too"):
            read_policy(file, trust=other)


def test_ready_names_are_no_files(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(signed.folder.parent)
    Path("strict").write_text('version = 1\ntrust = "trust.toml"\n')
    assert read_rules("strict")[0].scan is not None


@pytest.mark.parametrize(
    "text",
    [
        "[scan]\nmax_age_days = 0",
        "[scan]\nmax_age_days = inf",
        "[scan]\nmax_age_days = 1e12",
        "[scan]\nfamilies = ['magic']",
        "[scan]\nmin_version = 'new'",
        "[bom]\nlevel = 'some'",
    ],
)
def test_policies_that_mean_nothing(signed: Signed, text: str) -> None:
    with pytest.raises(ConfigError, match="is no policy"):
        read_policy(policy(signed, text))


def test_evidence_that_is_not_there(signed: Signed, tmp_path: Path) -> None:
    for wrong in (tmp_path / "none.scan", tmp_path):
        with pytest.raises(FormatError):
            admit(signed.folder, policy(signed), evidence=Evidence(scans=[wrong]))


def test_a_link_in_place_of_a_file_is_refused(signed: Signed) -> None:
    (signed.folder / "link").symlink_to("/etc/hostname")
    found: Any = admit(signed.folder, policy(signed))
    assert found.decision == "refused" and "OS702" in [ground.code for ground in found.reasons]


def test_a_rule_that_was_not_come_to_is_told_as_open(signed: Signed) -> None:
    state_scan(signed.folder, signed.keys["second"])
    (signed.folder / "link").symlink_to("config.json")
    found = admit(signed.folder, policy(signed))
    assert found.decision == "refused" and outcomes(found) == {
        "signature": ("undecided", []),
        "scan": ("undecided", []),
        "bom": ("not-asked", []),
        "data": ("not-asked", []),
        "contents": ("broken", ["OS702"]),
        "base": ("not-asked", []),
    }
    skipped = {one.name: one.status for one in of_decision(found).checks}
    assert skipped["admit.scan"] == skipped["admit.signature"] == "skipped"
