"""`ostiary convert`: what it writes, what it refuses, and with which exit code."""

from pathlib import Path

import pytest
import torch
from cli_case import batch
from safetensors.torch import load_file

from ostiary.bench.hostile import hostile_files
from ostiary.cli.main import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"w": torch.ones(2, 2)}, "epoch": 3}, "m.pt")
    return tmp_path


def test_a_checkpoint_is_converted_and_can_be_read_again(folder: Path) -> None:
    made, quiet, again = batch(
        [
            ["convert", "m.pt", "-o", "new.safetensors"],
            ["convert", "m.pt", "-o", "quiet.safetensors", "-q"],
            ["convert", "new.safetensors", "-o", "again.safetensors"],
        ],
        cwd=folder,
    )
    assert (made.code, made.out) == (0, "wrote new.safetensors: 1 tensors, 16 bytes\n")
    assert made.err == "the weights lay under model; what lay beside them is left out\n"
    assert (quiet.code, quiet.err) == (0, "")
    assert load_file("new.safetensors")["w"].equal(torch.ones(2, 2))
    assert again.code == 2 and "'new.safetensors' is safetensors already" in again.err


def test_a_refusal_names_every_reason(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = {one.name: one.data for one in hostile_files(folder / "canary")}
    Path("evil.pt").write_bytes(hostile["second-pickle-in-the-object.pt"])
    assert run(["convert", "evil.pt", "-o", "new.safetensors"]) == 1
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and lines[-2].startswith(
        "error: refused: OS123 evil.pt/m/data.pkl: a second pickle begins at byte"
    )
    assert any(line.startswith("OS112 evil.pt/m/data.pkl: names os.getcwd at byte") for line in lines)
    assert lines[-1].startswith("hint: ") and "ostiary explain CODE" in lines[-1]
    assert not Path("new.safetensors").exists() and not Path("canary").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nowhere.pt", "-o", "new"], "cannot read 'nowhere.pt'"),
        (["m.pt", "-o", "m.pt"], "'m.pt' exists already"),
        (["m.pt", "-o", "nowhere/new"], "no folder 'nowhere'"),
        (["."], "missing option '-o'"),
        ([".", "-o", "new"], "cannot read '.'"),
    ],
)
def test_unusable_calls(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str) -> None:
    assert run(["convert", *words]) == 2
    assert error in capsys.readouterr().err
    assert not Path("new").exists()


@pytest.mark.parametrize("code", ["OS112", "OS123", "OS130", "OS149"])
def test_reasons_are_explained(folder: Path, capsys: pytest.CaptureFixture[str], code: str) -> None:
    assert run(["explain", code]) == 0
    out = capsys.readouterr().out
    assert out.startswith(code) and "file inspection" in out and "next step" in out
