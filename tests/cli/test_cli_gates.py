"""SARIF, JUnit, `inspect` and `verify --copy-to` as commands: what is written; exit codes stay what they were."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_case import Result, batch, environment, files
from gate_case import messages, run_of, suite_of
from safetensors.torch import save_file
from signed_case import flip, make_signed, write_model

from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import save_model
from ostiary.models.zoo import build


class Runs:
    """Would run a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("true",)


def weights(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"w": torch.zeros(3)}, folder / "good.safetensors")
    (folder / "bad.pt").write_bytes(pickle.dumps(Runs()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """Scans and screenings that take no training, of a network of random weights and of a set with a conflict."""
    folder = tmp_path_factory.mktemp("gates")
    torch.manual_seed(0)
    module = build("small-cnn", 3, width=4)
    with torch.no_grad():
        list(module.parameters())[-2][1] += 5
    save_model(TorchClassifier(module, 3, (3, 16, 16), arch="small-cnn"), folder / "net.safetensors")
    x = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), np.uint8)
    x[20:30] = x[:10]
    np.savez(folder / "data.npz", x=x, y=np.arange(40) // 20)
    weigh = ["scan", "net.safetensors", "--method", "trojan-signature"]
    conflict = ["screen", "data.npz", "--method", "label-conflicts"]
    calls = {
        "text": weigh,
        "sarif": [*weigh, "--format", "sarif", "--report", "scan.xml", "--report", "scan.sarif"],
        "junit": [*weigh, "--format", "junit", "-o", "scan2.sarif"],
        "lenient": [*weigh, "--format", "junit", "--fail-on", "backdoor"],
        "skipped": [*weigh, "--method", "neural-cleanse", "--format", "sarif", "--report", "skipped.xml"],
        "screen": [*conflict, "--format", "sarif", "--report", "screen.xml"],
        "screen text": conflict,
        "other": [*weigh, "--report", "scan.txt"],
    }
    return folder, dict(zip(calls, batch(list(calls.values()), cwd=folder), strict=True))


def test_a_scan_in_every_form_with_the_same_exit_code(runs: tuple[Path, dict[str, Result]]) -> None:
    folder, results = runs
    assert results["text"].code == results["sarif"].code == results["junit"].code == 1, results["text"].err
    run, suite = run_of(results["sarif"].out), suite_of(results["junit"].out)
    found = [(one["ruleId"], one["level"]) for one in run["results"]]
    assert ("OS206", "warning") in found
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "net.safetensors"
    assert len(suite.findall("testcase/failure")) == len(found)
    # Another run, another record: the fingerprints are those of before.
    marks = [[one["partialFingerprints"] for one in run_of((folder / name).read_text())["results"]] for name in NAMES]
    assert marks[0] == marks[1] == [one["partialFingerprints"] for one in run["results"]]
    assert suite_of((folder / "scan.xml").read_text()).get("failures") == suite.get("failures")


NAMES = ("scan.sarif", "scan2.sarif")


def test_what_does_not_fail_the_command_fails_no_case(runs: tuple[Path, dict[str, Result]]) -> None:
    lenient = runs[1]["lenient"]
    assert lenient.code == 0 and suite_of(lenient.out).get("failures") == "0"
    assert "OS206" in lenient.out


def test_a_method_asked_for_by_name_and_skipped_is_no_pass(runs: tuple[Path, dict[str, Result]]) -> None:
    folder, results = runs
    run = run_of(results["skipped"].out)
    assert run["invocations"][0]["executionSuccessful"] is False
    assert "OS736" in {one["ruleId"] for one in run["results"]}
    assert any("scan.neural-cleanse: skipped" in text for text in messages(run))
    suite = suite_of((folder / "skipped.xml").read_text())
    assert suite.get("skipped") == "1" and suite.get("errors") == "1"


def test_a_screening(runs: tuple[Path, dict[str, Result]]) -> None:
    folder, results = runs
    assert results["screen"].code == results["screen text"].code == 1, results["screen text"].out
    run = run_of(results["screen"].out)
    assert run["automationDetails"]["id"] == "ostiary/screen/data.npz/" and run["results"]
    assert suite_of((folder / "screen.xml").read_text()).findall("testcase/failure")


def test_another_suffix_is_refused_before_any_work(runs: tuple[Path, dict[str, Result]]) -> None:
    other = runs[1]["other"]
    assert other.code == 2 and ".sarif" in other.err


def test_verify_in_every_form(tmp_path: Path) -> None:
    signed = make_signed(tmp_path)
    call = ["verify", "model", "--signature", "model.sig", "--trust", "producer.pub"]
    good = batch([[*call, "--format", "sarif"], [*call, "--format", "junit", "--report", "a.sarif"]], cwd=tmp_path)
    assert [one.code for one in good] == [0, 0]
    assert run_of(good[0].out)["results"] == run_of((tmp_path / "a.sarif").read_text())["results"] == []
    assert suite_of(good[1].out).get("tests") == "1"
    flip(signed.folder / "config.json", 2)
    bad = batch([[*call, "--format", "sarif", "--report", "b.xml", "--report", "b.json"]], cwd=tmp_path)[0]
    (result,) = run_of(bad.out)["results"]
    assert bad.code == 1 and result["ruleId"] == "OS707"
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "model/config.json"
    assert suite_of((tmp_path / "b.xml").read_text()).get("failures") == "1"
    assert json.loads((tmp_path / "b.json").read_text())["decision"] == "refused"


def test_verify_writes_the_copy_or_nothing(tmp_path: Path) -> None:
    signed = make_signed(tmp_path)
    call = ["verify", "model", "--signature", "model.sig", "--trust", "producer.pub", "--copy-to"]
    good, again, inside = batch([[*call, "copy"], [*call, "copy"], [*call, "model/copy"]], cwd=tmp_path)
    assert good.code == 0 and files(tmp_path / "copy") == files(signed.folder)
    assert again.code == 2 and "exists already" in again.err
    assert inside.code == 2 and "lies inside of" in inside.err
    before = files(tmp_path)
    flip(signed.folder / "config.json", 2)
    bad = batch([[*call, "other", "--format", "json"]], cwd=tmp_path)[0]
    assert bad.code == 1 and bad.record["reasons"][0]["code"] == "OS707"
    assert files(tmp_path) == before


def test_admit_in_every_form(tmp_path: Path) -> None:
    make_signed(tmp_path)
    call = ["admit", "model", "--trust", "producer.pub", "--policy"]
    env = {"OSTIARY_STATE": str(tmp_path / "state")}
    good, bad = batch(
        [[*call, "research", "--format", "sarif"], [*call, "team", "--format", "junit", "--report", "a.sarif"]],
        cwd=tmp_path,
        env=env,
    )
    assert good.code == 0 and run_of(good.out)["results"] == []
    assert run_of(good.out)["automationDetails"]["id"] == "ostiary/admit/model/"
    suite, run = suite_of(bad.out), run_of((tmp_path / "a.sarif").read_text())
    assert bad.code == 1 and {"OS775"} <= {one["ruleId"] for one in run["results"]}
    assert suite.get("failures") == str(len(run["results"])) and suite.get("errors") == "0"


def test_inspect_tells_of_every_file(tmp_path: Path) -> None:
    weights(tmp_path)
    write_model(tmp_path / "model")
    weights(tmp_path / "mixed")
    (tmp_path / "mixed" / "notes.txt").write_text("to whom it may concern")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("to whom it may concern")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.safetensors").symlink_to("../good.safetensors")
    calls = {
        "good": ["inspect", "good.safetensors"],
        "both": ["inspect", "good.safetensors", "bad.pt"],
        "json": ["inspect", "bad.pt", "--format", "json"],
        "folder": ["inspect", "model"],
        "mixed": ["inspect", "mixed", "--format", "sarif", "--report", "mixed.xml"],
        "texts": ["inspect", "texts", "--format", "sarif", "--report", "texts.xml"],
        "named": ["inspect", "texts/notes.txt"],
        "links": ["inspect", "linked"],
        "missing": ["inspect", "nowhere.pt"],
        "none": ["inspect"],
    }
    found = dict(zip(calls, batch(list(calls.values()), cwd=tmp_path), strict=True))
    codes = {"good": 0, "both": 1, "json": 1, "folder": 0, "mixed": 1, "texts": 3, "named": 1, "links": 1}
    assert {name: result.code for name, result in found.items()} == {**codes, "missing": 2, "none": 2}
    assert "allowed    good.safetensors" in found["both"].out and "OS112 bad.pt" in found["both"].out
    assert found["json"].record["files"][0]["reasons"][0]["code"] == "OS112"
    assert "no weights model/config.json" in found["folder"].out
    assert "OS702 linked: a.safetensors: it is a symbolic link" in found["links"].out
    run, suite = run_of(found["mixed"].out), suite_of((tmp_path / "mixed.xml").read_text())
    assert {one["ruleId"] for one in run["results"]} == {"OS112", "OS117"}
    assert {case.get("name") for case in suite.findall("testcase")} == {
        *(f"mixed/{name}" for name in ("bad.pt", "good.safetensors", "notes.txt"))
    }
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "1")
    assert [one["ruleId"] for one in run_of(found["texts"].out)["results"]] == ["OS736"]
    assert suite_of((tmp_path / "texts.xml").read_text()).get("errors") == "1"


def test_fingerprints_of_inspect_do_not_hold_the_folder(tmp_path: Path) -> None:
    weights(tmp_path / "a")
    weights(tmp_path / "b" / "c")
    paths = ("a/bad.pt", "b/c/bad.pt", "a", str(tmp_path / "a" / "bad.pt"))
    found = batch([["inspect", path, "--format", form] for form in ("sarif", "junit") for path in paths], cwd=tmp_path)
    assert all(str(tmp_path) not in result.out for result in found), "no folder of this machine is told"
    found = found[: len(paths)]
    marks = [[one["partialFingerprints"] for one in run_of(result.out)["results"]] for result in found]
    assert marks[0] == marks[1] == marks[2] == marks[3]


def test_inspect_starts_without_torch(tmp_path: Path) -> None:
    weights(tmp_path)
    code = "import sys\nfrom ostiary.cli.main import run\ntry: run(['inspect', 'good.safetensors'])\n"
    code += "except SystemExit as end: sys.exit(str(end.code) + str('torch' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment(tmp_path),
    )
    assert done.stderr.strip() == "0False"
