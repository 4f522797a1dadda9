"""What a model carries beside its weights is copied, fused, saved and loaded with them; what fits not is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ostiary.core.errors import ModelError
from ostiary.models.carried import bound, stamp_input
from ostiary.models.checkpoint import read_state, write_state
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.load import load_model, save_model
from ostiary.models.zoo import build

ARCHS = ("small-cnn", "wrn-16-1", "preact-resnet18")
SHAPE = (3, 8, 8)


def images() -> Tensor:
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))


def model(arch: str = "small-cnn") -> TorchClassifier:
    return TorchClassifier(build(arch, 4, width=4), 4, SHAPE, (0.4,) * 3, (0.2,) * 3, arch=arch, name="tiny")


def carrying(arch: str = "small-cnn") -> TorchClassifier:
    """A model with both: low bounds on all its normalisations, a corner laid over its input."""
    made = model(arch)
    for layer in made.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            bound(layer, torch.linspace(0.05, 0.3, layer.num_features))
    mask = torch.zeros(8, 8)
    mask[:2, :2] = 1
    stamp_input(made.module, torch.full(SHAPE, -1.5), mask)
    return made


@pytest.mark.parametrize("arch", ARCHS)
def test_bounds_and_stamp_are_copied_fused_saved_and_loaded(arch: str, tmp_path: Path) -> None:
    made = carrying(arch)
    wanted = made.logits(images())
    assert not torch.allclose(wanted, model(arch).logits(images()), atol=1e-2)
    save_model(made, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.digest == made.digest != model(arch).digest
    for other in (again, made.clone(), again.clone()):
        assert torch.equal(other.logits(images()), wanted)
    fused = fused_inference(made).logits(images())
    assert (fused - wanted).abs().max() <= 1e-3 * wanted.abs().max()


def test_no_value_passes_its_bound() -> None:
    layer = nn.BatchNorm2d(3)
    most = torch.tensor([0.1, 0.2, 5.0])
    bound(layer, most)
    given = layer(torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert (given.amax((0, 2, 3)) <= most).all() and given.amin() < -1
    bound(layer, most + 1)
    assert given.shape == layer(given).shape and len(layer._forward_hooks) == 1


def test_what_lies_under_the_stamp_does_not_count() -> None:
    made, x = carrying(), images()
    covered = x.clone()
    covered[:, :, :2, :2] = 0.9
    assert torch.equal(made.logits(x), made.logits(covered))
    covered[:, :, 3, 3] = 0.9
    assert not torch.equal(made.logits(x), made.logits(covered))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("features.0.upper_bound", (4,)),
        ("features.1.upper_bound", (5,)),
        ("features.1.upper_bound", (4, 1)),
        ("upper_bound", (4,)),
        ("input_stamp", (3, 8, 8)),
        ("input_mask", (8, 8)),
    ],
)
def test_what_fits_nowhere_is_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    save_model(model(), tmp_path / "model.safetensors")
    state, metadata = read_state(tmp_path / "model.safetensors")
    write_state({**state, name: torch.ones(shape)}, tmp_path / "odd.safetensors", metadata)
    with pytest.raises(ModelError, match=f"1 unexpected \\('{name}'\\)"):
        load_model(tmp_path / "odd.safetensors")
