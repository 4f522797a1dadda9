"""One table for the attacks on data that have no trigger: accuracy is to fall, whatever the input."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from contract_case import Case, by_id, check_class, check_skips

from ostiary.attacks.alteration import Alteration
from ostiary.attacks.injection import Injection
from ostiary.attacks.label_flip import LabelFlip
from ostiary.attacks.truth import NONE, Poisoned, load_truth, save_truth
from ostiary.bench.metrics import attack_rates
from ostiary.core.errors import ConfigError, DataError
from ostiary.core.execute import params_of
from ostiary.core.protocols import DataAttack
from ostiary.core.run import Run
from ostiary.data import ArraySet, load_uint8
from ostiary.models.classifier import TorchClassifier

N, CLASSES, RATE = 203, 5, 0.2

CASES = (
    Case(id="attack.label-flip", tiny={"rate": RATE}),
    Case(id="attack.injection", tiny={"rate": RATE}),
    Case(id="attack.alteration", tiny={"rate": RATE, "patch": 5}),
)


@pytest.fixture(scope="module")
def source() -> ArraySet:
    """Distinct random images, so that each can be found again by its bytes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 190, (N, 3, 12, 12), np.uint8)
    return ArraySet(pixels, rng.integers(0, CLASSES, N), [f"c{label}" for label in range(CLASSES)])


def flags(made: Poisoned) -> torch.Tensor:
    """Which samples the truth names."""
    return torch.tensor([identity in made.truth.poisoned for identity in made.data.ids])


def rows_of(source: ArraySet, made: Poisoned) -> list[int | None]:
    """The source row of every sample whose pixels are those of one."""
    known = {image.numpy().tobytes(): row for row, image in enumerate(load_uint8(source))}
    return [known.get(image.numpy().tobytes()) for image in load_uint8(made.data)]


@by_id(CASES)
def test_class_and_card(case: Case) -> None:
    check_class(case, DataAttack)


@by_id(CASES)
def test_unmet_needs_are_skipped(case: Case) -> None:
    check_skips(case, None)


@by_id(CASES)
def test_what_the_truth_does_not_name_is_as_it_was(case: Case, source: ArraySet) -> None:
    before = load_uint8(source).clone()
    made = case.build().poison(source, run=case.run())
    assert torch.equal(load_uint8(source), before)
    named, rows = flags(made), rows_of(source, made)
    assert int(named.sum()) == len(made.truth.poisoned) == round(RATE * len(made.data))
    plain = [row for row, is_named in zip(rows, named.tolist(), strict=True) if not is_named]
    assert None not in plain and len(set(plain)) == len(plain), "an untouched sample was changed, lost or doubled"
    assert torch.equal(made.data.labels[~named], source.labels[torch.tensor(plain)])
    assert tuple(made.data.ids) == tuple(f"{number:06d}" for number in range(len(made.data)))
    assert abs(np.corrcoef(plain, np.flatnonzero(~named.numpy()))[0, 1]) < 0.25, "the order of the source shows"
    where = named.nonzero().squeeze(1).float()
    assert 0.3 < float(where.mean()) / len(made.data) < 0.7, "the poison is spread over the set"
    assert made.data.classes == source.classes and made.data.shape == source.shape


@by_id(CASES)
def test_the_truth_has_no_trigger_and_comes_back_as_it_was(
    case: Case, source: ArraySet, small_model: TorchClassifier, tmp_path: Path
) -> None:
    method = case.build()
    truth = method.poison(source, run=case.run()).truth
    assert (truth.mapping, truth.target, truth.source, truth.trigger) == ("indiscriminate", NONE, NONE, None)
    assert truth.rate == RATE and truth.covers == () and truth.params == params_of(method)
    assert truth.source_digest == source.digest
    assert torch.equal(truth.relabel(source.labels), source.labels), "nothing in particular is wanted"
    save_truth(truth, tmp_path / "x.truth")
    assert dataclasses.astuple(load_truth(tmp_path / "x.truth")) == dataclasses.astuple(truth)
    with pytest.raises(DataError, match="has no trigger"):
        attack_rates(small_model, source, truth, run=Run())


