"""The attacker's half of a grid, one function per job: data, models with their truth, measurements.

Every function gets a store's path and plain JSON, and runs in a process of its own. Defences do not
run here (`ostiary.defend`).
"""

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ostiary.attacks.truth import Poisoned, Truth, load_truth, save_truth
from ostiary.bench import metrics
from ostiary.bench.bank import Bank, Stored
from ostiary.bench.benign import LongTail
from ostiary.bench.cells import DataSpec, ModelSpec, has_data, model_spec, seed_of
from ostiary.bench.entries import REACTIVATED
from ostiary.bench.grid import ROLES
from ostiary.bench.store import DATA, INPUTS_DIR, MODEL, Row, Store
from ostiary.core.catalog import make
from ostiary.core.errors import DataError
from ostiary.core.files import atomic
from ostiary.core.protocols import DataAttack, TrainingAttack
from ostiary.core.records import Rate
from ostiary.core.run import Run
from ostiary.core.types import Labels
from ostiary.data import ArraySet, ImageSet, open_data, stratified_rows, to_uint8
from ostiary.data.packed import PackedSet, write_packed
from ostiary.models.classifier import TorchClassifier
from ostiary.models.load import load_model, save_model
from ostiary.training import Recipe, train
from ostiary.training.flow import new_model

INPUTS = 500
"""Plain test images, and as many with the trigger, that a guard has to judge."""


def prepare_data(*, store: str, spec: dict[str, Any], trusted: list[list[Any]]) -> dict[str, Any]:
    """Decode a data set once; pack its pool, its test part and the trusted sets (budget, source, seed) asked for."""
    kept, model = Store(Path(store)), model_spec(spec)
    with kept.hold(model.data.key):
        _prepare(kept, model.data, trusted)
    return {}


def _prepare(kept: Store, data: DataSpec, trusted: list[list[Any]]) -> None:
    parts = {"train": open_data(data.train), "test": open_data(data.test, "test")}
    source = parts[data.trusted_from]
    aside = per_class_rows(source.labels, len(source.classes), data.set_aside, seed_of("set aside"))
    left = torch.ones(len(source), dtype=torch.bool)
    left[aside] = False
    parts[data.trusted_from] = source.subset(left.nonzero().squeeze(1))
    sizes = {name: size for name, size in zip(ROLES, data.pools, strict=True) if size}
    drawn = stratified_rows(parts["train"].labels, tuple(sizes.values()), seed_of("pools"))
    _pack(kept.set_dir(data.part_key("pool")), parts["train"].subset(drawn[list(sizes).index(data.role)]))
    _pack(kept.set_dir(data.part_key("test")), parts["test"])
    held = source.subset(aside)
    for budget, origin, seed in trusted:
        rows = per_class_rows(held.labels, len(held.classes), budget, seed_of("trusted", seed))
        part = held.subset(rows)
        _pack(
            kept.set_dir(data.trusted_key(budget, origin, seed)), shifted(part, seed) if origin == "shifted" else part
        )


def per_class_rows(labels: Labels, classes: int, count: int, seed: int) -> torch.Tensor:
    """`count` rows of every class, drawn at random; DataError when a class has fewer."""
    rng = Run(seed=seed).generator("rows")
    found = []
    for label in range(classes):
        rows = (labels == label).nonzero().squeeze(1)
        if len(rows) < count:
            raise DataError(f"class {label} has {len(rows)} images, {count} are asked for", hint="lower set_aside")
        found.append(rows[torch.randperm(len(rows), generator=rng)[:count]])
    return torch.cat(found).sort().values


def shifted(data: ImageSet, seed: int) -> ArraySet:
    """The same images from a poorer source: half the contrast, and Gaussian noise of 5 % of the range."""
    x = data.take(range(len(data)))
    noise = torch.randn(x.shape, generator=Run(seed=seed).generator("shifted")) * 0.05
    return ArraySet(to_uint8(x * 0.5 + 0.25 + noise), data.labels, data.classes, data.ids)


def _pack(folder: Path, data: ImageSet) -> None:
    if not folder.exists():
        write_packed(folder, data)


