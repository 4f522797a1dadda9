"""One step of the trigger search: what it runs, and what it leaves behind."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.models.fuse import fused_inference
from ostiary.models.zoo import build
from ostiary.scan.aims import ToClass
from ostiary.scan.forms import Patch
from ostiary.scan.inversion import Inverted, invert, misfit
from ostiary.scan.penalty import Schedule

SCHEDULE = Schedule(
    rounds=3, batches_per_round=2, batch=4, lr=0.1, initial_cost=1e-3, cost_factor=2.0, patience=1, success=0.0
)


def run(calls: list[int] | None = None) -> tuple[TorchClassifier, Inverted]:
    model = fused_inference(TorchClassifier(build("small-cnn", 3, width=2), 3, (3, 8, 8)))
    if calls is not None:
        model.module.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(10, 3, 8, 8, generator=rng), torch.arange(10) % 3
    found = invert(
        model,
        x,
        y,
        ToClass(torch.arange(3)),
        SCHEDULE,
        form=Patch(),
        dtype=torch.float32,
        together=3,
        run=Run(),
        label="test",
    )
    return model, found


def test_a_step_runs_the_model_once_and_leaves_its_weights_without_gradients() -> None:
    calls: list[int] = []
    model, _ = run(calls)
    assert calls == [3 * 4] * 6, "three classes of four images, once for each of six steps"
    assert all(weight.grad is None for weight in model.module.parameters())


def test_what_is_found_is_a_mask_and_a_pattern_in_the_unit_range_and_its_own_size() -> None:
    _, found = run()
    mask, pattern = found.parts
    assert mask.shape == (3, 1, 8, 8) and pattern.shape == (3, 3, 8, 8)
    for part in (mask, pattern):
        assert part.min() >= 0 and part.max() <= 1
    assert torch.allclose(mask.sum((1, 2, 3)), found.size, rtol=1e-5)
    assert found.finished.all()


def test_the_searches_start_alike_and_go_apart() -> None:
    _, found = run()
    assert not torch.equal(found.parts[0][0], found.parts[0][1])


def test_nothing_that_works_has_no_size() -> None:
    model = TorchClassifier(build("small-cnn", 3, width=2), 3, (3, 8, 8))
    x: Tensor = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    schedule = Schedule(**{**{name: getattr(SCHEDULE, name) for name in SCHEDULE.__dataclass_fields__}, "success": 2.0})
    found = invert(
        fused_inference(model),
        x,
        torch.arange(6) % 3,
        ToClass(torch.arange(3)),
        schedule,
        form=Patch(),
        dtype=torch.float32,
        together=3,
        run=Run(),
        label="",
    )
    assert torch.isnan(found.size).all()


def test_the_misfit_is_the_cross_entropy_towards_what_is_wanted() -> None:
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([[2] * 5, [0, 1, 2, 0, 1]])
    for row in range(2):
        assert torch.allclose(misfit(logits, wanted)[row], cross_entropy(logits[row], wanted[row], reduction="none"))
