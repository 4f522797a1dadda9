"""The example gate of MLflow against a real store of files: what is admitted is promoted, and nothing else."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scanned_case import state_scan
from signed_case import TEAM, Signed, flip, make_signed

from ostiary.provenance.sign import sign_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "mlflow_gate.py"


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    spec = importlib.util.spec_from_file_location("mlflow_gate", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Registry:
    """A store of files with the model `net`, whose versions are folders that were logged with a signature beside."""

    def __init__(self, gate: ModuleType, root: Path) -> None:
        self.gate = gate
        self.client = gate.MlflowClient()
        self.signed: Signed = make_signed(root)
        self.run = self.client.create_run(self.client.create_experiment("nets")).info
        self.client.create_registered_model("net")

    def register(self, *, name: str = "net") -> str:
        """A new version of the folder as it is, signed under `name` by the producer."""
        version = str(len(self.client.search_model_versions("name='net'")) + 1)
        signature = self.signed.folder.parent / f"v{version}.sig"
        signature.write_bytes(sign_model(self.signed.folder, [self.signed.keys["producer"]], name=name).to_json())
        self.client.log_artifacts(self.run.run_id, str(self.signed.folder), f"v{version}")
        self.client.log_artifact(self.run.run_id, str(signature))
        source = f"{self.run.artifact_uri}/v{version}"
        return str(self.client.create_model_version("net", source, self.run.run_id).version)

    def stored(self, version: str) -> Path:
        """The folder that holds the version in the store."""
        return Path(self.client.get_model_version("net", version).source.removeprefix("file://"))

    def promote(self, version: str, *more: str, policy: Path | None = None) -> int:
        asked = str(policy or self.signed.public())
        found: int = self.gate.main(["net", version, "--policy", asked, "--alias", "champion", *more])
        return found

    @property
    def champion(self) -> Any:
        return self.gate.holder(self.client, "net", "champion")

    def tags(self, version: str) -> dict[str, str]:
        found = self.client.get_model_version("net", version).tags
        return {key.removeprefix("ostiary."): value for key, value in found.items()}


@pytest.fixture
def registry(gate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, (tmp_path / "store").as_uri())
    return Registry(gate, tmp_path)


def test_a_signed_version_is_promoted_and_says_why(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    version = registry.register()
    assert registry.promote(version) == 0 and registry.champion == version
    assert f"net version {version}: admitted, now champion" in capsys.readouterr().out
    tags = registry.tags(version)
    assert tags["decision"] == "admitted" and tags["signers"] == "producer" and tags["reasons"] == ""
    kept = json.loads((registry.stored(version).parent / "ostiary" / f"decision-{version}.json").read_text())
    assert kept["root"] == tags["root"] and kept["subject"] == f"models:/net/{version}"
    assert str(registry.signed.folder.parent) not in json.dumps(kept)


def test_a_policy_that_asks_for_a_scan_gets_the_one_beside_the_model(registry: Registry) -> None:
    root = registry.signed.folder.parent
    (root / "trust.toml").write_text(TEAM)
    (root / "policy.toml").write_text('version = 1\ntrust = "trust.toml"\n[scan]\n')
    version = registry.register()
    assert registry.promote(version, policy=root / "policy.toml") == 1
    assert registry.tags(version)["reasons"] == "OS775"
    state_scan(registry.signed.folder, registry.signed.keys["second"])
    stated = root / f"v{version}.scan"
    (root / "model.scan").rename(stated)
    registry.client.log_artifact(registry.run.run_id, str(stated))
    assert registry.promote(version, policy=root / "policy.toml") == 0
    assert registry.tags(version)["reasons"] == ""


def test_an_altered_version_is_refused_and_the_promoted_one_stays(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = registry.register(), registry.register()
    assert registry.promote(first) == 0
    flip(registry.stored(second) / "config.json", 2)
    assert registry.promote(second) == 1 and registry.champion == first
    assert "OS707 config.json" in capsys.readouterr().out
    assert registry.tags(second)["decision"] == "refused" and registry.tags(second)["reasons"] == "OS707"
    assert registry.tags(second)["root"] != registry.tags(first)["root"]


def test_a_promoted_version_that_is_altered_later_loses_the_alias(registry: Registry) -> None:
    version = registry.register()
    assert registry.promote(version) == 0
    flip(registry.stored(version) / "config.json", 2)
    assert registry.promote(version) == 1 and registry.champion is None


def test_a_signature_of_another_model_does_not_promote_this_one(registry: Registry) -> None:
    version = registry.register(name="other")
    assert registry.promote(version) == 1 and registry.tags(version)["reasons"] == "OS712"
    assert registry.champion is None


def test_a_signature_at_hand(registry: Registry) -> None:
    version = registry.register()
    (registry.stored(version).parent / f"v{version}.sig").unlink()
    assert registry.promote(version, "--signature", str(registry.signed.folder.parent / f"v{version}.sig")) == 0
    assert registry.promote(version, "--signature", str(registry.signed.folder / "none.sig")) == 1
    assert registry.tags(version)["reasons"] == "OS701" and registry.champion is None


def test_what_cannot_be_read_promotes_nothing_and_leaves_no_old_decision(registry: Registry) -> None:
    version = registry.register()
    assert registry.promote(version) == 0
    (registry.stored(version).parent / f"v{version}.sig").unlink()
    assert registry.promote(version) == 2
    assert registry.tags(version)["decision"] == "pending"
    assert registry.promote("99") == 2
