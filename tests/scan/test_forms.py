"""Forms of triggers: what each does to images, and how it is measured."""

import numpy as np
import pytest
import torch
from scipy.fft import idctn

from ostiary.perturb import stamp
from ostiary.scan.forms import Form, Frequencies, Patch, Warp

FORMS: tuple[Form, ...] = (Patch(), Frequencies(), Warp())
by_form = pytest.mark.parametrize("form", FORMS, ids=[type(form).__name__ for form in FORMS])
SHAPE = (3, 10, 8)


def images(n: int = 4) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def raw_of(form: Form, k: int = 2) -> tuple[torch.Tensor, ...]:
    start = form.start(SHAPE, torch.Generator().manual_seed(2))
    return tuple(part.repeat(k, *[1] * (part.dim() - 1)) for part in start)


@by_form
def test_it_gives_images_in_range_for_every_class_and_changes_nothing(form: Form) -> None:
    x = images()
    before = x.clone()
    out = form.apply(x, form.parts(raw_of(form)))
    assert out.shape == (2, 4, *SHAPE) and torch.equal(x, before)
    assert out.min() >= 0 and out.max() <= 1
    assert torch.equal(out[0], out[1]), "all classes start alike"


@by_form
def test_sizes_and_images_have_slopes(form: Form) -> None:
    raw = tuple(part.requires_grad_() for part in raw_of(form))
    parts = form.parts(raw)
    (form.size(parts).sum() + form.apply(images(), parts).square().sum()).backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in raw)
    assert form.size(parts).shape == (2,)


def test_a_patch_is_a_stamp_and_its_size_is_its_mask() -> None:
    mask, pattern = torch.rand(1, 1, 10, 8), torch.rand(1, *SHAPE)
    assert torch.equal(Patch().apply(images(), (mask, pattern))[0], stamp(images(), mask[0], pattern[0]))
    assert Patch().size((mask, pattern)).item() == pytest.approx(mask.sum().item(), rel=1e-5)


def test_frequencies_are_those_of_the_cosine_transform() -> None:
    mask, amplitudes = torch.zeros(1, 1, 10, 8), torch.randn(1, *SHAPE)
    mask[0, 0, 0, 3], mask[0, 0, 2, 1] = 1.0, 0.5
    change = idctn((mask * amplitudes).numpy()[0], norm="ortho", axes=(1, 2))
    faint = images() * 0.2 + 0.4
    out = Frequencies().apply(faint, (mask, amplitudes * 0.1))[0]
    assert np.allclose((out - faint).numpy(), 0.1 * change, atol=1e-6)
    assert Frequencies().size((mask, amplitudes)).item() == pytest.approx(1.5)


def test_one_frequency_moves_no_pixel_beyond_its_amplitude() -> None:
    for at in ((0, 0), (0, 3), (2, 0), (2, 3)):
        mask, full = torch.full((1, 1, 10, 8), -30.0), torch.full((1, *SHAPE), 30.0)
        mask[0, 0, at[0], at[1]] = 30.0
        grey = torch.full((1, *SHAPE), 0.5)
        moved = (Frequencies().apply(grey, Frequencies().parts((mask, full)))[0] - grey).abs().max().item()
        assert moved <= 32 / 255 + 1e-6


def test_a_warp_by_one_pixel_moves_the_picture_by_one_pixel() -> None:
    points = torch.zeros(1, 2, 6, 6)
    assert torch.allclose(Warp().apply(images(), (points,))[0], images(), atol=1e-5)
    points[:, 0] = 1.0  # every pixel is taken from its right neighbour
    moved = Warp().apply(images(), (points,))[0]
    assert torch.allclose(moved[..., :-1], images()[..., 1:], atol=1e-5)
    assert Warp().size((points,)).item() == pytest.approx(1.0, abs=1e-5)
