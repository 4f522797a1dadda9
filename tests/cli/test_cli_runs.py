"""What each verb prints, writes and exits with, on the digits."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_case import Result, batch, call, environment, files, popen
from safetensors import safe_open

from ostiary.cli.common import exit_code
from ostiary.cli.render import render_text
from ostiary.core.records import Finding, Record
from ostiary.data import digits, open_data
from ostiary.screen.retrain import KEEPS_LABEL

CODES = {"none-found": 0, "backdoor": 1, "suspect": 1, "incomplete": 3}
FEW = ["--trusted", "digits", "--limit", "60"]
CUT = [*FEW, "--time-limit", "0"]


@pytest.fixture(scope="session")
def laboratory(made: tuple[Path, dict[str, Result]]) -> dict[str, Result]:
    return made[1]


@pytest.fixture(scope="session")
def defended(made: tuple[Path, dict[str, Result]]) -> tuple[Path, dict[str, Result]]:
    """The sealed verbs, one after the other in one process."""
    folder = made[0]
    images = digits("test").pixels(range(20)).permute(0, 2, 3, 1).numpy().copy()
    images[:, -5:-1, -5:-1] = (255, 255, 0)
    np.savez(folder / "stamped.npz", x=images, y=np.arange(20) % 10)
    model = ["--model", "m.safetensors", "--guard", "guard.safetensors"]
    calls = {
        "scan": [
            "scan",
            "m.safetensors",
            *FEW,
            "--set",
            "neural-cleanse.steps=20",
            "--format",
            "json",
            "-o",
            "scan.html",
            "--report",
            "scan.json",
            "--report",
            "scan.md",
            "-v",
        ],
        "cut json": ["--no-progress", "scan", "m.safetensors", *CUT, "--format", "json"],
        "cut text": ["scan", "m.safetensors", *CUT, "-q"],
        "cut md": ["-q", "scan", "m.safetensors", *CUT, "--format", "md"],
        "colour": ["scan", "m.safetensors", "--color", "always"],
        "dry": ["scan", "m.safetensors", *FEW, "--dry-run", "--preset", "quick"],
        "dry screen": ["screen", "poisoned", "--dry-run"],
        "screen": [
            "screen",
            "poisoned",
            "--model",
            "m.safetensors",
            "--format",
            "json",
            "-o",
            "screen.html",
            "--export-suspects",
            "suspects.csv",
            "--export-kept",
            "kept.parquet",
            "--retrain",
            "anew.safetensors",
        ],
        "screen shards": ["screen", "poisoned", "--model", "m.safetensors", "--shards", "3", "--format", "json"],
        "fit": ["guard", "fit", "m.safetensors", *FEW, "-o", "guard.safetensors", "--format", "json"],
        "score": ["guard", "score", "stamped.npz", *model, "--format", "json", "--seed", "3"],
        "score high": ["guard", "score", "stamped.npz", *model, "--fail-on", "backdoor"],
        "score zero": ["guard", "score", "stamped.npz", *model, "--exit-zero"],
        "runs": ["runs", "--json"],
    }
    return folder, dict(zip(calls, batch(list(calls.values()), cwd=folder), strict=True))


@pytest.fixture(scope="session")
def after(defended: tuple[Path, dict[str, Result]]) -> tuple[Path, dict[str, Result]]:
    """What takes an earlier run's id: repair with that scan, reports."""
    folder, done = defended
    ids = [done[name].record["id"] for name in ("scan", "screen")]
    calls = {
        "repair": [
            "repair",
            "m.safetensors",
            "--trusted",
            "digits",
            "--scan",
            ids[0],
            "-o",
            "new.safetensors",
            "--method",
            "fine-pruning",
            "--max-loss",
            "100",
            "--time-limit",
            "6",
            "--format",
            "json",
        ],
        "foreign": ["repair", "twin.safetensors", "--trusted", "digits", "--scan", ids[0], "-o", "other.safetensors"],
        "one": ["report", ids[0], "-o", "one.html"],
        "several": ["report", *ids, "-o", "several.html"],
        "bare": ["report", ids[1], "-o", "bare.html", "--no-samples"],
        "again": ["report", ids[0], "-o", "one.html"],
    }
    return folder, dict(zip(calls, batch(list(calls.values()), cwd=folder), strict=True))


