"""The weights of `screen.fusion`, fitted on develop sets, and how well it does on families of attacks left out.

    make bench-grid GRID=develop
    make bench-grid GRID=develop-rare
    make bench-fusion

Every suspect set of the two grids' stores is screened with its own model, once beside its trusted samples and once
without any: those that nobody poisoned, and those whose attack works on more than half of the images. A row of an
attack is by weights that were fitted without any set of that attack, at any rate and on any architecture; a row of a
set that nobody poisoned, by weights fitted without that set. The last two rows are the weights over all sets, which
`ostiary.screen.fusion` holds; a test compares them.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import HERE, Records, note, parse, parser
from benchmarks.scanners import WORKS, success, trusted_of
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ostiary.attacks.truth import load_truth
from ostiary.bench.runner import make_plan
from ostiary.bench.store import DATA, MODEL, Store
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.data.packed import PackedSet
from ostiary.models.load import load_model
from ostiary.screen.features import features_of
from ostiary.screen.traits import NAMES, Traits

GRIDS = ("develop", "develop-rare")
TRUSTED, ALONE = "beside trusted samples", "alone"
WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class Looked:
    """One set: its name, its attack (None for none), the traits of all samples, and which are poison."""

    name: str
    family: str | None
    traits: np.ndarray
    poisoned: np.ndarray


def looked(store_root: Path, alone: bool) -> Iterator[Looked]:
    """The traits of every set of the grids."""
    for grid in GRIDS:
        plan, store = make_plan(HERE / "grids" / f"{grid}.toml"), Store(store_root / grid)
        for model in plan.models:
            folder = store.model_dir(model.key)
            works = model.kind != "attack" or (success(store, model) or 0.0) > WORKS
            if store.model(model.key) is None or not (folder / DATA).exists() or not works:
                continue
            rate = "" if model.rate is None else f" {100 * model.rate:g} %"
            name = f"{model.model}, {model.name}{rate}" + (", rare" if grid == GRIDS[1] else "")
            note(name)
            subject, data, run = load_model(folder / MODEL), PackedSet(folder / DATA), Run(seed=model.seed)
            trusted = None if alone else trusted_of(store, model, plan.grid.trusted[0])
            traits, labels = Traits.of(data, subject, trusted, run), data.labels.numpy()
            features, rows = features_of(subject, data, run).features, np.zeros((len(data), len(NAMES)))
            for label in np.unique(labels).tolist():
                rows[labels == label] = traits.of_class(features[labels == label], label)
            attacked = model.kind == "attack"
            poison = load_truth(store.truth_dir(model.key)).poisoned if attacked else ()
            yield Looked(name, model.name if attacked else None, rows, np.isin(list(data.ids), list(poison)))


def fitted(sets: list[Looked]) -> LogisticRegression:
    """The regression over all samples of some sets."""
    rows, truth = np.concatenate([one.traits for one in sets]), np.concatenate([one.poisoned for one in sets])
    return LogisticRegression(max_iter=1000).fit(rows, truth)


def judged(one: Looked, sets: list[Looked]) -> dict[str, Any]:
    """What weights that never saw the set's attack, or the set where it has none, say of it."""
    rest = [other for other in sets if other is not one and (one.family is None or other.family != one.family)]
    chances = fitted(rest).predict_proba(one.traits)[:, 1]
    suspected, honest = chances > 0.5, ~one.poisoned
    figures: dict[str, Any] = {"suspected, of others": Rate(k=int((suspected & honest).sum()), n=int(honest.sum()))}
    if one.poisoned.any():
        figures["suspected, of poison"] = Rate(k=int((suspected & one.poisoned).sum()), n=int(one.poisoned.sum()))
        figures["AUROC"] = float(roc_auc_score(one.poisoned, chances))
        figures["AUROC of the distance alone"] = float(roc_auc_score(one.poisoned, one.traits[:, 0]))
    return figures


def main() -> None:
    """Measure all traits, judge every set by the others, and fit the weights."""
    made = parser(__doc__)
    made.add_argument("--stores", type=Path, default=Path("build/bench"), help="folder of the grids' stores")
    args = parse(made)
    args.again = True  # a row rests on all sets: none stays as it was
    about = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    records = Records("fusion", "The fusion of screenings, on develop sets", about, args)
    for table, alone in ((TRUSTED, False), (ALONE, True)):
        begun = time.monotonic()
        sets = list(looked(args.stores, alone))
        for one in sets:
            records.add(table, one.name, judged(one, sets), seeds=[100], n=len(one.poisoned), seconds=0.0)
        whole = fitted(sets)
        weights = dict(zip(("constant", *NAMES), [float(whole.intercept_[0]), *whole.coef_[0].tolist()], strict=True))
        figures = {name: round(value, 2) for name, value in weights.items()}
        records.add(WEIGHTS, table, figures, seeds=[100], n=len(sets), seconds=time.monotonic() - begun)
    records.show()


if __name__ == "__main__":
    main()
