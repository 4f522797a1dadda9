"""Fine-tuning a copy on a few trusted images: what all repairs with trusted data share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.models.classifier import TorchClassifier
from ostiary.training.augment import crop_flip
from ostiary.training.loop import autocast

Change = Callable[[Images, torch.Generator], Images]
Teacher = Callable[[Images], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How to fine-tune: plain SGD with momentum at a falling rate, shifts by up to `padding` pixels."""

    epochs: int
    lr: float
    batch: int = 32
    momentum: float = 0.9
    weight_decay: float = 5e-4
    padding: int = 2


def fine_tune(
    model: TorchClassifier,
    pixels: Tensor,
    labels: Labels,
    tuning: Tuning,
    *,
    run: Run,
    label: str,
    teacher: Teacher | None = None,
    change: Change | None = None,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Tune `model` in place on uint8 `pixels` [n, c, h, w].

    With `teacher` its probabilities [n, k] for the images take the place of `labels`. `change` then alters
    the batch (in [0, 1]) before the forward pass; `after_step` runs after each optimiser step, to
    hold pruned weights at zero. Mirrored copies are not drawn: whether a mirror
    image keeps its class is not known here.
    """
    module = model.module
    optimizer = torch.optim.SGD(
        module.parameters(), lr=tuning.lr, momentum=tuning.momentum, weight_decay=tuning.weight_decay, nesterov=True
    )
    steps = tuning.epochs * max(1, len(labels) // tuning.batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    rng = run.generator(label)
    module.train()
    step = 0
    with torch.random.fork_rng():
        # Dropout draws from the global generator, which must depend on the seed alone.
        torch.manual_seed(run.seed)
        for _ in range(tuning.epochs):
            order = torch.randperm(len(labels), generator=rng)
            for rows in order.split(tuning.batch):
                if len(rows) < 2:
                    continue
                x = crop_flip(pixels[rows], padding=tuning.padding, flip=False, rng=rng).to(run.device).float() / 255.0
                want = labels[rows].to(run.device) if teacher is None else teacher(x)
                x = x if change is None else change(x, rng)
                with autocast(run.device, "auto"):
                    logits = model.logits(x)
                loss = cross_entropy(logits.float(), want)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if after_step is not None:
                    after_step()
                schedule.step()
                step += 1
                run.step(min(step, steps), steps, label)
    module.eval()