def test_poison_writes_the_set_and_apart_from_it_the_truth(made: tuple[Path, dict[str, Result]]) -> None:
    folder, done = made
    assert done["poison"].code == 0 and "135 poisoned" in done["poison"].out
    assert [path.name for path in (folder / "poisoned").iterdir()] == ["train.parquet"]
    assert {path.name for path in (folder / "poisoned.truth").iterdir()} == {"truth.json", "trigger.safetensors"}


def test_train_writes_a_model_and_prints_one_record(laboratory: dict[str, Result]) -> None:
    done = laboratory["train"]
    Record.model_validate_json(done.out)
    assert done.code == 0 and done.record["config"]["out"] == "m.safetensors"
    assert done.record["results"][0]["evidence"]["rates"]["accuracy"]["value"] > 0.8
    assert "training ..." in done.err and laboratory["twin"].err == ""


def test_evaluate_measures_attack_success_beside_the_twin(made: tuple[Path, dict[str, Result]]) -> None:
    done = made[1]["evaluate"]
    rates = done.record["results"][0]["evidence"]["rates"]
    assert done.code == 0 and rates["attack success rate"]["value"] > 0.7
    assert rates["attack success rate of the clean-trained model"]["value"] < 0.2
    assert (made[0] / "evaluation.md").read_text().startswith("#")


def test_without_a_trigger_there_is_accuracy_and_no_attack_success(made: tuple[Path, dict[str, Result]]) -> None:
    poison, evaluate = made[1]["flip"], made[1]["flip evaluate"]
    assert poison.code == 0 and "1347 samples, 135 poisoned" in poison.out
    assert evaluate.code == 0 and "accuracy" in evaluate.out and "attack success" not in evaluate.out


@pytest.mark.parametrize("name", ["blind", "trojan"])
def test_poison_makes_a_model_and_apart_from_it_the_truth(made: tuple[Path, dict[str, Result]], name: str) -> None:
    folder, done = made
    assert done[name].code == 0 and f"wrote {name}.safetensors  a small-cnn with" in done[name].out
    truth = folder / f"{name}.safetensors.truth"
    assert {path.name for path in truth.iterdir()} == {"truth.json", "trigger.safetensors"}
    with safe_open(folder / f"{name}.safetensors", "np") as file:
        assert file.metadata()["width"] == ("8" if name == "blind" else "16")
    rates = done[f"{name} evaluate"].record["results"][0]["evidence"]["rates"]
    assert rates["accuracy"]["value"] > 0.5 and rates["attack success rate"]["value"] is not None


def test_discovery(laboratory: dict[str, Result]) -> None:
    assert {"scan.neural-cleanse", "attack.badnets"} <= {card["id"] for card in json.loads(laboratory["methods"].out)}
    assert laboratory["one"].out.startswith("attack.badnets:") and "parameter   rate = 0.1" in laboratory["one"].out
    assert "small-cnn" in json.loads(laboratory["arch"].out)
    assert laboratory["doctor"].code == 0
    assert "torch" in laboratory["doctor"].out and "of 4 GB" in laboratory["doctor"].out


def test_scan_prints_its_record_and_writes_its_reports(defended: tuple[Path, dict[str, Result]]) -> None:
    folder, done = defended
    scan = done["scan"]
    record = Record.model_validate_json(scan.out)
    assert scan.code == CODES[scan.record["verdict"]]
    assert record.results[1].params["steps"] == 20 and record.command[:3] == ("ostiary", "scan", "m.safetensors")
    assert "neural-cleanse ..." in scan.err and " s\n" in scan.err  # -v tells what a stage took
    assert (folder / "scan.json").read_text() == scan.out
    assert (folder / "scan.html").read_text().lstrip().lower().startswith("<!doctype html>")
    assert record.id in (folder / "scan.md").read_text()


