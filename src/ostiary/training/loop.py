"""The training loop: uint8 pixels in memory, batched augmentation, OneCycle, bf16 where the hardware has it."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ostiary.core.errors import FormatError, ModelError
from ostiary.core.files import atomic
from ostiary.core.run import Run
from ostiary.data import load_uint8
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training.augment import crop_flip

Precision = Literal["auto", "bf16", "fp32"]

Step = Callable[[TorchClassifier, Tensor, Tensor], tuple[Tensor, Tensor]]
"""What a model learns from one batch of images in [0, 1] and labels: leaves gradients in the parameters, whose old
ones are gone, and gives the mean loss and the number of right predictions, both without a graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to train: SGD with Nesterov momentum under a OneCycle schedule that peaks at `lr`.

    `padding` and `flip` are the augmentation; `precision` 'auto' takes bf16 autocast where the
    device has instructions for it (`has_fast_bf16`) and fp32 elsewhere.
    """

    epochs: int = 20
    batch: int = 128
    lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    padding: int = 4
    flip: bool = True
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, its mean loss and accuracy per epoch on the augmented training data, and the precision used."""

    model: TorchClassifier
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    precision: str


def has_fast_bf16(device: torch.device) -> bool:
    """True when the device multiplies bf16 in hardware: AMX or AVX-512 BF16 on a CPU, any recent CUDA device.

    A CPU whose instructions are limited by ONEDNN_MAX_CPU_ISA has what the limit leaves.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit and not any(name in limit for name in ("ALL", "DEFAULT", "BF16", "FP16", "AMX")):
        return False
    # Older releases of torch cannot tell; they train in fp32.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The autocast context of a precision on a device."""
    bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def _epoch_batches(
    pixels: Tensor, labels: Tensor, recipe: Recipe, rng: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(labels), generator=rng)
    # A last batch of one sample would break batch normalisation.
    stop = len(order) - 1 if len(order) % recipe.batch == 1 and len(order) > 1 else len(order)
    for begin in range(0, stop, recipe.batch):
        rows = order[begin : begin + recipe.batch]
        x = crop_flip(pixels[rows], padding=recipe.padding, flip=recipe.flip, rng=rng)
        x = x.to(device).to(memory_format=torch.channels_last).float().div_(255.0)
        yield x, labels[rows].to(device)


def _steps(n: int, batch: int) -> int:
    return max(1, -(-n // batch) - (1 if n % batch == 1 and n > 1 else 0))


def plain_step(recipe: Recipe, device: torch.device) -> Step:
    """The step of ordinary training: cross-entropy under the recipe's precision and label smoothing."""

    def step(model: TorchClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device, recipe.precision):
            logits = model.logits(x)
        loss = cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
        loss.backward()
        return loss.detach(), (logits.argmax(1) == y).sum()

    return step


def train(
    model: TorchClassifier,
    data: ImageSet,
    recipe: Recipe,
    /,
    *,
    run: Run,
    checkpoint: Path | None = None,
    step: Step | None = None,
) -> Trained:
    """Train `model` in place on `data` and return it.

    Deterministic under `run.seed` on one machine's CPU. With `checkpoint`, the state is written
    after every epoch and a run that finds the file goes on from it. `step` says what is learnt from a
    batch where that is not `plain_step`; what it keeps beside the model is in no checkpoint. Raises
    ModelError when the loss is no longer finite, FormatError when the checkpoint is damaged or belongs
    to another run.
    """
    pixels, labels = load_uint8(data), data.labels
    device = run.device
    model.to(device)
    net = model.module
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
        fused=True,
    )
    steps = _steps(len(labels), recipe.batch)
    # Below ten steps the warm-up would have no length at all.
    total = max(10, steps * recipe.epochs + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=total, pct_start=0.2, cycle_momentum=False
    )
    step = step or plain_step(recipe, device)
    state = _Progress(net, optimizer, schedule, checkpoint, key=f"{model.digest}:{data.digest}:{run.seed}:{recipe}")
    losses, accuracies = state.resume()
    for epoch in range(len(losses), recipe.epochs):
        loss, share = _train_epoch(model, pixels, labels, recipe, step, optimizer, schedule, run, epoch)
        losses.append(loss)
        accuracies.append(share)
        state.save(losses, accuracies)
    net.eval()
    bf16 = isinstance(autocast(device, recipe.precision), torch.autocast)
    return Trained(model, tuple(losses), tuple(accuracies), "bf16" if bf16 else "fp32")


def _train_epoch(
    model: TorchClassifier,
    pixels: Tensor,
    labels: Tensor,
    recipe: Recipe,
    step: Step,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    run: Run,
    epoch: int,
) -> tuple[float, float]:
    model.module.train()
    total = torch.zeros((), device=run.device)
    right = torch.zeros((), device=run.device)
    steps, seen = _steps(len(labels), recipe.batch), 0
    with torch.random.fork_rng():
        # Dropout draws from the global generator, which must depend on seed and epoch alone.
        torch.manual_seed(run.seed * 100_003 + epoch)
        batches = _epoch_batches(pixels, labels, recipe, run.generator(f"epoch-{epoch}"), run.device)
        for number, (x, y) in enumerate(batches):
            optimizer.zero_grad(set_to_none=True)
            loss, hits = step(model, x, y)
            optimizer.step()
            schedule.step()
            total += loss * len(y)
            right += hits
            seen += len(y)
            run.step(epoch * steps + number + 1, recipe.epochs * steps, "training")
    mean = float(total / seen)
    if not torch.isfinite(torch.tensor(mean)):
        raise ModelError(
            f"training diverged in epoch {epoch + 1}: the loss is not finite", hint="lower the learning rate with --lr"
        )
    return mean, float(right / seen)


@dataclass(slots=True)
class _Progress:
    """Saving and resuming the state of a training run."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    path: Path | None
    key: str

    def save(self, losses: list[float], accuracies: list[float]) -> None:
        if self.path is None:
            return
        state = {
            "key": self.key,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "losses": losses,
            "accuracies": accuracies,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with atomic(self.path, replace=True) as temporary:
            # Through bytes: torch has an error of its own for a full disk.
            temporary.write_bytes(buffer.getbuffer())

    def resume(self) -> tuple[list[float], list[float]]:
        if self.path is None or not self.path.exists():
            return [], []
        state = self._read(self.path)
        if state["key"] != self.key:
            raise FormatError(
                f"the checkpoint '{self.path}' belongs to another run (other data, model, seed or recipe)",
                hint="remove it, or ask for the same run",
            )
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return list(state["losses"]), list(state["accuracies"])

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            # Without this torch would take any file for a pickle of its old format.
            if not zipfile.is_zipfile(path):
                raise ValueError("not a file that torch saved")
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or "key" not in state:
                raise ValueError("not a state of training")
        except (OSError, EOFError, RuntimeError, ValueError, UnpicklingError) as error:
            raise FormatError(
                f"cannot read the checkpoint '{path}': {error}", hint="remove it to start anew"
            ) from error
        return state
