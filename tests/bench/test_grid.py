"""Grid files: what is wrong is named, with a suggestion."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from bench_case import GRID, grid_file

from ostiary.bench.cells import model_spec, seed_of
from ostiary.bench.grid import read_grid
from ostiary.bench.runner import make_plan
from ostiary.core.errors import ConfigError, DataError, FormatError, OstiaryError
from ostiary.data import open_data
from ostiary.data.split import stratified_rows


def test_a_grid_lists_twins_first_and_every_cell_once(tmp_path: Path) -> None:
    plan = make_plan(grid_file(tmp_path, seeds="seeds = [0, 1]", rates="rates = [0.05, 0.1]"))
    assert [model.kind for model in plan.models] == ["twin"] * 2 + ["attack"] * 4
    assert [model.rate for model in plan.models[2:]] == [0.05, 0.1] * 2
    keys = [cell.key for cell in plan.cells]
    assert len(keys) == len(set(keys)) == 6 * 3
    assert all(cell.model.twin.kind == "twin" and cell.model.twin.seed == cell.model.seed for cell in plan.cells)


def test_an_attack_may_have_some_of_the_seeds(tmp_path: Path) -> None:
    """False alarms need many models that nobody attacked, and few seeds of each attack."""
    plan = make_plan(
        grid_file(tmp_path, **{"seeds": "seeds = [0, 1, 2]", "[attack.badnets]": "[attack.badnets]\nseeds = [1]"})
    )
    assert [(model.kind, model.seed) for model in plan.models] == [("twin", 0), ("twin", 1), ("twin", 2), ("attack", 1)]


def test_keys_depend_on_what_decides_the_result_and_on_nothing_else(tmp_path: Path) -> None:
    one = make_plan(grid_file(tmp_path))
    again = make_plan(grid_file(tmp_path, name='name = "other"', timeout="timeout = 5"))
    assert {cell.key for cell in one.cells} == {cell.key for cell in again.cells}
    for swap in ({"epochs": "epochs = 3"}, {"images": "images = 299"}, {"seeds": "seeds = [7]"}, {"lr": "lr = 0.1"}):
        other = make_plan(grid_file(tmp_path, **swap))
        assert not {cell.key for cell in one.cells} & {cell.key for cell in other.cells}, swap
    budget = make_plan(grid_file(tmp_path, trusted="trusted = [9]"))
    same = {cell.key for cell in one.cells} & {cell.key for cell in budget.cells}
    assert same == {cell.key for cell in one.cells if cell.defence is None}


def test_classes_of_a_set_may_be_of_very_different_sizes(tmp_path: Path) -> None:
    one = make_plan(grid_file(tmp_path))
    same = make_plan(grid_file(tmp_path, images="imbalance = 1\nimages = 300"))
    tail = make_plan(grid_file(tmp_path, images="imbalance = 9\nimages = 300"))
    assert {model.key for model in one.models} == {model.key for model in same.models}
    assert not {model.key for model in one.models} & {model.key for model in tail.models}
    assert model_spec(json.loads(json.dumps(asdict(tail.models[0])))) == tail.models[0]


def test_roles_share_no_image(tmp_path: Path) -> None:
    plan = make_plan(grid_file(tmp_path))
    data = plan.models[0].data
    assert data.pools == (200, 200, 400)
    rows = stratified_rows(open_data("digits").labels[: sum(data.pools)], data.pools, seed_of("pools"))
    assert len(set().union(*(set(part.tolist()) for part in rows))) == sum(data.pools)


MISTAKES = (
    ("epochs = 2", "epoch = 2", "unknown key 'recipe.epoch'", "did you mean 'epochs'?"),
    ("seeds", "seed", "unknown key 'seed'", "did you mean 'seeds'?"),
    ("attack.badnets", "attack.badnet", "no attack method is called 'badnet'", "did you mean 'badnets'?"),
    ("target = 0", "traget = 0", r"\[attack.badnets\]: 'badnets' has no parameter 'traget'", "did you mean 'target'?"),
    ("screen.spectral-signatures", "screen.spectral", "no screen method is called", "did you mean"),
    ("screen.spectral-signatures", "spectral-signatures", "needs a full id", "verbs: "),
    ('"small-cnn"', '"smal-cnn"', "unknown architecture 'smal-cnn'", "did you mean 'small-cnn'?"),
    ("rates = [0.05]", "rates = [1.5]", "'rates.0': input should be less than 1", "docs/bench.md"),
    ('role = "report"', 'role = "test"', "'role': input should be 'develop'", "docs/bench.md"),
    ('"repair.fine-tuning"', '"repair.fine-tuning"\nscan = "spectral"', "which is no scan of this grid", "known: none"),
    ("seeds = [0]", "seeds = []", "'seeds': ", "docs/bench.md"),
    (
        "[attack.badnets]",
        "[attack.badnets]\nseeds = [0, 5]",
        r"\[attack.badnets\] names the seed 5",
        "the grid's seeds",
    ),
)


@pytest.mark.parametrize(("right", "wrong", "error", "hint"), MISTAKES)
def test_mistakes_are_named_with_a_suggestion(tmp_path: Path, right: str, wrong: str, error: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=error) as caught:
        make_plan(grid_file(tmp_path, GRID.replace(right, wrong, 1)))
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("swap", "error"),
    [
        ({"images": "images = 500"}, "the pool of 'report' has 400"),
        ({"pools": "pools = [0, 0, 5000]"}, "pools of 5000 are more than"),
        ({"trusted": "trusted = [50]"}, "50 trusted images per class, 12 are set aside"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, swap: dict[str, str], error: str) -> None:
    with pytest.raises(DataError, match=error):
        make_plan(grid_file(tmp_path, **swap))


def test_files_that_are_no_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match="cannot read"):
        read_grid(tmp_path / "no.toml")
    for text in ("a = ", "\0"):
        (tmp_path / "bad.toml").write_text(text, encoding="utf-8")
        with pytest.raises(FormatError, match="is no TOML"):
            read_grid(tmp_path / "bad.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(FormatError, match="larger than 1 MiB"):
        read_grid(tmp_path / "big.toml")
    monkeypatch.delenv("OSTIARY_DATA", raising=False)
    lost = grid_file(tmp_path, GRID.replace('train = "digits"', 'train = "nowhere.npz"'))
    with pytest.raises(OstiaryError, match=r"no data at '.*nowhere.npz'") as caught:
        make_plan(lost)
    assert "OSTIARY_DATA" in str(caught.value.hint)
    assert os.environ.get("OSTIARY_DATA") is None


@pytest.mark.parametrize("name", ["reference", "develop", "calibrate", "full", "scanners"])
def test_the_grids_of_the_project_are_sound(name: str) -> None:
    grid = read_grid(Path(__file__).parents[2] / "benchmarks" / "grids" / f"{name}.toml")
    assert grid.name == name and grid.defence
    roles = {"reference": "report", "full": "report", "scanners": "report"}
    assert grid.role == roles.get(name, name)


def test_roles_have_seeds_of_their_own() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "grids"
    seeds = [
        set(read_grid(folder / f"{name}.toml").seeds) for name in ("reference", "develop", "calibrate", "scanners")
    ]
    assert len(set.union(*seeds)) == sum(map(len, seeds))
