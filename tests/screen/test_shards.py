"""Screening in shards gives what screening the whole set gives, and says what went wrong where."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ostiary.api import screen_data
from ostiary.core.errors import ConfigError, DataError, JobFailed, OutOfTime
from ostiary.core.records import Record, SampleEvidence
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.core.store import load_artifact, read_record
from ostiary.data import ArraySet, ImageSet, digits, open_data, write_parquet
from ostiary.engines import Done, Engine, Job
from ostiary.engines.local import LocalEngine
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import save_model
from ostiary.models.zoo import build
from ostiary.screen.shards import measure_shard, screen_shards
from ostiary.training import Recipe, train

PARTS = ("scores", "suspected")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with LocalEngine(2) as made:
        yield made


@pytest.fixture(scope="module")
def set_and_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Digits with a yellow square on some that are called 0, in three Parquet files; a model trained on them."""
    folder = tmp_path_factory.mktemp("sharded")
    clean = digits()
    pixels, labels = clean.pixels(range(len(clean))).clone(), clean.labels.clone()
    chosen = np.random.default_rng(0).choice(len(clean), 60, replace=False)
    pixels[chosen, :, -5:-1, -5:-1] = pixels.new_tensor([255, 255, 0]).view(3, 1, 1)
    labels[chosen] = 0
    poisoned = ArraySet(pixels, labels, clean.classes, clean.ids)
    (folder / "set").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(poisoned)), 3)):
        write_parquet(folder / "set" / f"part-{number}.parquet", poisoned.subset(rows.tolist()))
    module = build("small-cnn", len(clean.classes), in_channels=3, seed=0)
    model = TorchClassifier(module, clean.classes, clean.shape, arch="small-cnn")
    train(model, poisoned, Recipe(epochs=3, batch=64, lr=0.1, padding=2, flip=False), run=Run())
    save_model(model, folder / "m.safetensors")
    return folder / "set", folder / "m.safetensors"


def scores(record: Record) -> dict[str, np.ndarray]:
    folder = read_record(record.id)[1]
    names = [r.evidence.artifact for r in record.results if isinstance(r.evidence, SampleEvidence)]
    return {f"{name}-{part}": load_artifact(record, folder, f"{name}-{part}") for name in names for part in PARTS}


def test_shards_give_what_the_whole_set_gives(set_and_model: tuple[Path, Path], engine: Engine, tmp_path: Path) -> None:
    whole = screen_data(*set_and_model)
    parts = screen_shards(*set_and_model, engine, shards=5, work=tmp_path)
    assert (parts.verdict, parts.digests, parts.subject) == (whole.verdict, whole.digests, whole.subject)
    assert whole.verdict == "suspect"
    assert [result.status for result in whole.results] == ["ok", "ok"]
    mine, theirs = scores(parts), scores(whole)
    for name, array in theirs.items():
        if name.endswith("suspected"):
            assert np.array_equal(mine[name], array)
        else:
            np.testing.assert_allclose(mine[name], array, rtol=1e-3, atol=1e-3 * np.nanmax(np.abs(array)))
    assert max(array.sum() for name, array in theirs.items() if name.endswith("suspected")) >= 50
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_part_is_named(set_and_model: tuple[Path, Path], engine: Engine, tmp_path: Path) -> None:
    for path in set_and_model[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    last = tmp_path / "part-2.parquet"
    data = bytearray(last.read_bytes())
    at = data.index(b"\x89PNG", len(data) // 2)
    data[at : at + 4] = b"none"
    last.write_bytes(data)
    with pytest.raises(DataError, match="shard 3 of 3: "):
        screen_shards(tmp_path, set_and_model[1], engine, shards=3)


def test_time_that_is_over_and_too_many_shards_are_refused(set_and_model: tuple[Path, Path], engine: Engine) -> None:
    with pytest.raises(OutOfTime):
        screen_shards(*set_and_model, engine, shards=2, options=Options(time_limit=0.0))
    with pytest.raises(ConfigError, match="5000 shards of 1347 samples"):
        screen_shards(*set_and_model, engine, shards=5000)


def test_a_crashed_shard_ends_the_screening(set_and_model: tuple[Path, Path]) -> None:
    with Crashing(1) as engine, pytest.raises(JobFailed, match="shard 1 of 2 crashed: gone") as caught:
        screen_shards(*set_and_model, engine, shards=2)
    assert caught.value.exit_code == 3


class Crashing(LocalEngine):
    def take(self, timeout: float | None = None) -> Done | None:
        return Done(key="shard 1 of 2", status="crashed", reason="gone")


def test_a_job_is_sealed_and_gets_paths_and_numbers(set_and_model: tuple[Path, Path]) -> None:
    seen: list[Job] = []

    class Watching(Crashing):
        def submit(self, job: Job, /) -> None:
            seen.append(job)

    with Watching(1) as engine, pytest.raises(JobFailed):
        screen_shards(*set_and_model, engine, shards=2)
    assert [job.sealed for job in seen] == [True]
    args: dict[str, Any] = json.loads(json.dumps(seen[0].args))
    assert args == seen[0].args and (args["start"], args["stop"]) == (0, 673)


def test_a_job_that_runs_twice_leaves_what_the_first_run_wrote(
    set_and_model: tuple[Path, Path], tmp_path: Path
) -> None:
    data, model = map(str, set_and_model)
    call = {"data": data, "model": model, "how": {}, "start": 10, "stop": 30, "device": "cpu"}
    assert measure_shard(out=str(tmp_path / "0"), **call) == {}
    before = (tmp_path / "0" / "digests.npy").stat().st_mtime_ns
    assert measure_shard(out=str(tmp_path / "0"), **call) == {}
    assert (tmp_path / "0" / "digests.npy").stat().st_mtime_ns == before
    whole: ImageSet = open_data(data)
    assert np.array_equal(np.load(tmp_path / "0" / "digests.npy"), whole.sample_digests[10:30])
