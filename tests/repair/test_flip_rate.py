"""How many images the recovered triggers still send where they lead."""

from typing import Any

import numpy as np
import torch

from ostiary.core.records import Candidate, Rate
from ostiary.models.classifier import TorchClassifier
from ostiary.repair.flow import _flip_rate


class Darkest(torch.nn.Module):
    """Three classes by the first pixel: dark, grey, bright."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = torch.nn.Parameter(torch.tensor([0.0, 0.5, 1.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -20 * (x[:, 0, 0, :1] - self.levels).abs()


def candidate(value: float, **more: Any) -> Candidate:
    mask, pattern = np.zeros((4, 4), np.float32), np.full((1, 4, 4), value, np.float32)
    mask[0, 0] = 1
    plain = {"subject": "class:2", "target": 2, "score": 1.0, "size": 1.0, "artifact": "m"}
    none = Rate(k=0, n=0)
    return Candidate.model_validate(
        {**plain, "flip_search": none, "flip_held_out": none, "mask": mask, "pattern": pattern, **more}
    )


MODEL = TorchClassifier(Darkest(), 3, (1, 4, 4))
Y = torch.tensor([0, 0, 1, 2])
X = (Y.float() / 2).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()


def test_images_of_other_classes_that_go_to_the_target() -> None:
    assert _flip_rate(MODEL, (candidate(1.0),), X, Y) == Rate(k=3, n=3)
    assert _flip_rate(MODEL, (candidate(0.0),), X, Y) == Rate(k=0, n=3)


def test_of_a_trigger_for_one_class_only_images_of_that_class_count() -> None:
    assert _flip_rate(MODEL, (candidate(1.0, source=0),), X, Y) == Rate(k=2, n=2)


def test_a_trigger_that_moves_every_class_counts_whatever_changes_its_class() -> None:
    assert _flip_rate(MODEL, (candidate(0.5, target=None, shift=1),), X, Y) == Rate(k=3, n=4)


def test_a_trigger_of_another_form_is_laid_over_as_its_parts_say() -> None:
    parts = (np.full((1, 4, 4), 1.0, np.float32), np.zeros((1, 4, 4), np.float32))
    brighter = candidate(0.0, form="frequencies", mask=None, pattern=None, parts=parts)
    assert _flip_rate(MODEL, (brighter,), X, Y) == Rate(k=0, n=3)
    parts[1][0, 0, 0] = 4.0  # the mean frequency of 4 x 4 pixels: one brighter everywhere
    assert _flip_rate(MODEL, (brighter,), X, Y) == Rate(k=3, n=3)
