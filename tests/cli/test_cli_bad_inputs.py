"""Bad inputs: the right exit code, one error line with a next step, no traceback, nothing half-written."""

import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_case import Result, batch, files
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

TEN = list(range(10)) * 10
SCAN = ["--trusted", "digits", "--time-limit", "0", "-o", "never.html"]
FACTORY = """
import torch
def seals():
    import ostiary.attacks
def numbers():
    return 3
"""


@dataclass(frozen=True, slots=True)
class MarkerPickle:
    """Makes a file when it is unpickled."""

    marker: str

    def __reduce__(self) -> Any:
        return (open, (self.marker, "w"))


@dataclass(frozen=True, slots=True)
class Bad:
    """A call, what its error says, and its exit code."""

    args: list[str]
    error: str
    code: int = 2


def scan(model: str, *more: str) -> list[str]:
    return ["scan", model, *SCAN, *more]


def trusting(data: str, *more: str) -> list[str]:
    return ["scan", "m.safetensors", "--trusted", data, "--time-limit", "0", "-o", "never.html", *more]


def poison(attack: str, *more: str) -> list[str]:
    return ["poison", "digits", "--attack", attack, "-o", "new", *more]


def harden(data: str, *more: str) -> list[str]:
    return ["harden", data, "--method", "abl", "-o", "new.safetensors", *more]


