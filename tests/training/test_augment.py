"""Augmentation: every output is a window of the reflected input, mirrored or not, pixel for pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ostiary.training.augment import crop_flip


def pixels(seed: int, n: int, c: int, h: int, w: int) -> Tensor:
    return torch.randint(0, 256, (n, c, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(image: Tensor, padding: int) -> dict[bytes, tuple[int, int]]:
    """All windows of the reflected image, by their bytes."""
    _, h, w = image.shape
    padded = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
    places = [(row, column) for row in range(2 * padding + 1) for column in range(2 * padding + 1)]
    return {padded[:, r : r + h, c : c + w].tobytes(): (r, c) for r, c in places}


def test_without_padding_and_mirror_nothing_changes() -> None:
    x = pixels(0, 5, 3, 6, 7)
    assert torch.equal(crop_flip(x, padding=0, flip=False, rng=rng()), x)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from((1, 3)), st.integers(5, 9), st.integers(5, 9),
       st.integers(0, 4), st.booleans())  # fmt: skip
def test_every_output_is_a_window_of_its_own_input(
    seed: int, n: int, c: int, h: int, w: int, padding: int, flip: bool
) -> None:
    x = pixels(seed, n, c, h, w)
    before = x.clone()
    out = crop_flip(x, padding=padding, flip=flip, rng=rng(seed))
    assert out.dtype == torch.uint8 and out.shape == x.shape
    assert torch.equal(x, before)
    for image, got in zip(x, out, strict=True):
        known = windows(image, padding)
        mirrored = got.flip(-1).contiguous()
        assert got.numpy().tobytes() in known or (flip and mirrored.numpy().tobytes() in known)


def test_all_shifts_occur_and_each_image_has_its_own() -> None:
    image = pixels(1, 1, 1, 8, 8)
    out = crop_flip(image.repeat(400, 1, 1, 1), padding=1, flip=False, rng=rng())
    known = windows(image[0], 1)
    assert {known[got.numpy().tobytes()] for got in out} == set(known.values())


def test_half_are_mirrored() -> None:
    image = pixels(2, 1, 1, 8, 8)
    out = crop_flip(image.repeat(400, 1, 1, 1), padding=0, flip=True, rng=rng())
    share = sum(torch.equal(got, image[0].flip(-1)) for got in out) / 400
    assert share == pytest.approx(0.5, abs=0.1)


def test_draws_come_from_the_given_generator_alone() -> None:
    x = pixels(3, 8, 3, 8, 8)
    state = torch.get_rng_state()
    one, same, other = (crop_flip(x, padding=2, flip=True, rng=rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
