"""A language model behind a guard: answers are its own, flags the guard's, refused answers are none."""

from pathlib import Path

import pytest
import torch
from chat_case import fresh, tiny, trusted

from ostiary.core.errors import ConfigError, FormatError, ModelError
from ostiary.core.run import Run
from ostiary.guard import wrap
from ostiary.guard.confguard import ConfGuard, FittedConfGuard
from ostiary.guard.fitted import Fitted, load_guard
from ostiary.guard.hidden_mahalanobis import HiddenMahalanobis

STEPS = 12


def fitted(kind: type[ConfGuard | HiddenMahalanobis]) -> Fitted:
    method = ConfGuard(window=3, steps=STEPS, false_rejection=0.3) if kind is ConfGuard else kind(false_rejection=0.3)
    found: Fitted = method.fit(tiny(), trusted(80), run=Run())
    return found


@pytest.mark.parametrize("kind", [ConfGuard, HiddenMahalanobis])
def test_answers_are_the_models_and_flags_are_the_guards(kind: type[ConfGuard], tmp_path: Path) -> None:
    guard, prompts = fitted(kind), trusted(70, seed=7).texts
    found = wrap(tiny(), guard, steps=STEPS)(prompts)
    assert list(found.texts) == tiny().answers(prompts, STEPS)
    assert torch.allclose(found.scores, guard.score(tiny(), prompts), atol=1e-3)
    assert torch.equal(found.flagged, guard.flagged(found.scores)) and 0 < int(found.flagged.sum()) < 70
    guard.save(tmp_path / "guard.safetensors")
    refused = wrap(tiny(), tmp_path / "guard.safetensors", refuse=True, steps=STEPS)(prompts)
    flags = refused.flagged.tolist()
    assert flags == found.flagged.tolist()
    assert [text is None for text in refused.texts] == flags
    assert [text for text in refused.texts if text is not None] == [
        text for text, flag in zip(found.texts, flags, strict=True) if not flag
    ]


def test_confguard_watches_the_one_generation_that_answers() -> None:
    model, guard = tiny().clone(), fitted(ConfGuard)
    guard = FittedConfGuard(guard.lengths, guard.threshold, model.digest)  # type: ignore[attr-defined]
    prompts = trusted(5, seed=7).texts
    wrap(model, guard, steps=STEPS)(prompts)
    once = model.rows
    model.answers(prompts, STEPS)
    assert model.rows == 2 * once


def test_what_cannot_be_scored_is_flagged_and_nothing_gives_nothing() -> None:
    class Blind(FittedConfGuard):
        def tell(self, model, prompts, steps=None, /):  # type: ignore[no-untyped-def]
            texts, scores = super().tell(model, prompts, steps)
            return texts, scores * float("nan")

    guard = fitted(ConfGuard)
    blind = Blind(guard.lengths, guard.threshold, guard.model_digest)  # type: ignore[attr-defined]
    assert wrap(tiny(), blind, refuse=True, steps=STEPS)(trusted(3).texts).texts == (None, None, None)
    empty = wrap(tiny(), guard)([])
    assert empty.texts == () and empty.scores.shape == empty.flagged.shape == (0,)


@pytest.mark.parametrize("steps", [2, STEPS - 1, STEPS + 1])
def test_a_limit_for_answers_of_another_length_is_refused(steps: int) -> None:
    """Shorter answers fill no window, so that nothing would be flagged; for longer ones the limit was not set."""
    guard = fitted(ConfGuard)
    with pytest.raises(ConfigError, match=f"for answers of {STEPS} tokens, not {steps}"):
        wrap(tiny(), guard, steps=steps)
    prompts = trusted(5, seed=7).texts
    assert wrap(tiny(), guard)(prompts).texts == wrap(tiny(), guard, steps=STEPS)(prompts).texts
    free = wrap(tiny(), fitted(HiddenMahalanobis), steps=steps)
    assert list(free(prompts).texts) == tiny().answers(prompts, steps)


def test_a_window_that_no_answer_fills_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no answer of 8 tokens fills a window of 10"):
        ConfGuard(window=10, steps=8).fit(tiny(), trusted(80), run=Run())
    guard = fitted(ConfGuard)
    guard.lengths = torch.tensor([10, 8])  # type: ignore[attr-defined]
    guard.save(tmp_path / "guard.safetensors")
    with pytest.raises(FormatError, match="no window"):
        load_guard(tmp_path / "guard.safetensors")


def test_another_models_guard_is_refused() -> None:
    with pytest.raises(ModelError, match="was fitted to model"):
        wrap(fresh(width=32), fitted(ConfGuard))
