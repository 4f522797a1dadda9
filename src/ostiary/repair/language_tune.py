"""Tuning a copy of a language model on a few trusted rows: what all its repairs share, and where each of them stops."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ostiary.core.errors import ModelError, NotMet
from ostiary.core.run import Run
from ostiary.data import stratified_rows
from ostiary.data.texts import TextSet
from ostiary.models.language import LanguageModel, nll_of
from ostiary.training.language import token_rows

Row = tuple[Sequence[int], Sequence[int]]
"""A prompt and its answer, as tokens."""
Loss = Callable[[LanguageModel, Sequence[Row]], Tensor]
"""The loss of a batch of rows, with gradients."""
LEAST = 20
"""Trusted rows below which none are learnt from: half of them only measure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageTuning:
    """How to tune: AdamW at a falling rate, `epochs` passes at most, and the loss that may be lost on held-out rows."""

    epochs: int
    lr: float
    batch: int
    tolerance: float
    weight_decay: float = 0.01


def plain(model: LanguageModel, rows: Sequence[Row]) -> Tensor:
    """The mean loss of the answers."""
    return nll_of(model, rows).mean()


def halves(trusted: TextSet, run: Run) -> tuple[TextSet, TextSet]:
    """Trusted rows to learn from, and as many that only measure. Raises NotMet for too few, or without answers."""
    if trusted.answers is None or len(trusted) < LEAST:
        raise NotMet(f"needs {LEAST} trusted rows with answers", hint="give more trusted prompts with their answers")
    learn, held = (trusted.subset(rows) for rows in stratified_rows(trusted.labels, (0.5, 0.5), run.seed))
    return learn, held


def tune_language(
    model: LanguageModel,
    trusted: TextSet,
    tuning: LanguageTuning,
    *,
    run: Run,
    label: str,
    loss: Loss = plain,
    beside: Callable[[TextSet], Sequence[Row]] | None = None,
) -> dict[str, str]:
    """Tune `model` in place on half of the trusted rows, and what `beside` makes of them; what the others chose.

    After each epoch the mean loss on these is measured. The weights are those after the last epoch at which it is at
    most `tolerance` nats a token above what it was, and there is none, those of the lowest loss: the longer a model is
    tuned the more it forgets, what was planted among it, and the held-out rows say what that costs. Where the loss is
    no longer finite the epochs before it count, with a caution.

    Raises ModelError when there are none, NotMet for too few rows or rows without answers, OutOfTime.
    """
    first, second = halves(trusted, run)
    learn, held = [*token_rows(model, first), *(beside(first) if beside else ())], token_rows(model, second)
    before = _mean(model, held)
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
            now = _mean(model, held) if finite else math.inf
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


def _step(model: LanguageModel, rows: Sequence[Row], loss: Loss, optimizer: torch.optim.Optimizer) -> bool:
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


def _mean(model: LanguageModel, rows: Sequence[Row]) -> float:
    return float(model.losses(rows).mean())


def _diverged(run: Run, label: str, epoch: int, nothing: bool) -> None:
    where = f"the loss of {label} is not finite in round {epoch + 1}"
    if nothing:
        raise ModelError(f"{where}, and there are no better weights to go back to", hint="set a lower rate")
    run.caution("OS917", f"{where}; weights of a round before it are kept")