def test_a_time_limit_gives_incomplete_and_code_3(defended: tuple[Path, dict[str, Result]]) -> None:
    done = defended[1]
    assert [done[f"cut {form}"].code for form in ("json", "text", "md")] == [3, 3, 3]
    assert done["cut json"].record["verdict"] == "incomplete"
    statuses = [result["status"] for result in done["cut json"].record["results"]]
    assert statuses == ["ok", *["partial"] * 4]
    assert "verdict: incomplete" in done["cut text"].out and "**Incomplete: " in done["cut md"].out
    assert done["cut text"].err == done["cut md"].err == ""  # -q after the verb and before it


def test_a_preset_that_skips_everything_is_incomplete_and_coloured_on_request(
    defended: tuple[Path, dict[str, Result]],
) -> None:
    done = defended[1]
    assert done["colour"].code == 3 and "skipped" in done["colour"].out and "\x1b[" in done["colour"].out
    assert all("\x1b" not in result.out for name, result in done.items() if name != "colour")


def test_a_dry_run_prints_the_plan_and_keeps_no_record(defended: tuple[Path, dict[str, Result]]) -> None:
    done = defended[1]
    assert done["dry"].code == done["dry screen"].code == 0
    assert "scan.neural-cleanse" in done["dry"].out and "time: " in done["dry"].out
    assert "screen.fusion" in done["dry screen"].out
    kinds = [row["kind"] for row in json.loads(done["runs"].out)]
    assert kinds.count("scan") == 5 and kinds.count("screen") == 2


def test_screening_in_shards_finds_the_same(defended: tuple[Path, dict[str, Result]]) -> None:
    whole, shards = (defended[1][name] for name in ("screen", "screen shards"))
    assert shards.code == whole.code, shards.err
    assert shards.record["digests"] == whole.record["digests"]
    screenings = [one for one in whole.record["results"] if one["method"] != "training.train"]
    for one, other in zip(screenings, shards.record["results"], strict=True):
        assert one["status"] == other["status"]
        if one["status"] == "skipped":  # for want of trusted samples
            continue
        assert {s["id"] for s in one["evidence"]["suspects"]} == {s["id"] for s in other["evidence"]["suspects"]}
    assert not list((defended[0] / "ostiary-runs").glob(".shards*"))


