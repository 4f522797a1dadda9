"""Training that is not let below a loss: what a network learns all the same, it learns with ease."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ostiary.core.run import Run
from ostiary.data.base import ImageSet
from ostiary.models.classifier import TorchClassifier
from ostiary.training.loop import Precision, Recipe, Step, autocast, train

BATCH = 64
STEPS = 400
"""Steps of training at least, on sets so small that the epochs give fewer."""


def ascent_step(gamma: float, recipe: Recipe, device: torch.device) -> Step:
    """A step of local gradient ascent: up where the mean cross-entropy of a batch is below gamma, else down."""

    def step(model: TorchClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device, recipe.precision):
            logits = model.logits(x)
        loss = cross_entropy(logits.float(), y)
        (torch.sign(loss.detach() - gamma) * loss).backward()
        return loss.detach(), (logits.argmax(1) == y).sum()

    return step


def train_by_ascent(
    model: TorchClassifier, data: ImageSet, *, gamma: float, epochs: int, run: Run, precision: Precision = "auto"
) -> None:
    """Stage one of Anti-Backdoor Learning (Li et al. 2021, eq. 4): train `model` in place by `ascent_step`.

    At least 400 steps, as the share of lowest loss says little before. The learning rate rises and falls; the paper
    holds it. Raises as `train`.
    """
    epochs = max(epochs, -(-STEPS * BATCH // len(data)))
    recipe = Recipe(epochs=epochs, batch=BATCH, lr=0.02, weight_decay=1e-4, padding=0, flip=False, precision=precision)
    train(model, data, recipe, run=run, step=ascent_step(gamma, recipe, run.device))
