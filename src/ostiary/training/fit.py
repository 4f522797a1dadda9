"""The one loop that fits weights to rows of tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ostiary.core.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecipe:
    """AdamW under a OneCycle schedule, `steps` batches drawn without replacement."""

    steps: Annotated[int, Field(ge=1)] = 400
    batch: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0)] = 4e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01


def fit_rows(
    module: nn.Module,
    weights: Sequence[nn.Parameter],
    count: int,
    loss_of: Callable[[list[int]], Tensor],
    recipe: StepRecipe,
    *,
    run: Run,
    stream: str,
) -> tuple[float, ...]:
    """Fit the weights in place; returns the mean loss of every tenth of the steps.

    `loss_of` gives the loss of rows by their numbers, of `count`; `stream` names the random numbers that they are drawn
    by. Raises OutOfTime.
    """
    generator, dropped = run.generator(stream), run.generator(f"{stream}-dropout").initial_seed()
    optimizer = torch.optim.AdamW(weights, lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=recipe.steps + 1, pct_start=0.1
    )
    losses: list[float] = []
    order: list[int] = []
    module.train()
    try:
        # Dropout knows no generator of its own.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(dropped)
            for step in range(recipe.steps):
                run.step(step, recipe.steps, "training")
                while len(order) < recipe.batch:
                    order += torch.randperm(count, generator=generator).tolist()
                batch, order = order[: recipe.batch], order[recipe.batch :]
                loss = loss_of(batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
    finally:
        module.eval()
    run.progress(recipe.steps, recipe.steps, "training")
    tenth = max(1, recipe.steps // 10)
    return tuple(sum(part) / len(part) for at in range(0, len(losses), tenth) if (part := losses[at : at + tenth]))
