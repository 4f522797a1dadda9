"""`attest` and `admit` as commands: a real scan of a real model, stated, and every end that admitting can come to."""

import json
from pathlib import Path

import pytest
from cli_case import batch
from scanned_case import DIGEST, make_record
from signed_case import flip

TRUST = """id = "team"
version = 1
expires = 2099-01-01T00:00:00Z
[[identity]]
name = "release"
key = "release.pub"
roles = ["producer"]
[[identity]]
name = "lab"
key = "lab.pub"
roles = ["scanner"]
"""
POLICY = 'version = 1\ntrust = "trust.toml"\n[scan]\nfamilies = ["patch"]\n'
FEW = ["--method", "neural-cleanse", "--set", "neural-cleanse.steps=20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, signed by one key, scanned and stated by another."""
    root = tmp_path_factory.mktemp("admit")
    (root / "trust.toml").write_text(TRUST)
    (root / "policy.toml").write_text(POLICY)
    made = batch(
        [
            ["train", "digits", "-o", "model.safetensors", "--epochs", "1", "--width", "4"],
            [
                "scan",
                "model.safetensors",
                "--trusted",
                "digits",
                "--limit",
                "50",
                *FEW,
                "--format",
                "json",
                "--exit-zero",
            ],
            ["key", "new", "--out", "release"],
            ["key", "new", "--out", "lab"],
            ["sign", "model.safetensors", "--key", "release.key", "-o", "model.safetensors.sig"],
        ],
        cwd=root,
    )
    assert [one.code for one in made] == [0] * 5, [one.err for one in made]
    # What a search of twenty steps finds is of no interest here: the record says that it found nothing.
    record = root / "record.json"
    found = made[1].record
    for result in found["results"]:
        result["findings"] = []
    record.write_text(json.dumps({**found, "verdict": "none-found"}))
    (root / "accusing.json").write_text(make_record("suspect", digests={"model": found["digests"]["model"]}).to_json())
    (root / "other.json").write_text(make_record(digests={"model": DIGEST}).to_json())
    return root


ATTEST = ["attest", "model.safetensors", "--key", "lab.key"]
ADMIT = ["admit", "model.safetensors", "--policy", "policy.toml"]


def test_the_whole_way(folder: Path) -> None:
    calls = [
        ADMIT,
        [*ATTEST, "--record", "record.json", "-o", "model.safetensors.scan"],
        ADMIT,
        [*ADMIT, "--format", "json", "--report", "decision.json"],
        [*ATTEST, "--record", "record.json", "-o", "model.svr", "--form", "svr"],
        [*ATTEST, "--record", "accusing.json", "-o", "model.accused"],
        [*ADMIT, "--scan", "model.safetensors.scan", "--scan", "model.accused"],
        [*ADMIT, "--scan", "model.accused"],
    ]
    without, stated, admitted, whole, svr, accused, both, alone = batch(calls, cwd=folder)
    assert without.code == 1 and "OS775" in without.out and without.out.rstrip().endswith("refused")
    assert stated.code == svr.code == accused.code == 0 and "wrote model.safetensors.scan" in stated.out
    assert admitted.code == 0 and "lab scanned it on" in admitted.out and "not for whole-image" in admitted.out
    assert "does not prove it harmless" in admitted.out and "signed by release" in admitted.out
    assert whole.code == 0 and whole.record["decision"] == "admitted"
    assert json.loads((folder / "decision.json").read_text())["rules"] == whole.record["rules"]
    assert both.code == 1 and "OS783" in both.out
    assert alone.code == 1 and "OS778" in alone.out


def test_bad_input(folder: Path) -> None:
    calls = [
        [*ATTEST, "-o", "x"],
        [*ATTEST, "--record", "record.json", "--bom", "b.json", "-o", "x"],
        [*ATTEST, "--bom", "b.json", "--days", "3", "-o", "x"],
        [*ATTEST, "--record", "other.json", "-o", "x"],
        [*ATTEST, "--record", "nothing", "-o", "x"],
        [*ATTEST, "--record", "record.json", "-o", "policy.toml"],
        [*ATTEST, "--record", "accusing.json", "-o", "x", "--form", "svr"],
        [*ATTEST, "--record", "record.json", "-o", "x", "--days", "1e9"],
        [*ATTEST, "--record", "record.json", "-o", "x", "--days", "nan"],
        ["bom", "make", "model.safetensors", "--record", "record.json", "--evidence-days", "99999999", "-o", "x"],
        ["attest", "none.safetensors", "--key", "lab.key", "--record", "record.json", "-o", "x"],
        ["admit", "none.safetensors", "--policy", "policy.toml"],
        ["admit", "model.safetensors", "--policy", "none.toml"],
        ["admit", "model.safetensors", "--policy", "strict"],
        ["admit", "--policy", "policy.toml"],
        [*ADMIT, "--scan", "none.scan"],
        [*ADMIT, "--report", "decision.txt"],
        [*ADMIT, "--pin", "a" * 64],
    ]
    found = batch(calls, cwd=folder)
    assert [one.code for one in found] == [2] * 17 + [1]
    assert all(one.errors for one in found[:17])
    assert not (folder / "x").exists() and (folder / "policy.toml").read_text() == POLICY
    assert "about another model" in found[3].err and "OS750" in found[17].err


def test_what_is_explained(folder: Path) -> None:
    (folder / "newer.toml").write_text(f'{POLICY}min_version = "0.1"\n')
    strict, research, own, key, newer = batch(
        [
            ["admit", "--explain", "--policy", "strict"],
            ["admit", "--explain", "--policy", "research"],
            ["admit", "--explain", "--policy", "policy.toml"],
            ["admit", "--explain", "--policy", "release.pub"],
            ["admit", "--explain", "--policy", "newer.toml"],
        ],
        cwd=folder,
    )
    assert strict.code == research.code == own.code == 0 and key.code == 2
    assert "not the signer" in strict.out and '[bom]\nlevel = "full"' in strict.out
    assert "may well hold a backdoor" in research.out
    assert POLICY.strip() in own.out and "or newer" not in own.out
    assert "made by version 0.1 or newer" in newer.out


def test_a_changed_model_is_refused_with_every_reason(folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.safetensors.sig", "policy.toml", "trust.toml", "release.pub", "lab.pub"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    flip(tmp_path / "model.safetensors", -1)
    (found,) = batch([ADMIT], cwd=tmp_path)
    assert found.code == 1 and "OS707" in found.out and "OS775" in found.out