@by_id(CASES)
def test_same_seed_same_bytes(case: Case, source: ArraySet) -> None:
    state = torch.get_rng_state()
    one, two, other = (case.build().poison(source, run=Run(seed=seed)) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert one.data.digest == two.data.digest != other.data.digest
    assert one.truth.poisoned == two.truth.poisoned != other.truth.poisoned


@by_id(CASES)
def test_impossible_settings_are_refused(case: Case, source: ArraySet) -> None:
    with pytest.raises(DataError, match="means 0 poisoned"):
        case.build(rate=0.001).poison(source, run=case.run())
    with pytest.raises(ConfigError, match="rate"):
        case.build(rate=1.5)


@pytest.mark.parametrize("to", ["random", "next"])
def test_label_flip_changes_labels_alone(to: str, source: ArraySet) -> None:
    made = LabelFlip(rate=0.5, to=to).poison(source, run=Run())  # type: ignore[arg-type]
    named, rows = flags(made), torch.tensor(rows_of(source, made))
    assert sorted(rows.tolist()) == list(range(N)), "no pixel was touched"
    true, labels = source.labels[rows][named], made.data.labels[named]
    assert list(made.truth.poisoned.values()) == true.tolist() and (labels != true).all()
    steps = set(((labels - true) % CLASSES).tolist())
    assert steps == ({1} if to == "next" else {1, 2, 3, 4})


def test_injected_copies_contradict_the_set(source: ArraySet) -> None:
    made = Injection(rate=0.4).poison(source, run=Run())
    named, rows = flags(made), torch.tensor(rows_of(source, made))
    assert len(made.data) == N + 135 == round(N / 0.6)
    assert set(Counter(rows.tolist()).values()) == {1, 2}, "each image is there, some twice"
    true = source.labels[rows][named]
    assert list(made.truth.poisoned.values()) == true.tolist() and (made.data.labels[named] != true).all()
    many = Injection(rate=0.75, to="next").poison(source, run=Run())
    assert len(many.data) == 4 * N and set(Counter(rows_of(source, many)).values()) == {4}


def test_injected_noise_shows_no_class(source: ArraySet) -> None:
    made = Injection(what="noise", rate=0.4).poison(source, run=Run())
    named, rows = flags(made), rows_of(source, made)
    assert set(made.truth.poisoned.values()) == {NONE} and rows.count(None) == int(named.sum()) == 135
    assert set(made.data.labels[named].tolist()) == set(range(CLASSES))
    noise = load_uint8(made.data)[named].float()
    assert abs(float(noise.mean()) - 127.5) < 2 and noise.min() == 0 and noise.max() == 255


def test_alteration_keeps_labels_and_adds_one_mosaic_per_class(source: ArraySet) -> None:
    method = Alteration(patch=5, eps=20 / 255)
    made = method.poison(source, run=Run())
    assert method.rate == 1.0 and flags(made).all()
    assert list(made.truth.poisoned.values()) == made.data.labels.tolist()
    was, now = load_uint8(source).float(), load_uint8(made.data).float()
    # Every mosaic pixel moves by far less than images differ, so the nearest source image is the own one.
    rows = torch.cdist(now.flatten(1), was.flatten(1)).argmin(1)
    assert sorted(rows.tolist()) == list(range(N))
    change = now - was[rows]
    assert torch.equal(made.data.labels, source.labels[rows])
    size = change.square().mean((1, 2, 3)).sqrt()
    assert torch.allclose(size, torch.full((N,), 20.0), atol=0.5)
    tile = change[:, :, :5, :5].flatten(2)
    assert float((tile.amax(2) - tile.amin(2)).max()) <= 1, "one colour per patch"
    mean = torch.stack([change[made.data.labels == k].mean(0) for k in range(CLASSES)])
    nearest = torch.cdist(change.flatten(1), mean.flatten(1)).argmin(1)
    assert torch.equal(nearest, made.data.labels), "the mosaic tells the class"
