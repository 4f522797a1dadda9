"""A bank holds the very models of a store: taken from it, they have the same digests and rates, untrained."""

import json
from pathlib import Path

import pytest
import torch
from bench_case import grid_file, ran
from safetensors.torch import load_file, save_file

from ostiary.bench.bank import Bank, export_bank
from ostiary.bench.runner import Plan, Runner, make_plan
from ostiary.bench.store import Row, Store
from ostiary.core.errors import FormatError, OutputError
from ostiary.engines.local import LocalEngine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, Store]:
    folder = tmp_path_factory.mktemp("made")
    plan, store, _ = ran(grid_file(folder), folder / "store")
    count, size = export_bank(store, plan.models, folder / "bank")
    assert count == 2 and 0 < size < 10**6
    return folder, plan, store


def rates(store: Store) -> dict[str, dict[str, Row]]:
    return {key: row["rates"] for key, row in store.finished().items()}


def test_models_from_a_bank_are_the_very_same(made: tuple[Path, Plan, Store], tmp_path: Path) -> None:
    folder, plan, store = made
    again = Store(tmp_path / "store", create=True)
    with LocalEngine(2) as engine:
        Runner(plan, again, bank=folder / "bank").run(engine)
    for model in plan.models:
        one, other = store.model(model.key), again.model(model.key)
        assert one is not None and other is not None
        assert other["from_bank"] and not one["from_bank"] and one["digest"] == other["digest"]
    assert rates(store) == rates(again), "equal keys, equal results, in any store"


def test_weights_are_fp16_and_recipes_name_no_folder(made: tuple[Path, Plan, Store]) -> None:
    bank = made[0] / "bank"
    for file in bank.glob("*.safetensors"):
        assert {t.dtype for t in load_file(file).values() if t.is_floating_point()} == {torch.float16}
    text = (bank / "bank.json").read_text(encoding="utf-8")
    assert str(made[0]) not in text
    rows = json.loads(text)["models"]
    assert {row["spec"]["kind"] for row in rows} == {"twin", "attack"} and all(row["spec"]["recipe"] for row in rows)
    assert len(list(bank.glob("*.truth"))) == 1


def test_a_bank_that_does_not_fit_is_named(made: tuple[Path, Plan, Store], tmp_path: Path) -> None:
    folder, plan, store = made
    with pytest.raises(FormatError, match="is no bank"):
        Bank(tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        export_bank(store, plan.models, folder / "bank")
    empty = make_plan(grid_file(tmp_path, epochs="epochs = 3"))
    with pytest.raises(FormatError, match="has no model of this grid yet"):
        export_bank(store, empty.models, tmp_path / "none")
    export_bank(store, plan.models, tmp_path / "bank")
    for file in (tmp_path / "bank").glob("*.safetensors"):
        save_file({"other": torch.zeros(2)}, file)
    again = Store(tmp_path / "store", create=True)
    with LocalEngine(2) as engine:
        Runner(plan, again, bank=tmp_path / "bank").run(engine)
    assert not again.finished()
    assert all("does not hold this model" in row["reason"] for row in again.failures().values())