def make_model(*, store: str, spec: dict[str, Any], bank: str | None = None, device: str) -> Row:
    """Make one model: poison, train or edit; weights are rounded to fp16, so that a bank holds the very same model.

    With `bank`, a model that it holds is taken from there instead of being trained. A model that
    another process is making is waited for.
    """
    kept, model = Store(Path(store)), model_spec(spec)
    with kept.hold(model.key):
        return kept.model(model.key) or _make(kept, model, Bank(Path(bank)) if bank else None, torch.device(device))


def _make(kept: Store, model: ModelSpec, bank: Bank | None, device: torch.device) -> Row:
    begun = time.perf_counter()
    folder, truth_folder = kept.model_dir(model.key), kept.truth_dir(model.key)
    for leftover in (folder, truth_folder):
        shutil.rmtree(leftover, ignore_errors=True)
    clean = _drawn(kept, model)
    stored = bank.find(model.key) if bank else None
    making = time.perf_counter()
    made, data, truth = _made(kept, model, clean, stored, device)
    arithmetic = round(time.perf_counter() - making, 3)
    if truth is not None:
        save_truth(truth, truth_folder)
    inputs, triggered = _inputs(_test(kept, model), truth, model)
    made = as_half(made)
    with atomic(folder) as temporary:
        temporary.mkdir()
        save_model(made, temporary / MODEL)
        if has_data(model):
            write_packed(temporary / DATA, _handed_over(data, model))
        write_packed(temporary / INPUTS_DIR, inputs)
    row = {
        "key": model.key,
        "spec": json.loads(json.dumps(asdict(model))),
        "digest": made.digest,
        "from_bank": stored is not None,
        "triggered": triggered,
        "arithmetic": arithmetic,
        "seconds": round(time.perf_counter() - begun, 3),
    }
    kept.keep(row, "models")
    return row


def _made(
    kept: Store, model: ModelSpec, clean: ImageSet, stored: Stored | None, device: torch.device
) -> tuple[TorchClassifier, ImageSet, Truth | None]:
    """The model, the training data that its maker hands over, the truth."""
    recipe, run = Recipe(**model.recipe), Run(seed=model.seed, device=device)
    attacker = Run(seed=seed_of("attack", model.key), device=device)
    attack = make(model.kind, model.method, model.params) if model.kind != "twin" else None
    data, truth = clean, None
    if isinstance(attack, DataAttack):
        poisoned: Poisoned = attack.poison(clean, run=attacker)
        data, truth = poisoned.data, poisoned.truth
    fresh = new_model(model.arch, data, width=model.width, seed=model.seed)
    if stored is not None:
        # A trigger that was learned would be another one on another processor: the bank's counts.
        return stored.weights(fresh), data, stored.truth() if model.kind == "attack" else None
    if attack is None or isinstance(attack, DataAttack):
        return train(fresh, data, recipe, run=run).model, data, truth
    if model.kind == "benign":
        return attack.train(fresh, clean, recipe, run=run), clean, None
    if isinstance(attack, TrainingAttack):
        made = attack.train(fresh, clean, recipe, run=run)
    else:
        made = attack.edit(load_model(kept.model_dir(model.twin.key) / MODEL, device=device), clean, run=attacker)
    return made.model, clean, made.truth


def _handed_over(data: ImageSet, model: ModelSpec) -> ImageSet:
    """What a screener gets: an attack's set as it is, others shuffled and renumbered, as attacks do it.

    Else order and ids would tell an untouched set from a poisoned one.
    """
    if model.kind == "attack":
        return data
    order = torch.randperm(len(data), generator=Run(seed=seed_of("order", model.key)).generator("order"))
    ids = [f"{number:06d}" for number in range(len(order))]
    return ArraySet(data.pixels(order), data.labels[order], data.classes, ids)


def as_half(model: TorchClassifier) -> TorchClassifier:
    """The same model with every weight rounded to fp16; DataError when one does not fit."""
    copy = model.clone()
    for name, tensor in copy.module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())
            if not tensor.isfinite().all():
                raise DataError(f"the weights '{name}' do not fit into fp16")
    return model.with_module(copy.module)


