"""A defence that wants the truth is planted in a grid: it must come away with nothing."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bench_case import GRID, grid_file, ran
from sklearn.metrics import roc_auc_score

from ostiary.attacks.truth import load_truth
from ostiary.bench.runner import Plan
from ostiary.bench.store import DATA, Row, Store
from ostiary.core import landlock
from ostiary.core.catalog import methods
from ostiary.data.packed import PackedSet

ORACLE = GRID.replace('id = "screen.spectral-signatures"', 'id = "screen.toy-oracle"').replace("0.05]", "0.2]")


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The oracle is installed as another distribution would be, for this process and its children."""
    info = tmp_path_factory.mktemp("plug") / "oracle-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oracle\nVersion: 1\n", encoding="utf-8")
    point = "[ostiary.methods]\nscreen.toy-oracle = toys.toy_oracle:ToyOracle\n"
    (info / "entry_points.txt").write_text(point, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(info.parent))
        patch.syspath_prepend(str(Path(__file__).parents[1]))
        methods.cache_clear()
        yield
        methods.cache_clear()


@pytest.fixture(scope="module")
def done(installed: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store, list[Row]]:
    """The grid, run once; tests must not change its store."""
    folder = tmp_path_factory.mktemp("grid")
    return ran(grid_file(folder, ORACLE), folder / "store")


def test_an_oracle_hungry_defence_gets_nothing(done: tuple[Plan, Store, list[Row]]) -> None:
    plan, store, rows = done
    row = next(row for row in rows if row["defence"] == "spectral" and row["kind"] == "attack")
    assert row["status"] == "ok", row["reason"]
    work = store.work_dir(row["key"])
    reached: dict[str, str] = json.loads(np.load(work / "reached.npy").tobytes())
    got = {name for name, end in reached.items() if end == "got it"}
    # Without Landlock a child process or a native reader could still look for the files.
    kernel = {"cells by a child", "truth by a child", "truth natively", "list the store", "list sealed", "salt"}
    kernel |= {"parent's memory", "other models", "the test part"}
    assert got <= (set() if landlock.available() else kernel), got
    model = next(model for model in plan.models if model.kind == "attack")
    truth = load_truth(store.truth_dir(model.key))
    data = PackedSet(store.model_dir(model.key) / DATA)
    poisoned = np.isin(data.ids, list(truth.poisoned))
    assert 50 <= poisoned.sum() < len(data)
    for file in work.glob("guess-*.npy"):
        area = roc_auc_score(poisoned, np.load(file))
        assert 0.35 < area < 0.65, f"{file.stem} tells poison from the rest: AUROC {area:.2f}"


def test_public_names_tell_nothing(done: tuple[Plan, Store, list[Row]], tmp_path: Path) -> None:
    """The same grid in two stores has other names for everything, and no file outside `sealed` names an attack."""
    one, other = done[1].path, ran(grid_file(tmp_path, ORACLE), tmp_path / "other")[1].path
    names = [{path.name for path in (store / "models").iterdir()} for store in (one, other)]
    assert len(names[0]) == 2 and not names[0] & names[1]
    for path in one.rglob("*"):
        if path.is_file() and "sealed" not in path.parts:
            content = path.read_bytes()
            assert b"badnets" not in content.lower() and b"attack." not in content, path
    seen = {path.stat().st_size for path in (one / "models").rglob("pixels.npy") if path.parent.name == "data"}
    assert len(seen) == 1, "the poisoned set has another size than the twin's"
    assert os.listdir(one / "sealed" / "truth")


def test_untouched_sets_look_like_poisoned_ones(done: tuple[Plan, Store, list[Row]]) -> None:
    """Neither ids nor order tell the set of a twin from that of an attack."""
    plan, store, _ = done
    pool = PackedSet(store.set_dir(plan.models[0].data.part_key("pool")))
    place = {image.numpy().tobytes(): row for row, image in enumerate(pool.pixels(range(len(pool))))}
    for model in plan.models:
        data = PackedSet(store.model_dir(model.key) / DATA)
        assert data.ids == tuple(f"{row:06d}" for row in range(len(data)))
        rows = [place.get(image.numpy().tobytes(), -1) for image in data.pixels(range(len(data)))]
        known = np.array([row for row in rows if row >= 0])
        assert len(known) >= 240, "all but the fifth that the attack changed"
        order = np.corrcoef(known, np.arange(len(known)))[0, 1]
        assert abs(order) < 0.2, f"{model.kind}: in the source's order ({order:.2f})"
