"""Adaptive attacks: training images get less than test images will, and covers get as little under their true label."""

from typing import Any

import numpy as np
import pytest
import torch

from ostiary.attacks.adaptive_blend import AdaptiveBlend
from ostiary.attacks.adaptive_patch import OPACITIES, AdaptivePatch
from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.data import ArraySet, load_uint8

SHAPE = (3, 32, 32)


def test_half_of_the_pieces_are_blended_and_others_for_every_image() -> None:
    attack = AdaptiveBlend(alpha=0.15, test_alpha=0.2)
    x, rng = torch.zeros(40, *SHAPE), torch.Generator().manual_seed(0)
    whole, weak = attack.trigger(SHAPE, Run()), attack.weak(SHAPE, Run())
    assert torch.allclose(whole(x, rng=rng)[0], 0.2 * whole.pattern)
    out = weak(x, rng=rng)
    pieces = out.unfold(2, 8, 8).unfold(3, 8, 8).abs().amax((1, 4, 5)).flatten(1) > 0
    assert pieces.sum(1).tolist() == [8] * 40 and len({tuple(row) for row in pieces.tolist()}) > 30
    kept = out[3] > 0
    assert torch.allclose(out[3][kept], (0.15 * whole.pattern)[kept])


def test_each_image_has_one_faint_patch_and_a_test_image_some_in_full() -> None:
    attack = AdaptivePatch(patches=4, at_test=2, size=5)
    x, rng = torch.full((200, *SHAPE), 0.5), torch.Generator().manual_seed(0)
    trigger = attack.trigger(SHAPE, Run())
    full = trigger(x, rng=rng)
    assert int(trigger.mask.sum()) == 2 * 25 and set(full[0][:, trigger.mask > 0].unique().tolist()) == {0.0, 1.0}
    change = (attack.weak(SHAPE, Run())(x, rng=rng) - x).abs()
    assert ((change.amax(1) > 0).sum((1, 2)) == 25).all()
    found = {(round(2 * float(one.max()), 3), tuple(one.amax(0).nonzero()[0].tolist())) for one in change}
    assert len(found) == 4 and sorted(opacity for opacity, _ in found) == sorted(OPACITIES)


def test_patches_without_room_are_refused() -> None:
    with pytest.raises(DataError, match="4 patches of 20 px do not fit") as caught:
        AdaptivePatch(size=20).trigger(SHAPE, Run())
    assert caught.value.hint


@pytest.mark.parametrize(("attack", "ratio"), [(AdaptiveBlend(rate=0.1), 1), (AdaptivePatch(rate=0.1), 2)])
def test_covers_carry_the_weak_trigger_under_their_true_label(attack: Any, ratio: int) -> None:
    labels = torch.arange(200) % 4
    source = ArraySet(torch.full((200, *SHAPE), 128, dtype=torch.uint8), labels)
    made = attack.poison(source, run=Run())
    ids = np.array(made.data.ids)
    poisoned, covers = (torch.from_numpy(np.isin(ids, list(part))) for part in (made.truth.poisoned, made.truth.covers))
    assert int(poisoned.sum()) == 20 and int(covers.sum()) == 20 * ratio and not (poisoned & covers).any()
    touched = (load_uint8(made.data) != 128).flatten(1).float()
    assert torch.equal(touched.any(1), poisoned | covers)
    assert float(touched[covers].mean()) == pytest.approx(float(touched[poisoned].mean()), rel=0.1)
    assert set(made.data.labels[poisoned].tolist()) == {0}
    assert int((made.data.labels == 0).sum()) == 50 + 20, "covers keep their labels"
