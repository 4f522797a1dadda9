"""Label-Consistent and Narcissus: the perturbations are within bounds, and the triggers are what is added at test."""

import pytest
import torch

from ostiary.attacks.label_consistent import HardToLearn, LabelConsistent
from ostiary.attacks.narcissus import Narcissus
from ostiary.core.errors import DataError
from ostiary.core.run import Run
from ostiary.data import ArraySet


@pytest.fixture(scope="module")
def source() -> ArraySet:
    """Class 0 is dark, class 1 is bright."""
    labels = torch.arange(120) % 2
    noise = torch.randint(0, 60, (120, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    return ArraySet((noise + 140 * labels[:, None, None, None]).to(torch.uint8), labels)


def test_the_corners_are_a_checkerboard_that_flips_leave_as_it_is() -> None:
    attack = LabelConsistent(size=3, amplitude=0.25)
    signal = attack.trigger((3, 16, 16)).signal
    assert int((signal != 0).sum()) == 3 * 4 * 9 and signal[0, :3, :3].tolist() == [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]
    assert torch.equal(signal, signal.flip(1)) and torch.equal(signal, signal.flip(2))
    assert torch.equal(attack.trigger((3, 16, 16), amplitude=0.25).signal, 0.25 * signal)
    with pytest.raises(DataError, match="four corners of 3 px do not fit into 5x16"):
        attack.trigger((3, 5, 16))


@pytest.mark.parametrize(("norm", "eps"), [("l2", 2.0), ("linf", 0.1)])
def test_training_images_are_harder_for_the_surrogate_and_near(source: ArraySet, norm: str, eps: float) -> None:
    attack = LabelConsistent(norm=norm, eps=eps, steps=10)  # type: ignore[arg-type]
    nothing = attack.trigger(source.shape, amplitude=0.0)
    hard = HardToLearn(attack, source, nothing, Run())
    x = source.take(range(0, 60, 2))
    moved = hard(x, rng=torch.Generator())
    change = (moved - x).flatten(1)
    size = change.norm(dim=1) if norm == "l2" else change.abs().amax(1)
    assert 0 < float(size.max()) <= eps * 1.001 and moved.min() >= 0 and moved.max() <= 1
    before, after = (hard.surrogate.predict(images)[:, 0].mean() for images in (x, moved))
    assert float(after) < float(before)


def test_the_noise_is_within_bounds_and_amplified_at_test(source: ArraySet) -> None:
    attack = Narcissus(target=1, rate=0.1, eps=0.05, amplify=3.0, epochs=5)
    noise = attack.noise(source, Run())
    assert noise.shape == source.shape and 0 < float(noise.abs().max()) <= 0.05 + 1e-6
    made = attack.poison(source, run=Run())
    assert torch.allclose(made.truth.trigger.signal, 3 * noise)


def test_what_cannot_be_poisoned_is_refused_before_a_surrogate_is_trained(source: ArraySet) -> None:
    def no_time(done: int, total: int, label: str) -> None:
        raise AssertionError(f"{label} has begun")

    for attack in (Narcissus(rate=0.9), LabelConsistent(rate=0.9), Narcissus(target=5), LabelConsistent(target=5)):
        with pytest.raises(DataError):
            attack.poison(source, run=Run(on_progress=no_time))