BAD = {
    "missing model": Bad(scan("nowhere.safetensors"), "no such file: 'nowhere.safetensors'"),
    "missing model beside texts": Bad(["scan", "nosuch", "--trusted", "x.jsonl"], "no such file: 'nosuch'"),
    "missing data": Bad(trusting("nowhere"), "no such file or folder: 'nowhere'"),
    "empty folder as model": Bad(scan("empty"), "config.json"),
    "empty folder as data": Bad(trusting("empty"), "'empty' has no images"),
    "text as model": Bad(scan("text.safetensors"), "not a safetensors file"),
    "empty file": Bad(scan("zero.safetensors"), "is empty"),
    "truncated": Bad(scan("short.safetensors"), "truncated or damaged"),
    "text as ONNX": Bad(scan("text.onnx"), "'text.onnx' is no ONNX model"),
    "ONNX with --arch": Bad(scan("text.onnx", "--arch", "small-cnn"), "holds its own architecture"),
    "pickle with code": Bad(scan("evil.bin"), "is a pickle that is not weights-only"),
    "unknown suffix": Bad(scan("factory.py"), "cannot tell what 'factory.py' is"),
    "no architecture": Bad(scan("bare.safetensors"), "does not say its architecture"),
    "unknown architecture": Bad(scan("m.safetensors", "--arch", "small-cn"), "unknown architecture"),
    "wrong architecture": Bad(scan("m.safetensors", "--arch", "resnet18"), "are not those of 'resnet18'"),
    "wrong --classes": Bad(scan("m.safetensors", "--classes", "7"), "do not fit 'small-cnn'"),
    "wrong --width": Bad(scan("m.safetensors", "--width", "3"), "do not fit 'small-cnn'"),
    "wrong --input": Bad(scan("m.safetensors", "--input", "3,16"), "--input takes C,H,W"),
    "wrong --normalize": Bad(scan("m.safetensors", "--normalize", "foo"), "cannot read the normalisation"),
    "NaN weights": Bad(scan("nan.safetensors"), "has NaN or infinity"),
    "factory that reaches for the attacks": Bad(
        scan("m.safetensors", "--arch", "factory.py:seals"), "may not import 'ostiary.attacks'", code=3
    ),
    "factory without a module": Bad(scan("m.safetensors", "--arch", "factory.py:numbers"), "not an nn.Module"),
    "other size": Bad(trusting("size.npz"), "the model takes 3x32x32"),
    "other channels": Bad(trusting("grey.npz"), "has images of 1x32x32"),
    "other class count": Bad(trusting("seven.npz"), "has 7 classes, the model 10"),
    "one class": Bad(trusting("one.npz"), "has samples of 1 class"),
    "negative label": Bad(trusting("negative.npz"), "label -1"),
    "huge label": Bad(trusting("huge.npz"), "label 1000000000"),
    "model file as data": Bad(trusting("m.safetensors"), "not a kind of data set"),
    "sealed truth as data": Bad(trusting("poisoned.truth"), "may not open sealed truth", code=3),
    "unknown method": Bad(trusting("digits", "--method", "neural-clense"), "no scan method is called"),
    "unknown key": Bad(trusting("digits", "--set", "neural-cleanse.stepz=1"), "has no parameter 'stepz'"),
    "ill-formed --set": Bad(trusting("digits", "--set", "steps=1"), "--set takes ID.key=value"),
    "no device": Bad(scan("m.safetensors", "--device", "foo"), "no device 'foo'"),
    "negative time limit": Bad(scan("m.safetensors", "--time-limit", "-1"), "--time-limit takes seconds"),
    "NaN time limit": Bad(scan("m.safetensors", "--time-limit", "nan"), "--time-limit takes seconds"),
    "screen one class": Bad(["screen", "one.npz", "-o", "never.html"], "has samples of 1 class"),
    "screen unknown key": Bad(["screen", "size.npz", "--set", "fusion.x=1"], "has no parameter 'x'"),
    "screen shards alone": Bad(["screen", "size.npz", "--shards", "2"], "--shards needs --model"),
    "screen engine alone": Bad(["screen", "size.npz", "--engine", "ray"], "--engine needs --shards"),
    "screen other size": Bad(["screen", "size.npz", "--model", "m.safetensors"], "the model takes 3x32x32"),
    "repair without scan": Bad(
        ["repair", "m.safetensors", "--trusted", "digits", "--scan", "nope", "-o", "new.safetensors"], "no record"
    ),
    "guard that is a model": Bad(
        ["guard", "score", "digits", "--model", "m.safetensors", "--guard", "m.safetensors"], "is no saved guard"
    ),
    "train one class": Bad(["train", "one.npz", "-o", "new.safetensors"], "has samples of 1 class"),
    "train without a folder": Bad(["train", "digits", "-o", "nowhere/new.safetensors"], "no folder 'nowhere'"),
    "train over a model": Bad(["train", "digits", "-o", "m.safetensors"], "'m.safetensors' exists already"),
    "harden one class": Bad(harden("one.npz"), "has samples of 1 class"),
    "harden without a folder": Bad([*harden("digits"), "-o", "nowhere/new.safetensors"], "no folder 'nowhere'"),
    "harden with an unknown method": Bad(harden("digits", "--method", "alb"), "no harden method is called 'alb'"),
    "harden with an unknown key": Bad(harden("digits", "--set", "abl.x=1"), "has no parameter 'x'"),
    "harden, other trusted classes": Bad(harden("digits", "--trusted", "seven.npz"), "has classes"),
    "harden, other test classes": Bad(harden("digits", "--test", "seven.npz"), "has 7 classes, the model 10"),
    "harden, unknown architecture": Bad(harden("digits", "--arch", "small-cn"), "unknown architecture"),
    "harden with the sealed truth": Bad(harden("poisoned.truth"), "may not open sealed truth", code=3),
}
UNSEALED = {
    "unknown attack": Bad(["poison", "digits", "--attack", "badnet", "-o", "new"], "no attack method is called"),
    "poison over a set": Bad(["poison", "digits", "--attack", "badnets", "-o", "poisoned"], "exists already"),
    "target out of range": Bad(
        ["poison", "digits", "--attack", "badnets", "--set", "badnets.target=10", "-o", "new"], "outside the classes"
    ),
    "data attack with a model": Bad(poison("badnets", "--model", "m.safetensors"), "data set and takes no --model"),
    "data attack with epochs": Bad(poison("badnets", "--epochs", "3"), "data set and takes no --epochs"),
    "data attack with a time limit": Bad(poison("badnets", "--time-limit", "3"), "data set and takes no --time-limit"),
    "training attack with a model": Bad(poison("blind", "--model", "m.safetensors"), "model and takes no --model"),
    "training attack into a folder": Bad(poison("blind"), "does not end in .safetensors"),
    "weight attack without a model": Bad(poison("trojan-nn"), "edits a trained model, and none is given"),
    "weight attack with epochs": Bad(
        poison("trojan-nn", "--model", "m.safetensors", "--epochs", "3"), "takes no --epochs"
    ),
    "weight attack, other classes": Bad(
        ["poison", "seven.npz", "--attack", "trojan-nn", "--model", "m.safetensors", "-o", "new.safetensors"],
        "has 7 classes, the model 10",
    ),
    "missing truth": Bad(["evaluate", "m.safetensors", "digits", "--truth", "nope"], "no truth at 'nope'"),
    "missing twin": Bad(["evaluate", "m.safetensors", "digits", "--twin", "nope"], "no such file: 'nope'"),
    "evaluate other classes": Bad(["evaluate", "m.safetensors", "seven.npz"], "has 7 classes, the model 10"),
    "disk full, model": Bad(["train", "size.npz", "--epochs", "1", "-o", "new.safetensors"], "cannot write"),
    "disk full, set": Bad(["poison", "digits", "--attack", "badnets", "-o", "new"], "too large"),
    "disk full, run folder": Bad(["train", "size.npz", "--epochs", "1", "-o", "new.safetensors"], "cannot write"),
}
LIMITS = {"disk full, model": 100_000, "disk full, set": 100_000, "disk full, run folder": 0}


