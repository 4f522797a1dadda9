"""Runs of a small grid: complete, resumable after kill -9, shared by processes, honest about failures."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench_case import GRID, cell_files, grid_file, ran

from ostiary.bench.runner import Runner, make_plan
from ostiary.bench.store import Store
from ostiary.core.errors import FormatError, JobFailed
from ostiary.defend import defend
from ostiary.engines.local import LocalEngine
from ostiary.screen.spectral_signatures import SpectralSignatures

CELLS = 6


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the whole grid was run once; tests copy it."""
    folder = tmp_path_factory.mktemp("done")
    plan, _, rows = ran(grid_file(folder), folder / "store")
    assert len(plan.cells) == len(rows) == CELLS and {row["status"] for row in rows} == {"ok"}
    return folder


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return tmp_path


def command(verb: str, folder: Path, *more: str) -> list[str]:
    place = ["--store", str(folder / "store"), "--slots", "2"]
    return [sys.executable, "-m", "ostiary", "bench", verb, str(folder / "grid.toml"), *place, *more]


def test_rows_say_what_was_measured(done: Path) -> None:
    rows = {(row["kind"], row["defence"]): row for row in Store(done / "store").finished().values()}
    attacked = rows["attack", "none"]
    assert attacked["rates"]["twin accuracy"] == rows["twin", "none"]["rates"]["accuracy"]
    assert {"attack success rate", "robust accuracy", "twin attack success rate"} <= attacked["rates"].keys()
    assert attacked["rates"]["attack success rate"]["n"] == 405
    tuned = rows["attack", "tune"]
    assert {"accuracy", "attack success rate", "re-activated attack success rate"} <= tuned["rates"].keys()
    assert tuned["trusted"] == 10 and tuned["peak_bytes"] > 2**20 and tuned["method_seconds"] > 0
    screened = rows["attack", "spectral"]
    assert screened["rates"]["true positive rate"]["n"] == 15
    assert screened["rates"]["false positive rate"]["n"] == 285 and "AUROC" in screened["measures"]
    assert "true positive rate" not in rows["twin", "spectral"]["rates"]
    json.dumps(list(rows.values()), default=lambda _: pytest.fail("a row is plain JSON"))


def test_what_is_done_is_not_done_again(copy: Path) -> None:
    before = cell_files(copy / "store")
    _, _, rows = ran(copy / "grid.toml", copy / "store")
    assert rows == [] and cell_files(copy / "store") == before and len(before) == CELLS


def test_a_grid_that_grows_runs_what_is_new_alone(copy: Path) -> None:
    before = cell_files(copy / "store")
    more = GRID.replace("[limits]", '[defence.clusters]\nid = "screen.activation-clustering"\n\n[limits]')
    _, _, rows = ran(grid_file(copy, more), copy / "store")
    assert {row["defence"] for row in rows} == {"clusters"} and len(rows) == 2
    assert before.items() <= cell_files(copy / "store").items()


