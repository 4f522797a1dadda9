"""FST: Min et al. 2023, sec. 4: a new head, kept away from the old one, makes the features shift."""

from typing import Any

import pytest
import torch
from torch import nn

from ostiary.core.errors import NotMet
from ostiary.core.run import Run
from ostiary.models.classifier import TorchClassifier
from ostiary.repair import fst
from ostiary.repair.fst import Fst


def repair(lab: Any, **kw: Any) -> TorchClassifier:
    made: TorchClassifier = Fst(**kw).repair(lab.model, lab.trusted, None, run=Run()).model
    return made


def head_of(model: TorchClassifier) -> torch.Tensor:
    head = model.module.get_submodule(model.head_name)
    assert isinstance(head, nn.Linear)
    return head.weight.detach()


def turned(lab: Any, after: TorchClassifier) -> float:
    """The cosine between the old head and the new one."""
    return float(torch.cosine_similarity(head_of(lab.model).flatten(), head_of(after).flatten(), dim=0))


def closes(lab: Any, after: TorchClassifier) -> bool:
    """The head points away from the old one, and much of the backdoor went with it; 135 images cost some accuracy."""
    kept = lab.accuracy(after) >= lab.accuracy(lab.model) - 0.05
    return kept and turned(lab, after) <= 0.0 and lab.asr(after) <= 0.5


def test_the_head_turns_away_and_the_backdoor_with_it(lab: Any) -> None:
    assert closes(lab, repair(lab, alpha=4.0))


def test_mutant_that_is_not_pushed_away_does_not(lab: Any) -> None:
    assert not closes(lab, repair(lab, alpha=0.0))


def test_the_head_keeps_its_length_and_is_drawn_anew(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    after = repair(lab, epochs=1)
    assert float(head_of(after).norm()) == pytest.approx(float(head_of(lab.model).norm()), rel=1e-5)
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(fst, "fine_tune", lambda model, *args, **kw: drawn.append(head_of(model).clone()))
    repair(lab)
    assert abs(float(torch.cosine_similarity(drawn[0].flatten(), head_of(lab.model).flatten(), dim=0))) <= 0.1


def test_the_penalty_is_alpha_where_the_head_is_the_old_one(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And minus alpha where it points the other way."""
    kept: list[Any] = []
    monkeypatch.setattr(fst, "fine_tune", lambda model, *args, backward, **kw: kept.extend((model, backward)))
    repair(lab, alpha=3.0)
    copy, backward = kept
    head, old = copy.module.get_submodule(copy.head_name), head_of(lab.model)
    x, y = lab.trusted.take(range(20)), lab.trusted.labels[:20]
    for sign in (1.0, -1.0):
        with torch.no_grad():
            head.weight.copy_(sign * old)
            plain = nn.functional.cross_entropy(copy.logits(x), y)
        assert float(backward(x, y) - plain) == pytest.approx(3.0 * sign, abs=1e-4)


def test_a_last_layer_that_is_not_linear_is_told(lab: Any) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 10, 1), nn.Flatten())
    with pytest.raises(NotMet, match="linear last layer"):
        Fst().repair(TorchClassifier(module, 10, (3, 32, 32)), lab.trusted, None, run=Run())
