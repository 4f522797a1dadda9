"""Manifests of data sets, trace and impact as commands: good and bad input, exit codes, what a kill leaves behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_case import Result, batch, environment, files

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 3), np.uint8)
STORE = """id = "team"
version = {version}
expires = 2099-01-01T00:00:00Z
[[identity]]
name = "owner"
key = "owner.pub"
roles = ["data-owner"]
[[identity]]
name = "release"
key = "release.pub"
roles = ["producer"]
{more}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys, a set, its manifest with a signature, two models and what they were trained on."""
    root = tmp_path_factory.mktemp("manifests")
    np.savez(root / "set.npz", x=PIXELS, y=np.arange(30) % 3)
    altered = np.arange(30) % 3
    altered[17] = 0
    np.savez(root / "flipped.npz", x=PIXELS, y=altered)
    (root / "rows.csv").write_text("text,label,origin\nsame,a,web\nsame,b,web\ntwice,a,shop\ntwice,a,web\nbare,,web\n")
    for name in ("model", "adapter"):
        (root / name).mkdir()
        (root / name / "weights").write_text(name)
    store(root, 1)
    calls = [
        ["key", "new", "--out", "owner"],
        ["key", "new", "--out", "release"],
        [
            "manifest",
            "make",
            "set.npz",
            "-o",
            "set.manifest",
            "--source",
            "web",
            "--set-version",
            "2",
            "--key",
            "owner.key",
        ],
        [
            "manifest",
            "trained",
            "model",
            "--data",
            "set.manifest",
            "--seed",
            "7",
            "--key",
            "release.key",
            "-o",
            "model.t",
        ],
        ["manifest", "trained", "adapter", "--base", "model", "--key", "release.key", "-o", "adapter.t"],
    ]
    for result in batch(calls, cwd=root):
        assert result.code == 0, result.err
    return root


def store(root: Path, version: int, more: str = "") -> None:
    (root / "trust.toml").write_text(STORE.format(version=version, more=more))


def run(root: Path, *calls: list[str]) -> list[Result]:
    return batch(calls, cwd=root, env={"OSTIARY_STATE": str(root / "state")})


def test_a_manifest_is_made_verified_and_proved(made: Path) -> None:
    signed = ["--signature", "set.manifest.sig", "--trust", "owner.pub"]
    same, told, flipped, asjson, prove, check, by_root, wrong = run(
        made,
        ["manifest", "verify", "set.npz", "set.manifest"],
        ["manifest", "verify", "set.npz", "set.manifest", *signed],
        ["manifest", "verify", "flipped.npz", "set.manifest", *signed],
        ["manifest", "verify", "flipped.npz", "set.manifest", "--format", "json"],
        ["manifest", "prove", "set.manifest", "17", "-o", "p.json"],
        ["manifest", "check-proof", "p.json", *signed],
        ["manifest", "check-proof", "p.json", "--root", "00" * 32],
        ["manifest", "verify", "set.npz", "set.manifest", "--signature", "set.manifest.sig", "--trust", "release.pub"],
    )
    assert same.code == told.code == prove.code == check.code == 0
    assert "whose signature was not looked at" in same.out and "signed by owner" in told.out
    assert (
        flipped.code == 1
        and "OS757 17: has the label '0', not the label '2'" in flipped.out
        and "refused" in flipped.out
    )
    assert asjson.code == 1
    assert asjson.record["reasons"] == [
        {"code": "OS757", "subject": "17", "message": "has the label '0', not the label '2'"}
    ]
    assert asjson.record["decision"] == "refused" and asjson.record["samples"] == 30
    assert "in the set  17   label 2, from web" in check.out
    assert by_root.code == 1 and "OS759" in by_root.err
    assert wrong.code == 1 and "OS725" in wrong.out


def test_differences_and_groups(made: Path) -> None:
    make, other, none, some, asjson, report, rows = run(
        made,
        ["manifest", "make", "rows.csv", "-o", "rows.manifest", "--source-field", "origin", "--croissant", "rows.json"],
        ["manifest", "make", "flipped.npz", "-o", "flipped.manifest", "--source", "elsewhere"],
        ["manifest", "diff", "set.manifest", "set.manifest"],
        ["manifest", "diff", "set.manifest", "flipped.manifest"],
        ["manifest", "diff", "set.manifest", "flipped.manifest", "--format", "json"],
        ["manifest", "report", "rows.manifest"],
        ["manifest", "report", "rows.manifest", "--format", "json"],
    )
    assert (
        make.code == 0 and "5 samples, 2 labels, 2 sources" in make.out and "1 of 5 samples have no label" in make.err
    )
    assert json.loads((made / "rows.json").read_text())["recordSet"][0]["field"][0]["source"]["extract"] == {
        "column": "text"
    }
    assert other.code == 0 and none.code == 0 and "no sample differs" in none.out
    assert some.code == 1 and "relabelled  17  has the label '0', not the label '2'" in some.out
    assert "30 moved, 1 relabelled" in some.out
    assert asjson.code == 1 and asjson.record["counts"] == {"moved": 30, "relabelled": 1}
    assert report.code == 1 and "1 contents with more than one label, 1 with one label" in report.out
    assert "row-1 (a), row-2 (b)" in report.out
    assert [one["samples"] for one in rows.record["duplicates"]] == [[["row-3", "a"], ["row-4", "a"]]]


def test_from_a_sample_and_a_source_to_the_models(made: Path) -> None:
    index, trace, impact, nothing, lonely = run(
        made,
        ["manifest", "index", "set.manifest", "adapter.t", "model.t", "set.manifest.sig", "--trust", "trust.toml"],
        ["trace", "17", "--trust", "trust.toml"],
        ["impact", "web", "--trust", "trust.toml", "--format", "json"],
        ["impact", "elsewhere", "--trust", "trust.toml"],
        ["trace", "17", "--trust", "trust.toml", "--index", "none"],
    )
    assert index.code == 0 and index.out.count("added") == 4
    assert trace.code == impact.code == 0 and nothing.code == lonely.code == 3
    assert "sample  17   in set.npz, from web, label 2" in trace.out
    assert "model   model" in trace.out and "model   adapter" in trace.out and "through model" in trace.out
    assert [one["name"] for one in impact.record["models"]] == ["model", "adapter"]
    assert "nothing in the index leads from elsewhere" in nothing.out and "nothing in the index" in lonely.out
    for path in (made / "state" / "samples" / "sets").glob("*.sqlite"):
        path.write_bytes(b"broken")
    store(made, 2, '[revoked]\nsources = ["web"]')
    revoked, mended, again, strange, gaps = run(
        made,
        ["impact", "web", "--trust", "trust.toml"],
        ["trace", "17", "--trust", "trust.toml"],
        ["trace", "--rebuild", "--trust", "trust.toml"],
        ["impact", "web", "--trust", "owner.pub"],
        ["trace", "--rebuild", "--trust", "owner.pub"],
    )
    assert revoked.code == 1 and "OS768" in revoked.out and "model   adapter" in revoked.out
    assert mended.code == 1 and "was damaged or missing" in mended.err
    assert again.code == 0 and again.out == "" and "1 sets anew" in again.err
    assert gaps.code == 3 and gaps.out.count("not covered  OS725") == 2
    assert strange.code == 3 and "not covered  OS725" in strange.out and "not complete" in strange.out
    untrusted, store_ = run(
        made,
        ["manifest", "index", "model.t", "--trust", "owner.pub", "--index", "mine"],
        ["impact", "web", "--trust", "trust.toml", "--pin", "00"],
    )
    assert untrusted.code == 1 and "OS725" in untrusted.out and store_.code == 1 and "OS750" in store_.err


BAD: list[tuple[list[str], str]] = [
    (["make", "none", "-o", "x"], "no such file or folder"),
    (["make", "set.npz", "-o", "set.npz"], "exists already"),
    (["make", "set.npz", "-o", "x", "--name", "a/b"], "no name of a set"),
    (["make", "set.npz", "-o", "x", "--source", "a", "--source-field", "b"], "say it twice"),
    (["make", "set.npz", "-o", "x", "--source-field", "b"], "has no columns"),
    (["make", "set.npz", "-o", "x", "--set-version", "1"], "a part of what is signed"),
    (["make", "set.npz", "-o", "x", "--source", "a\x1b[2J"], "no source: it holds control"),
    (["make", "set.npz", "-o", "x", "--part", "test"], "has no test part"),
    (["make", "set.npz", "-o", "x", "--key", "none.key"], "no such file"),
    (["verify", "set.npz", "none"], "cannot read the manifest"),
    (["verify", "set.npz", "set.manifest", "--trust", "owner.pub"], "go together"),
    (["verify", "rows.csv", "set.manifest"], "of the kind array, the other's text"),
    (["prove", "set.manifest", "99", "-o", "x"], "has no sample '99'"),
    (["check-proof", "rows.csv"], "needs a root"),
    (["trained", "model", "--key", "release.key", "-o", "x"], "at least one data set"),
    (["trained", "model", "--data", "set=00", "--key", "release.key", "-o", "x"], "neither a path nor NAME=ROOT"),
    (["trained", "none", "--data", "set.manifest", "--key", "release.key", "-o", "x"], "no such file"),
    (["index", "model.t", "--trust", "none"], "no such file"),
]


def test_what_cannot_be_read_gives_exit_code_2(made: Path) -> None:
    before = files(made)
    for (args, words), found in zip(BAD, run(made, *(["manifest", *args] for args, _ in BAD)), strict=True):
        assert found.code == 2 and words in found.errors[0], (args, found.err)
    assert {one for one in files(made) - before if not one.startswith("state")} == set()


def test_what_is_ill_formed_gives_exit_code_1(made: Path) -> None:
    data = (made / "set.manifest").read_bytes()
    (made / "cut.manifest").write_bytes(data[:-40])
    (made / "flip.manifest").write_bytes(data[:-41] + bytes([data[-41] ^ 1]) + data[-40:])
    (made / "fake.json").write_text("{}")
    cut, flip, fake, diff, sheet, code = run(
        made,
        ["manifest", "verify", "set.npz", "cut.manifest"],
        ["manifest", "verify", "set.npz", "flip.manifest", "--format", "json"],
        ["manifest", "check-proof", "fake.json", "--root", "00" * 32],
        ["manifest", "diff", "cut.manifest", "set.manifest"],
        ["manifest", "trained", "model", "--data", "flip.manifest", "--key", "release.key", "-o", "x"],
        ["explain", "OS753"],
    )
    assert cut.code == flip.code == fake.code == diff.code == sheet.code == 1
    assert "OS751" in cut.out and flip.record["reasons"][0]["code"] in {"OS751", "OS753"}
    assert "OS759" in fake.err and "OS751" in diff.err and not (made / "x").exists()
    assert code.code == 0 and "manifest altered" in code.out


def test_nothing_starts_torch_to_make_a_manifest_of_images(made: Path) -> None:
    code = (
        "import sys\nfrom ostiary.cli.main import run\n"
        "run(['manifest', 'make', 'set.npz', '-o', 'quick.manifest'])\nsys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=made, check=False, env=environment(made / "runs"))
    assert done.returncode == 0 and (made / "quick.manifest").is_file()


def test_a_kill_while_making_leaves_no_manifest(made: Path) -> None:
    np.savez(made / "large.npz", x=np.zeros((150_000, 4, 4, 3), np.uint8), y=np.zeros(150_000, np.int64))
    args = [sys.executable, "-m", "ostiary", "manifest", "make", "large.npz", "-o", "large.manifest"]
    quiet: Any = subprocess.DEVNULL
    with subprocess.Popen(args, cwd=made, env=environment(made / "runs"), stdout=quiet, stderr=quiet) as child:
        while child.poll() is None and not list(made.glob(".large.manifest.*")):
            pass
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not (made / "large.manifest").exists()
    (made / "large.npz").unlink()
