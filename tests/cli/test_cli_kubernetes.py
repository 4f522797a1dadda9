"""The init container of the example: what its command does here; the server sees nothing but verified bytes."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_case import environment, program
from signed_case import Signed, flip, make_signed

from ostiary.provenance.manifest import digest
from ostiary.provenance.sign import sign_model

FILE = Path(__file__).parents[2] / "examples" / "kubernetes" / "verified-model.yaml"
TRUST, DEPLOYMENT = yaml.safe_load_all(FILE.read_text(encoding="utf-8"))
POD = DEPLOYMENT["spec"]["template"]["spec"]


def mounts(container: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    return {one["name"]: (one["mountPath"], one.get("readOnly", False)) for one in container["volumeMounts"]}


def test_the_server_mounts_verified_bytes_read_only_and_no_source() -> None:
    (init,), (server,) = POD["initContainers"], POD["containers"]
    assert mounts(server) == {"verified": ("/models", True)}
    assert mounts(init)["source"] == ("/source", True) and mounts(init)["trust"] == ("/trust", True)
    assert mounts(init)["verified"] == ("/verified", False)
    assert "--copy-to /verified/digits" in init["args"][0]
    volumes = {one["name"]: one for one in POD["volumes"]}
    assert (
        volumes["verified"]["emptyDir"]["medium"] == "Memory" and volumes["source"]["persistentVolumeClaim"]["readOnly"]
    )
    assert {one["name"] for one in init["volumeMounts"]} <= set(volumes)
    for container in (init, server):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.fixture
def mounted(tmp_path: Path) -> tuple[Path, Signed]:
    """The volumes of the pod as folders, with a model signed as version 3 of `digits`."""
    for name in ("source", "trust", "verified", "tmp"):
        (tmp_path / name).mkdir()
    made = make_signed(tmp_path / "source")
    signed = Signed(made.folder.rename(tmp_path / "source" / "digits"), tmp_path / "source" / "digits.sig", made.keys)
    sign(signed, 3)
    data = {**TRUST["data"], "release.pub": (tmp_path / "source" / "producer.pub").read_text()}
    # As a ConfigMap is mounted: links into a folder that is swapped as a whole.
    (tmp_path / "trust" / "..2026").mkdir()
    (tmp_path / "trust" / "..data").symlink_to("..2026")
    for name, text in data.items():
        (tmp_path / "trust" / "..2026" / name).write_text(text)
        (tmp_path / "trust" / name).symlink_to(f"..data/{name}")
    return tmp_path, signed


def sign(signed: Signed, version: int) -> None:
    signed.signature.write_bytes(sign_model(signed.folder, [signed.keys["producer"]], version=version).to_json())


def start(root: Path) -> "subprocess.CompletedProcess[str]":
    """The command of the init container with the mounts under `root`."""
    (init,) = POD["initContainers"]
    points = "|".join(point for point, _ in mounts(init).values())

    def here(word: str) -> str:
        return re.sub(rf"(?<!\S)({points})(?=/)", lambda found: f"{root}{found.group()}", word)

    own = {one["name"]: here(one["value"]) for one in init["env"]} | {"PATH": program(root / "programs")}
    command = [*init["command"], *map(here, init["args"])]
    return subprocess.run(
        command, cwd=root, env=environment(root / "runs", own), check=False, capture_output=True, text=True
    )


def test_a_container_that_is_run_again_verifies_again(mounted: tuple[Path, Signed]) -> None:
    root, signed = mounted
    assert start(root).returncode == start(root).returncode == 0
    flip(signed.folder / "config.json", 2)
    assert start(root).returncode == 1
    assert list((root / "verified").iterdir()) == [], "what passed before is not what is found now"


def test_a_signed_model_is_handed_over(mounted: tuple[Path, Signed]) -> None:
    root, signed = mounted
    done = start(root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert digest(root / "verified" / "digits").root == digest(signed.folder).root
    flip(signed.folder / "config.json", 2)
    assert digest(root / "verified" / "digits").root != digest(signed.folder).root, "the source no longer matters"


@pytest.mark.parametrize("harm", ["altered", "added", "old", "stranger"])
def test_anything_else_stops_the_pod_and_hands_over_nothing(mounted: tuple[Path, Signed], harm: str) -> None:
    root, signed = mounted
    if harm == "altered":
        flip(signed.folder / "config.json", 2)
    elif harm == "added":
        (signed.folder / "extra.py").write_text("print()")
    elif harm == "old":
        sign(signed, 2)
    else:
        signed.signature.write_bytes(sign_model(signed.folder, [signed.keys["stranger"]], version=3).to_json())
    done = start(root)
    code = {"altered": "OS707", "added": "OS709", "old": "OS749", "stranger": "OS725"}[harm]
    assert done.returncode == 1 and code in done.stdout, done.stdout + done.stderr
    assert list((root / "verified").iterdir()) == []
