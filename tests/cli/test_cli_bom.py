"""Bills of materials as commands: the whole way, bad input, exit codes, hostile text, what a kill leaves behind."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from bom_case import evaluate, made, scan, train
from cli_case import batch, files
from signed_case import flip

from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import save_model
from ostiary.models.zoo import build

CARD = """
author = "A. Author"
supplier = "Example Institute"
licence = "Apache-2.0"
use_cases = ["reading signs"]
"""
MAKE = ["bom", "make", "net.safetensors", "--card", "card.toml", "--created", "2026-06-01T02:00:00+02:00"]
RECORDS = ["--record", "train.json", "--record", "scan.json", "--record", "evaluate.json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with records of it, and of another."""
    root = tmp_path_factory.mktemp("bom")
    module = build("small-cnn", 2, width=4, in_channels=3, seed=0)
    model = TorchClassifier(module, ("0", "1"), (3, 8, 8), (0.5,) * 3, (0.5,) * 3, arch="small-cnn", name="net")
    save_model(model, root / "net.safetensors")
    own: Any = {"model": model.digest}
    told = {
        "train": train(digests={**own, "data": "d" * 64}),
        "scan": scan(digests={**own, "trusted": "e" * 64}),
        "evaluate": evaluate(digests={**own, "data": "f" * 64}),
        "adverse": scan("backdoor", 5, digests=own),
        "other": scan(),
    }
    for name, one in told.items():
        # Evidence of long ago has expired: the commands judge by today's clock.
        late = one.model_copy(update={"created": time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime())})
        (root / f"{name}.json").write_text(late.to_json())
    (root / "card.toml").write_text(CARD)
    return root


def test_the_whole_way(folder: Path) -> None:
    calls = [
        [*MAKE, *RECORDS, "--environment", "-o", "a.cdx.json"],
        [*MAKE, *RECORDS, "--spec", "1.7", "--data", f"signs:train={'1' * 64}", "-o", "b.cdx.json"],
        [*MAKE, *RECORDS, "--environment", "-o", "c.cdx.json"],
        [*MAKE, *RECORDS, "--format", "spdx", "-o", "a.spdx.json"],
        ["bom", "check", "a.cdx.json", "--model", "net.safetensors", "--level", "minimum"],
        ["bom", "check", "b.cdx.json", "--model", "net.safetensors", "--level", "full", "--format", "json"],
        ["bom", "check", "a.spdx.json"],
        ["bom", "diff", "a.cdx.json", "c.cdx.json"],
        ["bom", "diff", "a.cdx.json", "b.cdx.json", "--format", "json"],
        ["bom", "view", "b.cdx.json"],
        [*MAKE, "--record", "adverse.json", "-o", "bad.cdx.json"],
        ["bom", "check", "bad.cdx.json"],
        [*MAKE, "-o", "bare.cdx.json"],
        ["bom", "check", "bare.cdx.json", "--level", "minimum"],
    ]
    one, two, again, spdx, good, full, other, same, differ, view, adverse, bad, bare, lacks = batch(calls, cwd=folder)
    assert {result.code for result in (one, two, again, spdx, adverse, bare)} == {0}, one.err
    assert (folder / "a.cdx.json").read_bytes() == (folder / "c.cdx.json").read_bytes()
    assert json.loads((folder / "a.cdx.json").read_bytes())["metadata"]["timestamp"] == "2026-06-01T00:00:00Z"
    assert str(folder) not in (folder / "a.cdx.json").read_text() + (folder / "a.spdx.json").read_text()
    assert good.code == 0 and "valid" in good.out and "level           minimum" in good.out, good.out
    assert full.code == 1 and full.record["level"] == "minimum" and len(full.record["roots"]) == 1
    assert {reason["code"] for reason in full.record["reasons"]} == {"OS795"}
    assert other.code == 1 and "OS788" in other.out and "ostiary explain OS788" in other.out
    assert same.code == 0 and same.out == "0 differences\n"
    assert differ.code == 1
    found = {(change["section"], change["kind"]) for change in json.loads(differ.out)}
    assert {("data sets", "added"), ("libraries", "removed")} <= found
    assert view.code == 0 and "small-cnn" in view.out and "scan.neural-cleanse does not see" in view.out
    assert bad.code == 1 and "OS798" in bad.out and "valid" not in bad.out
    assert "tells of no examination" in bare.err
    assert lacks.code == 1 and "examination for backdoors is absent" in lacks.out