def test_screen_exports_what_it_found(defended: tuple[Path, dict[str, Result]]) -> None:
    folder, done = defended
    screen = done["screen"]
    assert screen.code == CODES[screen.record["verdict"]]
    fused = next(r["evidence"] for r in screen.record["results"] if r["method"] == "screen.fusion")
    with (folder / "suspects.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [one["id"] for one in fused["suspects"]]
    assert all(row["reasons"].startswith("OS305 fusion") and row["nearest"] for row in rows)
    assert len(open_data(folder / "kept.parquet")) == fused["n"] - len(rows)
    assert (folder / "screen.html").exists()


def test_training_on_what_is_kept_is_compared(defended: tuple[Path, dict[str, Result]]) -> None:
    folder, done = defended
    told = done["screen"].record["results"][-1]
    assert told["method"] == "training.train" and (folder / "anew.safetensors").exists()
    before, after = (told["evidence"][when][KEEPS_LABEL] for when in ("before", "after"))
    assert before["n"] == after["n"] > 0 and before["k"] > after["k"]


def test_guard_findings_follow_fail_on_and_exit_zero(defended: tuple[Path, dict[str, Result]]) -> None:
    folder, done = defended
    assert done["fit"].code == 0 and (folder / "guard.safetensors").exists()
    assert done["score"].record["results"][0]["findings"] and done["score"].record["seed"] == 3
    assert [done[name].code for name in ("score", "score high", "score zero")] == [1, 0, 0]


def test_repair_takes_a_kept_scan_of_this_very_model(
    defended: tuple[Path, dict[str, Result]], after: tuple[Path, dict[str, Result]]
) -> None:
    folder, done = after
    record = done["repair"].record
    assert record["kind"] == "repair" and record["config"]["scan"] == defended[1]["scan"].record["id"]
    # What the preset of the scan skips is no failure: no repair was asked for that did not run.
    assert done["repair"].code == exit_code(Record.model_validate(record), "suspect", named=False)
    assert (folder / "new.safetensors").exists() == ("out" in record["config"])
    assert done["foreign"].code == 2 and "is not a scan record of this model" in done["foreign"].errors[0]
    assert not (folder / "other.safetensors").exists()


def test_reports(after: tuple[Path, dict[str, Result]]) -> None:
    folder, done = after
    assert [done[name].code for name in ("one", "several", "bare", "again")] == [0, 0, 0, 2]
    assert "'one.html' exists already" in done["again"].errors[0]
    pages = {name: (folder / f"{name}.html").read_text() for name in ("one", "several", "bare")}
    assert all("<script" not in page and '="http' not in page for page in pages.values())
    assert len(pages["bare"]) < len((folder / "screen.html").read_text())


def test_exit_codes(defended: tuple[Path, dict[str, Result]]) -> None:
    cut = Record.model_validate_json(defended[1]["cut json"].out)
    result = cut.results[1]
    finding = Finding(
        code="OS201",
        level="suspect",
        confirmed=False,
        message="\x1b[2Jclass 0",
        subject="class:0",
        score=1.0,
        threshold=0.5,
        calibration_id=None,
    )
    both = cut.model_copy(update={"results": (result.model_copy(update={"findings": (finding,)}),)})
    assert exit_code(cut, "suspect", named=False) == 3
    assert exit_code(both, "suspect", named=False) == 1  # 1 dominates 3
    assert exit_code(both, "backdoor", named=False) == 3
    assert exit_code(both.model_copy(update={"interrupted": True}), "note", named=False) == 130
    skipped = cut.coverage.model_copy(update={"partial": (), "ok": ("a",), "skipped": ("b",)})
    some = cut.model_copy(update={"coverage": skipped, "verdict": "none-found"})
    assert [exit_code(some, "suspect", named=named) for named in (False, True)] == [0, 3]
    unscored = some.model_copy(update={"verdict": "incomplete"})
    assert exit_code(unscored, "suspect", named=False) == 3, "a class that was left unscored is no pass"
    assert "\\x1b[2Jclass 0" in render_text(both)  # what a hostile file says cannot steer the terminal


def test_ctrl_c_keeps_a_partial_record(made: tuple[Path, dict[str, Result]]) -> None:
    folder = made[0]
    before = files(folder)
    args = ("scan", "m.safetensors", "--trusted", "digits", "--preset", "thorough", "--format", "json")
    with popen(*args, "-o", "never.html", cwd=folder) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "neural-cleanse" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    record = json.loads(out)
    assert process.returncode == 130 and "Traceback" not in err
    assert record["interrupted"] and record["verdict"] == "incomplete"
    assert [result["status"] for result in record["results"]] == ["ok", "partial"]
    kept = next((folder / "runs").glob(f"*-scan-{record['id']}")) / "record.json"
    assert json.loads(kept.read_text()) == record
    assert files(folder) - before == {"never.html"}


def test_stdout_that_cannot_be_written(made: tuple[Path, dict[str, Result]]) -> None:
    code = "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
    code += "from ostiary.cli.main import run; sys.exit(run(['explain', 'OS201']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment(made[0])
    )
    assert done.returncode == 2 and done.stderr == "error: file system: no space left on device\n"


def test_a_reader_that_goes_away_does_not_hide_the_exit_code(made: tuple[Path, dict[str, Result]]) -> None:
    with popen("scan", "m.safetensors", cwd=made[0]) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 3
        assert process.stderr.read() == ""


def test_environment_obeyed(made: tuple[Path, dict[str, Result]]) -> None:
    done = call("scan", "m.safetensors", cwd=made[0], env={"CI": "1", "NO_COLOR": "1", "OSTIARY_FORMAT": "json"})
    assert done.code == 3 and done.record["verdict"] == "incomplete" and "\x1b" not in done.out + done.err
