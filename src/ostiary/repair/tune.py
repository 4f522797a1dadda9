"""Fine-tuning a copy on a few trusted images: what all repairs with trusted data share."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.errors import ModelError, NotMet
from ostiary.core.run import Run
from ostiary.core.types import Images, Labels
from ostiary.models.classifier import TorchClassifier
from ostiary.training.augment import crop_flip
from ostiary.training.loop import autocast

Change = Callable[[Images, torch.Generator], Images]
Teacher = Callable[[Images], Tensor]
Backward = Callable[[Images, Tensor], Tensor]
"""Leaves in the parameters, whose old gradients are gone, those of a loss over images and answers, and gives it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How to fine-tune: plain SGD with momentum at a falling rate, shifts by up to `padding` pixels."""

    epochs: int
    lr: float
    batch: int = 32
    momentum: float = 0.9
    weight_decay: float = 5e-4
    padding: int = 2


class BestState:
    """The weights after the round of the lowest mean loss, to go back to where a later round diverges.

    Weights are taken over once the next loss shows that they still give one.
    """

    def __init__(self, model: TorchClassifier, run: Run, label: str) -> None:
        self.module, self.run, self.label = model.module, run, label
        self.losses: list[float] = []
        self.rounds, self.best, self.lowest = 0, 0, math.inf
        self.state: dict[str, Tensor] | None = None
        self.next: dict[str, Tensor] | None = None

    def diverged(self, loss: Tensor) -> bool:
        """Take note of the loss of a step; when it is not finite, go back, with a caution, and give True.

        Raises ModelError when there are no weights to go back to.
        """
        if loss.isfinite():
            if self.next is not None:
                self.state, self.best, self.next = self.next, self.rounds, None
            self.losses.append(float(loss))
            return False
        where = f"the loss of {self.label} is not finite in round {self.rounds + 1}"
        if self.state is None:
            raise ModelError(f"{where}, and there are no better weights to go back to", hint="set a lower rate")
        self.module.load_state_dict(self.state)
        self.run.caution("OS917", f"{where}; the weights after round {self.best}, of the lowest loss, are kept")
        return True

    def end_round(self) -> None:
        """Remember the weights when the round's mean loss is the lowest so far."""
        self.rounds += 1
        mean = sum(self.losses) / max(1, len(self.losses))
        if self.losses and mean < self.lowest:
            self.lowest = mean
            self.next = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.losses = []


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
    backward: Backward | None = None,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Tune `model` in place on uint8 `pixels` [n, c, h, w].

    With `teacher` its probabilities [n, k] for the images take the place of `labels`. `change` then alters
    the batch (in [0, 1]) before the forward pass; `backward` takes the place of cross-entropy's; `after_step` runs
    after each optimiser step, to hold pruned weights at zero. When the loss is no longer finite, the weights go back to
    those after the epoch of the lowest loss, with a caution.

    Raises ModelError when that happens before there are any to go back to, NotMet for fewer than two images, and
    OutOfTime.
    """
    _enough(labels)
    module = model.module
    optimizer = torch.optim.SGD(
        module.parameters(), lr=tuning.lr, momentum=tuning.momentum, weight_decay=tuning.weight_decay, nesterov=True
    )
    steps = tuning.epochs * max(1, len(labels) // tuning.batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    rng = run.generator(label)
    module.train()
    step, best = 0, BestState(model, run, label)

    def plain(x: Images, want: Tensor) -> Tensor:
        with autocast(run.device, "auto"):
            logits = model.logits(x)
        loss = cross_entropy(logits.float(), want)
        loss.backward()
        return loss.detach()

    with torch.random.fork_rng():
        # Dropout draws from the global generator, which must depend on the seed alone.
        torch.manual_seed(run.seed)
        for _ in range(tuning.epochs):
            for x, y in _epoch(pixels, labels, tuning, rng, run.device):
                want = y if teacher is None else teacher(x)
                optimizer.zero_grad(set_to_none=True)
                if best.diverged((backward or plain)(x if change is None else change(x, rng), want)):
                    module.eval()
                    return
                optimizer.step()
                if after_step is not None:
                    after_step()
                schedule.step()
                step += 1
                run.step(min(step, steps), steps, label)
            best.end_round()
    module.eval()


def batches_for(
    pixels: Tensor, labels: Labels, tuning: Tuning, *, steps: int, rng: torch.Generator, device: torch.device
) -> Iterator[tuple[Images, Labels]]:
    """As many batches as there are `steps`, from as many epochs as they take; `tuning` gives their size and shifts.

    Raises NotMet for fewer than two images.
    """
    _enough(labels)
    left = steps
    while left > 0:
        for x, y in _epoch(pixels, labels, tuning, rng, device):
            yield x, y
            left -= 1
            if not left:
                return


def _enough(labels: Labels) -> None:
    if len(labels) < 2:
        raise NotMet(f"needs more trusted images: of so few, {len(labels)} are left to learn from")


def _epoch(
    pixels: Tensor, labels: Labels, tuning: Tuning, rng: torch.Generator, device: torch.device
) -> Iterator[tuple[Images, Labels]]:
    """Every image once, in [0, 1], shifted at random, with its label.

    Mirrored copies are not drawn: whether a mirror image keeps its class is not known here. A batch of one image would
    break batch normalisation.
    """
    for rows in torch.randperm(len(labels), generator=rng).split(tuning.batch):
        if len(rows) < 2:
            continue
        x = crop_flip(pixels[rows], padding=tuning.padding, flip=False, rng=rng).to(device).float() / 255.0
        yield x, labels[rows].to(device)
