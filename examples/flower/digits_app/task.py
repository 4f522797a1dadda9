"""The model, the data and the training: nothing here knows of Flower or of the guard."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

TEST, TRUSTED = 350, 100


def fresh() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 16, 10),
    )


def _digits(rows: slice, part: int = 0, parts: int = 1) -> tuple[Tensor, Tensor]:
    source = load_digits()
    order = np.random.default_rng(0).permutation(len(source.target))[rows][part::parts]
    images = torch.from_numpy(source.images[order]).float().unsqueeze(1) / 16
    return images, torch.from_numpy(source.target[order]).long()


def test_set() -> tuple[Tensor, Tensor]:
    return _digits(slice(TEST))


def trusted_set() -> tuple[Tensor, Tensor]:
    """What the server has looked at itself."""
    return _digits(slice(TEST, TEST + TRUSTED))


def shard(part: int, parts: int) -> tuple[Tensor, Tensor]:
    """What client number `part` has."""
    return _digits(slice(TEST + TRUSTED, None), part, parts)


def train(model: nn.Module, data: tuple[Tensor, Tensor], epochs: int, lr: float) -> float:
    """Train in place; the mean loss of the last epoch."""
    images, labels = data
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    for _ in range(epochs):
        losses = []
        for rows in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return float(np.mean(losses))


def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(data[0]).argmax(1) == data[1]).float().mean())
