"""Signed statements of rounds: what is missing at the end, mixed in, or of no single model is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from ostiary.cli.main import run
from ostiary.core.catalog import make
from ostiary.core.errors import FormatError
from ostiary.federated.layout import Tensors
from ostiary.federated.record import (
    DIGEST,
    ROUND,
    Judged,
    read_rounds,
    read_tensors,
    round_payload,
    verdicts,
    write_rounds,
)
from ostiary.federated.rounds import Round
from ostiary.federated.verdict import Reason
from ostiary.provenance.attested import say
from ostiary.provenance.envelope import sign
from ostiary.provenance.keys import new_key, read_private
from ostiary.provenance.refusal import Refused
from ostiary.provenance.statement import Subject
from ostiary.provenance.strict import parse
from ostiary.provenance.trust import read_trust

WRAPPED = "model.w"


def left(number: int) -> Tensors:
    """The model after a round."""
    return {WRAPPED: np.full(2, number, np.float32)}


def judged(number: int, before: Tensors | None = None) -> Judged:
    """A round in which one client was refused."""
    done = Round(number, (), None, {"c0": Reason("OS505", "too long")}, {})
    return Judged(done, make("aggregate", "rfa"), left(number - 1) if before is None else before, left(number), ())


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    new_key(folder / "server")
    return folder / "server"


@pytest.fixture
def told(tmp_path: Path, key: Path) -> Callable[..., Path]:
    """Writes the rounds of one run and the last model; gives the folder."""

    def write(numbers: range, planned: int | None, name: str = "out") -> Path:
        folder = tmp_path / name
        tell = write_rounds(folder / "rounds", [read_private(key.with_suffix(".key"))], planned=planned)
        for number in numbers:
            tell(judged(number))
        save_file(dict(left(numbers[-1])), folder / "global.safetensors")
        return folder

    return write


def read(folder: Path, key: Path, last: Tensors | None = None) -> Any:
    return read_rounds(folder / "rounds", read_trust(key.with_suffix(".pub")), last)


def test_rounds_at_the_end_that_are_missing(told: Callable[..., Path], key: Path) -> None:
    folder = told(range(1, 5), 4)
    assert len(read(folder, key, left(4))) == 4
    (folder / "rounds" / "round-004.json").unlink()
    with pytest.raises(Refused, match="OS540") as caught:
        read(folder, key, left(3))
    assert "4 rounds were planned, 3 are here" in str(caught.value)
    with pytest.raises(Refused, match="OS540"):
        read(told(range(1, 6), 4, "more"), key)


def test_texts_of_clients_are_cut() -> None:
    done = Round(1, (), None, {"c0": Reason("OS511", "a" * 10_000), "c1": Reason("OS511", "b")}, {})
    assert [len(one.reason) for one in verdicts(done)] == [400, 1]


def test_rounds_of_another_run_do_not_fit_though_their_models_do(told: Callable[..., Path], key: Path) -> None:
    folder, other = told(range(1, 4), 3), told(range(1, 4), 3, "other")
    second = other / "rounds" / "round-002.json"
    (folder / "rounds" / second.name).write_bytes(second.read_bytes())
    with pytest.raises(Refused, match="OS541") as caught:
        read(folder, key)
    assert "another run" in str(caught.value)


def test_a_model_changed_between_rounds(tmp_path: Path, key: Path) -> None:
    tell = write_rounds(tmp_path / "rounds", [read_private(key.with_suffix(".key"))])
    tell(judged(1))
    tell(judged(2, before=left(7)))
    with pytest.raises(Refused, match="OS541") as caught:
        read(tmp_path, key)
    assert "go on from the model" in str(caught.value)


@pytest.mark.parametrize(
    "subjects",
    [
        [Subject(name="a", digest={"sha256": "0" * 64})],
        [Subject(name="a", digest={DIGEST: "0" * 64}), Subject(name="b", digest={DIGEST: "1" * 64})],
    ],
    ids=["other digest", "two"],
)
def test_a_round_is_of_one_model(tmp_path: Path, key: Path, subjects: list[Subject]) -> None:
    payload = round_payload(judged(1), "0" * 32)
    predicate = parse(payload, "here", limit=10**6)["predicate"]
    (tmp_path / "rounds").mkdir()
    for said, fits in ((payload, True), (say(subjects, ROUND, predicate), False)):
        text = sign(said, [read_private(key.with_suffix(".key"))]).to_json()
        (tmp_path / "rounds" / "round-001.json").write_bytes(text)
        if fits:
            assert len(read(tmp_path, key)) == 1
            continue
        with pytest.raises(Refused, match="OS730"):
            read(tmp_path, key)


def test_rounds_are_sorted_by_number_and_other_names_are_refused(told: Callable[..., Path], key: Path) -> None:
    folder = told(range(1, 12), 11)
    for file in (folder / "rounds").iterdir():
        file.rename(file.with_name(f"round-{int(file.stem[-3:])}.json"))
    assert [one.round for one in read(folder, key, left(11))] == [*range(1, 12)]
    (folder / "rounds" / "round-last.json").write_text("{}")
    with pytest.raises(FormatError, match="no name of a round"):
        read(folder, key)


def check(folder: Path, key: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run(["federated", "check", str(folder), "--trust", f"{key}.pub", *more])
    return int(caught.value.code or 0)


def test_the_command_says_what_it_could_not_check(
    told: Callable[..., Path], key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tensors have a prefix that other commands take off."""
    folder = told(range(1, 3), 2)
    assert check(folder, key) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("the last left global.safetensors")
    (folder / "global.safetensors").unlink()
    assert check(folder, key) == 3
    assert capsys.readouterr().out.splitlines()[-1].endswith("no global.safetensors here")
    open_end = told(range(1, 3), None, "open")
    assert check(open_end, key) == 3
    assert "later ones may be missing" in capsys.readouterr().out.splitlines()[-1]
    assert check(open_end, key, "--format", "json") == 3
    assert "later ones may be missing" in capsys.readouterr().err


@pytest.mark.parametrize("taught", [False, True])
def test_a_type_that_numpy_does_not_know_is_said_so(tmp_path: Path, taught: bool) -> None:
    """Even where another library (onnx brings it) has taught it to NumPy, which depends on what ran before."""
    if taught:
        pytest.importorskip("ml_dtypes")
    save_torch({"w": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "global.safetensors")
    with pytest.raises(FormatError, match="digest") as caught:
        read_tensors(tmp_path / "global.safetensors")
    assert "bfloat16" in (caught.value.hint or "")
    (tmp_path / "global.safetensors").write_bytes(b"no model")
    with pytest.raises(FormatError):
        read_tensors(tmp_path / "global.safetensors")
