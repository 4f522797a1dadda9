"""Small grids on the digits for the tests of the bench."""

from pathlib import Path
from typing import Any

from ostiary.bench.runner import Plan, Runner, make_plan
from ostiary.bench.store import Row, Store
from ostiary.engines.local import LocalEngine

GRID = """
name = "tiny"
role = "report"
seeds = [0]
rates = [0.05]
trusted = [10]

[recipe]
epochs = 2
batch = 32
lr = 0.05
padding = 1
flip = false

[data.digits]
train = "digits"
test = "digits"
images = 300
set_aside = 12
pools = [200, 200, 400]

[model.small]
arch = "small-cnn"

[attack.badnets]
set = { target = 0 }

[defence.spectral]
id = "screen.spectral-signatures"

[defence.tune]
id = "repair.fine-tuning"
set = { epochs = 1 }

[limits]
timeout = 600
memory_gib = 8
"""


def grid_file(folder: Path, text: str = GRID, **swaps: str) -> Path:
    """A grid file with some of its lines swapped, by the line's beginning."""
    lines = []
    for line in text.splitlines():
        key = next((key for key in swaps if line.startswith(key)), None)
        lines.append(line if key is None else swaps[key])
    path = folder / "grid.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def ran(grid: Path, store: Path, **how: Any) -> tuple[Plan, Store, list[Row]]:
    """Run a grid with two jobs at once; gives the rows in the order in which they were kept."""
    plan, kept, rows = make_plan(grid), Store(store, create=True), []
    with LocalEngine(2) as engine:
        Runner(plan, kept, on_row=lambda row, *_: rows.append(row)).run(engine, **how)
    return plan, kept, rows


def cell_files(store: Path) -> dict[str, float]:
    """Every kept cell's file with its time of writing."""
    return {file.name: file.stat().st_mtime_ns for file in (store / "sealed" / "cells").glob("*.json")}
