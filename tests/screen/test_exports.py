"""What is exported of a screening, and what training on the rest tells."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ostiary.api import screen_data
from ostiary.attacks.badnets import BadNets
from ostiary.core.errors import OutputError
from ostiary.core.records import Rate, Record, RepairEvidence
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data import digits, open_data
from ostiary.screen.exports import COLUMNS, export_kept, export_suspects, found_by, kept_of, suspected_of
from ostiary.screen.retrain import ACCURACY, KEEPS_LABEL
from ostiary.training import Recipe, train
from ostiary.training.flow import new_model


@pytest.fixture(scope="module")
def lab() -> SimpleNamespace:
    """Digits of which 5 % carry a yellow square and the label 0, and a model of them."""
    made = BadNets(patch="yellow-square", target=0, rate=0.05).poison(digits("train"), run=Run())
    model = new_model("small-cnn", made.data, width=None, seed=0)
    train(model, made.data, Recipe(epochs=6, batch=32, lr=0.05, padding=1, flip=False), run=Run())
    return SimpleNamespace(data=made.data, model=model, trusted=digits("test"))


def value(rate: Rate) -> float:
    assert rate.value is not None
    return rate.value


@pytest.fixture
def record(lab: SimpleNamespace) -> Record:
    return screen_data(lab.data, lab.model, trusted=lab.trusted)


def test_the_fusions_list_counts_alone_where_it_finished(lab: SimpleNamespace, record: Record) -> None:
    found = found_by(record)
    assert found[0].method == "screen.fusion" and len(found) == 2
    assert np.array_equal(suspected_of(found), found[0].suspected)
    rest = found[1:]
    assert np.array_equal(suspected_of(rest), np.any([one.suspected for one in rest], axis=0))


def test_suspects_are_ranked_and_carry_every_reason(lab: SimpleNamespace, record: Record, tmp_path: Path) -> None:
    export_suspects(record, lab.data, tmp_path / "ids.csv")
    with (tmp_path / "ids.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row["id"] for row in rows} == set(np.array(lab.data.ids)[suspected_of(found_by(record))])
    reasons = rows[0]["reasons"].split("; ")
    assert reasons[0] == "OS305 fusion" and "OS303 scan" in reasons
    labels = dict(zip(lab.data.ids, lab.data.labels.tolist(), strict=True))
    assert all(labels[row["nearest"]] == int(row["label"]) for row in rows)


@pytest.mark.parametrize("name", ["kept.parquet", "kept"])
def test_what_is_kept_can_be_opened(lab: SimpleNamespace, record: Record, tmp_path: Path, name: str) -> None:
    export_kept(record, lab.data, tmp_path / name)
    kept = open_data(tmp_path / name)
    assert list(kept.ids) == list(kept_of(record, lab.data).ids)
    with pytest.raises(OutputError, match="exists already"):
        export_kept(record, lab.data, tmp_path / name)


def changed(record: Record) -> RepairEvidence:
    evidence = record.results[-1].evidence
    assert record.results[-1].method == "training.train" and isinstance(evidence, RepairEvidence)
    return evidence


def test_planted_samples_lose_the_label_they_carry_once_they_are_left_out(lab: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "anew.safetensors"
    record = screen_data(lab.data, lab.model, trusted=lab.trusted, methods=["fusion"], retrain=out)
    told = changed(record)
    assert value(told.before[KEEPS_LABEL]) >= 0.95 and value(told.after[KEEPS_LABEL]) <= 0.3
    assert value(told.after[ACCURACY]) >= 0.9
    assert record.verdict == "suspect" and record.config["out"] == str(out) and out.exists()
    with pytest.raises(OutputError, match="exists already"):
        screen_data(lab.data, lab.model, methods=["fusion"], retrain=out)


def test_nothing_is_written_where_nothing_is_suspected_or_time_runs_out(lab: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "anew.safetensors"
    found = screen_data(lab.trusted, lab.model, methods=["fusion"], retrain=out)
    assert found.verdict == "none-found" and "OS915" in [caution.code for caution in found.cautions]
    cut = screen_data(lab.data, lab.model, methods=["fusion"], retrain=out, options=Options(time_limit=0.0))
    assert cut.results[-1].method == "training.train" and cut.results[-1].status == "partial"
    assert not out.exists()
