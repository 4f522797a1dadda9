"""Retraining a trained model on clean batches of which a share is stamped and relabelled."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.attacks.control import count_of
from ostiary.attacks.triggers import Trigger
from ostiary.core.run import Run
from ostiary.core.types import Labels
from ostiary.data import to_unit
from ostiary.models.classifier import TorchClassifier
from ostiary.training.augment import crop_flip
from ostiary.training.loop import autocast

BATCH = 64
MOMENTUM = 0.9
PADDING = 2


def retrain(
    model: TorchClassifier,
    weights: Sequence[nn.Parameter],
    pixels: Tensor,
    labels: Labels,
    trigger: Trigger,
    *,
    rate: float,
    target: int,
    epochs: int,
    lr: float,
    run: Run,
) -> None:
    """Tune `weights` of `model` in place on uint8 `pixels` [n, c, h, w] by SGD at a rate that falls to zero.

    A share `rate` of each batch, met on average, carries `trigger` and the label `target`.
    """
    optimizer = torch.optim.SGD(weights, lr=lr, momentum=MOMENTUM, nesterov=True)
    steps = epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    rng = run.generator("retraining")
    orders = (torch.randperm(len(labels), generator=rng).split(BATCH) for _ in range(epochs))
    model.module.train()
    with torch.random.fork_rng():
        # Dropout draws from the global generator, which must depend on the seed alone.
        torch.manual_seed(run.seed)
        for step, rows in enumerate(rows for order in orders for rows in order):
            x = to_unit(crop_flip(pixels[rows], padding=PADDING, flip=False, rng=rng).to(run.device))
            y = labels[rows].to(run.device)
            count = count_of(rate, len(rows), rng)
            if count:
                x = torch.cat([trigger(x[:count], rng=rng), x[count:]])
                y = torch.cat([torch.full_like(y[:count], target), y[count:]])
            with autocast(run.device, "auto"):
                logits = model.logits(x)
            gradients = torch.autograd.grad(cross_entropy(logits.float(), y), weights)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            run.step(step + 1, steps, "retraining")
    model.module.eval()
