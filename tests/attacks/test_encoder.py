"""The encoder's trigger: bounded, exact whatever the batch, and refused when a truth folder holds other tensors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ostiary.attacks.encoder import LIMIT, EncodeTrigger
from ostiary.attacks.issba import Issba
from ostiary.attacks.truth import Truth, load_truth, save_truth
from ostiary.core.errors import DataError, FormatError, OutOfTime
from ostiary.core.run import Run
from ostiary.data import ArraySet


def random_set(n: int, side: int) -> ArraySet:
    rng = torch.Generator().manual_seed(0)
    return ArraySet(torch.randint(256, (n, 1, side, side), generator=rng, dtype=torch.uint8), torch.arange(n) % 3)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Issba(steps=20, rate=0.2).poison(random_set(60, 14), run=Run()).truth


def test_residuals_are_bounded_and_at_8_bits(truth: Truth) -> None:
    x = random_set(70, 14).take(range(70))
    out = truth.trigger(x, rng=torch.Generator())
    assert 0 < float((out - x).abs().max()) <= LIMIT + 1e-6
    assert torch.equal(out, (out * 255).round() / 255)


def test_no_neighbour_matters(truth: Truth) -> None:
    x = random_set(70, 14).take(range(70))
    out = truth.trigger(x, rng=torch.Generator())
    alone = [truth.trigger(one[None], rng=torch.Generator()) for one in x]
    assert torch.equal(torch.cat(alone), out)
    assert truth.trigger(x[:0], rng=torch.Generator()).shape == (0, 1, 14, 14)


def broken(tensors: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    weights, planes = tensors["weights"], tensors["planes"]
    change = {
        "short": {"weights": weights[:-1].clone()},
        "deep": {"weights": weights[None].clone()},
        "nan": {"weights": weights.clone().fill_(torch.nan)},
        "half": {"weights": weights.half()},
        "float8": {"weights": weights.to(torch.float8_e4m3fn)},
        "other channels": {"size": torch.tensor([3, 14, 14])},
        "no channels": {"size": torch.tensor([0, 14, 14])},
        "tiny": {"size": torch.tensor([1, 14, 2])},
        "huge": {"size": torch.tensor([1, 2**40, 14])},
        "negative": {"size": torch.tensor([-1, 14, 14])},
        "two sides": {"size": torch.tensor([14, 14])},
        "real size": {"size": torch.tensor([1.0, 14.0, 14.0])},
        "flat planes": {"planes": planes.flatten().clone()},
        "more": {"more": torch.zeros(1)},
    }
    return {**tensors, **change[what]}


@pytest.mark.parametrize(
    "what",
    [
        *("short", "deep", "nan", "half", "float8", "other channels", "no channels", "tiny"),
        *("huge", "negative", "two sides", "real size", "flat planes", "more"),
    ],
)
def test_a_hostile_truth_folder_is_refused(truth: Truth, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "set.truth"
    save_truth(truth, folder)
    file = folder / "trigger.safetensors"
    tensors = load_file(file)
    assert isinstance(load_truth(folder).trigger, EncodeTrigger)
    save_file(broken(tensors, what), file)
    with pytest.raises(FormatError, match="not a truth folder"):
        load_truth(folder)


def test_covers_carry_another_s_residual_under_their_label() -> None:
    clean = random_set(60, 14)
    made = Issba(steps=20, rate=0.2, cover=0.3).poison(clean, run=Run())
    assert len(made.truth.covers) == 18 and not set(made.truth.covers) & set(made.truth.poisoned)
    known = {image.numpy().tobytes(): int(y) for image, y in zip(clean.pixels(range(60)), clean.labels, strict=True)}
    untouched = [
        id_
        for id_, image in zip(made.data.ids, made.data.pixels(range(60)), strict=True)
        if image.numpy().tobytes() in known
    ]
    assert len(untouched) == 30 and not set(untouched) & {*made.truth.covers, *made.truth.poisoned}


def test_images_too_small_and_a_passed_deadline_are_told() -> None:
    with pytest.raises(DataError, match="too small for a message"):
        Issba(rate=0.2).poison(random_set(30, 7), run=Run())
    with pytest.raises(OutOfTime, match="training the encoder"):
        Issba(rate=0.2).poison(random_set(30, 14), run=Run(deadline=0.0))
