"""`ostiary harden`: what it prints, writes and exits with, on the digits."""

import json
import signal
from pathlib import Path

import pytest
from cli_case import Result, batch, files, popen
from safetensors import safe_open

from ostiary.core.records import Record
from ostiary.core.store import load_artifact
from ostiary.data import digits
from ostiary.harden.flow import KEEPS_LABEL, ON_TRUSTED, SUSPECTED_KEEPS_LABEL
from ostiary.models.load import load_model
from ostiary.training import accuracy

ABL = ["harden", "poisoned", "--method", "abl", "--set", "abl.tuning_epochs=1", "--width", "8", "--epochs", "1"]


@pytest.fixture(scope="module")
def hardened(made: tuple[Path, dict[str, Result]]) -> tuple[Path, dict[str, Result]]:
    folder = made[0]
    more = ["--trusted", "digits", "--limit", "60", "--test", "digits", "--format", "json", "--report", "hardened.md"]
    calls = {
        "harden": [*ABL, *more, "-o", "hardened.safetensors"],
        "text": ["-q", *ABL, "--set", "abl.epochs=1", "-o", "text.safetensors"],
        "cut": [*ABL, "--time-limit", "0", "-o", "cut.safetensors"],
        "methods": ["methods", "--kind", "harden"],
    }
    return folder, dict(zip(calls, batch(list(calls.values()), cwd=folder), strict=True))


def test_a_model_is_written_with_its_record(hardened: tuple[Path, dict[str, Result]]) -> None:
    folder, done = hardened
    record = Record.model_validate_json(done["harden"].out)
    assert done["harden"].code == 0 and record.kind == "harden" and record.verdict is None
    (result,) = record.results
    assert result.method == "harden.abl" and result.status == "ok"
    rates = done["harden"].record["results"][0]["evidence"]["rates"]
    assert set(rates) == {KEEPS_LABEL, SUSPECTED_KEEPS_LABEL, ON_TRUSTED, "accuracy"}
    assert rates[ON_TRUSTED]["n"] == 60 and rates["accuracy"]["n"] == 450
    (kept,) = (folder / "runs").glob(f"*-harden-{record.id}")
    assert load_artifact(record, kept, "abl-suspected").sum() == rates[SUSPECTED_KEEPS_LABEL]["n"]
    with safe_open(folder / "hardened.safetensors", "np") as file:
        header = dict(file.metadata())
    assert header["harden"] == "harden.abl" and header["trained_on"] == record.digests["data"]
    model = load_model(folder / "hardened.safetensors")
    assert model.digest == record.digests["model"], "the file holds what the record names"
    assert accuracy(model, digits("test")).model_dump(mode="json") == rates["accuracy"]
    assert "Hardened training" in (folder / "hardened.md").read_text()


def test_the_text_says_what_was_chosen(hardened: tuple[Path, dict[str, Result]]) -> None:
    done = hardened[1]["text"]
    assert done.code == 0 and "isolated: 13 of 1347 samples" in done.out and "unlearning: " in done.out
    assert "wrote text.safetensors" in done.out and "verdict" not in done.out
    assert "harden.abl" in hardened[1]["methods"].out


def test_what_the_time_limit_cut_leaves_no_model(hardened: tuple[Path, dict[str, Result]]) -> None:
    folder, done = hardened
    assert done["cut"].code == 3 and "partial" in done["cut"].out and not (folder / "cut.safetensors").exists()


def test_interrupted_it_keeps_its_record_and_leaves_no_model(made: tuple[Path, dict[str, Result]]) -> None:
    folder = made[0]
    before = files(folder)
    with popen(*ABL, "--epochs", "500", "--format", "json", "-o", "never.safetensors", cwd=folder) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "training" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    record = json.loads(out)
    assert process.returncode == 130 and "Traceback" not in err and record["interrupted"]
    assert record["results"][0]["status"] == "partial" and files(folder) == before
