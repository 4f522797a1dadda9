"""The index follows the records, and loses nothing that it was not given."""

import json
import multiprocessing
import os
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_rows import rate, row

from ostiary.bench import index
from ostiary.bench.cells import digest_of
from ostiary.bench.store import Store
from ostiary.core.errors import OutputError

ASR = "attack success rate"


def keyed(name: str, **fields: Any) -> dict[str, Any]:
    return row("repair.ft", key=digest_of(name), **fields)


def failed(name: str, reason: str) -> dict[str, Any]:
    return keyed(name, status="timeout", reason=reason)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    for number in range(3):
        made.keep(keyed(f"cell {number}", rates={ASR: number}))
    made.fail(failed("cell 0", "before it was finished"))
    made.fail(failed("lost", "attempt 1"))
    return made


def reference(store: Store) -> list[dict[str, Any]]:
    finished = store.finished()
    lost = [row for key, row in store.failures().items() if key not in finished]
    return sorted([*finished.values(), *lost], key=lambda one: one["key"])


def file(store: Store) -> Path:
    return store.sealed / index.NAME


def test_rows_are_the_records(store: Store) -> None:
    found = index.rows(store)
    assert found == reference(store)
    assert len(found) == 4
    assert [one["reason"] for one in found if one["status"] == "timeout"] == ["attempt 1"]


def test_the_last_failure_counts(store: Store) -> None:
    for number in range(2, 12):
        store.fail(failed("lost", f"attempt {number}"))
    assert [one["reason"] for one in index.rows(store) if one["status"] == "timeout"] == ["attempt 11"]


def test_only_new_files_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    index.rows(store)
    read: list[str] = []
    sound = index._sound
    monkeypatch.setattr(index, "_sound", lambda path: read.append(path.name) or sound(path))
    new = keyed("new")
    store.keep(new)
    assert index.rows(store) == reference(store)
    assert read == [f"{new['key'][:24]}.json"]


def test_a_later_success_replaces_the_failure(store: Store) -> None:
    index.rows(store)
    store.keep(keyed("lost", rates={ASR: 7}))
    found = {one["key"]: one for one in index.rows(store)}
    assert found[digest_of("lost")]["status"] == "ok"
    assert len(found) == 4


def test_what_is_removed_goes(store: Store) -> None:
    index.rows(store)
    (store.sealed / "cells" / f"{digest_of('cell 1')[:24]}.json").unlink()
    assert digest_of("cell 1") not in {one["key"] for one in index.rows(store)}


def test_to_delete_it_loses_nothing(store: Store) -> None:
    first = index.rows(store)
    file(store).unlink()
    assert index.rows(store) == first
    assert file(store).exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def overwrite(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {index.VERSION + 1}")
    database.close()


def change_a_figure(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(b'"method_seconds": 3.0')
    path.write_bytes(data[:at] + b'"method_seconds": 9.0' + data[at + 21 :])


@pytest.mark.parametrize("spoil", [truncate, overwrite, empty, other_version, change_a_figure])
def test_a_spoiled_index_is_built_again(store: Store, spoil: Any) -> None:
    first = index.rows(store)
    spoil(file(store))
    assert index.rows(store) == first
    assert index.rows(store) == first


def test_damaged_records_are_set_aside_by_the_store(store: Store) -> None:
    index.rows(store)
    spoiled = store.sealed / "cells" / f"{digest_of('cell 2')[:24]}.json"
    document = json.loads(spoiled.read_text())
    document["row"]["seed"] = 99
    spoiled.write_text(json.dumps(document))
    found = index.rows(store)
    assert digest_of("cell 2") not in {one["key"] for one in found}
    assert found == reference(store)
    assert len(store.damaged) == 1
    assert not spoiled.exists()


def test_without_a_place_to_write_rows_come_all_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Store, "hold", refuse)
    assert index.rows(store) == reference(store)
    assert not file(store).exists()


def _work(path: str, number: int) -> None:
    store = Store(Path(path))
    for step in range(5):
        store.keep(keyed(f"by {number} {step}"))
        if step == 2 and number == 0:
            (store.sealed / index.NAME).unlink(missing_ok=True)
        if len(index.rows(store)) < step + 1:
            os._exit(1)


def test_several_processes_at_once(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(str(store.path), number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 3
    assert index.rows(store) == reference(store)
    assert len(index.rows(store)) == 4 + 15


# --- Parquet --------------------------------------------------------------------------------------


def test_parquet_holds_every_figure(tmp_path: Path) -> None:
    rows = [
        row(rates={"accuracy": 98, f"twin {ASR}": rate(2, 50)}, params={"target": 3}),
        row("scan.nc", measures={"found": 1.0, "target found": 0.0}, rates={f"re-activated {ASR}": rate(0, 0)}),
        row("repair.ft", status="timeout", reason="not done"),
    ]
    out = tmp_path / "rows.parquet"
    index.export_parquet(rows, out)
    first, second, third = pq.read_table(out).to_pylist()
    assert (first["accuracy"], first["accuracy_k"], first["accuracy_n"]) == (0.98, 98, 100)
    assert (first["accuracy_low"], first["accuracy_high"]) == (
        rows[0]["rates"]["accuracy"]["low"],
        rows[0]["rates"]["accuracy"]["high"],
    )
    assert first["twin_attack_success_rate"] == 0.04
    assert json.loads(first["params"]) == {"target": 3, "rate": 0.1}
    assert first["found"] is None
    assert (second["found"], second["target_found"]) == (1.0, 0.0)
    assert (second["re_activated_attack_success_rate"], second["re_activated_attack_success_rate_n"]) == (None, 0)
    assert second["accuracy"] is None
    assert (third["status"], third["reason"], third["method_seconds"]) == ("timeout", "not done", None)
    assert {key for one in rows for key in one} - {"rates", "measures"} <= set(first)


def test_parquet_overwrites_nothing(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    out.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        index.export_parquet([row()], out)
    assert out.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [out]


def test_parquet_of_nothing(tmp_path: Path) -> None:
    index.export_parquet([], tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
