"""Tuning a copy of a model of texts on a few trusted rows: what its repairs share, and where each of them stops."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.core.errors import ModelError, NotMet
from ostiary.core.run import Run
from ostiary.data import stratified_rows
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel, nll_of
from ostiary.models.text_classifier import TextClassifier
from ostiary.training.language import token_rows

TextModel = LanguageModel | TextClassifier
Row = tuple[Sequence[int], Sequence[int]]
"""A prompt and its answer, as tokens; for a classifier a text, as tokens, and its label alone."""
Loss = Callable[[Any, Sequence[Row]], Tensor]
"""The loss of a batch of rows, with gradients."""
AT_ONCE = 64
LEAST = 20
"""Trusted rows below which none are learnt from: half of them only measure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTuning:
    """How to tune: AdamW at a falling rate, `epochs` passes at most, and the loss that may be lost on held-out rows."""

    epochs: int
    lr: float
    batch: int
    tolerance: float
    weight_decay: float = 0.01


def rows_of(model: TextModel, data: TextSet) -> list[Row]:
    """The rows of a set as the model learns them. Raises DataError where a language model is given no answers."""
    if isinstance(model, LanguageModel):
        return list(token_rows(model, data))
    return [(row, (label,)) for row, label in zip(model.rows(data.texts), data.labels.tolist(), strict=True)]


def losses_of(model: TextModel, rows: Sequence[Row]) -> Tensor:
    """The loss of each row [n], with gradients: of the answer, mean over its tokens, or of the label; in nats."""
    if isinstance(model, LanguageModel):
        return nll_of(model, rows)
    labels = torch.tensor([label for _, (label,) in rows], device=model.device)
    return cross_entropy(model.run(*model.padded([row for row, _ in rows])).float(), labels, reduction="none")


def plain(model: TextModel, rows: Sequence[Row]) -> Tensor:
    """The mean loss of rows."""
    return losses_of(model, rows).mean()


@torch.no_grad()
def mean_loss(model: TextModel, rows: Sequence[Row]) -> float:
    """The mean loss of any number of rows, without gradients."""
    parts = [losses_of(model, rows[at : at + AT_ONCE]) for at in range(0, len(rows), AT_ONCE)]
    return float(torch.cat(parts).mean())


def halves(model: TextModel, trusted: TextSet, run: Run) -> tuple[TextSet, TextSet]:
    """Trusted rows to learn from, and as many that only measure. Raises NotMet for too few, or of another kind."""
    wanted = isinstance(model, LanguageModel)
    what = "with answers" if wanted else "with labels and no answers"
    if (trusted.answers is not None) != wanted or len(trusted) < LEAST:
        raise NotMet(f"needs {LEAST} trusted rows {what}", hint=f"give more trusted rows {what}")
    learn, held = (trusted.subset(rows) for rows in stratified_rows(trusted.labels, (0.5, 0.5), run.seed))
    return learn, held


def tune_texts(
    model: TextModel,
    trusted: TextSet,
    tuning: TextTuning,
    *,
    run: Run,
    label: str,
    loss: Loss = plain,
    beside: Callable[[TextSet], Sequence[Row]] | None = None,
) -> dict[str, str]:
    """Tune `model` in place on half of the trusted rows, and what `beside` makes of them; what the others chose.

    After each epoch the mean loss on these is measured. The weights are those after the last epoch at which it is at
    most `tolerance` nats above what it was, and there is none, those of the lowest loss: the longer a model is
    tuned the more it forgets, what was planted among it, and the held-out rows say what that costs. Where the loss is
    no longer finite the epochs before it count, with a caution.

    Raises ModelError when there are none, NotMet for too few rows or rows without answers, OutOfTime.
    """
    first, second = halves(model, trusted, run)
    learn, held = [*rows_of(model, first), *(beside(first) if beside else ())], rows_of(model, second)
    before = mean_loss(model, held)
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=tuning.lr, weight_decay=tuning.weight_decay)
    steps, step = tuning.epochs * math.ceil(len(learn) / tuning.batch), 0
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    generator = run.generator(label)
    losses: list[float] = []
    kept: tuple[int, dict[str, Tensor]] | None = None
    inside = False
    with torch.random.fork_rng():
        # Dropout draws from the global generator, which must depend on the seed alone.
        torch.manual_seed(run.seed)
        for epoch in range(tuning.epochs):
            finite = False
            for rows in torch.randperm(len(learn), generator=generator).split(tuning.batch):
                run.step(step, steps, label)
                finite = _step(model, [learn[row] for row in rows.tolist()], loss, optimizer)
                if not finite:
                    break
                schedule.step()
                step += 1
            now = mean_loss(model, held) if finite else math.inf
            if not math.isfinite(now):
                _diverged(run, label, epoch, kept is None)
                break
            losses.append(now)
            inside = inside or now <= before + tuning.tolerance
            if now <= (before + tuning.tolerance if inside else min(losses)):
                kept = epoch + 1, {name: value.clone() for name, value in model.module.state_dict().items()}
    run.progress(steps, steps, label)
    assert kept is not None  # noqa: S101 - without any epoch _diverged has raised
    model.module.load_state_dict(kept[1])
    why = (
        f"the last at most {tuning.tolerance:g} above"
        if inside
        else f"the lowest, and none is within {tuning.tolerance:g} of"
    )
    told = f"{kept[0]} of {tuning.epochs}: loss {losses[kept[0] - 1]:.4f} on {len(held)} held-out trusted rows, {why} "
    return {"epochs": f"{told}the {before:.4f} before"}


def _step(model: TextModel, rows: Sequence[Row], loss: Loss, optimizer: torch.optim.Optimizer) -> bool:
    """One step; False, and no step, where the loss is not finite."""
    model.module.train()
    try:
        found = loss(model, rows)
        if not found.isfinite():
            return False
        optimizer.zero_grad(set_to_none=True)
        found.backward()
        nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        optimizer.step()
    finally:
        model.module.eval()
    return True


def _diverged(run: Run, label: str, epoch: int, nothing: bool) -> None:
    where = f"the loss of {label} is not finite in round {epoch + 1}"
    if nothing:
        raise ModelError(f"{where}, and there are no better weights to go back to", hint="set a lower rate")
    run.caution("OS917", f"{where}; weights of a round before it are kept")
