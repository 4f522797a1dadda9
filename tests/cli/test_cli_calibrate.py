"""`ostiary calibrate`, and scans that its file judges, as a user calls them."""

import json
from pathlib import Path

import pytest
from cli_case import Result, batch, files

from ostiary.core.reference import LEAST_MODELS
from ostiary.data import digits, trusted_subset
from ostiary.models.load import save_model
from ostiary.training.flow import new_model

WEIGHTS = ["--method", "trojan-signature"]
FEW = ["--trusted", "digits", "--limit", "60"]


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    folder = tmp_path_factory.mktemp("calibrate")
    trusted = trusted_subset(digits("train"), 100, 0)
    names = []
    for seed in range(LEAST_MODELS + 1):
        names.append(f"m{seed}.safetensors")
        save_model(new_model("small-cnn", trusted, width=None, seed=seed), folder / names[-1])
    save_model(new_model("wrn-16-1", trusted, width=None, seed=0), folder / "other.safetensors")
    (folder / "text.safetensors").write_text("no model")
    (folder / "no.json").write_text("{}")
    *references, suspect = names
    make = ["calibrate", *FEW, *WEIGHTS, "-o", "r.json"]
    scan = ["scan", suspect, *FEW, *WEIGHTS, "--calibration", "r.json"]
    calls = {
        "two": [*make, *references[:2]],
        "too few": scan,
        "all": [*make, *references],
        "judged": [*scan, "--format", "json", "-o", "report.html"],
        "text": scan,
        "another kind": [*make, "other.safetensors"],
        "other methods": ["calibrate", *FEW, "--method", "mm-bd", "-o", "r.json", suspect],
        "no reference": ["scan", suspect, *FEW, *WEIGHTS, "--calibration", "no.json"],
        "no file": ["scan", suspect, *FEW, *WEIGHTS, "--calibration", "gone.json"],
        "other model": ["scan", "other.safetensors", *FEW, *WEIGHTS, "--calibration", "r.json"],
        "other plan": ["scan", suspect, *FEW, "--method", "mm-bd", "--calibration", "r.json"],
        "without": ["scan", suspect, *FEW, *WEIGHTS, "--calibration", "none", "--format", "json"],
        "broken model": ["calibrate", *FEW, *WEIGHTS, "-o", "new.json", "text.safetensors"],
        "nothing": ["calibrate", *FEW, *WEIGHTS, "-o", "new.json"],
    }
    results = dict(zip(calls, batch(list(calls.values()), cwd=folder), strict=True))
    return folder, results


def test_a_reference_grows_until_a_scan_can_use_it(called: tuple[Path, dict[str, Result]]) -> None:
    _, results = called
    assert results["two"].code == 0 and "17 more are needed before a scan can use it" in results["two"].out
    assert results["too few"].code == 2 and "has 2 models; at least 19" in results["too few"].errors[0]
    assert results["all"].code == 0, results["all"].err
    assert f"{LEAST_MODELS} models of small-cnn, 10 classes" in results["all"].out
    assert "judged by one another" in results["all"].out and "strangest: m" in results["all"].out


def test_the_record_and_the_report_state_the_reference_and_its_false_alarms(
    called: tuple[Path, dict[str, Result]],
) -> None:
    folder, results = called
    calibration = results["judged"].record["calibration"]
    assert calibration["models"] == LEAST_MODELS and calibration["false_positive_rate"]["n"] == LEAST_MODELS
    page = (folder / "report.html").read_text()
    assert f"Limits from {LEAST_MODELS} reference models" in page and "false alarms on them" in page
    assert "p_reference" in page
    assert f"limits from {LEAST_MODELS} reference models" in results["text"].out
    assert "false alarms on them" in results["text"].out
    assert results["without"].record["calibration"]["id"] == "within-model"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("another kind", 3, "left out: other.safetensors: it was made from models of small-cnn"),
        ("other methods", 2, "made with other methods or parameters: scan.trojan-signature"),
        ("no reference", 2, "'no.json' is no reference"),
        ("no file", 2, "cannot read the reference 'gone.json'"),
        ("other model", 2, "does not fit: it was made from models of small-cnn"),
        ("other plan", 2, "was made without scan.mm-bd as set here"),
        ("broken model", 2, "not a safetensors file"),
        ("nothing", 2, "MODELS"),
    ],
)
def test_bad_input(called: tuple[Path, dict[str, Result]], name: str, code: int, said: str) -> None:
    folder, results = called
    assert results[name].code == code, results[name].err
    assert said in results[name].out + results[name].err
    assert "Traceback" not in results[name].err and "new.json" not in files(folder)


def test_the_file_is_plain_json(called: tuple[Path, dict[str, Result]]) -> None:
    held = json.loads((called[0] / "r.json").read_text())
    assert held["kind"] == "reference" and len(held["models"]) == LEAST_MODELS