def _inputs(test: ImageSet, truth: Truth | None, model: ModelSpec) -> tuple[ArraySet, list[bool]]:
    """Test images for a guard, some with the trigger, in random order and without labels; and which those are."""
    rng = Run(seed=seed_of("inputs", model.key)).generator("inputs")
    rows = torch.randperm(len(test), generator=rng)
    plain = test.pixels(rows[:INPUTS])
    hit = test.pixels(rows[:0])
    if truth is not None and truth.trigger is not None:
        rest = rows[INPUTS:]
        rest = rest[truth.relabel(test.labels[rest]) != test.labels[rest]][:INPUTS]
        hit = to_uint8(truth.trigger(test.take(rest), rng=rng))
    order = torch.randperm(len(plain) + len(hit), generator=rng)
    pixels = torch.cat([plain, hit])[order]
    triggered = (order >= len(plain)).tolist()
    labels = torch.zeros(len(order), dtype=torch.int64)
    return ArraySet(pixels, labels, test.classes, [f"{i:06d}" for i in range(len(order))]), triggered


def measure_model(*, store: str, spec: dict[str, Any], device: str) -> dict[str, Any]:
    """Rates of a model as it stands and of its twin, and what the twin does once it is tuned on a few triggers."""
    kept, model = Store(Path(store)), model_spec(spec)
    test, truth = _test(kept, model), _truth(kept, model)
    begun = time.perf_counter()
    subject, twin = (load_model(kept.model_dir(one.key) / MODEL, device=device) for one in (model, model.twin))
    rates = metrics.of_model(subject, test, truth)
    if model.kind != "twin":
        again = _reactivated(kept, model, twin, truth)
        found = metrics.of_model(twin, test, truth) | again
        rates |= {f"twin {name}": rate for name, rate in found.items()}
    return {"rates": metrics.plain(rates), "measures": {}, "arithmetic": round(time.perf_counter() - begun, 3)}


def measure_defence(*, store: str, spec: dict[str, Any], cell: str, verb: str, device: str) -> dict[str, Any]:
    """Join what a defence made with the truth."""
    kept, model = Store(Path(store)), model_spec(spec)
    work, truth = kept.work_dir(cell), _truth(kept, model)
    begun = time.perf_counter()
    if verb == "repair":
        found = metrics.of_repair(work, _test(kept, model), truth, device)
        if found.model is not None:
            found.rates |= _reactivated(kept, model, found.model, truth)
    elif verb == "screen":
        found = metrics.of_screen(work, PackedSet(kept.model_dir(model.key) / DATA), truth)
    elif verb == "guard":
        row = kept.model(model.key) or {}
        found = metrics.of_guard(work, row["triggered"])
    else:
        found = metrics.of_scan(work, truth)
    arithmetic = round(time.perf_counter() - begun, 3)
    return {"rates": metrics.plain(found.rates), "measures": found.measures, "arithmetic": arithmetic}


def _reactivated(kept: Store, model: ModelSpec, subject: TorchClassifier, truth: Truth | None) -> dict[str, Rate]:
    if truth is None or truth.trigger is None:
        return {}
    run = Run(seed=seed_of("reactivate", model.key), device=subject.device)
    tuned = metrics.reactivate(subject, _drawn(kept, model), truth, run=run)
    return {REACTIVATED: metrics.success_of(tuned, _test(kept, model), truth)}


def _drawn(kept: Store, model: ModelSpec) -> ImageSet:
    """The images that a model is trained on, before anything is done to them."""
    pool = PackedSet(kept.set_dir(model.data.part_key("pool")))
    drawn = pool.subset(stratified_rows(pool.labels, (model.data.images,), seed_of("draw", model.seed))[0])
    factor = model.data.imbalance
    return LongTail(factor=factor).thin_out(drawn, Run(seed=model.seed)) if factor > 1 else drawn


def _test(kept: Store, model: ModelSpec) -> ImageSet:
    return PackedSet(kept.set_dir(model.data.part_key("test")))


def _truth(kept: Store, model: ModelSpec) -> Truth | None:
    return load_truth(kept.truth_dir(model.key)) if model.kind == "attack" else None
