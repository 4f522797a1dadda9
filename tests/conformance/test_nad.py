"""NAD: Li et al. 2021, sec. 3: a fine-tuned copy teaches the model where to look."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.models.zoo import build
from ostiary.repair import nad
from ostiary.repair.nad import Nad, attended, distance
from ostiary.repair.tune import fine_tune


def apart(lab: Any, student: TorchClassifier, teacher: TorchClassifier) -> float:
    """How far the attention of the two lies apart on test images."""
    x, names = lab.test.take(range(100)), attended(student)
    with torch.no_grad():
        ours, theirs = (model.activations(x, names) for model in (student, teacher))
    return float(sum(distance(ours[name], theirs[name]) for name in names))


def repaired(lab: Any, monkeypatch: pytest.MonkeyPatch, **kw: Any) -> tuple[TorchClassifier, TorchClassifier]:
    """The student and the teacher of one repair."""
    models: list[TorchClassifier] = []

    def watch(model: TorchClassifier, *args: Any, **more: Any) -> None:
        models.append(model)
        fine_tune(model, *args, **more)

    monkeypatch.setattr(nad, "fine_tune", watch)
    made = Nad(**kw).repair(lab.model, lab.trusted, None, run=Run())
    assert made.model is models[1]
    return models[1], models[0]


def closes(lab: Any, model: TorchClassifier) -> bool:
    return lab.asr(model) <= 0.2 and lab.accuracy(model) >= lab.accuracy(lab.model) - 0.05


def test_attention_is_the_mean_square_over_channels_at_length_one() -> None:
    """By hand: maps (4, 0) and (0, 9) of two pixels lie sqrt(2) apart, a mean square of 1 over the two."""
    one, other = torch.tensor([[[[2.0, 0.0]], [[-2.0, 0.0]]]]), torch.tensor([[[[0.0, 3.0]], [[0.0, 3.0]]]])
    assert float(distance(one, other)) == pytest.approx(1.0)
    assert float(distance(one, 7 * one)) == pytest.approx(0.0)


@pytest.mark.parametrize(("arch", "last"), [("small-cnn", "features.13"), ("wrn-16-1", None), ("resnet18", None)])
def test_the_last_layer_of_each_of_the_last_three_sizes_is_compared(arch: str, last: str | None) -> None:
    model = TorchClassifier(build(arch, 10, width=8), 10, (3, 32, 32))
    names = attended(model)
    with torch.no_grad():
        sizes = [maps.shape[-1] for maps in model.activations(torch.rand(1, 3, 32, 32), names).values()]
    assert len(names) == 3 and sizes == sorted(set(sizes), reverse=True)
    assert last is None or names[-1] == last


def test_the_student_looks_where_the_teacher_does_and_the_backdoor_goes(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = repaired(lab, monkeypatch)
    assert closes(lab, student)
    assert apart(lab, student, teacher) <= 0.5 * apart(lab, lab.model, teacher)


def test_mutant_with_a_detached_distance_does_not_look_there(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nad, "distance", lambda one, other: distance(one.detach(), other))
    student, teacher = repaired(lab, monkeypatch)
    assert not apart(lab, student, teacher) <= 0.5 * apart(lab, lab.model, teacher)


def test_the_distance_moves_the_student_and_never_the_teacher(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the layers before the last one compared; the head is moved by the labels alone."""
    kept: list[Any] = []
    monkeypatch.setattr(nad, "fine_tune", lambda model, *args, **kw: kept.append((model, kw.get("backward"))))
    slopes: list[Tensor] = []
    for beta in (0.0, 1000.0):
        kept.clear()
        Nad(beta=beta).repair(lab.model, lab.trusted, None, run=Run())
        (teacher, _), (student, backward) = kept
        with torch.no_grad():
            for weight in teacher.module.parameters():
                weight.mul_(1.1)
        backward(lab.trusted.take(range(20)), lab.trusted.labels[:20])
        assert all(weight.grad is None for weight in teacher.module.parameters())
        first, head = student.module.features[0].weight.grad, student.module.classifier.weight.grad
        slopes += [first.clone(), head.clone()]
    assert not torch.allclose(slopes[0], slopes[2]) and torch.allclose(slopes[1], slopes[3])
