"""How long a grid will take: from what the store measured, else from a short trial of its network."""

import statistics
import time
from collections import Counter
from dataclasses import dataclass

import torch

from ostiary.bench.cells import Cell, ModelSpec
from ostiary.bench.runner import Plan
from ostiary.bench.store import Store
from ostiary.core.run import Run
from ostiary.data import ArraySet, open_data
from ostiary.training import Recipe, train
from ostiary.training.flow import new_model

SHARE = {"none": 0.15, "screen": 0.2, "scan": 2.0, "repair": 0.3, "guard": 0.5}
"""Seconds of a cell as a share of those of training its model; rough guesses, until some are measured."""
TRIAL = 1024


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of work left, over all slots, by what it is; `measured` says how many of the cells have a precedent."""

    models: float
    cells: float
    open_models: int
    open_cells: int
    measured: int

    def hours(self, slots: int) -> float:
        """Hours on the clock."""
        return (self.models + self.cells) / slots / 3600


def estimate(plan: Plan, store: Store | None) -> Estimate:
    """What is left to do and how long it takes on one slot; tries a short training where nothing was measured."""
    finished = store.finished() if store else {}
    made = store.finished("models") if store else {}
    training = _trained(plan, [row["seconds"] for row in made.values() if not row["from_bank"]])
    by_method: dict[str, list[float]] = {}
    for row in finished.values():
        by_method.setdefault(row["defence_method"] or "none", []).append(row["seconds"])
    models = [model for model in plan.models if model.key not in made]
    cells = [cell for cell in plan.cells if cell.key not in finished]
    known = [cell for cell in cells if _method(cell) in by_method]
    spent = sum(statistics.median(by_method[_method(cell)]) for cell in known)
    spent += sum(SHARE[cell.verb] * training for cell in cells if _method(cell) not in by_method)
    return Estimate(training * len(models), spent, len(models), len(cells), len(known))


def _method(cell: Cell) -> str:
    return cell.defence.id if cell.defence else "none"


def _trained(plan: Plan, seconds: list[float]) -> float:
    if seconds:
        return statistics.median(seconds)
    counts = Counter((model.data.name, model.model) for model in plan.models)
    first = {(model.data.name, model.model): model for model in plan.models}
    return sum(_trial(first[key]) * n for key, n in counts.items()) / sum(counts.values())


def _trial(model: ModelSpec) -> float:
    """Seconds to train one model, from one pass over a few images."""
    whole = open_data(model.data.train)
    rows = range(min(TRIAL, len(whole)))
    few = ArraySet(whole.pixels(list(rows)), whole.labels[: len(rows)], whole.classes)
    recipe = Recipe(**{**model.recipe, "epochs": 1})
    fresh = new_model(model.arch, few, width=model.width, seed=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(fresh, few.subset(range(min(len(few), 2 * recipe.batch))), recipe, run=Run())  # warms up
        begun = time.perf_counter()
        train(fresh, few, recipe, run=Run())
        each = (time.perf_counter() - begun) / len(few)
    finally:
        torch.set_num_threads(threads)
    return each * model.data.images * Recipe(**model.recipe).epochs