def test_bad_input(folder: Path) -> None:
    (folder / "broken.json").write_text('{"bomFormat": "CycloneDX", "specVersion": "1.6", "x": ')
    (folder / "bad.toml").write_text("autor = 'x'")
    (folder / "there.json").write_text("kept")
    before = files(folder)
    calls = [
        ["bom", "make", "none", "-o", "x.json"],
        ["bom", "make", "net.safetensors", "-o", "there.json"],
        ["bom", "make", ".", "-o", "x.json"],
        ["bom", "make", "net.safetensors", "--card", "bad.toml", "-o", "x.json"],
        ["bom", "make", "net.safetensors", "--created", "2026-06-01", "-o", "x.json"],
        ["bom", "make", "net.safetensors", "--data", "x", "-o", "x.json"],
        ["bom", "make", "net.safetensors", "--record", "none", "-o", "x.json"],
        ["bom", "make", "net.safetensors", "--record", "other.json", "-o", "x.json"],
        ["bom", "make", "net.safetensors", "--base", "none", "-o", "x.json"],
        ["bom", "check", "none.json"],
        ["bom", "check", "broken.json"],
        ["bom", "view", "broken.json"],
        ["bom", "diff", "broken.json", "broken.json"],
        ["bom", "check", "."],
    ]
    wanted = [2, 2, 2, 2, 2, 2, 2, 1, 2, 2, 1, 1, 1, 2]
    found = batch(calls, cwd=folder)
    assert [result.code for result in found] == wanted, [(result.code, result.err) for result in found]
    for result in found:
        assert len(result.errors) == (0 if result is found[10] else 1), result.err
        assert "bug" not in result.err
    assert "OS796" in found[7].err and "OS721" in found[10].out
    assert files(folder) == before and (folder / "there.json").read_text() == "kept"


def test_the_time_of_repeatable_builds(folder: Path) -> None:
    calls = [["bom", "make", "net.safetensors", "-o", "epoch.json"], ["bom", "view", "epoch.json"]]
    make, view = batch(calls, cwd=folder, env={"SOURCE_DATE_EPOCH": "0"})
    assert make.code == 0 and "1970-01-01T00:00:00Z" in view.out
    (odd,) = batch(
        [["bom", "make", "net.safetensors", "-o", "odd.json"]], cwd=folder, env={"SOURCE_DATE_EPOCH": "today"}
    )
    assert odd.code == 2 and "SOURCE_DATE_EPOCH" in odd.err and not (folder / "odd.json").exists()


def test_changed_bytes_and_hostile_text(tmp_path: Path) -> None:
    value = made(tmp_path)
    value["metadata"]["component"]["name"] = "\x1b[2Jmodel\u202e\nforged line"
    value["declarations"]["evidence"][0]["description"] = "\x1b]0;title\x07 scan"
    (tmp_path / "h.json").write_text(json.dumps(value))
    flip(tmp_path / "model" / "config.json", 3)
    check, view, diff = batch(
        [
            ["bom", "check", "h.json", "--model", "model"],
            ["bom", "view", "h.json"],
            ["bom", "diff", "h.json", "h.json"],
        ],
        cwd=tmp_path,
    )
    assert check.code == 1 and "OS793 h.json: 'config.json' has another digest" in check.out
    assert (view.code, diff.code) == (0, 0)
    for result in (check, view):
        assert "\x1b" not in result.out and "\x07" not in result.out and "\u202e" not in result.out
        assert not any(line.startswith("forged") for line in result.out.splitlines())


def test_a_full_disk_leaves_nothing_half_written(folder: Path) -> None:
    before = files(folder)
    full, good = batch([[*MAKE, "-o", "full.json"], [*MAKE, "-o", "good.json"]], cwd=folder, fsize=[2000, None])
    assert full.code == 2 and "cannot write" in full.errors[0]
    assert good.code == 0 and files(folder) - before == {"good.json"}
    assert (folder / "good.json").stat().st_size > 2000
