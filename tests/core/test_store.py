"""Records on disk: written whole, read with suspicion."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ostiary.core import store
from ostiary.core.errors import FormatError, OutputError
from ostiary.core.files import sha256_file
from ostiary.core.records import Artifact, Record
from ostiary.core.session import Options, Session
from ostiary.core.store import RunFolder, load_artifact, read_record, runs_root


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "runs"
    monkeypatch.setenv("OSTIARY_RUNS", str(root))
    return root


@pytest.fixture
def kept() -> tuple[Record, Path]:
    """A written record with one artifact."""
    session = Session("scan", "m.pt", ("a", "b"), Options(), {}, {"model": "0" * 64}, ())
    session.run.artifact("thing", np.arange(6.0).reshape(2, 3))
    return session.finish(), session.folder.path


def test_a_record_is_found_by_id_folder_and_file(kept: tuple[Record, Path], runs: Path) -> None:
    record, folder = kept
    assert runs_root() == runs and folder.parent == runs
    assert folder.name.endswith(f"-scan-{record.id}") and sorted(p.name for p in folder.iterdir()) == [
        "artifacts",
        "record.json",
    ]
    for where in (record.id, folder, str(folder), folder / "record.json"):
        assert read_record(where) == (record, folder)
    array = load_artifact(record, folder, "thing")
    assert array.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert record.artifacts["thing"].shape == (2, 3)


def test_runs_default_to_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", None):
        monkeypatch.setenv("OSTIARY_RUNS", value) if value is not None else monkeypatch.delenv("OSTIARY_RUNS")
        assert runs_root() == Path("ostiary-runs")


def test_run_folders_are_apart() -> None:
    assert len({RunFolder.create("scan").path for _ in range(5)}) == 5


@pytest.mark.parametrize("where", ["00000000", "nothing/here", "*", "../x", "a b", ""])
def test_a_missing_record(where: str, runs: Path) -> None:
    runs.mkdir()
    with pytest.raises(FormatError, match=r"no record at|cannot read"):
        read_record(where)


def test_a_failed_write_keeps_the_older_record(kept: tuple[Record, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    record, path = kept
    folder = RunFolder(path, record.id, record.created, dict(record.artifacts))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="no space left"):
        folder.write(record.model_copy(update={"subject": "other"}))
    with pytest.raises(OutputError, match="no space left"):
        folder.keep({"thing": np.zeros(3)})
    monkeypatch.undo()
    assert read_record(path) == (record, path)
    assert load_artifact(record, path, "thing").shape == (2, 3)
    assert [p.name for p in (path / "artifacts").iterdir()] == ["thing.npy"]


def test_a_runs_folder_that_cannot_be_made(runs: Path) -> None:
    runs.write_text("a file")
    with pytest.raises(OutputError, match="cannot make the run folder") as caught:
        RunFolder.create("scan")
    assert "OSTIARY_RUNS" in (caught.value.hint or "")


def rewrite(kept: tuple[Record, Path], text: str) -> Path:
    (kept[1] / "record.json").write_text(text, encoding="utf-8")
    return kept[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a record"),
        ("{", "is not a record"),
        ("[1]", "is not a record"),
        ("3", "is not a record"),
        ("[" * 100_000, "is not a record"),
        ("{}", "is not a valid record"),
        ('{"schema_version": 2}', "has schema version 2, this ostiary reads up to 1"),
        ('{"schema_version": "x"}', "is not a valid record"),
    ],
    ids=["empty", "cut", "list", "number", "deep", "bare", "newer", "odd-version"],
)
def test_a_file_that_is_no_record(kept: tuple[Record, Path], text: str, told: str) -> None:
    with pytest.raises(FormatError, match=told):
        read_record(rewrite(kept, text))


def test_an_unknown_key_is_named(kept: tuple[Record, Path]) -> None:
    plain = json.loads(kept[0].to_json())
    plain["environment"]["surplus"] = 1
    with pytest.raises(FormatError, match=r"environment\.surplus: extra inputs are not permitted"):
        read_record(rewrite(kept, json.dumps(plain)))


def test_bytes_that_are_no_text(kept: tuple[Record, Path]) -> None:
    (kept[1] / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="cannot read"):
        read_record(kept[1])


def test_too_large_a_file_is_not_read(kept: tuple[Record, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_RECORD_BYTES", 100)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(FormatError, match="too large for a record"):
        read_record(kept[1])


def test_a_tampered_artifact_is_refused(kept: tuple[Record, Path]) -> None:
    record, folder = kept
    np.save(folder / "artifacts" / "thing.npy", np.zeros((2, 3)))
    with pytest.raises(FormatError, match="was changed since it was recorded"):
        load_artifact(record, folder, "thing")
    (folder / "artifacts" / "thing.npy").unlink()
    for name in ("thing", "other"):
        with pytest.raises(FormatError, match=f"has no artifact '{name}'"):
            load_artifact(record, folder, name)


def with_entry(record: Record, folder: Path, file: Path, path: str) -> Record:
    entry = Artifact(path=path, shape=(1,), dtype="float32", sha256=sha256_file(file))
    return record.model_copy(update={"artifacts": {"thing": entry}})


def test_a_record_reaches_no_file_outside_its_folder(kept: tuple[Record, Path], tmp_path: Path) -> None:
    record, folder = kept
    outside = tmp_path / "secret.npy"
    np.save(outside, np.zeros(1))
    (folder / "artifacts" / "link.npy").symlink_to(outside)
    for path in ("../../secret.npy", str(outside), "artifacts/link.npy"):
        with pytest.raises(FormatError, match="has no artifact"):
            load_artifact(with_entry(record, folder, outside, path), folder, "thing")


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "pickle"])
def test_an_artifact_that_is_no_array(kept: tuple[Record, Path], kind: str) -> None:
    record, folder = kept
    file = folder / "artifacts" / "thing.npy"
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif kind == "pickle":
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        file.write_bytes(b"no array" if kind == "text" else b"")
    with pytest.raises(FormatError):
        load_artifact(with_entry(record, folder, file, "artifacts/thing.npy"), folder, "thing")