@pytest.fixture(scope="module")
def place(made: tuple[Path, dict[str, Result]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder full of bad inputs."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("m.safetensors", "poisoned.truth", "poisoned"):
        source = made[0] / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / "empty").mkdir()
    (folder / "text.safetensors").write_text("hello, this is no model")
    (folder / "text.onnx").write_text("hello, this is no model")
    (folder / "zero.safetensors").touch()
    (folder / "short.safetensors").write_bytes((folder / "m.safetensors").read_bytes()[:3000])
    (folder / "evil.bin").write_bytes(pickle.dumps(MarkerPickle(str(folder / "marker"))))
    (folder / "factory.py").write_text(FACTORY)
    with safe_open(folder / "m.safetensors", "np") as file:
        header = dict(file.metadata())
    state = load_file(folder / "m.safetensors")
    save_file(state, folder / "bare.safetensors")
    state["classifier.bias"] = np.full_like(state["classifier.bias"], np.nan)
    save_file(state, folder / "nan.safetensors", header)
    rng = np.random.default_rng(0)
    for name, shape, labels in (
        ("size", (16, 16, 3), TEN),
        ("grey", (32, 32), TEN),
        ("seven", (32, 32, 3), [label % 7 for label in TEN]),
        ("one", (32, 32, 3), [0] * 100),
        ("negative", (32, 32, 3), [-1, *TEN[1:]]),
        ("huge", (32, 32, 3), [10**9, *TEN[1:]]),
        ("few", (32, 32, 3), TEN[:20]),
    ):
        np.savez(folder / f"{name}.npz", x=rng.integers(0, 256, (len(labels), *shape), np.uint8), y=np.array(labels))
    return folder


@pytest.fixture(scope="module")
def refused(place: Path) -> tuple[dict[str, Result], set[str]]:
    """What every bad call gave, and what was in the folder that was not there before."""
    before = files(place)
    results = batch([bad.args for bad in BAD.values()], cwd=place)
    results += batch([bad.args for bad in UNSEALED.values()], cwd=place, fsize=[LIMITS.get(name) for name in UNSEALED])
    return dict(zip([*BAD, *UNSEALED], results, strict=True)), files(place) - before


@pytest.mark.parametrize("name", [*BAD, *UNSEALED])
def test_refused(refused: tuple[dict[str, Result], set[str]], name: str) -> None:
    bad, result = {**BAD, **UNSEALED}[name], refused[0][name]
    assert result.code == bad.code, result
    assert len(result.errors) == 1 and bad.error in result.errors[0]
    rest = [line for line in result.err.splitlines() if not line.startswith(("error:", "hint:", "  "))]
    assert rest == [] and result.out == "" and "Traceback" not in result.err


def test_nothing_is_left_behind_and_no_pickle_was_run(refused: tuple[dict[str, Result], set[str]]) -> None:
    assert {name for name in refused[1] if "__pycache__" not in name} == set()


def test_suggestions(refused: tuple[dict[str, Result], set[str]]) -> None:
    assert "did you mean 'neural-cleanse'?" in refused[0]["unknown method"].err
    assert "did you mean 'steps'?" in refused[0]["unknown key"].err
    assert "did you mean 'badnets'?" in refused[0]["unknown attack"].err


def test_too_few_trusted_samples(place: Path) -> None:
    few = ["--trusted", "few.npz", "--format", "json"]
    named = [*few, "--method", "neural-cleanse"]
    fit = ["guard", "fit", "m.safetensors", *few, "-o", "guard.safetensors"]
    repair = ["repair", "m.safetensors", *few, "--method", "fine-pruning", "-o", "new.safetensors"]
    calls = [["scan", "m.safetensors", *few], ["scan", "m.safetensors", *named], fit, repair]
    results = batch(calls, cwd=place)
    for result in results:
        assert result.code == 3
        statuses = {item["method"]: item["status"] for item in result.record["results"]}
        statuses.pop("scan.trojan-signature", None)  # needs no trusted samples
        assert set(statuses.values()) == {"skipped"}
        assert "trusted samples per class" in json.dumps(result.record["results"])
    assert not (place / "guard.safetensors").exists() and not (place / "new.safetensors").exists()
