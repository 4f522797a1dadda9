"""What a model carries beside its weights is copied, fused, saved and loaded with them; what fits not is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ostiary import scan_model
from ostiary.core.errors import ModelError
from ostiary.guard.ibd_psc import amplified
from ostiary.models.carried import BOUND, MASK, STAMP, bound, carried, stamp_input
from ostiary.models.checkpoint import read_state, write_state
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.load import load_model, save_model
from ostiary.models.zoo import build
from ostiary.repair.masks import Gate, gated

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
        ("features.0.ostiary_upper_bound", (4,)),
        ("features.1.ostiary_upper_bound", (5,)),
        ("features.1.ostiary_upper_bound", (4, 1)),
        ("ostiary_upper_bound", (4,)),
        ("ostiary_stamp", (3, 8, 8)),
        ("ostiary_stamp_mask", (8, 8)),
    ],
)
def test_what_fits_nowhere_is_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    save_model(model(), tmp_path / "model.safetensors")
    state, metadata = read_state(tmp_path / "model.safetensors")
    write_state({**state, name: torch.ones(shape)}, tmp_path / "odd.safetensors", metadata)
    with pytest.raises(ModelError, match=f"1 unexpected \\('{name}'\\)"):
        load_model(tmp_path / "odd.safetensors")


def test_a_stamp_of_another_shape_is_refused(tmp_path: Path) -> None:
    """One pixel would be laid over every input, whatever it shows."""
    save_model(model(), tmp_path / "model.safetensors")
    state, metadata = read_state(tmp_path / "model.safetensors")
    beside = {STAMP: torch.ones(3, 1, 1), MASK: torch.ones(1, 1)}
    write_state({**state, **beside}, tmp_path / "odd.safetensors", metadata)
    with pytest.raises(ModelError, match="carries a stamp of 3x1x1 for images of 3x8x8"):
        load_model(tmp_path / "odd.safetensors")


def test_what_a_model_carries_is_said_and_a_record_cautions() -> None:
    assert carried(model().module) is None
    assert carried(carrying().module) == "bounds on 4 layers and a stamp on its input"
    record = scan_model(carrying(), methods=["trojan-signature"])
    assert [caution.text for caution in record.cautions if caution.code == "OS922"] == [
        "the model carries bounds on 4 layers and a stamp on its input, and is judged with them"
    ]
    assert "OS922" not in [caution.code for caution in scan_model(model(), methods=["trojan-signature"]).cautions]


def test_gates_and_amplification_stand_for_other_weights() -> None:
    """What a method changes for a while comes before the bound, as other weights would."""
    made, x = carrying(), images()
    norms = [(name, one) for name, one in made.module.named_modules() if isinstance(one, nn.BatchNorm2d)]
    changed = made.clone()
    for layer in changed.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.mul_(0.5)
    with torch.no_grad(), gated(made, {name: Gate(torch.full((one.num_features,), 0.5)) for name, one in norms}):
        assert torch.allclose(made.logits(x), changed.logits(x), atol=1e-5)
    with amplified([one for _, one in norms], 50.0):
        kept = made.activations(x, [name for name, _ in norms])
    for name, one in norms:
        assert (kept[name].amax((0, 2, 3)) <= getattr(one, BOUND) + 1e-6).all()
