"""Laying a pattern over images: pure, within bounds, and no more than the mask allows."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ostiary.attacks.badnets import BadNets
from ostiary.attacks.blended import Blended
from ostiary.attacks.triggers import StampTrigger
from ostiary.core.run import Run
from ostiary.perturb import stamp

PATCHES = ("yellow-square", "white-square", "checkerboard")
sides = st.integers(6, 12)


def images(seed: int, n: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 4), st.sampled_from((1, 3)), sides, sides, st.booleans())
def test_stamped_images_lie_between_image_and_pattern(seed: int, n: int, c: int, h: int, w: int, channel: bool) -> None:
    x, pattern = images(seed, n, (c, h, w)), images(seed + 1, 1, (c, h, w))[0]
    mask = images(seed + 2, 1, (1, h, w))[0]
    before = x.clone(), mask.clone(), pattern.clone()
    out = stamp(x, mask if channel else mask[0], pattern)
    assert out.shape == x.shape
    low, high = torch.minimum(x, pattern), torch.maximum(x, pattern)
    assert ((out >= low - 1e-6) & (out <= high + 1e-6)).all()
    assert torch.allclose(out, (1 - mask) * x + mask * pattern, atol=1e-6)
    assert all(torch.equal(*pair) for pair in zip(before, (x, mask, pattern), strict=True))


def test_the_ends_of_the_mask_are_exact() -> None:
    x, pattern = images(0, 5, (3, 8, 8)), images(1, 1, (3, 8, 8))[0]
    assert torch.equal(stamp(x, torch.zeros(8, 8), pattern), x)
    assert torch.allclose(stamp(x, torch.ones(8, 8), pattern), pattern.expand_as(x), atol=1e-7)


def triggers(c: int, h: int, w: int) -> list[StampTrigger]:
    made = [BadNets(patch=patch).trigger((c, h, w)) for patch in PATCHES]
    return [*made, Blended().trigger((c, h, w), Run(seed=4))]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from((1, 3)), sides, sides)
def test_a_trigger_is_a_pure_function(seed: int, n: int, c: int, h: int, w: int) -> None:
    """Equal inputs give equal outputs, the batch stays as it was, and an image's neighbours do not matter."""
    x = images(seed, n, (c, h, w))
    before = x.clone()
    for trigger in triggers(c, h, w):
        first, again = (trigger(x, rng=torch.Generator().manual_seed(k)) for k in (0, 1))
        assert torch.equal(first, again)
        assert torch.equal(x, before)
        assert first.shape == x.shape and first.min() >= 0 and first.max() <= 1
        alone = torch.cat([trigger(one[None], rng=torch.Generator()) for one in x])
        assert torch.equal(alone, first)


def test_a_patch_changes_its_own_pixels_only() -> None:
    x = torch.full((2, 3, 16, 16), 0.5)
    out = BadNets(patch="yellow-square", size=3, margin=2).trigger((3, 16, 16))(x, rng=torch.Generator())
    rows, columns = (out != x).any(0).any(0).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (11, 13, 11, 13)
    assert out[0, :, 12, 12].tolist() == [1.0, 1.0, 0.0]


def test_a_blend_weighs_as_asked() -> None:
    x = torch.zeros(1, 3, 8, 8)
    trigger = Blended(alpha=0.2).trigger((3, 8, 8), Run())
    assert torch.allclose(trigger(x, rng=torch.Generator())[0], 0.2 * trigger.pattern, atol=1e-6)
    other = Blended(alpha=0.2).trigger((3, 8, 8), Run(seed=1))
    assert not torch.equal(trigger.pattern, other.pattern)
