"""Models that cannot be searched, or not by their gradients, are told before any method runs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ostiary.api import scan_model
from ostiary.data import ImageSet, digits, trusted_subset
from ostiary.models.black_box import BlackBox
from ostiary.models.classifier import TorchClassifier
from ostiary.scan.health import examine, known
from ostiary.training.flow import new_model


class Net(nn.Module):
    """A linear net with a twist before and after it."""

    def __init__(self, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.line = nn.Linear(3 * 32 * 32, 10)
        nn.init.normal_(self.line.weight, generator=torch.Generator().manual_seed(0))
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x) if self.before else x
        found: Tensor = self.line(x.flatten(1))
        return self.after(found) if self.after else found


class Bad(torch.autograd.Function):
    """Passes values on and spoils the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.full_like(grads[0], float("nan"))


TWISTS: dict[str, tuple[Net, list[str], bool]] = {
    "plain": (Net(), [], True),
    "constant": (Net(after=lambda z: z * 0 + torch.arange(10.0)), ["OS913", "OS912"], False),
    "rounded input": (Net(before=lambda x: (x * 8).round() / 8), ["OS912"], False),
    "cut off": (Net(before=lambda x: x.detach()), ["OS912"], False),
    "NaN": (Net(before=Bad.apply), ["OS912"], False),
    "randomised": (Net(before=lambda x: x + torch.randn_like(x)), ["OS911"], True),
}


def model_of(net: Net) -> TorchClassifier:
    return TorchClassifier(net, 10, (3, 32, 32), name="net")


@pytest.fixture(scope="module")
def trusted() -> ImageSet:
    return trusted_subset(digits("train"), 60, 0)


@pytest.mark.parametrize("name", TWISTS)
@pytest.mark.parametrize("data", [True, False])
def test_each_twist_is_told(name: str, data: bool, trusted: ImageSet) -> None:
    net, codes, gradients = TWISTS[name]
    model = model_of(net)  # which runs it once
    state = torch.get_rng_state()
    found = examine(model, trusted if data else None)
    assert [code for code, _ in found.cautions] == codes
    assert found.gradients == gradients
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


def test_a_trained_shape_of_the_zoo_has_nothing_to_tell(trusted: ImageSet) -> None:
    assert examine(new_model("small-cnn", trusted, width=None, seed=0), trusted).cautions == ()


@pytest.mark.parametrize("method", ["neural-cleanse", "mm-bd"])
def test_methods_that_follow_gradients_are_skipped_and_nothing_is_called_none_found(
    method: str, trusted: ImageSet
) -> None:
    record = scan_model(model_of(TWISTS["rounded input"][0]), trusted, methods=[method])
    (result,) = record.results
    assert result.status == "skipped" and "needs model access 'gradients'" in str(result.reason)
    assert record.verdict == "incomplete"
    assert any(caution.code == "OS912" and "zero for all" in caution.text for caution in record.cautions)


def test_a_model_with_bad_gradients_is_asked_like_a_black_box(trusted: ImageSet) -> None:
    params = {"b3d": {"steps": 2}}
    record = scan_model(model_of(TWISTS["NaN"][0]), trusted, methods=["b3d"], params=params)
    assert record.results[0].status == "ok", record.results[0].reason


def test_a_preset_of_a_model_with_bad_gradients_is_that_of_a_black_box(trusted: ImageSet) -> None:
    model = model_of(TWISTS["rounded input"][0])
    have, health = known(model, trusted)
    assert have.access == "probabilities" and not health.gradients
    record = scan_model(model, trusted, preset="quick", params={"b3d": {"steps": 2}})
    assert record.coverage.asked == ("scan.b3d",)
    assert known(model_of(TWISTS["plain"][0]), trusted)[0].access == "gradients"


@pytest.mark.parametrize(("name", "codes"), [("plain", []), ("constant", ["OS913"]), ("randomised", ["OS911"])])
@pytest.mark.parametrize("data", [True, False])
def test_black_boxes_are_asked_too(name: str, codes: list[str], data: bool, trusted: ImageSet) -> None:
    box = BlackBox(model_of(TWISTS[name][0]).predict, 10)
    found = examine(box, trusted if data else None)
    assert [code for code, _ in found.cautions] == codes and not found.gradients


def test_one_label_for_noise_is_no_fault_and_a_box_without_a_shape_is_not_asked_without_images() -> None:
    labels = BlackBox(lambda x: torch.zeros(len(x), dtype=torch.long), 10)
    assert examine(labels, None).cautions == ()

    class Plain:
        classes, digest = ("a", "b"), "d"

        def predict(self, x: Tensor, /) -> Tensor:
            raise AssertionError

    assert examine(Plain(), None).cautions == ()


def test_the_scan_of_a_black_box_counts_its_queries(trusted: ImageSet) -> None:
    box = BlackBox(model_of(TWISTS["plain"][0]).predict, 10)
    record = scan_model(box, trusted, params={"b3d": {"steps": 2}})
    assert record.coverage.asked == ("scan.b3d",) and record.config["queries"] == box.queries > 2 * 320
