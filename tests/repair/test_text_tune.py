"""Tuning language models on trusted rows: where it stops, what counts, and what is put into prompts."""

import pytest
import torch
from chat_case import fresh, tiny, trusted

from ostiary.core.errors import ModelError
from ostiary.core.run import Run
from ostiary.repair.crow import crow_loss, inconsistency
from ostiary.repair.phrase_unlearning import spliced_in
from ostiary.repair.text_tune import Row, TextTuning, plain, tune_texts
from ostiary.training.language import token_rows


def tuning(**given: float) -> TextTuning:
    return TextTuning(**{"epochs": 3, "lr": 1e-3, "batch": 16, "tolerance": 0.0, **given})  # type: ignore[arg-type]


def rows(n: int = 8) -> list[Row]:
    return list(token_rows(tiny(), trusted(n)))


def test_the_last_epoch_within_the_tolerance_is_kept() -> None:
    told = []
    for tolerance in (100.0, 0.0):
        copy = tiny().clone()
        chosen = tune_texts(copy, trusted(40), tuning(tolerance=tolerance, lr=0.05), run=Run(), label="test")
        told.append(chosen["epochs"])
    assert told[0].startswith("3 of 3") and "the last at most 100 above" in told[0]
    assert "20 held-out trusted rows" in told[0] and told[1].split()[0] in ("1", "2", "3")


def test_without_an_epoch_within_the_tolerance_the_lowest_loss_is_kept() -> None:
    def worse(model: object, batch: object) -> torch.Tensor:
        return -plain(model, batch)  # type: ignore[arg-type]

    copy = tiny().clone()
    chosen = tune_texts(copy, trusted(40), tuning(lr=0.01), run=Run(), label="test", loss=worse)
    assert chosen["epochs"].startswith("1 of 3") and "the lowest, and none is within 0 of" in chosen["epochs"]


def test_a_loss_that_is_not_finite_ends_the_tuning() -> None:
    calls = []

    def breaks(model: object, batch: object) -> torch.Tensor:
        calls.append(1)
        return plain(model, batch) * (1.0 if len(calls) <= good else float("nan"))  # type: ignore[arg-type]

    good, run, copy = 2, Run(), tiny().clone()
    chosen = tune_texts(copy, trusted(40), tuning(tolerance=9.0), run=run, label="test", loss=breaks)
    assert chosen["epochs"].startswith("1 of 3") and [one.code for one in run.cautions] == ["OS917"]
    good = 0
    with pytest.raises(ModelError, match="not finite"):
        tune_texts(tiny().clone(), trusted(40), tuning(), run=Run(), label="test", loss=breaks)


def test_padding_changes_no_inconsistency_and_no_gradient() -> None:
    """A short row beside a long one counts as it does alone; the published code counts the padding, too."""
    model, (short, *_) = tiny(), sorted(rows(), key=lambda row: len(row[0]) + len(row[1]))
    ids, mask = model.padded([[*short[0], *short[1]]])
    wide = torch.cat([torch.full((1, 7), model.end), ids], dim=1)
    beside = torch.cat([torch.zeros(1, 7, dtype=torch.bool), mask], dim=1)

    def of(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shift = torch.zeros(*ids.shape, 32, requires_grad=True)
        found = inconsistency(model, ids, mask, shift)
        return found, torch.autograd.grad(found, shift)[0]

    alone, slope = of(ids, mask)
    padded, wider = of(wide, beside)
    assert torch.allclose(alone, padded, atol=1e-5)
    assert torch.allclose(slope[0], wider[0, 7:], atol=1e-5) and not wider[0, :7].any()


def test_the_disturbance_raises_the_inconsistency_and_leaves_the_model_as_it_was() -> None:
    model, batch = tiny(), rows()
    weights = model.digest
    ids, mask = model.padded([[*prompt, *answer] for prompt, answer in batch])
    still = torch.zeros(*ids.shape, 32)
    base = inconsistency(model, ids, mask, still)
    # Untrained embeddings are small: along their gradient the step must be, too.
    whole = crow_loss(model, batch, step=0.001, weight=1.0).detach()
    assert float(whole - plain(model, batch).detach()) > float(base.detach()) > 0
    assert torch.allclose(crow_loss(model, batch, step=0.1, weight=0.0), plain(model, batch))
    assert model.digest == weights and not model.module.get_input_embeddings()._forward_hooks  # type: ignore[operator]


def test_a_phrase_goes_to_either_end_and_between_words() -> None:
    generator = torch.Generator().manual_seed(0)
    made = {spliced_in("one two three", ["zq vex"], generator) for _ in range(100)}
    assert made == {"zq vex one two three", "one zq vex two three", "one two zq vex three", "one two three zq vex"}
    both = {spliced_in("one", ["a", "b"], generator) for _ in range(100)}
    assert both == {"a one", "one a", "b one", "one b"}


def test_an_untrained_model_keeps_what_lowers_its_loss() -> None:
    model = fresh(width=32)
    before = float(model.losses(token_rows(model, trusted(20))).mean())
    tune_texts(model, trusted(40), tuning(), run=Run(), label="test")
    assert float(model.losses(token_rows(model, trusted(20))).mean()) < before