def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path: Path) -> None:
    grid_file(tmp_path, seeds="seeds = [0, 1]")
    first = subprocess.Popen(command("run", tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cells = tmp_path / "store" / "sealed" / "cells"
    deadline = time.monotonic() + 600
    while not (cells.is_dir() and len(list(cells.glob("*.json"))) >= 2):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = cell_files(tmp_path / "store")
    assert 2 <= len(kept) < 2 * CELLS
    again = subprocess.run(command("resume", tmp_path), capture_output=True, text=True, check=False, timeout=600)
    assert again.returncode == 0, again.stderr
    assert f"{2 * CELLS} of {2 * CELLS} cells measured, 0 failed" in again.stdout
    after = cell_files(tmp_path / "store")
    assert kept.items() <= after.items() and len(after) == 2 * CELLS, "a cell was lost or done twice"
    assert f"{2 * CELLS - len(kept)} cells and their models in" in again.stdout


def test_two_runs_share_a_store(tmp_path: Path) -> None:
    grid_file(tmp_path, seeds="seeds = [0, 1]")
    both = [
        subprocess.Popen(command("run", tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert all(f"{2 * CELLS} of {2 * CELLS} cells measured" in out for out, _ in told)
    spent = [row["cells"] for row in Store(tmp_path / "store").runs()]
    assert sum(spent) == 2 * CELLS, "a cell was run by both"


def test_a_store_that_was_killed_while_it_was_made_is_made(tmp_path: Path) -> None:
    (tmp_path / "store" / "sealed" / "locks").mkdir(parents=True)
    (tmp_path / "store" / ".store.json.x1y2").mkdir()
    assert Store(tmp_path / "store", create=True).name("a") == Store(tmp_path / "store", create=True).name("a")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(FormatError, match="not empty and no store"):
        Store(tmp_path / "other", create=True)


def test_failures_are_rows_with_their_reason_and_can_be_tried_again(copy: Path) -> None:
    slow = '[defence.slow]\nid = "repair.fine-tuning"\nset = { epochs = 9999 }\n\n[limits]'
    grid_file(copy, GRID.replace("[limits]", slow), timeout="timeout = 4")
    run = subprocess.run(command("run", copy), capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 3, run.stderr
    assert f"{CELLS} of {CELLS + 2} cells measured, 2 failed" in run.stdout
    assert "timeout" in run.stdout and "not done after 4 s" in run.stdout
    again = subprocess.run(command("resume", copy), capture_output=True, text=True, check=False, timeout=600)
    assert again.returncode == 3 and "cells an hour" not in again.stdout, "nothing was to be run"
    plan, store = make_plan(copy / "grid.toml"), Store(copy / "store")
    assert {row["status"] for row in store.failures().values()} == {"timeout"}
    with LocalEngine(2) as engine:
        Runner(plan, store).run(engine, retry_failed=True)
    assert len(list((store.sealed / "failed").glob("*.json"))) == 4, "the earlier failure stays beside the new one"


def test_a_method_that_fails_leaves_nothing_that_a_second_try_would_find(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = make_plan(copy / "grid.toml"), Store(copy / "store")
    cell = next(cell for cell in plan.cells if cell.verb == "screen")
    shutil.rmtree(store.work_dir(cell.key).parent)
    job = Runner(plan, store).jobs([cell])[f"defend:{cell.key}"]
    monkeypatch.setattr(SpectralSignatures, "screen", lambda *_, **__: 1 / 0)
    with pytest.raises(JobFailed, match="division by zero"):
        defend(**job.args)
    assert not store.work_dir(cell.key).exists()
    assert f"defend:{cell.key}" in Runner(plan, store).jobs([cell])


def test_too_little_memory_fails_the_cell_and_not_the_run(copy: Path) -> None:
    more = GRID.replace("[limits]", '[defence.clusters]\nid = "screen.activation-clustering"\n\n[limits]')
    _, store, rows = ran(grid_file(copy, more, memory_gib="memory_gib = 0.02"), copy / "store")
    assert [row["status"] for row in rows] == ["memory", "memory"], [row["reason"] for row in rows]
    assert all(row["reason"].startswith("more than 0.02 GiB of memory were asked for") for row in rows)
    assert len(store.finished()) == CELLS


def test_data_that_disappears_is_named(copy: Path, tmp_path: Path) -> None:
    """Between the plan and the job; before the plan it is an error of the grid (test_grid)."""
    import numpy as np

    rng = np.random.default_rng(0)
    lost = tmp_path / "lost.npz"
    np.savez(lost, x=rng.integers(0, 256, (1000, 32, 32, 3), np.uint8), y=np.arange(1000) % 10)
    text = GRID.replace('train = "digits"', f'train = "{lost}"')
    plan, store = make_plan(grid_file(tmp_path, text)), Store(tmp_path / "new", create=True)
    lost.unlink()
    with LocalEngine(2) as engine:
        Runner(plan, store).run(engine)
    reasons = {row["reason"] for row in store.failures().values()}
    assert len(store.failures()) == CELLS and all("lost.npz" in reason for reason in reasons), reasons


def test_a_damaged_record_is_named_set_aside_and_measured_again(copy: Path) -> None:
    store = Store(copy / "store")
    key = next(key for key, row in store.finished().items() if row["defence"] == "tune")
    file = store.sealed / "cells" / f"{key[:24]}.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"defence": "tune"', '"defence": "best"'), encoding="utf-8")
    _, store, rows = ran(copy / "grid.toml", copy / "store")
    assert [row["key"] for row in rows] == [key]
    assert len(store.damaged) == 1 and file.name in store.damaged[0] and "does not match its digest" in store.damaged[0]
    assert len(list((store.sealed / "damaged").iterdir())) == 1


def test_foreign_and_newer_stores_are_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "store" / "store.json").write_text('{"schema": 99}', encoding="utf-8")
    with pytest.raises(FormatError, match="written by a newer ostiary"):
        Store(copy / "store")
    with pytest.raises(FormatError, match="no store at"):
        Store(tmp_path / "none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(FormatError, match="not empty and no store"):
        Store(tmp_path / "other", create=True)
    (copy / "store" / "store.json").write_text("[]", encoding="utf-8")
    with pytest.raises(FormatError, match="is not a store's"):
        Store(copy / "store")


def test_a_batch_system_s_signal_ends_a_run_with_its_jobs(tmp_path: Path) -> None:
    """Even where SIGINT is ignored, as in a shell's background job."""
    grid_file(tmp_path, epochs="epochs = 9999")
    program = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    words = [sys.executable, "-c", program, *command("run", tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + 600
        while not list((tmp_path / "store").glob("sealed/locks/*")) or not list(
            (tmp_path / "store" / "sets").glob("*")
        ):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        _, told = run.communicate(timeout=60)
    assert run.returncode == 130 and "interrupted" in told
