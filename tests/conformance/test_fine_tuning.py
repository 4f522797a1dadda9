"""Fine-Tuning: the control of Liu et al. 2018, sec. 4.1. It keeps accuracy; no bar is set on what it does to ASR."""

from typing import Any

import pytest

from ostiary.core.run import Run
from ostiary.repair import fine_tuning
from ostiary.repair.fine_tuning import FineTuning


def test_accuracy_is_kept_and_the_weights_moved(lab: Any) -> None:
    made = FineTuning().repair(lab.model, lab.trusted, None, run=Run())
    assert lab.accuracy(made.model) >= lab.accuracy(lab.model) - 0.02
    assert made.model.digest != lab.model.digest
    assert 0 <= lab.asr(made.model) <= 1
    assert made.selected == {}, "nothing is chosen, so nothing can be chosen on the wrong data"


def test_mutant_with_wrong_labels_loses_accuracy(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tune = fine_tuning.fine_tune
    monkeypatch.setattr(fine_tuning, "fine_tune", lambda m, x, y, *rest, **kw: tune(m, x, (y + 1) % 10, *rest, **kw))
    made = FineTuning(epochs=5).repair(lab.model, lab.trusted, None, run=Run())
    assert lab.accuracy(made.model) < lab.accuracy(lab.model) - 0.02
